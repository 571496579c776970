//! Commands that are refused by rule, because what they destroy cannot be brought back: a courtesy to the model and a second line
//! behind the confinement, not a wall. A line is read as a shell would split it; what hides behind `env`, `timeout`, `xargs`,
//! `sh -c` or `$(…)` is read as well.

/// How deep commands within commands are looked into.
const DEPTH: usize = 8;

/// Folders that are made by tools and may be deleted as a whole.
const BUILD_FOLDERS: &[&str] = &[
    "target",
    "build",
    "dist",
    "out",
    "node_modules",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".tox",
    ".nox",
    "coverage",
    "htmlcov",
    ".nyc_output",
    ".gradle",
    ".next",
    ".nuxt",
    ".turbo",
    ".parcel-cache",
    "CMakeFiles",
    "obj",
    "tmp",
    ".cache",
];

/// Judges a line for the shell.
///
/// # Errors
/// A sentence for the model: what is refused, why, and what to do instead.
pub fn check_line(line: &str) -> Result<(), String> {
    judge_line(line, DEPTH)
}

/// Judges a program with its arguments.
///
/// # Errors
/// As [`check_line`].
pub fn check_words(words: &[String]) -> Result<(), String> {
    judge(words, DEPTH)
}

fn judge_line(line: &str, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("commands are nested too deeply; run them one by one".into());
    };
    let parsed = parse(line);
    parsed.nested.iter().try_for_each(|inner| judge_line(inner, depth))?;
    parsed.commands.iter().try_for_each(|words| judge(words, depth))
}

/// A line split into simple commands, and the lines within it that a shell would run first.
#[derive(Default)]
struct Parsed {
    commands: Vec<Vec<String>>,
    nested: Vec<String>,
    /// The next word names the file of a redirection and is no argument.
    redirection: bool,
}

impl Parsed {
    fn end_word(&mut self, word: &mut Option<String>) {
        if let Some(word) = word.take()
            && !std::mem::take(&mut self.redirection)
        {
            match self.commands.last_mut() {
                Some(command) => command.push(word),
                None => self.commands.push(vec![word]),
            }
        }
    }

    fn end_command(&mut self, word: &mut Option<String>) {
        self.end_word(word);
        self.commands.push(Vec::new());
    }
}

fn parse(line: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    let mut double = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            '\'' if !double => word.get_or_insert_default().extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => {
                double = !double;
                word.get_or_insert_default();
            }
            '`' => {
                parsed.nested.push(chars.by_ref().take_while(|c| *c != '`').collect());
                word.get_or_insert_default().push('$'); // something unknown
            }
            '$' if chars.peek() == Some(&'(') => {
                chars.next();
                parsed.nested.push(balanced(&mut chars));
                word.get_or_insert_default().push('$');
            }
            _ if double => word.get_or_insert_default().push(c),
            ' ' | '\t' => parsed.end_word(&mut word),
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '<' | '>' => {
                if word.as_ref().is_some_and(|w| w.chars().all(|c| c.is_ascii_digit())) {
                    word = None; // the descriptor, as in 2>
                }
                parsed.end_word(&mut word);
                while chars.next_if(|c| matches!(c, '<' | '>' | '&' | '|')).is_some() {}
                if chars.next_if_eq(&'(').is_some() {
                    parsed.nested.push(balanced(&mut chars));
                } else {
                    parsed.redirection = true;
                }
            }
            ';' | '&' | '|' | '\n' | '(' | ')' => parsed.end_command(&mut word),
            '{' | '}' if word.is_none() && chars.peek().is_none_or(|c| c.is_whitespace() || *c == ';') => {
                parsed.end_command(&mut word);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    parsed.end_word(&mut word);
    parsed
}

/// Everything up to the parenthesis that closes.
fn balanced(chars: &mut impl Iterator<Item = char>) -> String {
    let mut open = 1;
    chars
        .take_while(|c| {
            open += i32::from(*c == '(') - i32::from(*c == ')');
            open > 0
        })
        .collect()
}

fn judge(words: &[String], depth: usize) -> Result<(), String> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    // Redirections and assignments are no part of the command; keywords stand before one.
    words.retain(|w| !w.is_empty());
    while words.first().is_some_and(|w| {
        is_assignment(w)
            || matches!(*w, "if" | "then" | "else" | "elif" | "while" | "until" | "do" | "!" | "time")
    }) {
        words.remove(0);
    }
    let Some((program, rest)) = words.split_first() else { return Ok(()) };
    match program.rsplit('/').next().unwrap_or(program) {
        "git" => git(rest),
        "rm" => rm(rest),
        "find" => find(rest, depth),
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" => shell(rest, depth),
        "eval" => judge_line(&rest.join(" "), depth),
        "busybox" | "command" | "exec" | "nohup" | "setsid" | "builtin" => behind(rest, &[], 0, depth),
        "env" => behind(rest, &["-u", "--unset", "-C", "--chdir"], 0, depth),
        "sudo" | "doas" => behind(rest, &["-u", "-g", "-h", "-p", "-C", "-D"], 0, depth),
        "nice" | "ionice" => behind(rest, &["-n", "-c", "--adjustment"], 0, depth),
        "stdbuf" => behind(rest, &["-i", "-o", "-e"], 0, depth),
        "timeout" => behind(rest, &["-s", "-k", "--signal", "--kill-after"], 1, depth),
        // What it adds from its input cannot be known.
        "xargs" => {
            behind(&[rest, &["$INPUT"]].concat(), &["-n", "-P", "-I", "-L", "-d", "-s", "-a", "-E"], 0, depth)
        }
        _ => Ok(()),
    }
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The command behind a program that runs another: its options, those that take a value, and so many words of its own are skipped.
fn behind(mut words: &[&str], with_value: &[&str], own: usize, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("commands are nested too deeply; run them one by one".into());
    };
    while let Some((first, rest)) = words.split_first() {
        if matches!(*first, "-S" | "--split-string") {
            return judge_line(&rest.join(" "), depth);
        } else if with_value.contains(first) {
            words = rest.get(1..).unwrap_or(&[]);
        } else if first.starts_with('-') || is_assignment(first) {
            words = rest;
        } else {
            break;
        }
    }
    let words: Vec<String> = words.iter().skip(own).map(|w| (*w).to_owned()).collect();
    judge(&words, depth)
}

/// `sh -c LINE`; any group of options that ends in `c`.
fn shell(words: &[&str], depth: usize) -> Result<(), String> {
    let at = words.iter().position(|w| w.starts_with('-') && !w.starts_with("--") && w.contains('c'));
    match at.and_then(|at| words.get(at + 1)) {
        Some(line) => judge_line(line, depth),
        None => Ok(()),
    }
}

fn has_flag(words: &[&str], short: char, long: &[&str]) -> bool {
    words
        .iter()
        .take_while(|w| **w != "--")
        .any(|w| long.contains(w) || (w.starts_with('-') && !w.starts_with("--") && w.contains(short)))
}

fn git(words: &[&str]) -> Result<(), String> {
    let mut words = words;
    while let Some((first, rest)) = words.split_first().filter(|(w, _)| w.starts_with('-')) {
        let skip = usize::from(matches!(*first, "-C" | "-c" | "--git-dir" | "--work-tree" | "--namespace"));
        words = rest.get(skip..).unwrap_or(&[]);
    }
    let Some((verb, rest)) = words.split_first() else { return Ok(()) };
    let everything = rest.iter().any(|w| matches!(*w, "." | "./" | ":/" | "*" | ":"));
    let (refused, loses) = match *verb {
        "reset" => (has_flag(rest, '\0', &["--hard", "--merge"]), "all changes to the work tree"),
        "clean" => (
            has_flag(rest, 'f', &["--force"]) && !has_flag(rest, 'n', &["--dry-run"]),
            "files that are not committed",
        ),
        "checkout" | "switch" => (
            everything || has_flag(rest, 'f', &["--force", "--discard-changes"]),
            "all changes to the work tree",
        ),
        "restore" => (
            everything && (!rest.contains(&"--staged") || rest.contains(&"--worktree")),
            "all changes to the work tree",
        ),
        "stash" => (
            !matches!(rest.first(), Some(&("list" | "show" | "apply" | "create"))),
            "changes to the work tree",
        ),
        "push" => {
            let force = has_flag(rest, 'f', &["--force", "--mirror", "--delete", "--prune"]);
            (
                force || rest.iter().any(|w| w.starts_with("--force-with-lease") || w.starts_with('+')),
                "history of the remote repository",
            )
        }
        "branch" | "tag" => (has_flag(rest, 'D', &["--delete"]) || rest.contains(&"-d"), "history"),
        "filter-branch" | "filter-repo" | "update-ref" | "reflog" | "gc" | "prune" => {
            let expires =
                rest.iter().any(|w| matches!(*w, "expire" | "delete" | "-d") || w.starts_with("--prune"));
            (expires || !matches!(*verb, "reflog" | "gc" | "update-ref"), "history")
        }
        _ => (false, ""),
    };
    if refused {
        return Err(format!(
            "git {verb} is refused in this form: it throws away {loses} for good. To take back a change, edit the file."
        ));
    }
    Ok(())
}

fn rm(words: &[&str]) -> Result<(), String> {
    let recursive = has_flag(words, 'r', &["--recursive"]) || has_flag(words, 'R', &[]);
    let after_dashes = words.iter().position(|w| *w == "--").unwrap_or(words.len());
    let targets =
        words.iter().enumerate().filter(|(at, w)| (*at > after_dashes || !w.starts_with('-')) && **w != "--");
    for (_, target) in targets {
        if recursive && !is_build_folder(target) {
            return Err(format!(
                "rm -r {target} is refused: only build folders (target, build, dist, node_modules, …) and /tmp may be deleted as a whole. Name single files without -r."
            ));
        }
        if matches!(target.trim_end_matches('/'), "*" | "./*" | "." | "" | "~" | "$") {
            return Err(format!("rm {target} is refused: it deletes too much. Name the files."));
        }
    }
    Ok(())
}

/// In, or itself, a folder that tools make; or in the temporary directory, which is the session's own.
fn is_build_folder(target: &str) -> bool {
    let parts: Vec<&str> = target.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let known = |part: &&str| {
        BUILD_FOLDERS.contains(part) || part.ends_with(".egg-info") || part.ends_with(".dist-info")
    };
    let climbs = parts.contains(&"..") || target.contains('$') || target.starts_with('~');
    match target.strip_prefix('/') {
        Some(_) => !climbs && parts.len() > 1 && parts[0] == "tmp",
        None => !climbs && parts.iter().any(known),
    }
}

fn find(words: &[&str], depth: usize) -> Result<(), String> {
    let filtered = words.iter().any(|w| {
        w.starts_with("-name") || w.starts_with("-iname") || w.starts_with("-path") || w.starts_with("-regex")
    });
    if words.contains(&"-delete") && !filtered {
        return Err("find -delete without -name or -path is refused: it deletes too much.".into());
    }
    for (at, _) in words.iter().enumerate().filter(|(_, w)| matches!(**w, "-exec" | "-execdir" | "-ok")) {
        let inner: Vec<String> = words[at + 1..]
            .iter()
            .take_while(|w| !matches!(**w, ";" | "+"))
            .map(|w| (*w).to_owned())
            .collect();
        judge(&inner, depth)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_line;

    #[test]
    fn what_cannot_be_brought_back_is_refused_however_it_is_wrapped() {
        for line in [
            "git reset --hard",
            "git reset --hard HEAD~1 && make",
            "git -C . -c core.pager=cat reset --hard",
            "git clean -fd",
            "git clean -xdf",
            "git clean --force",
            "git push --force",
            "git push origin +main",
            "git push --force-with-lease=main",
            "git checkout -- .",
            "git checkout .",
            "git checkout HEAD -- .",
            "git checkout -f main",
            "git restore .",
            "git stash",
            "git stash drop",
            "git branch -D main",
            "git reflog expire --expire=now --all",
            "rm -rf src",
            "rm -rf .",
            "rm -rf /",
            "rm -rf *",
            "rm -fr -- src",
            "rm --recursive --force src",
            "rm -rf target/../src",
            "rm -rf $DIR",
            "rm -rf /tmp",
            "rm *",
            "/bin/rm -rf src",
            "\\rm -rf src",
            "r\"m\" -rf 'src'",
            "env rm -rf src",
            "env -i A=b -u C rm -rf src",
            "env -S 'rm -rf src'",
            "A=1 rm -rf src",
            "timeout 5 rm -rf src",
            "timeout -k 1 -s KILL 5s git reset --hard",
            "nice -n 5 nohup rm -rf src",
            "sudo -u root rm -rf src",
            "echo src | xargs rm -rf src",
            "ls | xargs -n 1 -I{} rm -rf {}",
            "sh -c 'rm -rf src'",
            "bash -lc \"git reset --hard\"",
            "bash -c 'sh -c \"git reset --hard\"'",
            "eval git reset --hard",
            "true; git reset --hard",
            "true || git reset --hard",
            "true\ngit reset --hard",
            "(git reset --hard)",
            "{ git reset --hard; }",
            "if true; then git reset --hard; fi",
            "! git reset --hard",
            "echo $(git reset --hard)",
            "echo \"$(git reset --hard)\"",
            "echo `git reset --hard`",
            "echo $(echo $(rm -rf src))",
            "find . -type d | xargs rm -r",
            "cat <(git reset --hard)",
            "rm -rf src > log 2>&1",
            "find . -delete",
            "find . -type d -exec rm -rf {} ;",
        ] {
            assert!(check_line(line).is_err(), "{line:?} is not refused");
        }
    }

    #[test]
    fn ordinary_commands_are_not_refused() {
        for line in [
            "",
            "cargo test",
            "git status && git diff",
            "git log --oneline -5",
            "git reset --soft HEAD",
            "git reset file.rs",
            "git checkout -b topic",
            "git checkout main -- src/lib.rs",
            "git restore src/lib.rs",
            "git clean -nfd",
            "git stash list",
            "git push",
            "git commit -m 'git reset --hard is bad'",
            "git reflog",
            "rm file.txt",
            "rm -f a.o b.o",
            "rm -rf target",
            "rm -rf target 2>/dev/null >> log && make > out.txt",
            "find . -name '*.o' | xargs rm -f",
            "rm -rf ./target/debug build/ node_modules",
            "rm -rf /tmp/work",
            "rm -rf packages/app/dist",
            "echo 'rm -rf src'",
            "echo rm -rf src",
            "grep -r 'git clean -fd' .",
            "# rm -rf src",
            "find . -name '*.pyc' -delete",
            "find . -name '*.rs' -exec wc -l {} +",
            "echo 'unfinished",
            "echo $((1 + 2))",
            "make CC=gcc -j4 2>&1 | tail",
            "awk '{ print $1 }' file",
            "timeout 5",
            "xargs",
            "sh script.sh -c",
        ] {
            assert_eq!(check_line(line), Ok(()), "{line:?}");
        }
    }

    #[test]
    fn endless_nesting_is_refused_and_ends() {
        let line = (0..40).fold("true".to_owned(), |line, _| format!("echo $({line})"));
        assert!(check_line(&line).unwrap_err().contains("nested"));
        assert!(check_line(&"env ".repeat(100_000)).is_err());
    }
}
