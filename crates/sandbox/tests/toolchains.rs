//! Tests builds in the sandbox: toolchains and their caches are available, and changes to the
//! caches last only as long as the session.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[allow(dead_code, reason = "each test file uses a different part")]
mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sandbox::{Command, Policy, Sandbox};
use support::Fixture;

async fn says(sandbox: &Sandbox, line: &str) -> String {
    sandbox.run(Command::shell(line)).await.unwrap().output.text()
}

#[tokio::test]
async fn caches_are_readable_and_changes_to_them_are_visible_only_in_the_session() {
    let fixture = Fixture::new();
    let cache = fixture.home().join(".cargo/registry");
    fs::create_dir_all(cache.join("index")).unwrap();
    fs::write(cache.join("index/a"), "from the host\n").unwrap();
    fs::write(fixture.home().join(".cargo/credentials.toml"), "token").unwrap();
    let sandbox = fixture.on();
    assert_eq!(sandbox.probe().await.unwrap().read_only_caches, [""; 0]);
    let change = "cd $HOME/.cargo/registry && cat index/a && echo changed > index/a && mkdir new && rm -r index && echo x > y";
    assert_eq!(says(&sandbox, change).await, "from the host\n");
    assert_eq!(
        says(&sandbox, "ls $HOME/.cargo/registry").await,
        "new\ny\n",
        "the session should see its changes"
    );
    assert_eq!(fs::read_to_string(cache.join("index/a")).unwrap(), "from the host\n");
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    assert_eq!(
        says(&fixture.on(), "ls $HOME/.cargo/registry").await,
        "index\n",
        "another session should not see the changes"
    );
    assert!(!says(&sandbox, "cat $HOME/.cargo/credentials.toml").await.contains("token"));
}

#[tokio::test]
async fn a_sandbox_keeps_its_files_in_its_directory_hides_them_and_removes_them_at_the_end() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.home().join(".cache/pip/a")).unwrap();
    let session = fixture.home().join("sessions/1");
    let folder = session.join("sandbox");
    fs::create_dir_all(folder.join("tmp/of a killed run/deep")).unwrap();
    fs::set_permissions(folder.join("tmp/of a killed run"), fs::Permissions::from_mode(0o000)).unwrap();
    let sandbox = fixture.with(Policy { folder: Some(folder.clone()), ..fixture.policy() });
    let line = "ls /tmp; echo x > $HOME/.cache/pip/a/b && mkdir /tmp/locked && echo x > /tmp/locked/x && chmod 0 /tmp/locked && echo done";
    assert_eq!(says(&sandbox, line).await, "done\n");
    assert_eq!(says(&sandbox, "cat $HOME/.cache/pip/a/b; ls /tmp").await, "x\nlocked\n");
    assert!(folder.join("tmp/locked").exists() && folder.join("layers/0/upper").exists());
    let seen = says(&sandbox, &format!("ls {} || echo hidden", session.display())).await;
    assert!(seen.ends_with("hidden\n"), "{seen}");
    drop(sandbox);
    assert_eq!(fs::read_dir(session).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_that_commands_can_write_is_not_used() {
    let fixture = Fixture::new();
    let folder = fixture.root().join(".agent/sandbox");
    let sandbox = fixture.with(Policy { folder: Some(folder.clone()), ..fixture.policy() });
    assert_eq!(says(&sandbox, "echo x > /tmp/y && cat /tmp/y").await, "x\n");
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_cargo_project_builds_and_its_tests_pass_offline() {
    let fixture = Fixture::new();
    let cargo = PathBuf::from(env!("CARGO"));
    let toolchain = cargo.ancestors().nth(2).unwrap().to_owned();
    put(
        &fixture.root(),
        "Cargo.toml",
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nhelper = { path = \"helper\" }\n",
    );
    put(
        &fixture.root(),
        "helper/Cargo.toml",
        "[package]\nname = \"helper\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
    );
    put(&fixture.root(), "helper/src/lib.rs", "pub fn two() -> u32 { 2 }\n");
    put(
        &fixture.root(),
        "helper/build.rs",
        "fn main() { std::process::Command::new(\"true\").status().unwrap(); }\n",
    );
    put(
        &fixture.root(),
        "src/lib.rs",
        "#[test] fn works() { assert_eq!(helper::two(), 2); std::net::TcpListener::bind(\"127.0.0.1:0\").unwrap(); }\n",
    );
    fs::create_dir_all(fixture.home().join(".cargo/registry")).unwrap();
    let mut policy = Policy { extra_read: vec![toolchain.clone()], ..fixture.policy() };
    policy.env.retain(|(name, _)| name != "PATH" && name != "CARGO_HOME");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", toolchain.join("bin").display());
    policy.env.push(("PATH".into(), path.into()));
    let text = says(&fixture.with(policy), "cargo test 2>&1").await;
    assert!(text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn a_python_project_gets_an_environment_and_its_tests_pass() {
    let fixture = Fixture::new();
    put(&fixture.root(), "package/__init__.py", "def two():\n    return 2\n");
    put(
        &fixture.root(),
        "test_it.py",
        "import multiprocessing, package, socket, tempfile, unittest\n\
         class T(unittest.TestCase):\n    def test(self):\n        with multiprocessing.Pool(2) as pool:\n            self.assertEqual(pool.map(abs, [-1, 2]), [1, 2])\n        self.assertEqual(package.two(), 2)\n        socket.create_server(('127.0.0.1', 0))\n        tempfile.NamedTemporaryFile().write(b'x')\n",
    );
    let line = "python3 -m venv --without-pip env && env/bin/python -m unittest 2>&1";
    let text = says(&fixture.on(), line).await;
    assert!(text.ends_with("OK\n"), "{text}");
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
