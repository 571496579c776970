use std::collections::BTreeSet;

use super::*;

fn about<'a>(name: &'a str, parameters_b: Option<f32>, server: &'a str) -> About<'a> {
    About { name, parameters_b, server }
}

fn with(files: &[(&str, &str)]) -> Profiles {
    Profiles::with(files.iter().map(|(name, text)| File::parse(name, text).unwrap()).collect())
}

fn built_in(name: &str, parameters_b: Option<f32>, server: &str) -> Profile {
    Profiles::default().resolve(about(name, parameters_b, server))
}

#[test]
fn the_list_of_built_in_files_matches_the_folder() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../profiles");
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| format!("profiles/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    let listed: BTreeSet<String> = built_in::TEXTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, on_disk);
}

#[test]
fn every_built_in_file_is_valid_and_every_value_has_a_reason() {
    for (name, text) in built_in::TEXTS {
        let File { values, .. } = File::parse(name, text).unwrap();
        let Values { approach, edit_format, temperature, think, window, constrain } = &values;
        let reasons = approach.iter().map(|e| &e.reason).chain(edit_format.iter().map(|e| &e.reason));
        let reasons = reasons.chain(temperature.iter().map(|e| &e.reason));
        let reasons = reasons.chain(constrain.iter().map(|e| &e.reason));
        let reasons: Vec<_> =
            reasons.chain(think.iter().map(|e| &e.reason)).chain(window.iter().map(|e| &e.reason)).collect();
        assert!(!reasons.is_empty(), "{name} has no value");
        for reason in reasons {
            let text = reason.strip_prefix("measured: ").or_else(|| reason.strip_prefix("a guess: "));
            assert!(text.is_some_and(|text| text.len() > 10), "{name}: {reason:?}");
        }
    }
    assert_eq!(built_in::files().len(), built_in::TEXTS.len());
}

#[test]
fn models_without_their_own_profile_get_an_approach_by_size() {
    for (size, whole_files) in [(Some(1.5), true), (Some(4.0), true), (Some(7.0), false), (None, false)] {
        let profile = built_in("some-model", size, "openai");
        assert_eq!(profile.prefers_whole_files.unwrap().value, whole_files, "{size:?}");
        assert_eq!(profile.edit_format.unwrap().value, "edits");
        assert_eq!(profile.temperature.unwrap().value, 0.0);
        assert_eq!(profile.thinking_temperature.unwrap().value, 0.6);
        assert_eq!(profile.think.unwrap().value, Think::Auto);
        assert_eq!(profile.window, None, "the server decides the window");
    }
}

#[test]
fn small_models_are_constrained_only_on_the_server_where_that_was_measured() {
    let constrained = |name, size, server| built_in(name, Some(size), server).constrain.unwrap().value;
    assert!(constrained("qwen2.5-coder:1.5b", 1.5, "embedded"));
    assert!(constrained("some-model", 3.0, "embedded"));
    assert!(!constrained("qwen2.5-coder:1.5b", 1.5, "ollama"));
    assert!(!constrained("some-model", 7.0, "embedded"));
}

#[test]
fn bug_a_users_profile_constrains_even_an_unsupported_model_so_that_the_run_can_warn() {
    let describe = |profiles: Profiles, can_constrain| {
        let mut identity = Identity { can_constrain, ..Identity::default() };
        profiles.resolve(about("some-model", Some(3.0), "embedded")).describe(&mut identity);
        identity.constrained
    };
    let own = |value: &str| with(&[("a.toml", &format!("names = ['*']\n[[constrain]]\nvalue = '{value}'"))]);
    assert!(describe(Profiles::default(), true) && !describe(Profiles::default(), false));
    assert!(describe(own("on"), true) && describe(own("on"), false));
    assert!(!describe(own("off"), true));
}

#[test]
fn bug_up_to_b_includes_its_boundary_and_above_b_excludes_it() {
    for size in ["0.6", "1.7", "4", "7.1"] {
        let entry =
            |condition: &str| format!("names = ['x']\n[[constrain]]\nvalue = 'on'\n{condition} = {size}");
        let applies = |condition: &str| {
            let profiles = with(&[("a.toml", &entry(condition))]);
            profiles.resolve(about(&format!("x:{size}b"), None, "openai")).constrain.unwrap().value
        };
        assert!(applies("up_to_b"), "{size}");
        assert!(!applies("above_b"), "{size}");
    }
}

#[test]
fn the_window_depends_on_the_server() {
    assert_eq!(built_in("x", None, "ollama").window(), Some(32_768));
    assert_eq!(built_in("x", None, "embedded").window(), Some(16_384));
}

#[test]
fn only_the_measured_model_is_said_to_be_measured() {
    for name in ["qwen2.5-coder:1.5b", "Org/Qwen2.5-Coder-1.5B-Instruct-GGUF"] {
        let format = built_in(name, Some(1.5), "ollama").edit_format.unwrap();
        assert_eq!(&*format.source, "built-in profiles/qwen2.5-coder.toml");
        assert!(format.reason.starts_with("measured: ") && format.reason.contains("4 of 12"), "{format:?}");
    }
    for (name, size) in [("qwen2.5-coder:7b", 7.6), ("qwen2.5-coder:0.5b", 0.5), ("deepseek-coder:1.3b", 1.3)]
    {
        let profile = built_in(name, Some(size), "ollama");
        let format = profile.edit_format.unwrap();
        assert_eq!((&*format.value, &*format.source), ("edits", "built-in profiles/default.toml"), "{name}");
        assert!(format.reason.starts_with("a guess: "), "{name}: {format:?}");
    }
}

#[test]
fn thinking_is_off_only_where_it_is_known_to_break_a_model() {
    let think = |name, server| built_in(name, None, server).think(Think::Auto);
    assert_eq!(think("deepseek-v3.1:671b", "ollama"), Think::Off);
    assert_eq!(think("deepseek-v3.1", "vllm"), Think::Auto);
    assert_eq!(think("deepseek-r1:8b", "ollama"), Think::Auto);
    let asked = built_in("deepseek-v3.1:671b", None, "ollama").think(Think::High);
    assert_eq!(asked, Think::High, "the user's choice wins");
}

#[test]
fn the_users_files_win_and_among_them_the_file_with_the_longest_matching_name() {
    let profiles = with(&[
        ("all.toml", "names = ['*']\n[[temperature]]\nvalue = 1\n[[window]]\nvalue = 4096"),
        ("small.toml", "names = ['Qwen2.5-Coder-1.5B-Instruct-GGUF']\n[[temperature]]\nvalue = 0.3"),
        ("family.toml", "names = ['qwen2.5-coder']\n[[temperature]]\nvalue = 0.2\nmeasured = '''by\n us'''"),
    ]);
    let ask = |name| profiles.resolve(about(name, Some(1.5), "ollama"));
    let profile = ask("qwen2.5-coder:1.5b");
    let temperature = profile.temperature.unwrap();
    assert_eq!((temperature.value, &*temperature.source), (0.3, "small.toml"));
    assert_eq!((temperature.by_user, temperature.reason.as_str()), (true, ""));
    assert_eq!(profile.thinking_temperature.unwrap().value, 0.3, "also while the model thinks");
    assert_eq!(profile.window.unwrap().value, 4096);
    let format = profile.edit_format.unwrap();
    assert_eq!((&*format.source, format.by_user), ("built-in profiles/qwen2.5-coder.toml", false));
    let temperature = ask("qwen2.5-coder:7b").temperature.unwrap();
    assert_eq!((temperature.value, temperature.reason.as_str()), (0.2, "measured: by us"));
    assert_eq!(ask("llama3").temperature.unwrap().value, 1.0);
}

#[test]
fn the_last_entry_that_applies_wins_and_of_two_files_for_the_same_name_the_later() {
    let entry = "[[window]]\nvalue = 1000\n[[window]]\nvalue = 2000\nserver = 'vllm'\n[[window]]\nvalue = 3000\nabove_b = 10";
    let a = format!("names = ['x']\n{entry}");
    let profiles = with(&[("a.toml", &a)]);
    let window = |size, server| profiles.resolve(about("x", size, server)).window();
    assert_eq!(window(None, "ollama"), Some(1000), "an unknown size is not above anything");
    assert_eq!(window(Some(10.0), "vllm"), Some(2000));
    assert_eq!(window(Some(10.1), "vllm"), Some(3000));
    let profiles = with(&[("a.toml", &a), ("b.toml", "names = ['x']\n[[window]]\nvalue = 5000")]);
    assert_eq!(profiles.resolve(about("x", None, "vllm")).window(), Some(5000));
}

#[test]
fn the_error_for_a_bad_file_names_the_line_the_key_and_the_valid_values() {
    for (text, why) in [
        (
            "[[think]]\nvalue = 'on'",
            "f.toml:1: names is missing; list the models, as in names = [\"qwen3-coder\"]",
        ),
        (
            "names = ['instruct']",
            "f.toml:1: names contains \"instruct\", which is not the name of a model; write a family such as \"qwen3-coder\", or \"*\" for every model",
        ),
        (
            "names = ['x']\n[[approach]]\nvalue = 'tool'",
            "f.toml:3: value of approach must be one of tools, whole-file, not \"tool\"",
        ),
        (
            "names = ['x']\n[[temperature]]\nvalue = 2.5",
            "f.toml:3: value of temperature must be a number from 0 to 2, not 2.5",
        ),
        (
            "names = ['x']\n[[window]]\nvalue = 100",
            "f.toml:3: value of window must be an integer from 256 to 16777216, not 100",
        ),
        (
            "names = ['x']\n[[window]]\nvalue = 1000\nserver = 'olama'",
            "f.toml:4: server of window must be one of ollama, embedded, deepseek, llama-server, vllm, lm-studio, openai, not \"olama\"",
        ),
        (
            "names = ['x']\n[[think]]\nvalue = 'on'\nup_to_b = 'four'",
            "f.toml:4: up_to_b of think must be a parameter count in billions, not \"four\"",
        ),
        (
            "names = ['x']\n[[think]]\nvalue = 'on'\nthinking = true",
            "f.toml:4: think cannot depend on thinking; remove the line",
        ),
        (
            "names = ['x']\n[[think]]\nvalue = 'on'\nmeasured = 'a'\nguess = 'b'",
            "f.toml:5: think is both measured and a guess; remove one of the lines",
        ),
    ] {
        assert_eq!(File::parse("f.toml", text).unwrap_err(), why);
    }
    let unknown = File::parse("f.toml", "names = ['x']\n[[aproach]]\nvalue = 'tools'").unwrap_err();
    assert!(unknown.starts_with("f.toml:2: ") && unknown.contains("aproach"), "{unknown}");
    assert!(unknown.contains("edit_format") && !unknown.contains('\n'), "{unknown}");
    let missing = File::parse("f.toml", "names = ['x']\n[[think]]\nguess = 'x'").unwrap_err();
    assert!(missing.contains("`value`"), "{missing}");
}
