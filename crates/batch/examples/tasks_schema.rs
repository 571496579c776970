//! Prints the JSON Schema of a task:
//! `cargo run -p batch --example tasks_schema > crates/batch/tasks.schema.json`.
#![expect(clippy::print_stdout, reason = "printing is its purpose")]

fn main() {
    println!("{:#}", batch::tasks::schema());
}
