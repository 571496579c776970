//! Commands from start to end: what is kept of their output, how they end, what is left of them.

mod support;

use std::time::Duration;

use sandbox::{Command, OutputLimits, SandboxError, Status};
use support::Fixture;

#[tokio::test]
async fn a_command_runs_in_the_work_tree_and_its_output_comes_back_in_order() {
    let fixture = Fixture::new();
    let done = fixture.on().run(Command::shell("pwd; echo two >&2; echo three; exit 3")).await.unwrap();
    assert_eq!(done.output.text(), format!("{}\ntwo\nthree\n", fixture.root().display()));
    assert_eq!(done.status, Status::Exited(3));
}
