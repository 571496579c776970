//! A separate world for each test, with its own home, state folder and git repository.
//! [`World::observe`] returns the exit code, stdout and stderr in a single string, so that one
//! comparison catches every change.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The arguments of a run that uses tools and prints its events.
pub(crate) const JSON_RUN: [&str; 7] =
    ["run", "--json", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Make the tests pass."];

/// The home, state folder and repository for a single test.
pub(crate) struct World {
    folder: TempDir,
}

impl World {
    /// Creates a world with an empty git repository.
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// Creates a world with these files committed to its git repository.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(world.path("home")).unwrap();
        fs::create_dir_all(world.repo()).unwrap();
        for (path, text) in files {
            world.write(path, text);
        }
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        world.git(&["add", "--all"]);
        world.git(&["commit", "--quiet", "--allow-empty", "--message=start"]);
        world
    }

    /// Creates a world with one failing test: `add` subtracts. The test needs only a shell.
    pub(crate) fn with_a_bug() -> Self {
        Self::with(&[
            (".agent.toml", "verify = 'sh check.sh'\n"),
            ("add.sh", "add() {\n    echo $(($1 - $2))\n}\n"),
            (
                "check.sh",
                ". ./add.sh\nsum=$(add 2 3)\n[ \"$sum\" = 5 ] || { echo \"add 2 3 is $sum, not 5\"; exit 1; }\n",
            ),
        ])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// Returns the path of the home folder.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Returns the path of the repository.
    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// Writes a file in the repository.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.repo().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads a file in the repository.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.repo().join(path)).unwrap()
    }

    /// Writes the user's settings file.
    pub(crate) fn write_user_settings(&self, text: &str) {
        let folder = self.home().join(".config/agent");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.toml"), text).unwrap();
    }

    /// Writes a file to the user's model profiles folder.
    pub(crate) fn write_user_profile(&self, name: &str, text: &str) {
        let folder = self.home().join(".config/agent/profiles");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }

    /// Returns a command that runs in the repository. The only variable it inherits is `PATH`.
    pub(crate) fn program(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(self.repo())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.home())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "Test"), ("GIT_AUTHOR_EMAIL", "test@example.org")])
            .envs([("GIT_COMMITTER_NAME", "Test"), ("GIT_COMMITTER_EMAIL", "test@example.org")])
            .stdin(Stdio::null());
        command
    }

    /// Runs git in the repository.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = self.program("git").args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns a command that runs the binary, with the same environment as [`World::program`].
    pub(crate) fn agent(&self, args: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_agent"));
        command.args(args);
        command
    }

    /// Runs the binary and returns the exit code, stdout and stderr in a single string.
    pub(crate) fn observe(&self, args: &[&str]) -> String {
        self.tell(&self.agent(args).output().unwrap())
    }

    /// Like [`World::observe`], but passes `input` on stdin.
    pub(crate) fn observe_with_input(&self, args: &[&str], input: &[u8]) -> String {
        self.tell(&self.agent_with_input(args, input))
    }

    /// Runs the binary with `input` on stdin and returns its output.
    pub(crate) fn agent_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .agent(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A child may close the pipe before reading everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Returns the exit code, stdout and stderr of a run in a single string, with the path of this
    /// world's folder replaced by `[WORLD]`.
    pub(crate) fn tell(&self, output: &Output) -> String {
        let mut text = match output.status.code() {
            Some(code) => format!("exit {code}\n"),
            None => format!("{}\n", output.status),
        };
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                let shown = String::from_utf8_lossy(bytes);
                text.push_str(&format!("--- {name}\n{shown}"));
                if !shown.ends_with('\n') {
                    text.push_str("<no newline>\n");
                }
            }
        }
        text.replace(&self.path("").display().to_string(), "[WORLD]/")
    }

    /// Returns the journal of the only session.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let sessions = self.home().join(".local/state/agent/sessions");
        let mut folders: Vec<_> = fs::read_dir(sessions).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(folders.len(), 1, "{folders:?}");
        json_lines(&fs::read_to_string(folders.remove(0).join("journal.jsonl")).unwrap())
    }

    /// Returns the names of the events in the only session's journal.
    pub(crate) fn events(&self) -> Vec<String> {
        self.journal().iter().map(|r| r["event"].as_str().unwrap().to_owned()).collect()
    }
}

/// Parses each line as JSON.
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns a tool call in the format that the model is asked to use.
pub(crate) fn call(tool: &str, arguments: Value) -> String {
    json!({"tool": tool, "arguments": arguments}).to_string()
}

/// Patterns for text that differs between runs, and their replacements.
pub(crate) const FILTERS: [(&str, &str); 10] = [
    (r"(?m)^sandbox (namespaces|Landlock).*\n", ""), // depends on the kernel
    (r"\b\d{8}-\d{6}-[0-9a-f]{4}\b", "[SESSION]"),
    (r"127\.0\.0\.1:\d{4,5}", "[SERVER]"),
    (r"\b\d+ min \d+ s\b", "[TIME]"),
    (r"\b\d+(\.\d)? m?s\b", "[TIME]"),
    (r"in \d+\.\d+s", "in [TIME]"),
    (r"agent \d+\.\d+\.\d+", "agent [VERSION]"),
    (r"[\d,]+ prompt tokens \([\d,]+ evaluated", "[N] prompt tokens ([N] evaluated"),
    (r"(turns?), [\d,]+ prompt tokens, ", "$1, [N] prompt tokens, "),
    (r"about [\d,]+ prompt tokens", "about [N] prompt tokens"),
];

/// Compares an observation with the inline snapshot in the test.
macro_rules! snapshot {
    ($seen:expr, @$wanted:literal) => {
        insta::with_settings!({ filters => crate::support::FILTERS.to_vec() }, {
            insta::assert_snapshot!($seen, @$wanted)
        })
    };
}
pub(crate) use snapshot;
