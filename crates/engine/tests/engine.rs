//! Tests what the engine evaluates, generates and keeps, with a tiny model that has random weights.
//! Each fixture has its own file, so no two tests share a model.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Embedded, Options};
use futures_util::StreamExt;
use models::profile::{File, Profiles};
use models::{Answer, Delta, Error, Message, Model, Request, Role, Think, Usage, collect};

/// A model file in its own temporary folder.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny_model::write(&folder.path().join("tiny.gguf")).unwrap();
        Self { folder }
    }

    fn options(&self) -> Options {
        Options {
            file: self.folder.path().join("tiny.gguf"),
            name: String::from("tiny"),
            window: Some(4096),
            gpu_layers: 0,
            think: Think::Auto,
            profiles: Profiles::default(),
            cache: None,
            trial: Vec::new(),
        }
    }

    async fn open(&self) -> Embedded {
        Embedded::open(self.options()).await.unwrap()
    }
}

fn message(role: Role, content: &str) -> Arc<Message> {
    Message::new(role, content).into()
}

fn request(messages: &[(Role, &str)]) -> Request {
    Request {
        messages: messages.iter().map(|(role, content)| message(*role, content)).collect(),
        temperature: Some(0.0),
        max_tokens: 24,
        ..Request::default()
    }
}

async fn ask(model: &Embedded, request: &Request) -> Answer {
    collect(model.stream(request).await.unwrap()).await.unwrap()
}

/// Returns the number of prompt tokens that were evaluated rather than read from the cache.
fn evaluated(answer: &Answer) -> u64 {
    answer.end.usage.prompt_tokens.unwrap() - answer.end.usage.cached_tokens.unwrap()
}

const RULES: &str = "You are the tester of an engine. ";

#[tokio::test]
async fn an_answer_is_the_same_with_and_without_cached_prompt_tokens() {
    let fixture = Fixture::new();
    let talk = request(&[(Role::System, RULES), (Role::User, "the first question")]);
    let fresh = ask(&fixture.open().await, &talk).await;
    assert!(fresh.text.len() > 10, "{:?}", fresh.text);
    let model = fixture.open().await;
    for other in ["something else", "the first quest", "the first question and more"] {
        ask(&model, &request(&[(Role::System, RULES), (Role::User, other)])).await;
    }
    let again = ask(&model, &talk).await;
    assert_eq!(again.text, fresh.text);
    assert!(evaluated(&again) < evaluated(&fresh) / 2, "the start of the conversation should be cached");
}

#[tokio::test]
async fn a_turn_evaluates_at_most_the_added_tokens() {
    let fixture = Fixture::new();
    let model = fixture.open().await;
    let mut talk = request(&[(Role::System, RULES), (Role::User, "one")]);
    let mut before = 0;
    for turn in 0..6 {
        // Cut off every other answer in the middle, as after a complete call.
        let mut deltas = model.stream(&talk).await.unwrap();
        let (mut text, mut generated, mut prompt, mut cached) = (String::new(), 0, 0, 0);
        while let Some(delta) = deltas.next().await {
            match delta.unwrap() {
                Delta::Text(more) => text.push_str(&more),
                Delta::Usage(usage) => {
                    generated = usage.generated_tokens.unwrap();
                    (prompt, cached) = (usage.prompt_tokens.unwrap(), usage.cached_tokens.unwrap());
                }
                Delta::End(_) => break,
                _ => {}
            }
            if turn % 2 == 1 && text.len() > 9 {
                break;
            }
        }
        drop(deltas);
        if turn > 0 {
            let added = prompt - before;
            assert!(prompt - cached <= added, "turn {turn}: {} evaluated, {added} added", prompt - cached);
        }
        // The last token was sampled but not evaluated.
        before = prompt + generated - 1;
        // Cut off the answer in the middle of a token, then refuse it.
        if turn % 2 == 1 {
            text.pop();
            before -= 1;
        }
        talk.messages.push(message(Role::Assistant, &text));
        talk.messages.push(message(Role::User, "not so. again"));
    }
}

#[tokio::test]
async fn a_reader_that_stops_has_seen_every_generated_token() {
    let fixture = Fixture::new();
    let model = fixture.open().await;
    let talk = Request { max_tokens: 200, ..request(&[(Role::User, "count")]) };
    let mut deltas = model.stream(&talk).await.unwrap();
    let mut text = String::new();
    let mut generated = 0;
    while let Some(delta) = deltas.next().await {
        match delta.unwrap() {
            Delta::Text(more) => text.push_str(&more),
            Delta::Usage(usage) => generated = usage.generated_tokens.unwrap(),
            _ => {}
        }
        if text.len() > 20 {
            break;
        }
    }
    drop(deltas);
    // The continuation starts from the cached tokens. Those are all but the last one, which was
    // sampled but not evaluated.
    let mut more = talk.clone();
    more.messages.push(message(Role::Assistant, &text));
    let rest = ask(&model, &more).await;
    assert_eq!(evaluated(&rest), 1);
    assert!(generated <= text.len() as u64);
}

#[tokio::test]
async fn an_answer_is_the_same_with_and_without_guessed_tokens() {
    let fixture = Fixture::new();
    let model = fixture.open().await;
    // The engine guesses that the repetition continues. The model has random weights and mostly
    // writes something else.
    let question = "one two three four five ".repeat(5);
    let talk = Request { max_tokens: 60, ..request(&[(Role::User, &question)]) };
    let whole = ask(&model, &talk).await;
    // An answer of one token leaves no room for a guess.
    let mut text = String::new();
    while text.len() < whole.text.len() {
        let mut next = Request { max_tokens: 1, ..talk.clone() };
        next.messages.push(message(Role::Assistant, &text));
        text.push_str(&ask(&model, &next).await.text);
    }
    assert_eq!(text, whole.text);
}

#[tokio::test]
async fn right_guesses_are_evaluated_before_the_reader_asks_for_them() {
    let [fixture, other] = [Fixture::new(), Fixture::new()];
    for fixture in [&fixture, &other] {
        tiny_model::write_repeating(&fixture.options().file).unwrap();
    }
    let mut talk = Request { max_tokens: 100, ..request(&[(Role::User, "tell")]) };
    let whole = ask(&other.open().await, &talk).await.text;
    // The reader stops in the middle of the same answer.
    let model = fixture.open().await;
    let mut deltas = model.stream(&talk).await.unwrap();
    let (mut read, mut usage) = (String::new(), Usage::default());
    while read.len() < 60 {
        match deltas.next().await.unwrap().unwrap() {
            Delta::Text(more) => read.push_str(&more),
            Delta::Usage(now) => usage = now,
            _ => {}
        }
    }
    drop(deltas);
    assert!(whole.starts_with(&read), "guesses should not change the answer");
    // Without guesses, the last token that the reader has seen is never in the cache.
    talk.messages.push(message(Role::Assistant, &whole));
    let cached = ask(&model, &talk).await.end.usage.cached_tokens;
    let seen = usage.prompt_tokens.zip(usage.generated_tokens).map(|(prompt, generated)| prompt + generated);
    assert!(cached >= seen, "{cached:?} cached, {seen:?} seen");
}

#[tokio::test]
async fn branches_of_an_answer_do_not_evict_it_from_the_cache() {
    let fixture = Fixture::new();
    let model = fixture.open().await;
    let talk = Request { max_tokens: 100, ..request(&[(Role::User, "tell")]) };
    let text = ask(&model, &talk).await.text;
    // There are more branches than the cache has sequences, and the shortest branch comes first.
    for end in (5..text.len()).step_by(text.len() / 8).filter(|end| text.is_char_boundary(*end)) {
        let mut branch = Request { max_tokens: 1, ..talk.clone() };
        branch.messages.push(message(Role::Assistant, &format!("{}#", &text[..end])));
        let evaluated = evaluated(&ask(&model, &branch).await);
        assert!(evaluated <= 4, "{evaluated} evaluated for the branch at {end}");
    }
}

#[tokio::test]
async fn simultaneous_answers_are_the_same_as_sequential_ones() {
    let fixture = Fixture::new();
    let talks: Vec<Request> = ["a", "bb", "the third", "in between", "five", "and six"]
        .iter()
        .map(|text| request(&[(Role::System, RULES), (Role::User, text)]))
        .collect();
    let mut alone = Vec::new();
    for talk in &talks {
        alone.push(ask(&fixture.open().await, talk).await.text);
    }
    let model = fixture.open().await;
    let together = futures_util::future::join_all(talks.iter().map(|talk| ask(&model, talk))).await;
    let texts: Vec<String> = together.into_iter().map(|answer| answer.text).collect();
    assert_eq!(texts, alone);
}

#[tokio::test]
async fn bug_the_tokens_of_a_prompt_depended_on_a_running_answer_with_the_same_start() {
    let fixture = Fixture::new();
    let talk = |text| request(&[(Role::System, RULES), (Role::User, text)]);
    let alone = ask(&fixture.open().await, &talk("and six")).await;
    engine::close();
    let model = fixture.open().await;
    // While this answer is running, the next prompt shares its KV cells. The two prompts are
    // identical up to and including the `a`.
    let _running = model.stream(&talk("a")).await.unwrap();
    let second = ask(&model, &talk("and six")).await;
    assert_eq!(second.text, alone.text);
}

#[tokio::test]
async fn a_profile_sets_the_window_unless_the_user_asked_for_one() {
    let fixture = Fixture::new();
    let file = File::parse("mine.toml", "names = ['tiny']\n[[window]]\nvalue = 1024\nserver = 'embedded'");
    let profiles = Profiles::with(vec![file.unwrap()]);
    for (window, opened) in [(None, 1024), (Some(2048), 2048)] {
        let options = Options { window, profiles: profiles.clone(), ..fixture.options() };
        assert_eq!(Embedded::open(options).await.unwrap().identity().window, Some(opened));
    }
}

#[tokio::test]
async fn a_saved_prefix_is_not_evaluated_by_the_next_session() {
    let fixture = Fixture::new();
    let options = Options { cache: Some(fixture.folder.path().join("cache")), ..fixture.options() };
    let rules = RULES.repeat(50);
    let talk = request(&[(Role::System, &rules), (Role::User, "first")]);
    let first = ask(&Embedded::open(options.clone()).await.unwrap(), &talk).await;
    engine::close();
    let model = Embedded::open(options.clone()).await.unwrap();
    let second = ask(&model, &talk).await;
    assert_eq!(second.text, first.text);
    assert!(evaluated(&second) < 40, "{} evaluated", evaluated(&second));
    drop(model);
    engine::close();
    // A file that is not a saved state is deleted and rewritten.
    for entry in std::fs::read_dir(fixture.folder.path().join("cache/prefixes")).unwrap() {
        std::fs::write(entry.unwrap().path(), "broken").unwrap();
    }
    let third = ask(&Embedded::open(options.clone()).await.unwrap(), &talk).await;
    engine::close();
    assert_eq!((&third.text, evaluated(&third)), (&first.text, evaluated(&first)));
    let fourth = ask(&Embedded::open(options).await.unwrap(), &talk).await;
    assert!(evaluated(&fourth) < 40);
}

#[tokio::test]
async fn alternatives_to_a_token_are_reported_before_it_and_can_be_followed() {
    let fixture = Fixture::new();
    let model = fixture.open().await;
    let talk = Request { alternatives: 2, ..request(&[(Role::User, "which way")]) };
    let mut deltas = model.stream(&talk).await.unwrap();
    let mut doubt = None;
    while let Some(delta) = deltas.next().await {
        match delta.unwrap() {
            Delta::Doubt { chosen, others } => {
                assert!(
                    others.len() <= 2
                        && others.iter().all(|(text, logprob)| *text != chosen && *logprob < 0.0)
                );
                doubt = Some((chosen, others[0].0.clone()));
            }
            Delta::Text(text) => {
                let (chosen, other) = doubt.unwrap();
                assert_eq!(text, chosen);
                let mut follow = request(&[(Role::User, "which way")]);
                follow.messages.push(message(Role::Assistant, &other));
                drop(deltas);
                assert!(!ask(&model, &follow).await.text.is_empty());
                return;
            }
            _ => {}
        }
    }
    panic!("the answer ended before its first text");
}

#[tokio::test]
async fn a_prompt_larger_than_the_window_overflows_and_an_answer_ends_at_the_window() {
    let fixture = Fixture::new();
    let model = Embedded::open(Options { window: Some(512), ..fixture.options() }).await.unwrap();
    let long = request(&[(Role::User, &"x y ".repeat(400))]);
    match model.stream(&long).await.err().unwrap() {
        Error::Overflow { window, prompt_tokens, .. } => {
            assert_eq!(window, Some(512));
            assert!(prompt_tokens.unwrap() > 512);
        }
        other => panic!("{other:?}"),
    }
    let full = Request { max_tokens: 4000, ..request(&[(Role::User, "go on")]) };
    let answer = ask(&model, &full).await;
    assert_eq!(answer.end.reason, models::EndReason::Length);
    assert!(answer.end.usage.generated_tokens.unwrap() < 512);
}

#[tokio::test]
async fn a_broken_file_is_refused_in_one_sentence() {
    let fixture = Fixture::new();
    let file = fixture.folder.path().join("tiny.gguf");
    let bytes = std::fs::read(&file).unwrap();
    let broken: [(&str, Vec<u8>); 3] = [
        ("empty", Vec::new()),
        ("truncated", bytes[..bytes.len() / 2].to_vec()),
        ("other", b"PK\x03\x04".repeat(99)),
    ];
    for (what, bytes) in broken {
        std::fs::write(&file, bytes).unwrap();
        let error = open_error(&file).await;
        assert!(error.contains("tiny.gguf") && error.lines().count() == 1, "{what}: {error}");
    }
    let error = open_error(&fixture.folder.path().join("missing.gguf")).await;
    assert!(error.contains("missing.gguf"), "{error}");
}

async fn open_error(file: &Path) -> String {
    let options = Options {
        file: PathBuf::from(file),
        name: String::from("tiny"),
        window: None,
        gpu_layers: 0,
        think: Think::Auto,
        profiles: Profiles::default(),
        cache: None,
        trial: Vec::new(),
    };
    Embedded::open(options).await.err().unwrap().to_string()
}
