//! The launcher alone, for the tests and benchmarks of this crate; `agent` carries the same entry behind its hidden first argument.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandbox::launcher_main()
}
