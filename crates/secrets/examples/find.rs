//! Lists the lines in which values would be masked, for all files in the given folders, and
//! measures the throughput. Run it with `cargo run --release -p secrets --example find -- FOLDER…`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example prints and may panic")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use secrets::Secrets;

fn main() {
    let start = Instant::now();
    let _ = Secrets::new("find", Vec::new()).mask("builds the shared tables");
    let setup = start.elapsed();
    let (mut files, mut with, mut bytes, mut values, mut took) = (0u64, 0u64, 0u64, 0u64, Duration::ZERO);
    let mut todo: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    while let Some(path) = todo.pop() {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())));
            continue;
        }
        let Ok(text) = std::fs::read(&path) else { continue };
        if text.len() > 16 << 20 || text.iter().take(8_000).any(|b| *b == 0) {
            continue;
        }
        // Use a new instance for each file, so that no value is masked because another file
        // contains it.
        let secrets = Secrets::new("find", Vec::new());
        let start = Instant::now();
        let masked = secrets.mask_bytes(&text);
        took += start.elapsed();
        (files, bytes, values) =
            (files + 1, bytes + text.len() as u64, values + secrets.masked_count() as u64);
        with += u64::from(secrets.masked_count() > 0);
        let (before, after) = (text.split(|b| *b == b'\n'), masked.split(|b| *b == b'\n'));
        for (number, (before, after)) in (1..).zip(before.zip(after)).filter(|(_, (a, b))| a != b) {
            let shown =
                |line: &[u8]| String::from_utf8_lossy(line).trim().chars().take(300).collect::<String>();
            println!("{}:{number}: {}\n    {}", path.display(), shown(before), shown(after));
        }
    }
    let speed = bytes as f64 / 1e6 / took.as_secs_f64();
    println!("tables built in {} µs", setup.as_micros());
    println!("{values} values in {with} of {files} files, {:.1} MB at {speed:.0} MB/s", bytes as f64 / 1e6);
}
