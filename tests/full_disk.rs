//! A state folder on a full disk: the run ends cleanly, reports why, and can be resumed once there
//! is space.

use std::process::Stdio;

use crate::crashes::{Outcome, RUN, agent, server, whole, world};

/// Runs the agent (`$@`) with too little space for its state, then adds space and resumes the
/// session.
const SCRIPT: &str = r#"
state="$HOME/.local/state"
mkdir -p "$state" && mount -t tmpfs -o "size=$1" none "$state" || exit 99
shift
"$@" >"$HOME/first" 2>&1
echo $? >"$HOME/code"
mount -o remount,size=64m "$state" || exit 99
"$1" resume 2>"$HOME/second" >/dev/null && exit
grep -q 'there is no session\|the session is empty' "$HOME/second" && exec "$@"
"#;

#[test]
fn a_full_state_folder_is_reported_and_the_run_can_be_resumed() {
    let (wanted, _) = whole();
    let (mut endings, mut room) = (Vec::new(), 4);
    loop {
        let (world, server) = (world(), server());
        let command = agent(&world, &server, &RUN);
        let output = world
            .program("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", &format!("{room}k")])
            .arg(command.get_program())
            .args(command.get_args())
            .env("OLLAMA_HOST", server.url())
            .stdout(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_ne!(output.status.code(), Some(99), "this test needs user namespaces and mount: {text}");
        let of = |name: &str| std::fs::read_to_string(world.home().join(name)).unwrap();
        let (code, first, second) = (of("code"), of("first"), of("second"));
        if code == "0\n" {
            break;
        }
        assert_eq!(code, "2\n", "with {room} KiB: {first}");
        let full = ["No space left on device", "Out of diskspace"]; // the second is git's
        assert!(full.iter().any(|words| first.contains(words)), "with {room} KiB: {first}");
        assert!(!first.contains("panicked"), "with {room} KiB: {first}");
        assert_eq!(output.status.code(), Some(0), "with {room} KiB: {first}\n{second}\n{text}");
        let difference = Outcome::of(&world, &server).difference(&wanted);
        assert!(difference.is_none(), "with {room} KiB: {}", difference.unwrap_or_default());
        endings.push(second.contains("resumed"));
        room += 28;
    }
    assert!(endings.len() > 6 && endings.contains(&true), "{endings:?}");
}
