//! Generates `docs/configuration.md`, so that it cannot become outdated. After changing the
//! settings, regenerate it with `WRITE_DOCS=1 cargo test -p agent --bin agent configuration`.

use std::path::Path;

use super::{DEFINITIONS, Definition, Flag, Kind, Trust};

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from crates/agent/src/settings/table.rs:
     WRITE_DOCS=1 cargo test -p agent --bin agent configuration -->

A setting can come from several places. The first one that specifies it wins:

1. a flag, such as `--max-turns 10`;
2. an environment variable, such as `AGENT_MAX_TURNS=10`;
3. `.agent.toml` in the root of the repository, such as `max_turns = 10`;
4. your own file, `~/.config/agent/config.toml`, with the same keys;
5. the default. For the settings that depend on the model (`approach`, `edit_format`, `temperature`,
   `think`, `num_ctx`, `constrain`), the default is the model's [profile](models.md#model-profiles).

`agent config show` lists every setting with its value and where it comes from.

A repository's `.agent.toml` comes from whoever wrote the repository. It may control how the work is
done, and it may lower budgets. It cannot decide where code and keys are sent, what is downloaded,
how much is spent, or what commands may do. If `.agent.toml` contains a key that a repository may
not set, the run does not start. If it raises a budget, the run prints a warning and ignores the new
value.

Environment variables for commands and tests come from `--env` and from your own file. Variables
from `--env` are added to those from the file; if both set the same variable, `--env` wins. `NAME`
alone passes on the value from your environment. The values are replaced with placeholders for the
model, in the journal and on the screen. A session records only the names. If you specified a value
on the command line (`NAME=VALUE`), pass it to `agent resume` again. `agent resume --env` adds to
the recorded names.

    agent run --env DATABASE_URL --env MODE=ci \"Fix the failing migration\"

    # ~/.config/agent/config.toml
    [env]
    DATABASE_URL = \"postgres://localhost/test\"
";

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut heading = "";
    for d in DEFINITIONS {
        if d.group.heading() != heading {
            heading = d.group.heading();
            text.push_str(&format!("\n## {heading}\n"));
        }
        text.push_str(&entry(d));
    }
    text
}

fn entry(d: &Definition) -> String {
    let code = |text: &str| format!("`{text}`");
    let (help, unset) = match d.help.split_once(" [default: ") {
        Some((help, default)) => (help, default.trim_end_matches(']')),
        None => (d.help, "unset"),
    };
    let flag = d.flag_name().map(|name| match d.flag {
        Flag::Value(value) | Flag::Each(_, value) => code(&format!("{name} {value}")),
        Flag::Optional(value, _) => code(&format!("{name}[={value}]")),
        Flag::Sets(_, value) => format!("{} (sets `{value}`)", code(&name)),
        Flag::None => code(&name),
    });
    let variables: Vec<_> = d.environment().map(|name| code(&name)).collect();
    let values = match d.kind {
        Kind::Choice(words) => words.iter().map(|word| code(word)).collect::<Vec<_>>().join(", "),
        Kind::Switch => "`true`, `false`".into(),
        Kind::Whole(min, max) if max >= u64::from(u32::MAX) => format!("an integer of at least {min}"),
        Kind::Whole(min, max) => format!("an integer from {min} to {max}"),
        Kind::Decimal(min, max) if max > 1e6 => format!("a number of at least {min}"),
        Kind::Decimal(min, max) => format!("a number from {min} to {max}"),
        Kind::Headers => "a single `Name: value`, or a list or table of headers".into(),
        Kind::Variables => "`NAME` or `NAME=VALUE`, or a list or table of variables".into(),
        Kind::Tables(tables) => format!("a list of tables; see [{0}]({0})", tables.document()),
        Kind::Text | Kind::Secret => "text".into(),
    };
    let repository = match d.trust {
        Trust::Repository => "may set it",
        Trust::RepositoryMayLower => "may lower it",
        Trust::User => "may not set it",
        Trust::Environment => "may not set it, and neither may your own file",
    };
    let or_none = |list: Vec<String>| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let subject = match d.flag {
        Flag::Sets(..) => "What the flag does: ",
        _ => "",
    };
    let sentence = if subject.is_empty() { help.to_owned() } else { help[..1].to_lowercase() + &help[1..] };
    format!(
        "\n### {key}\n\n{subject}{sentence}.\n\n- values: {values}\n- default: {default}\n- flag: {flag}\n\
         - environment: {variables}\n- the repository {repository}\n",
        key = d.key,
        default = d.default.map_or_else(|| unset.to_owned(), code),
        flag = or_none(flag.into_iter().collect()),
        variables = or_none(variables),
    )
}

#[test]
fn configuration_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, document()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap();
    assert!(
        there == document(),
        "docs/configuration.md is stale; see crates/agent/src/settings/reference.rs"
    );
}
