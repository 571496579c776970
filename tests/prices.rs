//! The cost of a run, and the date of the prices used to compute it.

use std::process::Output;

use crate::replay::{edit, finish, replays_without_a_difference};
use crate::support::{World, json_lines};
use fake_model::{Personality, Reply, Server};
use serde_json::{Value, json};

/// A user's price file with peak hours around the clock.
const ALWAYS_PEAK: &str = "as_of = '2027-01-02'
[peak]
factor = 3.0
weekdays = [1, 2, 3, 4, 5, 6, 7]
hours = [[0, 24]]
[[model]]
names = ['deepseek-flash']
server = 'deepseek'
prompt = 100.0
cached = 100.0
generated = 200.0
";

fn write_prices(world: &World, text: &str) {
    world.write_user_settings("");
    std::fs::write(world.home().join(".config/agent/prices.toml"), text).unwrap();
}

/// Runs the agent with DeepSeek's default model.
fn run(world: &World, server: &Server, args: &[&str]) -> Output {
    let mut all = vec!["run", "--model", "deepseek", "--base-url"];
    let url = server.openai_url();
    all.push(&url);
    all.extend(args);
    all.push("Make the tests pass.");
    world.agent(&all).env("DEEPSEEK_API_KEY", "sk-0123456789abcdef").output().unwrap()
}

fn fixing() -> Server {
    let server = Server::of(Personality::Deepseek);
    for answer in [edit("$1 - $2", "$1 + $2"), finish()] {
        server.enqueue(Reply::text(answer));
    }
    server
}

/// Returns the cost of a run in dollars. The rates are in dollars per million tokens.
fn cost(totals: &Value, prompt: f64, generated: f64) -> f64 {
    let tokens = |key: &str| totals[key].as_u64().unwrap() as f64;
    (tokens("prompt_tokens") * prompt + tokens("generated_tokens") * generated) / 1e6
}

#[test]
fn the_cost_is_shown_with_the_date_of_the_prices() {
    let (world, server) = (World::with_a_bug(), fixing());
    let seen = world.tell(&run(&world, &server, &[]));
    assert!(seen.starts_with("exit 0\n") && seen.contains(" (prices as of 2026-11-15), "), "{seen}");
    for request in server.chats() {
        for field in ["tool_choice", "tools", "suffix", "prompt"] {
            assert!(request.json[field].is_null(), "DeepSeek's platform should not get {field}");
        }
    }
}

#[test]
fn the_users_prices_and_peak_times_replace_the_built_in_ones() {
    let (world, server) = (World::with_a_bug(), fixing());
    write_prices(&world, ALWAYS_PEAK);
    let output = run(&world, &server, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let events = json_lines(&String::from_utf8(output.stdout).unwrap());
    let totals = &events.last().unwrap()["totals"];
    assert_eq!(totals["prices_of"], "2027-01-02");
    let (came, wanted) = (totals["cost"].as_f64().unwrap(), cost(totals, 300.0, 600.0));
    assert!((came - wanted).abs() < 1e-9 && came > 0.1, "{came} {wanted}");
    let all = |name: &str| events.iter().filter(move |event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!(all("model")[0]["price"], json!([100.0, 100.0, 200.0]));
    assert_eq!(all("model")[0]["peak_factor"], 3.0);
    assert_eq!(all("request").iter().map(|request| &request["peak"]).collect::<Vec<_>>(), [true, true]);
    replays_without_a_difference(&world);
}

#[test]
fn a_cost_budget_counts_peak_prices_and_a_replay_of_the_run_has_no_difference() {
    let (world, server) = (World::with_a_bug(), fixing());
    write_prices(&world, ALWAYS_PEAK);
    let output = run(&world, &server, &["--max-cost", "0.01"]);
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 4\n") && seen.contains("cost budget reached"), "{seen}");
    assert_eq!(server.chats().len(), 1);
    replays_without_a_difference(&world);
}

#[test]
fn the_summary_of_a_batch_says_the_date_of_its_prices() {
    let (world, server) = (World::with_a_bug(), fixing());
    let repo = world.repo().display().to_string();
    let task = json!({"id": "one", "repo": repo, "task": "Make the tests pass.", "verify": "sh check.sh"});
    let tasks = world.home().join("tasks.jsonl");
    std::fs::write(&tasks, format!("{task}\n")).unwrap();
    let url = server.openai_url();
    let args = ["batch", tasks.to_str().unwrap(), "--model", "deepseek", "--base-url", &url];
    let output = world.agent(&args).env("DEEPSEEK_API_KEY", "sk-0123456789abcdef").output().unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 0\n") && seen.contains(" (prices as of 2026-11-15)"), "{seen}");
    let summary = std::fs::read_to_string(world.home().join("tasks.results/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["prices_of"], "2026-11-15");
}

#[test]
fn an_invalid_file_of_prices_is_refused_before_a_session_exists() {
    let (world, server) = (World::with_a_bug(), fixing());
    write_prices(&world, "as_of = '2027-01-02'\n[[model]]\nnames = ['m']\nprompt = 1\n");
    let seen = world.tell(&run(&world, &server, &[]));
    assert!(
        seen.starts_with("exit 2\n") && seen.contains("prices.toml:2: missing field `generated`"),
        "{seen}"
    );
    assert!(!world.home().join(".local/state/agent/sessions").exists());
    assert!(server.requests().is_empty());
}

#[test]
fn doctor_shows_the_prices_with_their_date_and_source() {
    let (world, server) = (World::with_a_bug(), fixing());
    let url = server.openai_url();
    let args = ["doctor", "--model", "deepseek:deepseek-v4-pro", "--base-url", &url];
    let output = world.agent(&args).env("DEEPSEEK_API_KEY", "sk-0123456789abcdef").output().unwrap();
    let seen = world.tell(&output);
    for words in [
        "$0.66 per million prompt tokens ($0.022 if cached), $1.98 per million generated tokens",
        "2x that price during peak hours",
        "as of 2026-11-15, https://api-docs.deepseek.com/quick_start/pricing, DeepSeek-V4-Pro-0813",
    ] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
}
