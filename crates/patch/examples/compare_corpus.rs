//! Compares this engine with `git apply`, `git apply --recount --ignore-whitespace` and GNU `patch`
//! on the corpus. Run it with `scripts/bench-patch-corpus [--every N]`.
//!
//! With `--every N`, each program runs on only one in N cases. The other programs run in a fresh
//! directory for each case, with the strip level that the patch needs. A patch that a program
//! cannot read counts as refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a developer tool")]

#[path = "../tests/judge/mod.rs"]
mod judge;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use judge::Verdict;
use patch_corpus::{Case, Class, Expected, Form, Tree};

const PROGRAMS: [(&str, &[&str]); 4] = [
    ("this engine", &[]),
    ("git apply", &["git", "apply", "-"]),
    ("git, lenient", &["git", "apply", "--recount", "--ignore-whitespace", "-"]),
    (
        "GNU patch",
        &["patch", "--batch", "--forward", "--no-backup-if-mismatch", "--reject-file=-", "--silent"],
    ),
];

/// The numbers of right, refused and wrong results, in that order.
type Count = [usize; 3];

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let every = arguments
        .iter()
        .position(|a| a == "--every")
        .and_then(|i| arguments.get(i + 1)?.parse().ok())
        .unwrap_or(1);
    let cases = patch_corpus::cases();
    let sample: Vec<&Case> = cases.iter().filter(|c| c.class != Class::Security).step_by(every).collect();
    let there: Vec<bool> =
        PROGRAMS.iter().map(|(_, command)| command.first().is_none_or(|name| runs(name))).collect();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let results: Vec<(&Case, Vec<Option<Verdict>>)> = std::thread::scope(|scope| {
        let parts = sample.chunks(sample.len().div_ceil(threads)).enumerate();
        let there = &there;
        let running: Vec<_> = parts.map(|(n, part)| scope.spawn(move || judge_all(part, there, n))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} of {} cases (one in {every}); each cell: right / refused / WRONG",
        sample.len(),
        cases.len()
    )?;
    let unified = |c: &Case| matches!(c.form, Form::Unified | Form::Git);
    table(&mut out, "every form", &results, |c| Some(format!("{:?}", c.class)))?;
    table(&mut out, "unified diffs only", &results, |c| unified(c).then(|| format!("{:?}", c.class)))?;
    let single = |c: &Case| unified(c) && c.deformations.len() == 1 && c.class == Class::Deformed;
    table(&mut out, "unified diffs, one deformation", &results, |c| {
        single(c).then(|| c.deformations[0].to_owned())
    })
}

fn runs(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success())
}

fn judge_all<'a>(cases: &[&'a Case], there: &[bool], thread: usize) -> Vec<(&'a Case, Vec<Option<Verdict>>)> {
    let memory = Path::new("/dev/shm");
    let temp = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let root = temp.join(format!("compare-corpus-{}-{thread}", std::process::id()));
    let out = cases
        .iter()
        .map(|case| {
            let by = |i: usize| match PROGRAMS[i].1.split_first() {
                _ if !there[i] => None,
                None => Some(judge::judge(case).0),
                Some((name, flags)) => Some(other(case, name, flags, &root)),
            };
            (*case, (0..PROGRAMS.len()).map(by).collect())
        })
        .collect();
    let _ = fs::remove_dir_all(&root);
    out
}

/// Applies a case's patch with another program and judges the result.
fn other(case: &Case, name: &str, flags: &[&str], root: &Path) -> Verdict {
    let may_refuse =
        !matches!((case.class, &case.expected), (Class::Clean | Class::Deformed, Expected::Tree(_)));
    let refused = if may_refuse { Verdict::Right } else { Verdict::Refused };
    let Some(text) = case.input.text().filter(|_| matches!(case.form, Form::Unified | Form::Git)) else {
        return refused;
    };
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root).unwrap();
    for (path, (bytes, executable)) in &case.before {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(if *executable { 0o755 } else { 0o644 }))
            .unwrap();
    }
    let prefixes = ["--- a/", "+++ b/", "--- \"a/", "+++ \"b/", "diff --git a/", "diff --git \"a/"];
    let strip = if text.lines().any(|l| prefixes.iter().any(|p| l.starts_with(p))) { "-p1" } else { "-p0" };
    let mut command = Command::new(name);
    command.args(flags).arg(strip).current_dir(root).env("GIT_CEILING_DIRECTORIES", root.parent().unwrap());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    let done = child.wait().unwrap().success();
    let after = tree(root);
    match &case.expected {
        Expected::Tree(tree) if done && after == *tree => Verdict::Right,
        _ if after == case.before => refused,
        _ => Verdict::Wrong,
    }
}

fn tree(root: &Path) -> Tree {
    let mut out = Tree::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let executable = path.metadata().unwrap().permissions().mode() & 0o100 != 0;
            out.insert(name, (fs::read(&path).unwrap(), executable));
        }
    }
    out
}

fn table(
    out: &mut impl io::Write,
    title: &str,
    results: &[(&Case, Vec<Option<Verdict>>)],
    row: impl Fn(&Case) -> Option<String>,
) -> io::Result<()> {
    let mut rows: BTreeMap<String, (usize, Vec<Option<Count>>)> = BTreeMap::new();
    for (case, verdicts) in results {
        let Some(name) = row(case) else { continue };
        let (all, counts) = rows.entry(name).or_insert_with(|| (0, vec![Some([0; 3]); PROGRAMS.len()]));
        *all += 1;
        for (count, verdict) in counts.iter_mut().zip(verdicts) {
            match (count.as_mut(), verdict) {
                (Some(count), Some(verdict)) => {
                    let column = match verdict {
                        Verdict::Right | Verdict::OtherKind => 0,
                        Verdict::Refused => 1,
                        Verdict::Wrong => 2,
                    };
                    count[column] += 1;
                }
                _ => *count = None,
            }
        }
    }
    write!(out, "\n{title:<36} {:>6}", "cases")?;
    PROGRAMS.iter().try_for_each(|(name, _)| write!(out, " {name:>18}"))?;
    writeln!(out)?;
    for (name, (all, counts)) in rows {
        write!(out, "{name:<36} {all:>6}")?;
        for count in counts {
            let text = count.map_or("not installed".into(), |[right, refused, wrong]| {
                format!("{right} / {refused} / {wrong}")
            });
            write!(out, " {text:>18}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
