//! Prints the JSON Schema of journal records:
//! `cargo run -p journal --example event_schema > crates/journal/events.schema.json`.
#![expect(clippy::print_stdout, reason = "printing is its purpose")]

fn main() {
    println!("{:#}", journal::schema());
}
