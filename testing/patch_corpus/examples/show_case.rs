//! Shows the cases whose names contain TEXT or, if TEXT is `any/N`, the generated case number N:
//! `cargo run -p patch_corpus --example show_case TEXT [SEED]`.

use std::io::{self, Write as _};

use patch_corpus::{Expected, cases_for_seed};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let part = arguments.next().ok_or_else(|| io::Error::other("usage: show_case TEXT [SEED]"))?;
    let seed = arguments.next().and_then(|s| s.parse().ok()).unwrap_or_default();
    let mut out = io::stdout().lock();
    let one = part.strip_prefix("any/").and_then(|n| n.split('/').next()?.parse().ok());
    let cases = match one {
        Some(n) => patch_corpus::generate_case(n).into_iter().collect(),
        None => cases_for_seed(seed),
    };
    for case in cases.iter().filter(|c| one.is_some() || c.name.contains(&part)) {
        writeln!(out, "=== {} ({:?})", case.name, case.class)?;
        for (path, (bytes, _)) in case.before.iter().filter(|_| one.is_some()) {
            writeln!(out, "--- {path} before:\n{}", String::from_utf8_lossy(bytes))?;
        }
        match case.input.text() {
            Some(text) => writeln!(out, "{text}")?,
            None => writeln!(out, "{:#}", case.input.arguments())?,
        }
        if let Expected::Refused(kind) = &case.expected {
            writeln!(out, "must be refused: {}", kind.unwrap_or("for any reason"))?;
        }
    }
    Ok(())
}
