//! Skills: instructions for a particular kind of work, which the model reads when it needs them.

use serde_json::json;

use crate::replay::{JSON, edit, finish, recorded, replays_without_a_difference, texts};
use crate::support::{World, call};

const RELEASE: &str =
    "---\nname: release\ndescription: How to make a release\nlicense: MIT\n---\n\nTag the commit.\n";

fn skill(name: &str, file: Option<&str>) -> String {
    call("skill", json!({"name": name, "file": file}))
}

/// Returns the tool results that the model received.
fn results(world: &World) -> String {
    let journal = world.journal();
    let results = journal.iter().filter(|r| r["event"] == "tool_finished");
    results.filter_map(|r| r["text"].as_str()).collect::<Vec<_>>().join("\n----\n")
}

fn system_prompt(world: &World) -> String {
    let journal = world.journal();
    let message = journal.iter().find(|r| r["event"] == "message" && r["role"] == "system").unwrap();
    message["content"].as_str().unwrap().to_owned()
}

#[test]
fn the_prompt_lists_skills_and_the_model_reads_one() {
    let world = World::with_a_bug();
    world.write(".agents/skills/release/SKILL.md", RELEASE);
    world.write(".agents/skills/release/tag.sh", "git tag\n");
    let own = world.home().join(".config/agent/skills/mine");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("SKILL.md"), "---\ndescription: My own\n---\nBe kind.\n").unwrap();
    let answers = [
        skill("release", None),
        skill("release", Some("tag.sh")),
        skill("mine", None),
        skill("none", None),
        edit("$1 - $2", "$1 + $2"),
        finish(),
    ];
    let output = recorded(&world, &JSON, &texts(&answers));
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let prompt = system_prompt(&world);
    assert!(prompt.contains("\n- release: How to make a release\n- mine: My own\n"), "{prompt}");
    assert!(!prompt.contains("Tag the commit"), "{prompt}");
    let results = results(&world);
    assert!(
        results.contains("Tag the commit.\n\nFiles of this skill, in .agents/skills/release: tag.sh"),
        "{results}"
    );
    assert!(results.contains("git tag") && results.contains("Be kind."), "{results}");
    let seen = world.observe(&["tools", "call", "skill", r#"{"name": "release"}"#]);
    assert!(seen.starts_with("exit 0\n") && seen.contains("Tag the commit."), "{seen}");
    // Simulate another machine, where the user's skills are missing.
    std::fs::remove_dir_all(world.home().join(".config/agent/skills")).unwrap();
    replays_without_a_difference(&world);
}

#[test]
fn without_skills_the_prompt_does_not_mention_them() {
    let world = World::with_a_bug();
    let output = recorded(&world, &JSON, &texts(&[edit("$1 - $2", "$1 + $2"), finish()]));
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert!(!system_prompt(&world).contains("skill"));
    assert!(!world.events().contains(&"external_tools".to_owned()));
}

#[test]
fn a_skill_that_leads_out_of_the_repository_is_not_read() {
    let world = World::with_a_bug();
    let secret = world.home().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("SKILL.md"), "---\ndescription: hush\n---\nhush\n").unwrap();
    world.write(".agents/skills/release/SKILL.md", RELEASE);
    std::os::unix::fs::symlink(&secret, world.repo().join(".agents/skills/link")).unwrap();
    let answers = [skill("link", None), edit("$1 - $2", "$1 + $2"), finish()];
    let output = recorded(&world, &JSON, &texts(&answers));
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let journal = format!("{:?}", world.journal());
    assert!(!journal.contains("hush"), "{journal}");
}
