use super::*;

fn image(text: &str) -> Option<Image> {
    Some(Image { bytes: text.into(), mode: 0o644, link: false })
}

fn change(path: &str, before: Option<Image>, after: Option<Image>) -> FileChange {
    FileChange { path: path.into(), from: None, before, after }
}

fn draw(changes: &[FileChange], format: Format, width: usize, color: bool) -> String {
    render(changes, format, Surface { width, paint: Paint(color) })
}

const OLD: &str = "add() {\n    echo $(($1 - $2))\n}\n";
const NEW: &str = "# adds\nadd() {\n    echo $(($1 + $2))\n}\n";

fn add() -> FileChange {
    change("add.sh", image(OLD), image(NEW))
}

#[test]
fn words_that_differ_are_marked_by_carets_without_color() {
    insta::assert_snapshot!(draw(&[add()], Format::Words, 60, false), @r"
     changed  add.sh      +2    -1  ++-
     1 file, +2 -1

    ─── add.sh ─────────────────────────────────────────────────
      1 + # adds
      2   add() {
      2 -     echo $(($1 - $2))
                         ^
      3 +     echo $(($1 + $2))
                         ^
      4   }
    ");
}

#[test]
fn words_that_differ_are_set_off_by_color() {
    let shown = draw(&[add()], Format::Words, 60, true);
    assert!(
        shown.contains("\x1b[31m    echo $(($1 \x1b[0m\x1b[31;7m-\x1b[0m\x1b[31m $2))\x1b[0m\n"),
        "{shown:?}"
    );
    assert!(
        shown.contains("\x1b[32m    echo $(($1 \x1b[0m\x1b[32;7m+\x1b[0m\x1b[32m $2))\x1b[0m\n"),
        "{shown:?}"
    );
    assert!(!shown.contains('^'));
}

#[test]
fn two_columns_show_both_versions_of_a_line_side_by_side() {
    let wide =
        change("a", image("日本語日本語日本語 is long\nb\n"), image("日本語日本語日本語 is longer\nb\nc"));
    insta::assert_snapshot!(draw(&[add(), wide], Format::SideBySide, 60, false), @r"
     changed  add.sh      +2    -1  ++-
     changed  a           +2    -1  ++-
     2 files, +4 -2

    ─── add.sh ─────────────────────────────────────────────────
                                 │   1 + # adds
      1   add() {                │   2   add() {
      2 -     echo $(($1 - $2))  │   3 +     echo $(($1 + $2))
      3   }                      │   4   }

    ─── a ──────────────────────────────────────────────────────
      1 - 日本語日本語日本語 is  │   1 + 日本語日本語日本語 is
          long                   │       longer
      2   b                      │   2   b
                                 │   3 + c
                                 │       \ no newline
    ");
}

#[test]
fn every_row_of_two_columns_fits_the_terminal() {
    let old: String = (0..40).map(|i| format!("{i} 日本語\tlong {}\n", "word ".repeat(i))).collect();
    let new = old.replace("long", "very long").replace("日", "\x1b[31m日\u{301}");
    for width in [60, 61, 80, 140] {
        let shown = draw(&[change("x", image(&old), image(&new))], Format::SideBySide, width, false);
        for line in shown.lines() {
            assert!(unicode_width::UnicodeWidthStr::width(line) <= width, "{width}: {line}");
        }
        let rows: Vec<_> = shown.lines().filter(|l| l.contains('│')).collect();
        let bar = |l: &&str| unicode_width::UnicodeWidthStr::width(l.split('│').next().unwrap());
        assert!(rows.len() > 40 && rows.iter().all(|l| bar(l) == bar(&rows[0])));
    }
    let narrow = draw(&[add()], Format::SideBySide, 40, false);
    assert!(!narrow.contains('│'), "too narrow for two columns: {narrow}");
}

#[test]
fn the_summary_says_what_happens_to_each_file() {
    let bytes = |bytes: &[u8]| Some(Image { bytes: bytes.to_vec(), mode: 0o644, link: false });
    let (mut script, mut link) = (image(NEW), image("add.sh"));
    script.as_mut().unwrap().mode = 0o755;
    link.as_mut().unwrap().link = true;
    let many: String = (0..400).map(|i| format!("{i}\n")).collect();
    let changes = with_renames(vec![
        add(),
        change("src/old_name.rs", image("fn main() {}\n"), None),
        change("src/new_name.rs", None, image("fn main() {}\n")),
        change("run.sh", image(NEW), script),
        change("empty", None, image("")),
        change("link", None, link),
        change("logo.png", bytes(b"\x89PNG\0"), bytes(&[0; 2000])),
        change("gone.txt", image(&many), None),
        change(&format!("{}/deep/file\x1b[2J.txt", "very".repeat(30)), None, image("x\n")),
    ]);
    insta::assert_snapshot!(draw(&changes, Format::None, 80, false), @r"
    changed  add.sh                                        +2    -1  +-
    moved    src/old_name.rs → src/new_name.rs
    changed  run.sh  now executable
    created  empty
    created  link                                          +1        +  a link
    changed  logo.png                                  binary, 5 B → 2 kB
    deleted  gone.txt                                          -400  ------------------------
    created  …yveryveryveryveryvery/deep/file␛[2J.txt      +1        +
    8 files, +4 -401
    ");
    insta::assert_snapshot!(draw(&[], Format::Words, 80, false), @"no changes");
}

#[test]
fn line_endings_are_shown_only_where_they_differ() {
    let crlf = change("crlf", image("a\r\nb\r\n"), image("a\r\nc\r\n"));
    assert!(!draw(&[crlf], Format::Words, 60, false).contains('␍'));
    let mixed = change("mixed", image("a\nb\n"), image("a\r\nb"));
    insta::assert_snapshot!(draw(&[mixed], Format::Words, 60, false), @r"
     changed  mixed      +2    -2  ++--
     1 file, +2 -2

    ─── mixed ──────────────────────────────────────────────────
      1 - a
      2 - b
      1 + a␍
           ^
      2 + b
          \ no newline at end of file
    ");
}

#[test]
fn no_escape_sequence_in_a_file_reaches_the_terminal() {
    let hostile = "\x1b]0;owned\x07\u{9b}31m\u{202e}\r\n\x1b[2J";
    let file = FileChange { from: Some(hostile.into()), ..change(hostile, image(hostile), image("x\n")) };
    for form in [Format::Words, Format::SideBySide, Format::Unified, Format::None] {
        let shown = draw(std::slice::from_ref(&file), form, 100, true);
        for piece in shown.split('\x1b').skip(1) {
            let code = piece.split('m').next().unwrap();
            assert!(
                ["[0", "[1", "[2", "[31", "[32", "[33", "[36", "[31;7", "[32;7"].contains(&code),
                "{form:?}: {code:?}"
            );
        }
        let others = |c: char| c.is_control() && c != '\n' && c != '\x1b';
        assert!(!shown.contains(others) && !shown.contains('\u{202e}'), "{form:?}: {shown:?}");
    }
}

#[test]
fn large_files_are_drawn_quickly_and_long_lines_are_cut() {
    let old: String = (0..100_000).map(|i| format!("old {i}\n")).collect();
    let new: String = (0..100_000).map(|i| format!("other {}\n", i * 7)).collect();
    let shown = draw(&[change("x", image(&old), image(&new))], Format::Words, 80, false);
    assert!(shown.starts_with(" changed  x   +100000 -100000  ++++"), "{}", &shown[..100]);
    let line = "var a=1;".repeat(200_000);
    let minified = change("min.js", image(&line), image(&line.replacen("a=1", "b=2", 1)));
    assert!(draw(&[minified], Format::Words, 80, false).len() < 10_000);
}

/// Applies the patch to the old files with git and returns the result.
fn by_git(changes: &[FileChange]) -> Vec<Option<Image>> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    for change in changes {
        let Some(image) = &change.before else { continue };
        let path = at(change.from.as_ref().unwrap_or(&change.path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &image.bytes).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(image.mode)).unwrap();
    }
    std::fs::write(at("p.patch"), unified::patch(changes)).unwrap();
    let run = std::process::Command::new("git")
        .args(["apply", "p.patch"])
        .current_dir(folder.path())
        .env("GIT_CEILING_DIRECTORIES", folder.path().parent().unwrap())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let read = |change: &FileChange| {
        let found = std::fs::symlink_metadata(at(&change.path)).ok()?;
        let link = found.is_symlink();
        let bytes = if link {
            std::fs::read_link(at(&change.path)).unwrap().into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(at(&change.path)).unwrap()
        };
        Some(Image { bytes, mode: if link { 0o644 } else { found.permissions().mode() & 0o777 }, link })
    };
    changes.iter().map(read).collect()
}

#[test]
fn git_applies_the_patch_with_the_intended_result() {
    let mut script = image(NEW);
    script.as_mut().unwrap().mode = 0o755;
    let mut link = image("add.sh");
    link.as_mut().unwrap().link = true;
    let odd = "dir with blanks/quo\"te\\ tab\t ünï.txt";
    let long: String = (0..50).map(|i| format!("line {i}\n")).collect();
    let changes = [
        add(),
        change(odd, image("no newline"), image("still none")),
        change("new/x y", None, image("a\nb")),
        change("empty", None, image("")),
        change("gone", image(&long), None),
        change(
            "latin",
            Some(Image { bytes: b"caf\xe9\n".to_vec(), mode: 0o644, link: false }),
            image("café\r\n"),
        ),
        change("run.sh", image(OLD), script),
        change("link", None, link),
        FileChange {
            from: Some("was".into()),
            ..change("is", image(&long), image(&long.replace("line 7", "LINE 7")))
        },
        change("far", image(&long), image(&long.replace("line 0\n", "").replace("line 49\n", "line 49"))),
    ];
    let wanted: Vec<_> = changes.iter().map(|c| c.after.clone()).collect();
    assert_eq!(by_git(&changes), wanted);
}

/// A pseudorandom number generator that produces the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn text(&mut self) -> Vec<u8> {
        let pieces: [&[u8]; 12] = [
            b"a",
            b"\n",
            b"\n",
            b"\r\n",
            b"b c",
            b"\t",
            b"\xff",
            "日".as_bytes(),
            b"\x1b[2J",
            b"}",
            b"--- x",
            b"\\",
        ];
        (0..self.below(60)).flat_map(|_| pieces[self.below(pieces.len())].to_vec()).collect()
    }
}

#[test]
fn the_patch_of_any_two_texts_turns_one_into_the_other() {
    let mut dice = Dice(7);
    for round in 0..2_000 {
        let (before, mut after) = (dice.text(), dice.text());
        if dice.below(2) == 0 {
            // In half of the rounds, the two sides are mostly similar, as in real edits.
            after = before.clone();
            let (cut, rest) = (dice.below(before.len() + 1), dice.below(before.len() + 1));
            after.splice(cut.., before[rest..].to_vec());
        }
        let side = |bytes: &[u8]| Some(Image { bytes: bytes.to_vec(), mode: 0o644, link: false });
        let changes = [change("some file", side(&before), side(&after))];
        for form in [Format::Words, Format::SideBySide, Format::Unified] {
            draw(&changes, form, 20 + dice.below(100), dice.below(2) == 0);
        }
        let patch = unified::patch(&changes);
        if before == after {
            continue;
        }
        let applied = diffy::apply_bytes(&before, &diffy::Patch::from_bytes(&patch).unwrap());
        assert!(applied.is_ok_and(|applied| applied == after), "round {round}: {before:?} {after:?}");
    }
}
