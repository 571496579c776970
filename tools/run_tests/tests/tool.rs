//! Tests the tool from the outside: makes calls and checks their outcomes. Real commands run in the
//! sandbox.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{fs, path::PathBuf, time::Duration};

use sandbox::{Policy, Sandbox, clean_environment};
use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::{Outcome, Registry, Status, ToolError, TypedTool};
use tool_run_tests::{Options, RunTests, detect};

struct Repository {
    dir: tempfile::TempDir,
    verify: Option<String>,
    timeout: Duration,
}

impl Repository {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let repository = Self { dir, verify: None, timeout: Duration::from_secs(60) };
        for (path, text) in files {
            let path = repository.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir_all(repository.root()).unwrap();
        repository
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    fn tool(&self) -> RunTests {
        let env = clean_environment(std::env::vars_os(), &[]);
        let launcher = vec![env!("CARGO_BIN_EXE_run_tests").into(), "__sandbox".into()];
        let sandbox = Sandbox::new(Policy { env, ..Policy::new(self.root()) }, launcher).unwrap();
        let log_dir = self.dir.path().join("logs");
        let (command, timeout, secrets) = (self.verify.clone(), self.timeout, Secrets::disabled());
        RunTests::new(sandbox, Options { command, log_dir, timeout, secrets })
    }

    async fn call(&self, arguments: Value) -> Result<Outcome, ToolError> {
        let registry = Registry::of([self.tool().into_tool()]).unwrap();
        let arguments = registry
            .accept("run_tests", &arguments)
            .map(|accepted| accepted.arguments)
            .map_err(|r| ToolError::Model(r.message))?;
        registry.call("run_tests", arguments).await
    }

    fn detected(&self) -> String {
        detect(&self.root(), "/usr/bin:/bin".as_ref()).map_or_else(|| "none".to_owned(), |c| c.display())
    }
}

const UNITTEST: &str = "\
import unittest
from shop import total

class ShopTest(unittest.TestCase):
    def test_total(self):
        self.assertEqual(total([1, 2, 3]), 6)

    def test_empty(self):
        self.assertEqual(total([]), 0)
";

fn shop(sum: &str) -> Repository {
    Repository::new(&[
        ("repo/test_shop.py", UNITTEST),
        ("repo/shop.py", &format!("def total(prices):\n    return {sum}\n")),
    ])
}

#[tokio::test]
async fn a_report_starts_with_counts_and_has_the_place_of_each_failure() {
    let repository = shop("sum(prices[1:])");
    let outcome = repository.tool().verify(None).await.unwrap().unwrap();
    let log = repository.dir.path().join("logs/tests-1.log");
    assert_eq!(
        outcome.text,
        "1 failed, 1 passed. Command: python3 -m unittest

test_shop.ShopTest.test_total
  AssertionError: 5 != 6
  test_shop.py:6: self.assertEqual(total([1, 2, 3]), 6)"
    );
    assert_eq!(outcome.facts["log"], log.to_str().unwrap());
    assert_eq!(outcome.status, Status::Failed);
    assert!(fs::read_to_string(log).unwrap().contains("Ran 2 tests"));
    assert_eq!(outcome.facts["failed"], 1);
    assert_eq!(outcome.facts["exit_code"], 1);
    assert_eq!(outcome.facts["failures"][0]["line"], 6);
}

#[tokio::test]
async fn source_lines_are_shown_only_for_places_in_the_work_tree() {
    let repository = Repository::new(&[
        ("repo/prog.c", "int main(void) {\n    assert(1 + 1 == 3);\n}\n"),
        ("secret.c", "one\ntwo\n"),
    ]);
    std::os::unix::fs::symlink("../secret.c", repository.root().join("link.c")).unwrap();
    let message = |file: &str| format!("echo \"prog: {file}:2: main: Assertion 'x' failed.\"; exit 1");
    for (file, shown) in [
        ("prog.c", "assert(1 + 1 == 3);"),
        ("link.c", "two"),
        ("../secret.c", "two"),
        ("/etc/hosts", "localhost"),
    ] {
        let text = repository.call(json!({"command": message(file)})).await.unwrap().text;
        assert_eq!(text.contains(shown), file == "prog.c", "{text}");
    }
}

#[tokio::test]
async fn the_report_of_passing_tests_is_one_line() {
    let repository = shop("sum(prices)");
    let outcome = repository.call(json!({})).await.unwrap();
    assert_eq!(outcome.text, "2 passed. Command: python3 -m unittest");
    assert_eq!(outcome.status, Status::Ok);
}

#[tokio::test]
async fn arguments_and_variables_reach_the_command() {
    let repository = shop("len(prices) * int(__import__('os').environ.get('FACTOR', '0'))");
    let outcome = repository
        .call(json!({"args": ["test_shop.ShopTest.test_total"], "env": {"FACTOR": "2"}}))
        .await
        .unwrap();
    assert_eq!(outcome.text, "1 passed. Command: python3 -m unittest test_shop.ShopTest.test_total");
}

#[tokio::test]
async fn a_single_test_can_be_named_with_unittest_discovery() {
    let files = [("repo/tests/test_shop.py", UNITTEST), ("repo/shop.py", "total = sum\n")];
    let repository = Repository::new(&files);
    assert_eq!(repository.call(json!({})).await.unwrap().facts["passed"], 2);
    for name in ["tests.test_shop.ShopTest.test_empty", "tests/test_shop.py"] {
        let outcome = repository.call(json!({"args": [name]})).await.unwrap();
        assert_eq!(
            (outcome.status, outcome.text.lines().last().unwrap().contains(name)),
            (Status::Ok, true),
            "{}",
            outcome.text
        );
    }
}

#[tokio::test]
async fn a_command_in_a_call_applies_to_that_call_only() {
    let repository = Repository { verify: Some("true".to_owned()), ..shop("0") };
    let tool = Registry::of([repository.tool().into_tool()]).unwrap();
    for command in [json!("echo one; exit 4"), json!(["sh", "-c", "exit 4"])] {
        let outcome = tool.call("run_tests", json!({ "command": command })).await.unwrap();
        assert_eq!(outcome.facts["exit_code"], 4);
    }
    let outcome = tool.call("run_tests", json!({})).await.unwrap();
    assert_eq!(outcome.text, "The test command succeeded (exit code 0). Command: true");
}

#[tokio::test]
async fn arguments_are_appended_to_a_shell_line_as_words() {
    let repository =
        Repository { verify: Some("printf '%s\\n'".to_owned()), ..Repository::new(&[("repo/a", "")]) };
    let outcome = repository.call(json!({"args": ["two words", "$HOME"]})).await.unwrap();
    let log = fs::read_to_string(repository.dir.path().join("logs/tests-1.log")).unwrap();
    assert_eq!((outcome.status, log.as_str()), (Status::Ok, "two words\n$HOME\n"));
}

#[tokio::test]
async fn the_last_lines_of_output_that_no_parser_recognizes_are_shown() {
    let verify = "seq 1 1000; echo wrong; exit 3".to_owned();
    let repository = Repository { verify: Some(verify), ..Repository::new(&[("repo/a", "")]) };
    let outcome = repository.tool().verify(None).await.unwrap().unwrap();
    assert!(
        outcome.text.starts_with("The test command failed with exit code 3. Command: seq"),
        "{}",
        outcome.text
    );
    assert!(outcome.text.contains("\n999\n1000\nwrong") && !outcome.text.contains("\n500\n"));
    assert!(outcome.text.len() < 2_500);
}

#[tokio::test]
async fn a_run_without_tests_is_no_success() {
    let repository = Repository {
        verify: Some("python3 -m unittest".to_owned()),
        ..Repository::new(&[("repo/main.py", "")])
    };
    let outcome = repository.tool().verify(None).await.unwrap().unwrap();
    assert_eq!(outcome.status, Status::Failed);
    assert!(outcome.text.starts_with("No tests ran."), "{}", outcome.text);
}

#[tokio::test]
async fn a_failing_exit_code_wins_over_the_output() {
    let repository = shop("sum(prices)");
    let outcome = repository.call(json!({"command": "python3 -m unittest; exit 2"})).await.unwrap();
    assert_eq!(outcome.status, Status::Failed);
    assert!(
        outcome.text.starts_with("2 passed, but the command failed with exit code 2."),
        "{}",
        outcome.text
    );
}

#[tokio::test]
async fn tests_that_hang_are_stopped_and_their_output_is_kept() {
    let verify = Some("echo starting; exec sleep 1000".to_owned());
    let second = Duration::from_secs(1);
    for (timeout, limit) in [(second, None), (1000 * second, Some(second))] {
        let repository = Repository { verify: verify.clone(), timeout, ..Repository::new(&[("repo/a", "")]) };
        let outcome = repository.tool().verify(limit).await.unwrap().unwrap();
        assert_eq!((outcome.status, &outcome.facts["timed_out"]), (Status::Failed, &json!(true)));
        assert!(
            outcome.text.contains("were stopped after 1 s") && outcome.text.contains("starting"),
            "{}",
            outcome.text
        );
    }
}

#[tokio::test]
async fn a_missing_runner_is_reported() {
    let repository = Repository::new(&[("repo/a", "")]);
    let outcome = repository.call(json!({"command": ["no-such-runner", "test"]})).await.unwrap();
    assert_eq!(outcome.text, "The tests did not run: cannot start no-such-runner: not installed.");
    assert_eq!(outcome.status, Status::Failed);
}

#[tokio::test]
async fn without_a_test_command_the_error_asks_for_one() {
    let repository = Repository::new(&[("repo/readme.md", "")]);
    assert_eq!(repository.tool().verify(None).await.unwrap(), None);
    let error = repository.call(json!({})).await.unwrap_err();
    assert_eq!(
        error,
        ToolError::Model("no test command found in this repository; pass one as \"command\"".into())
    );
}

#[tokio::test]
async fn wrong_arguments_are_refused_with_an_explanation() {
    let repository = shop("0");
    for arguments in [
        json!({"command": 5}),
        json!({"env": {"A": 1}}),
        json!({"test": "x"}),
        json!({"command": "rm -rf ."}),
    ] {
        assert!(matches!(repository.call(arguments).await, Err(ToolError::Model(_))));
    }
}

#[tokio::test]
async fn a_failing_sandbox_stops_the_run() {
    let repository = shop("0");
    let sandbox = Sandbox::new(Policy::new(repository.root()), vec!["/bin/false".into()]).unwrap();
    let options = Options {
        command: None,
        log_dir: repository.dir.path().into(),
        timeout: Duration::from_secs(9),
        secrets: Secrets::disabled(),
    };
    let error = RunTests::new(sandbox, options).verify(None).await.unwrap_err();
    assert!(matches!(&error, ToolError::Run(why) if why.contains("--dangerously-no-sandbox")), "{error}");
}

#[test]
fn the_test_command_is_detected_from_the_files() {
    let pytest = "python3 -m pytest -q --tb=short -p no:cacheprovider";
    let npm_script = r#"{"scripts": {"test": "vitest"}}"#;
    let no_script = r#"{"scripts": {"test": "echo \"Error: no test specified\" && exit 1"}}"#;
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("Cargo.toml", "[package]")], "cargo test --no-fail-fast"),
        (&[("go.mod", "module a")], "go test ./..."),
        (&[("package.json", npm_script)], "npm test"),
        (&[("package.json", no_script)], "none"),
        (&[("package.json", "not json")], "none"),
        (&[("package.json", r#"{"devDependencies": {"vitest": "1"}}"#)], "npx vitest run"),
        (&[("package.json", r#"{"devDependencies": {"jest": "1"}}"#)], "npx jest"),
        (&[("package.json", no_script), ("sum.test.mjs", "")], "node --test"),
        (&[("sum.test.js", "")], "node --test"),
        (&[("test/sum.js", "")], "node --test"),
        (&[("node_modules/x/sum.test.js", "")], "none"),
        (&[("pom.xml", "")], "mvn -B test"),
        (&[("pom.xml", ""), ("mvnw", "")], "./mvnw -B test"),
        (&[("build.gradle.kts", ""), ("gradlew", "")], "./gradlew --console=plain test"),
        (&[("App.sln", ""), ("App.csproj", "")], "dotnet test"),
        (
            &[("CMakeLists.txt", "enable_testing()")],
            "cmake -S . -B build && cmake --build build && ctest --test-dir build --output-on-failure",
        ),
        (&[("CMakeLists.txt", "project(a)")], "none"),
        (&[("Makefile", "all:\n\ttrue\ntest: all\n\t./t\n")], "make test"),
        (&[("Makefile", "check :\n\t./t\n")], "make check"),
        (&[("Makefile", "test := 1\ntesting:\n")], "none"),
        (&[("pyproject.toml", "[tool.pytest.ini_options]")], pytest),
        (&[("test_a.py", "import unittest\nclass A(unittest.TestCase): pass")], "python3 -m unittest"),
        (&[("test_a.py", "def test_x(): assert 1")], pytest),
        (&[("test_a.py", "import unittest"), ("test_b.py", "import pytest")], pytest),
        (&[("tests/test_a.py", "import unittest")], "python3 -m unittest discover -s tests"),
        (
            &[("tests/__init__.py", ""), ("tests/test_a.py", "import unittest")],
            "python3 -m unittest discover -s tests -t .",
        ),
        (&[("a_test.py", "import unittest")], "python3 -m unittest discover -p '*_test.py'"),
        (
            &[("pkg/deep/tests/test_a.py", "import unittest")],
            "python3 -m unittest discover -s pkg/deep/tests",
        ),
        (
            &[(".venv/bin/python", ""), ("test_a.py", "import pytest")],
            ".venv/bin/python -m pytest -q --tb=short -p no:cacheprovider",
        ),
        (&[("src/main.c", "int main;"), ("readme", "")], "none"),
    ];
    for (files, expected) in cases {
        let files: Vec<_> = files.iter().map(|(path, text)| (format!("repo/{path}"), *text)).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        assert_eq!(Repository::new(&files).detected(), *expected, "{files:?}");
    }
}

#[test]
fn hostile_files_do_not_stop_the_detection() {
    let repository = Repository::new(&[("repo/deep/readme", "")]);
    let fifo = repository.root().join("test_fifo.py");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::os::unix::fs::symlink("..", repository.root().join("deep/loop")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", repository.root().join("package.json")).unwrap();
    assert_eq!(repository.detected(), "none");
}

#[test]
fn the_schema_is_small() {
    let repository = shop("0");
    let registry = Registry::of([repository.tool().into_tool()]).unwrap();
    let spec = registry.spec("run_tests").unwrap();
    let size = spec.description.len() + spec.schema.to_string().len();
    assert!(size < 520, "{size}: {}", spec.schema);
}
