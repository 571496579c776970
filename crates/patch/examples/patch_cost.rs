//! Measures how long it takes to parse, apply and check large patches. Run
//! `cargo run --release -p patch --example patch_cost`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an interactive program")]

use std::time::Instant;

fn main() {
    let old: String = (0..100_000).map(|i| format!("    line {} of {i}\n", i % 97)).collect();
    let lines: Vec<&str> = old.lines().collect();
    let mut new = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i % 500 == 250 {
            new += &format!("    changed {i}\n    and more\n");
        } else {
            new += &format!("{line}\n");
        }
    }
    let diff = diffy::create_patch(&old, &new).to_string();
    let bare: Vec<&str> = diff.lines().map(|l| if l.starts_with("@@") { "@@" } else { l }).collect();
    let shifted: Vec<String> = bare.iter().map(|l| l.replacen("    ", "  ", 1)).collect();
    let numbers = |text: &str| {
        let begin = Instant::now();
        let patches = patch::parse(text).unwrap();
        let outcome = patch::apply(Some(old.as_bytes()), &patches[0]);
        let right = outcome.as_ref().ok().and_then(|a| a.bytes.as_deref()) == Some(new.as_bytes());
        (begin.elapsed(), patches[0].hunks.len(), outcome.map(|a| a.summary.rung).map_err(|e| e.kind), right)
    };
    println!("100,000 lines, exact: {:?}", numbers(&diff));
    println!("100,000 lines, bare @@: {:?}", numbers(&bare.join("\n")));
    println!("100,000 lines, different indentation: {:?}", numbers(&shifted.join("\n")));
    let nowhere: String = (0..25_000).map(|i| format!("-    not there {i} at all, not here {i}\n")).collect();
    println!(
        "{} bytes that match nowhere: {:?}",
        nowhere.len(),
        numbers(&format!("--- a/x\n+++ b/x\n@@\n{nowhere}"))
    );
    let blank = "\n".repeat(100_000);
    let begin = Instant::now();
    let blanks = format!("--- a/x\n+++ b/x\n@@\n{}-x\n", " \n".repeat(1000));
    let kind = patch::apply(Some(blank.as_bytes()), &patch::parse(&blanks).unwrap()[0])
        .map(|_| ())
        .map_err(|e| e.kind);
    println!("blank lines everywhere: {:?} {kind:?}", begin.elapsed());
    let begin = Instant::now();
    let blanks = format!("--- a/x\n+++ b/x\n@@\n{}+x\n{}", " \n".repeat(1000), " \n".repeat(1000));
    let kind = patch::apply(Some(blank.as_bytes()), &patch::parse(&blanks).unwrap()[0])
        .map(|_| ())
        .map_err(|e| e.kind);
    println!("ambiguous blank lines: {:?} {kind:?}", begin.elapsed());
    for (name, text) in [
        ("exact", &diff),
        (
            "25,000 new lines in one hunk",
            &format!("--- a/x\n+++ b/x\n@@\n{}{}", "     line 0 of 0\n", "+more\n".repeat(25_000)),
        ),
    ] {
        let content = old.clone().into_bytes();
        let begin = Instant::now();
        let mut watch = patch::Watch::new(None, move |_| patch::PathState::File(content.clone()));
        let stopped =
            text.as_bytes().chunks(16).any(|piece| watch.feed(&String::from_utf8_lossy(piece)).is_err());
        println!(
            "checked while streaming, {name}, {} bytes in chunks of 16: {:?}, refused: {stopped}",
            text.len(),
            begin.elapsed()
        );
    }
}
