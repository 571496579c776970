//! Refuses commands that destroy data irrecoverably. This helps the model and is a last line of
//! defense after the confinement. It is not a security boundary, because a script can hide
//! anything. Lines are split the way a shell would split them, and commands inside `env`,
//! `timeout`, `xargs`, `sh -c` or `$(…)` are also checked.
//!
//! `fixtures/guarded_commands` lists what is and is not refused, one command per line.

mod line;

/// The maximum nesting depth of commands.
const DEPTH: usize = 8;

/// Directories that are created by tools and may be deleted recursively.
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

/// Programs that run another program. Each entry consists of the names of the programs, their
/// options that take a value, and the number of positional arguments before the command.
const WRAPPERS: &[(&[&str], &[&str], usize)] = &[
    (
        &[
            "busybox", "toybox", "command", "exec", "nohup", "setsid", "builtin", "time", "unbuffer",
            "xvfb-run",
        ],
        &["-a"],
        0,
    ),
    (&["env"], &["-u", "--unset", "-C", "--chdir"], 0),
    (&["sudo", "doas"], &["-u", "-g", "-h", "-p", "-C", "-D"], 0),
    (&["nice", "ionice", "chrt"], &["-n", "-c", "--adjustment"], 0),
    (&["stdbuf"], &["-i", "-o", "-e"], 0),
    (&["timeout"], &["-s", "-k", "--signal", "--kill-after"], 1),
    (&["taskset"], &[], 1),
    (&["flock"], &["-w", "-E", "--timeout"], 1),
    (&["strace", "ltrace"], &["-e", "-o", "-p", "-s"], 0),
    (&["watch"], &["-n", "--interval"], 0),
];

/// Some models mistake the `apply_patch` tool for a program. A shell would not find that program
/// and would run the rest of the line without the patch.
const APPLY_PATCH: &str = "apply_patch is a tool, not a shell program: send the patch as a call to apply_patch, and the \
                           rest as a separate command";

/// Checks a shell line.
///
/// # Errors
/// Returns a sentence that tells the model what is refused, why, and what to do instead.
pub fn check_line(line: &str) -> Result<(), String> {
    judge_line(line, DEPTH)
}

/// Checks a program and its arguments.
///
/// # Errors
/// Same as [`check_line`].
pub fn check_words(words: &[String]) -> Result<(), String> {
    judge(words, DEPTH)
}

fn deeper(depth: usize) -> Result<usize, String> {
    depth.checked_sub(1).ok_or_else(|| "commands are nested too deeply; run them one by one".into())
}

fn judge_line(text: &str, depth: usize) -> Result<(), String> {
    let depth = deeper(depth)?;
    let line = line::split(text);
    line.nested.iter().try_for_each(|inner| judge_line(inner, depth))?;
    line.commands.iter().try_for_each(|words| judge(words, depth))?;
    // A shell runs the text that is piped into it.
    let printed = |words: &[String]| {
        let (program, rest) = words.split_first()?;
        matches!(program.as_str(), "echo" | "printf").then(|| rest.join(" "))
    };
    for pair in line.commands.windows(2) {
        if let Some(text) = pair[1].first().filter(|p| is_shell(p)).and_then(|_| printed(&pair[0])) {
            judge_line(&text, depth)?;
        }
    }
    Ok(())
}

/// Returns the name of a program without its directory.
fn name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn is_shell(program: &str) -> bool {
    matches!(name(program), "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash")
}

fn judge(words: &[String], depth: usize) -> Result<(), String> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
    // Skip assignments and keywords before the command.
    let keywords = ["if", "then", "else", "elif", "while", "until", "do", "!"];
    while words.first().is_some_and(|w| is_assignment(w) || keywords.contains(w)) {
        words.remove(0);
    }
    let Some((program, rest)) = words.split_first() else { return Ok(()) };
    if matches!(*program, "apply_patch" | "applypatch") {
        return Err(APPLY_PATCH.into());
    }
    let program = name(program);
    match program {
        "git" => git(rest, depth),
        "rm" => rm(rest),
        "find" => find(rest, depth),
        "eval" => judge_line(&rest.join(" "), depth),
        "trap" => rest.first().map_or(Ok(()), |line| judge_line(line, depth)),
        "su" | "runuser" | "script" => shell(rest, depth),
        "flock" if rest.contains(&"-c") => shell(rest, depth),
        // These programs read more arguments from their input. `$INPUT` stands in for those unknown
        // arguments.
        "xargs" | "parallel" => inner_command(
            &[rest, &["$INPUT"]].concat(),
            &["-n", "-P", "-I", "-L", "-d", "-s", "-a", "-E", "-j"],
            0,
            depth,
        ),
        _ if is_shell(program) => shell(rest, depth),
        _ => match WRAPPERS.iter().find(|(names, ..)| names.contains(&program)) {
            Some((_, with_value, own)) => inner_command(rest, with_value, *own, depth),
            None => Ok(()),
        },
    }
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Checks the command that a program runs. In the program's arguments, the command follows the
/// program's own options and `own` positional arguments.
fn inner_command(mut words: &[&str], with_value: &[&str], own: usize, depth: usize) -> Result<(), String> {
    let depth = deeper(depth)?;
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

/// Checks the line in `sh -c LINE`, even if `c` is part of a group of options, such as `-ec`.
fn shell(words: &[&str], depth: usize) -> Result<(), String> {
    let at = words.iter().position(|w| w.starts_with('-') && !w.starts_with("--") && w.contains('c'));
    at.and_then(|at| words.get(at + 1)).map_or(Ok(()), |line| judge_line(line, depth))
}

/// Whether an option is present, either by its letter (alone or in a group) or by its long name (in
/// full or abbreviated).
fn has_flag(words: &[&str], short: char, long: &[&str]) -> bool {
    let is_long = |word: &str| {
        let word = word.split('=').next().unwrap_or(word);
        long.iter().any(|name| *name == word || (word.len() >= 5 && name.starts_with(word)))
    };
    words
        .iter()
        .take_while(|w| **w != "--")
        .any(|w| if w.starts_with("--") { is_long(w) } else { w.starts_with('-') && w.contains(short) })
}

fn refuse(what: &str, discards: &str) -> Result<(), String> {
    Err(format!(
        "git {what} is refused in this form: it permanently discards {discards}. To undo a change, edit the file."
    ))
}

fn git(words: &[&str], depth: usize) -> Result<(), String> {
    const TREE: &str = "all changes to the work tree";
    const HISTORY: &str = "history";
    let mut words = words;
    let mut aliases = Vec::new();
    let mut unguarded = false;
    while let Some((first, rest)) = words.split_first().filter(|(w, _)| w.starts_with('-')) {
        let skip = usize::from(matches!(*first, "-C" | "-c" | "--git-dir" | "--work-tree" | "--namespace"));
        if *first == "-c" {
            let setting = rest.first().and_then(|s| s.split_once('=')).unwrap_or_default();
            aliases.extend(setting.0.strip_prefix("alias.").map(|name| (name, setting.1)));
            unguarded |= setting.0.eq_ignore_ascii_case("clean.requireForce");
        }
        words = rest.get(skip..).unwrap_or(&[]);
    }
    let Some((verb, rest)) = words.split_first() else { return Ok(()) };
    if let Some((_, expansion)) = aliases.iter().find(|(name, _)| name == verb) {
        let line = match expansion.strip_prefix('!') {
            Some(line) => line.to_owned(),
            None => format!("git {expansion} {}", rest.join(" ")),
        };
        return judge_line(&line, deeper(depth)?);
    }
    let flag = |short, long: &[&str]| has_flag(rest, short, long);
    let first = rest.first().copied().unwrap_or_default();
    let everything = rest.iter().any(|w| matches!(*w, "." | "./" | ":/" | "*" | ":" | ":(top)"));
    let force = || flag('f', &["--force"]);
    let (refused, discards) = match *verb {
        "reset" => (flag('\0', &["--hard", "--merge", "--keep"]), TREE),
        "clean" => ((unguarded || force()) && !flag('n', &["--dry-run"]), "files that are not committed"),
        "checkout" | "switch" => (everything || force() || flag('\0', &["--discard-changes"]), TREE),
        "checkout-index" => (force() && flag('a', &["--all"]), TREE),
        "read-tree" => (flag('u', &[]) && flag('\0', &["--reset"]), TREE),
        "restore" => (everything && (!flag('S', &["--staged"]) || flag('W', &["--worktree"])), TREE),
        "stash" => (!matches!(first, "list" | "show" | "apply" | "create"), "changes to the work tree"),
        "rm" => (force() && !rest.contains(&"--cached"), "changes to these files"),
        "push" => {
            let by_flag = force() || flag('d', &["--mirror", "--delete", "--prune"]);
            let by_name = rest.iter().any(|w| {
                w.starts_with("--force") || w.starts_with('+') || (w.starts_with(':') && w.len() > 1)
            });
            (by_flag || by_name, "history of the remote repository")
        }
        "branch" => (
            force() || flag('D', &["--delete"]) || flag('M', &[]) || flag('C', &[]) || flag('d', &[]),
            HISTORY,
        ),
        "tag" => (force() || flag('d', &["--delete"]), HISTORY),
        "reflog" => (matches!(first, "expire" | "delete"), HISTORY),
        "gc" => (rest.iter().any(|w| w.starts_with("--prune")), HISTORY),
        "update-ref" => (flag('d', &["--stdin"]), HISTORY),
        "prune" | "filter-branch" | "filter-repo" => (true, HISTORY),
        "worktree" => (first == "remove" && force(), "changes to a work tree"),
        "submodule" if first == "foreach" => return judge_line(&rest[1..].join(" "), deeper(depth)?),
        "submodule" => (first == "deinit" && force(), "changes to a submodule"),
        "bisect" if first == "run" => return inner_command(&rest[1..], &[], 0, depth),
        "rebase" => {
            let at = rest.iter().position(|w| matches!(*w, "-x" | "--exec"));
            return at.and_then(|at| rest.get(at + 1)).map_or(Ok(()), |line| judge_line(line, depth));
        }
        _ => (false, ""),
    };
    if refused { refuse(verb, discards) } else { Ok(()) }
}

fn rm(words: &[&str]) -> Result<(), String> {
    let recursive = has_flag(words, 'r', &["--recursive"]) || has_flag(words, 'R', &[]);
    let after_dashes = words.iter().position(|w| *w == "--").unwrap_or(words.len());
    let targets =
        words.iter().enumerate().filter(|(at, w)| (*at > after_dashes || !w.starts_with('-')) && **w != "--");
    for (_, target) in targets {
        if recursive && !is_build_folder(target) {
            return Err(format!(
                "rm -r {target} is refused: only build directories (target, build, dist, node_modules, …) and paths in /tmp may be deleted recursively. Name single files without -r."
            ));
        }
        if matches!(target.trim_end_matches('/'), "*" | "./*" | "." | "" | "~" | "$") {
            return Err(format!("rm {target} is refused: it deletes too much. Name the files."));
        }
    }
    Ok(())
}

/// Whether a path may be deleted recursively. True for paths inside the temporary directory, for
/// directories that tools create ([`BUILD_FOLDERS`] and others), and for relative paths inside
/// those directories.
fn is_build_folder(target: &str) -> bool {
    let temporary = ["$TMPDIR/", "${TMPDIR}/"].iter().find_map(|prefix| target.strip_prefix(prefix));
    let target = temporary.map_or_else(|| target.to_owned(), |rest| format!("/tmp/{rest}"));
    let parts: Vec<&str> = target.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let known = |part: &&str| {
        BUILD_FOLDERS.contains(part) || part.ends_with(".egg-info") || part.ends_with(".dist-info")
    };
    if parts.contains(&"..") || target.contains('$') || target.starts_with('~') {
        return false;
    }
    match target.starts_with('/') {
        true => parts.len() > 1 && (parts[0] == "tmp" || parts.last().is_some_and(known)),
        false => parts.iter().any(known),
    }
}

fn find(words: &[&str], depth: usize) -> Result<(), String> {
    let filter = |pair: &[&str]| {
        ["-name", "-iname", "-path", "-ipath", "-wholename", "-regex", "-iregex"].contains(&pair[0])
            && !matches!(pair[1], "*" | ".*" | "./*")
    };
    let filtered = words.windows(2).any(filter);
    let starts: Vec<&&str> = words.iter().take_while(|w| !w.starts_with('-')).collect();
    let built = !starts.is_empty() && starts.iter().all(|start| is_build_folder(start));
    if words.contains(&"-delete") && !filtered && !built {
        return Err("find -delete without -name or -path is refused: it deletes too much.".into());
    }
    for (at, _) in
        words.iter().enumerate().filter(|(_, w)| matches!(**w, "-exec" | "-execdir" | "-ok" | "-okdir"))
    {
        let inner = words[at + 1..].iter().take_while(|w| !matches!(**w, ";" | "+"));
        // If a filter such as `-name` restricts the paths, check the command with the filter's
        // pattern in place of `{}`.
        let named = words.windows(2).find(|pair| filter(pair)).map_or("{}", |pair| pair[1]);
        let inner: Vec<String> =
            inner.map(|w| if *w == "{}" { named.to_owned() } else { (*w).to_owned() }).collect();
        judge(&inner, depth)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_line;

    fn commands(table: &str) -> impl Iterator<Item = String> {
        table.lines().map(|line| line.replace("\\n", "\n").replace("\\t", "\t"))
    }

    #[test]
    fn destructive_commands_are_refused_however_they_are_wrapped() {
        let table = include_str!("../../../fixtures/guarded_commands/refused.txt");
        let through: Vec<_> = commands(table).filter(|line| check_line(line).is_ok()).collect();
        assert!(through.is_empty(), "{through:#?}");
    }

    #[test]
    fn ordinary_commands_are_not_refused() {
        let table = include_str!("../../../fixtures/guarded_commands/allowed.txt");
        let refused: Vec<_> =
            commands(table).filter_map(|line| check_line(&line).err().map(|e| (line, e))).collect();
        assert!(refused.is_empty(), "{refused:#?}");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let line = (0..40).fold("true".to_owned(), |line, _| format!("echo $({line})"));
        assert!(check_line(&line).unwrap_err().contains("nested"));
        assert!(check_line(&"env ".repeat(100_000)).is_err());
        let document = "cat <<EOF\n".repeat(10_000);
        assert!(check_line(&document).is_ok());
    }
}
