//! Repositories that attack users of the agent. Where possible, a test first shows that the attack
//! works on another program, then checks that the agent reads, writes and runs nothing outside the
//! repository, does not hang, and reports each refusal.

mod data;
mod git;
mod many;
mod names;
mod special;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::json;

/// A marker string in files that must not be read.
pub(crate) const MARK: &str = "5ecret-m4rk";

/// The number of seconds after which a run is considered hung. Even on a loaded machine, a run
/// takes less time than that.
const LIMIT: &str = "120";
/// The address space limit for the agent and each of its children, in KiB.
const SPACE: &str = "4000000";

impl World {
    /// Returns the path of a file outside the repository that attacks try to create.
    pub(crate) fn trophy(&self) -> PathBuf {
        self.home().join("trophy")
    }

    /// Returns whether an attack has created the trophy since the last call, and removes it.
    pub(crate) fn was_attacked(&self) -> bool {
        let there = self.trophy().exists();
        if there {
            fs::remove_file(self.trophy()).unwrap();
        }
        there
    }

    /// Writes a program to the repository and returns its path. The program creates the trophy and
    /// copies its standard input to its standard output.
    pub(crate) fn attack(&self, path: &str) -> String {
        self.write(
            path,
            &format!(
                "#!/bin/sh\necho \"$0 $*\" >> '{}'\n[ \"$1\" = x ] && exit 1\ncat\n",
                self.trophy().display()
            ),
        );
        let path = self.repo().join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    /// Returns a command that runs the agent in the repository with a time limit and a memory
    /// limit.
    pub(crate) fn limited(&self, args: &[&str]) -> Command {
        let agent = self.agent(args);
        let mut command = Command::new("/bin/sh");
        let line = format!("ulimit -v {SPACE}; exec timeout -s KILL {LIMIT} \"$@\"");
        command.args(["-c", &line, "sh"]).arg(agent.get_program()).args(agent.get_args());
        command.current_dir(self.repo()).env_clear().stdin(Stdio::null());
        command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// Runs the agent with a model that gives these answers, and checks that the agent does not
    /// hang.
    pub(crate) fn obey(&self, answers: impl IntoIterator<Item = String>) -> (Output, Vec<String>) {
        self.obey_with(&[], answers)
    }

    /// Same as [`World::obey`], but with additional flags. Both return the output and the last
    /// message of each request.
    pub(crate) fn obey_with(
        &self,
        flags: &[&str],
        answers: impl IntoIterator<Item = String>,
    ) -> (Output, Vec<String>) {
        let server = Server::start();
        let answers: Vec<String> = answers.into_iter().collect();
        // Without a limit, a run would keep sending requests after the script runs out of answers.
        let turns = answers.len().to_string();
        answers.into_iter().for_each(|answer| server.enqueue(Reply::text(answer)));
        let limit = if flags.contains(&"--max-turns") { &[][..] } else { &["--max-turns", &turns] };
        let head: &[&str] = &["run", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
        let output = self
            .limited(&[head, limit, flags, &["Fix it."]].concat())
            .env("OLLAMA_HOST", server.url())
            .output()
            .unwrap();
        assert!(output.status.code().is_some_and(|c| c < 100), "{}", self.tell(&output));
        (output, server.chats().iter().map(|chat| chat.last_content().to_owned()).collect())
    }

    /// Runs commands that read the last session or the repository, then undoes the session.
    pub(crate) fn look_at_everything(&self) {
        for args in [
            &["sessions", "list"] as &[&str],
            &["sessions", "show"],
            &["diff"],
            &["tools", "list"],
            &["config", "show"],
            &["undo", "last"],
        ] {
            let output = self.limited(args).output().unwrap();
            assert!(output.status.code().is_some_and(|c| c < 100), "{args:?}: {}", self.tell(&output));
        }
    }
}

/// Returns a `read_file` call as the model would write it.
pub(crate) fn read(path: &str) -> String {
    call("read_file", json!({ "path": path }))
}

pub(crate) fn edit(path: &str, search: &str, replace: &str) -> String {
    call("apply_patch", json!({"edits": [{"path": path, "search": search, "replace": replace}]}))
}

pub(crate) fn command(line: &str) -> String {
    call("run_command", json!({ "command": line }))
}

pub(crate) fn finish() -> String {
    call("finish", json!({}))
}
