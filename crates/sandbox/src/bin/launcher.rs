//! Just the launcher, for this crate's tests and benchmarks. With `ROOT DIR MERGED PROGRAM
//! [ARGUMENT]…`, it runs a program in an overlay.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [root, dir, merged, program, rest @ ..] = &arguments[..] else { return sandbox::launcher_main() };
    let overlay = sandbox::overlay::enter(root.as_ref(), dir.as_ref(), merged.as_ref());
    let status = overlay.and_then(|_overlay| Command::new(program).args(rest).status());
    match status {
        Ok(status) => ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(255)),
        Err(e) => {
            #[expect(clippy::print_stderr, reason = "a program, not library code")]
            {
                eprintln!("{e}");
            }
            ExitCode::from(125)
        }
    }
}
