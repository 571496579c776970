//! Tests which tasks are read from valid task files and which problems are reported for invalid
//! ones, mostly using `fixtures/tasks`.

use std::fs;
use std::path::{Path, PathBuf};

use batch::{Task, TaskLimits, tasks};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tasks").join(name)
}

/// Makes tasks from different files comparable, since each file specifies the repository relative
/// to itself.
fn without_place(mut tasks: Vec<Task>) -> Vec<Task> {
    for task in &mut tasks {
        task.repo = fs::canonicalize(&task.repo).unwrap();
        task.named_repo = String::new();
    }
    tasks
}

#[test]
fn json_lines_support_every_key_of_a_task() {
    let tasks = tasks::read(&fixture("tasks.jsonl"), None).unwrap();
    let [calculator, scores] = tasks.as_slice() else { panic!("{tasks:?}") };
    assert_eq!(calculator.id, "calculator");
    assert!(calculator.repo.is_absolute() && calculator.repo.join("calc.py").is_file());
    assert_eq!(
        calculator.text,
        "10 - 3 - 2 gives 9 instead of 5.\nMultiplication and division in a row seem fine."
    );
    assert_eq!(calculator.verify.as_deref(), Some("python3 -m unittest"));
    let limits = TaskLimits { max_turns: Some(20), max_cost: Some(0.5), ..TaskLimits::default() };
    assert_eq!(calculator.limits, limits);
    assert_eq!((&calculator.base_commit, &calculator.model), (&None, &None));
    assert_eq!(scores.base_commit.as_deref(), Some("HEAD~1"));
    assert_eq!(scores.model.as_deref(), Some("ollama:qwen2.5-coder:7b"));
    assert_eq!((&scores.verify, scores.limits), (&None, TaskLimits::default()));
}

#[test]
fn every_format_yields_the_same_tasks() {
    let read = |name| without_place(tasks::read(&fixture(name), None).unwrap());
    let lines = read("tasks.jsonl");
    for other in ["tasks.yaml", "tasks.json", "tasks.toml", "markdown"] {
        assert_eq!(read(other), lines, "{other}");
    }
}

#[test]
fn solutions_in_swe_bench_instances_are_never_read() {
    let repos = tempfile::tempdir().unwrap();
    fs::create_dir(repos.path().join("acme__bank")).unwrap();
    fs::create_dir(repos.path().join("shop")).unwrap();
    let tasks = tasks::read(&fixture("swe_bench.jsonl"), Some(repos.path())).unwrap();
    assert!(!format!("{tasks:?}").contains("SECRET"), "{tasks:?}");
    let [bank, shop] = tasks.as_slice() else { panic!("{tasks:?}") };
    assert_eq!((bank.id.as_str(), bank.text.as_str()), ("acme__bank-17", "Deposits are subtracted."));
    assert_eq!(bank.repo, repos.path().join("acme__bank"));
    assert_eq!(bank.base_commit.as_deref(), Some("0123456789abcdef0123456789abcdef01234567"));
    assert_eq!(shop.repo, repos.path().join("shop"));
    assert_eq!((shop.verify.as_deref(), shop.limits.max_seconds), (Some("make test"), Some(600)));
}

#[test]
fn an_array_of_swe_bench_instances_is_read_like_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bank")).unwrap();
    fs::create_dir(folder.path().join("shop")).unwrap();
    let lines = fs::read_to_string(fixture("swe_bench.jsonl")).unwrap();
    let array = format!("[{}]", lines.trim().replace('\n', ",\n"));
    fs::write(folder.path().join("array.json"), array).unwrap();
    let read = |path: &Path| tasks::read(path, Some(folder.path())).unwrap();
    assert_eq!(read(&folder.path().join("array.json")), read(&fixture("swe_bench.jsonl")));
}

/// For each file in `wrong/`, the file `NAME.expected` next to it lists the expected problems.
#[test]
fn all_problems_are_reported_at_once_with_file_and_line() {
    let wrong = fixture("wrong");
    let repos = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(&wrong).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "expected") {
            continue;
        }
        let problems = tasks::read(&path, Some(repos.path())).unwrap_err();
        let place = format!("{}/", wrong.display());
        let said =
            problems.to_string().replace(&place, "").replace(&repos.path().display().to_string(), "REPOS")
                + "\n";
        let expected = PathBuf::from(format!("{}.expected", path.display()));
        assert_eq!(said, fs::read_to_string(&expected).unwrap_or_default(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 12, "{seen}");
}

#[test]
fn swe_bench_instances_without_repos_are_refused_with_the_flag_to_set() {
    let said = tasks::read(&fixture("swe_bench.jsonl"), None).unwrap_err().to_string();
    assert!(said.contains("acme/bank") && said.contains("acme/shop") && said.contains("--repos"), "{said}");
}

#[test]
fn a_byte_order_mark_and_crlf_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(fixture("markdown/calculator.md")).unwrap().replace('\n', "\r\n");
    fs::write(folder.path().join("calculator.md"), format!("\u{feff}{text}")).unwrap();
    let tasks = tasks::read(folder.path(), None).unwrap();
    assert_eq!(tasks[0].id, "calculator");
    assert_eq!(tasks[0].verify.as_deref(), Some("python3 -m unittest"));
    assert!(tasks[0].text.starts_with("10 - 3"), "{tasks:?}");
}

#[test]
fn the_digest_depends_on_every_field_except_the_folder_and_the_tags() {
    let task = tasks::read(&fixture("tasks.jsonl"), None).unwrap().remove(0);
    let digest = task.digest();
    assert_eq!(Task { repo: "/elsewhere".into(), ..task.clone() }.digest(), digest);
    let changed = [
        Task { id: "x".into(), ..task.clone() },
        Task { named_repo: "x".into(), ..task.clone() },
        Task { base_commit: Some("x".into()), ..task.clone() },
        Task { text: "x".into(), ..task.clone() },
        Task { verify: None, ..task.clone() },
        Task { limits: TaskLimits::default(), ..task.clone() },
        Task { model: Some("x".into()), ..task.clone() },
        Task { attempts: Some(2), ..task.clone() },
        Task { setup: Some("x".into()), ..task.clone() },
        Task { protected: vec!["x".into()], ..task.clone() },
    ];
    for other in changed {
        assert_ne!(other.digest(), digest, "{other:?}");
    }
    let tagged = Task { tags: vec!["x".into()], ..task.clone() };
    assert_eq!(tagged.digest(), digest, "a tag does not change the task");
}

#[test]
fn optional_keys_are_read_and_the_repository_may_be_a_url_or_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.yaml");
    let text = "- id: a\n  repo: git@example.org:shop/shop.git\n  task: do it\n  setup: make deps\n  \
                protected: [\"tests/**\"]\n  attempts: 3\n  tags: [web, slow]\n- {id: b, repo: shop.bundle, task: do it}\n";
    fs::write(&path, text).unwrap();
    let tasks = tasks::read(&path, None).unwrap();
    let a = &tasks[0];
    assert_eq!(a.repo, Path::new("git@example.org:shop/shop.git"));
    assert_eq!((a.setup.as_deref(), a.attempts), (Some("make deps"), Some(3)));
    assert_eq!(
        (&a.protected[..], &a.tags[..]),
        (&["tests/**".to_owned()][..], &["web".to_owned(), "slow".to_owned()][..])
    );
    assert_eq!(tasks[1].repo, folder.path().join("shop.bundle"));
}

#[test]
fn a_template_repeats_its_task_for_each_item_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let tasks = tasks::read(&path, None).unwrap();
        let told = |task: &Task| format!("{} {} {} {:?}", task.id, task.named_repo, task.text, task.tags);
        tasks.iter().map(told).collect::<Vec<_>>()
    };
    let expected = [r#"up-shop ../shop Update to 2. ["shop"]"#, r#"up-blog ../blog Update to 3. ["blog"]"#];
    let yaml = "- id: up-{{name}}\n  repo: ../{{name}}\n  task: Update to {{version}}.\n  tags: [\"{{name}}\"]\n  \
                for:\n    - {name: shop, version: 2}\n    - {name: blog, version: 3}\n";
    assert_eq!(read("t.yaml", yaml), expected);
    let json = r#"{"id": "up-{{name}}", "repo": "../{{name}}", "task": "Update to {{version}}.", "tags": ["{{name}}"], "for": [{"name": "shop", "version": 2}, {"name": "blog", "version": 3}]}"#;
    assert_eq!(read("t.jsonl", json), expected);
    let toml = "[[tasks]]\nid = \"up-{{name}}\"\nrepo = \"../{{name}}\"\ntask = \"Update to {{version}}.\"\ntags = [\"{{name}}\"]\n\
                for = [{ name = \"shop\", version = 2 }, { name = \"blog\", version = 3 }]\n";
    assert_eq!(read("t.toml", toml), expected);
    let markdown = "---\nid: up-{{name}}\nrepo: ../{{name}}\ntags: [\"{{name}}\"]\n\
                    for: [{name: shop, version: 2}, {name: blog, version: 3}]\n---\nUpdate to {{version}}.\n";
    assert_eq!(read("t.md", markdown), expected);
}

#[test]
fn the_repository_of_a_swe_agent_instance_is_a_url_a_path_or_a_clone() {
    let folder = tempfile::tempdir().unwrap();
    let repos = tempfile::tempdir().unwrap();
    fs::create_dir(repos.path().join("testbed")).unwrap();
    let path = folder.path().join("instances.yaml");
    let instance = |id: &str, repo: &str| {
        format!(
            "- instance_id: {id}\n  image_name: python:3.11\n  repo_name: {repo}\n  problem_statement: Fix it.\n  extra_fields: {{x: 1}}\n"
        )
    };
    let text =
        [instance("a", "https://github.com/acme/bank"), instance("b", "src/shop"), instance("c", "testbed")];
    fs::write(&path, text.concat() + "  base_commit: HEAD~1\n").unwrap();
    let tasks = tasks::read(&path, Some(repos.path())).unwrap();
    let repositories: Vec<_> = tasks.iter().map(|task| task.repo.clone()).collect();
    let expected =
        ["https://github.com/acme/bank".into(), folder.path().join("src/shop"), repos.path().join("testbed")];
    assert_eq!(repositories, expected);
    assert_eq!((tasks[0].text.as_str(), &tasks[0].base_commit), ("Fix it.", &None));
    assert_eq!(tasks[2].base_commit.as_deref(), Some("HEAD~1"));
}

#[test]
fn the_examples_for_job_schedulers_have_valid_syntax_and_a_job_for_each_shard() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let scripts =
        [("slurm.sh", "--array=0-7", "--shard auto/8"), ("hyperqueue.sh", "--array=1-8", "$HQ_TASK_ID/8")];
    for (name, array, shard) in scripts {
        let status = std::process::Command::new("bash").arg("-n").arg(folder.join(name)).status().unwrap();
        assert!(status.success(), "{name}");
        let script = fs::read_to_string(folder.join(name)).unwrap();
        assert!(script.contains(array) && script.contains(shard), "{name}");
    }
    let job = fs::read_to_string(folder.join("kubernetes-job.yaml")).unwrap();
    let job: serde_json::Value = serde_saphyr::from_str(&job).unwrap();
    assert_eq!(job["spec"]["completionMode"], "Indexed");
    let command = job["spec"]["template"]["spec"]["containers"][0]["args"][0].as_str().unwrap();
    assert!(command.contains(&format!("--shard auto/{}", job["spec"]["completions"])), "{command}");
}

/// If reading takes quadratic time, this test takes minutes.
#[test]
fn bug_large_files_were_read_in_quadratic_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.toml");
    let task = |n: usize| format!("[[tasks]]\nid = \"t{n}\"\nrepo = \".\"\ntask = \"x\"\n");
    let text: String = (0..20_000).map(task).collect();
    fs::write(&path, text + "[[tasks]]\nid = 1\n").unwrap();
    let problems = tasks::read(&path, None).unwrap_err();
    assert!(problems.0.iter().any(|problem| problem.line == 80_002), "{problems}");
    let keys: String = (0..100_000).map(|n| format!("\"k{n}\":1,")).collect();
    let path = folder.path().join("tasks.jsonl");
    fs::write(&path, format!("{{{keys}\"k0\":1}}")).unwrap();
    assert!(tasks::read(&path, None).unwrap_err().to_string().contains("duplicate key \"k0\""));
}
