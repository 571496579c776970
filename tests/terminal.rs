//! Output on a terminal, through a real pseudo-terminal.

use crate::support::World;

/// Runs a program on a terminal of six lines and returns its output.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 6, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    sys.stdout.buffer.write(piece)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn on_a_terminal(world: &World, args: &[&str]) -> String {
    let agent = world.agent(args);
    let output = world
        .program("python3")
        .args(["-c", ON_A_TERMINAL])
        .arg(agent.get_program())
        .args(agent.get_args())
        .env("TERM", "xterm")
        .env("AGENT_PAGER", "touch \"$HOME/paged\"; cat")
        .output()
        .unwrap();
    world.tell(&output)
}

#[test]
fn long_output_is_paged_only_on_a_terminal_and_has_no_escapes_except_colors() {
    let lines: String = (1..=30).map(|n| format!("line {n}\n")).collect();
    let world = World::with(&[("a.txt", &lines)]);
    // Clears the screen, sets the title and reverses the text direction.
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}txet";
    let edit = |n: u32| format!("@@ -{n} +{n} @@\n-line {n}\n+{evil} {n}\n");
    let patch = format!("--- a/a.txt\n+++ b/a.txt\n{}", (1..=30).map(edit).collect::<String>());
    world.write("evil.patch", &patch);
    let paged = world.home().join("paged");
    let mut plain = world.agent(&["patch", "--preview", "unified", "evil.patch"]);
    let seen = world.tell(&plain.env("AGENT_PAGER", "touch \"$HOME/paged\"; cat").output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(!paged.exists(), "no pager should start without a terminal: {seen}");
    let short = on_a_terminal(&world, &["--version"]);
    assert!(!paged.exists(), "{short}");
    let seen = on_a_terminal(&world, &["patch", "--preview", "words", "evil.patch"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(paged.exists(), "a pager should start on a terminal: {seen}");
    let mut rest = seen.as_str();
    while let Some((_, sequence)) = rest.split_once('\u{1b}') {
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        let (colours, behind) = sequence.split_at(end + 1);
        assert!(colours.starts_with('[') && colours.ends_with('m'), "{colours:?} in {seen:?}");
        rest = behind;
    }
    for hidden in ['\u{7}', '\u{9b}', '\u{202e}'] {
        assert!(!seen.contains(hidden), "{hidden:?} in {seen:?}");
    }
    assert!(seen.contains("txet"), "{seen}");
}
