//! Repositories made to harm who lets the agent loose on them. Each attack is shown to work on other programs where it can be, and then
//! to do nothing through the agent: nothing outside is read, written or run, nothing hangs, and what is refused is said.

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

/// What an attack writes when it runs, and what stands in files that must not be read.
pub(crate) const MARK: &str = "5ecret-m4rk";

/// After this many seconds a run is taken for hung, also on a loaded machine.
const LIMIT: &str = "120";
/// Kibibytes of address space that the agent and what it starts may have, each.
const SPACE: &str = "4000000";

impl World {
    /// A file outside the repository, which attacks try to make.
    pub(crate) fn trophy(&self) -> PathBuf {
        self.home().join("trophy")
    }

    /// Whether an attack ran since this was asked last.
    pub(crate) fn was_attacked(&self) -> bool {
        let there = self.trophy().exists();
        if there {
            fs::remove_file(self.trophy()).unwrap();
        }
        there
    }

    /// A program in the repository that makes the trophy and does nothing else; its path.
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

    /// The agent in the repository, killed when it hangs, and unable to take all memory.
    pub(crate) fn limited(&self, args: &[&str]) -> Command {
        let agent = self.agent(args);
        let mut command = Command::new("/bin/sh");
        let line = format!("ulimit -v {SPACE}; exec timeout -s KILL {LIMIT} \"$@\"");
        command.args(["-c", &line, "sh"]).arg(agent.get_program()).args(agent.get_args());
        command.current_dir(self.repo()).env_clear().stdin(Stdio::null());
        command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// A run in which the model says this; not hung at least.
    pub(crate) fn obey(&self, answers: impl IntoIterator<Item = String>) -> (Output, Vec<String>) {
        self.obey_with(&[], answers)
    }

    /// The same with flags; what was said to the model with it.
    pub(crate) fn obey_with(
        &self,
        flags: &[&str],
        answers: impl IntoIterator<Item = String>,
    ) -> (Output, Vec<String>) {
        let server = Server::start();
        let answers: Vec<String> = answers.into_iter().collect();
        // A run that wants more turns would retry against a server without answers.
        let turns = answers.len().to_string();
        answers.into_iter().for_each(|answer| server.enqueue(Reply::text(answer)));
        let head: &[&str] =
            &["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "--max-turns", &turns];
        let output = self
            .limited(&[head, flags, &["Fix it."]].concat())
            .env("OLLAMA_HOST", server.url())
            .output()
            .unwrap();
        assert!(output.status.code().is_some_and(|c| c < 100), "{}", self.tell(&output));
        (output, server.chats().iter().map(|chat| chat.last_content().to_owned()).collect())
    }

    /// Every command that looks at the last session or at the repository, run to its end.
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

/// Calls as a model makes them.
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
