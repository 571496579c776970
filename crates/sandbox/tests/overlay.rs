//! Checks that nothing done in an overlay reaches the repository. The tests run as the current user
//! and, if that is root, also as an ordinary user. On systems without overlays, they check that the
//! probe says so and that a copy can be made instead.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[allow(dead_code, reason = "each test file uses a different part")]
mod support;

mod layers;

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
    process::Command,
};

use layers::{ASK, ASK_DIR, MERGED, Setting, git, observe, put, ran_one, same, succeeds, users};
use sandbox::{Policy, Sandbox, clean_environment, overlay};
use workspace::{Baseline, Change, Expect, History, Workspace};

fn merged() -> Option<PathBuf> {
    env::var_os(MERGED).map(PathBuf::from)
}

fn sandbox(root: &Path) -> Sandbox {
    let env = clean_environment(env::vars_os(), &[]);
    Sandbox::new(Policy { env, ..Policy::new(root) }, vec![support::launcher().into()]).unwrap()
}

/// Other tests start this one to probe an overlay. On its own, it checks the probe's errors. A
/// probe works even if the directory for the changes does not exist.
#[test]
fn probe_says_why_not() {
    let launcher = [support::launcher().into_os_string()];
    if let (Some(root), Some(dir)) = (env::var_os(ASK), env::var_os(ASK_DIR)) {
        let output = overlay::probe(root.as_ref(), dir.as_ref(), &launcher);
        println!("\noverlay: {}", output.err().unwrap_or_else(|| "yes".into()));
        return;
    }
    let place = tempfile::tempdir_in(support::place()).unwrap();
    let missing = place.path().join("missing");
    let output = overlay::probe(&missing, place.path(), &launcher).unwrap_err();
    assert!(output.contains("missing: No such file"), "{output}");
    let root = place.path().join("root");
    fs::create_dir(&root).unwrap();
    let output = overlay::probe(&root, &root.join(".agent/new"), &launcher).unwrap_err();
    assert_eq!(output, "the directory for the changes is inside the repository");
    let output = overlay::probe(&root, &missing, &["/bin/true".into()]).unwrap_err();
    assert!(output.contains("launcher"), "{output}");
    let output = overlay::probe(&root, &missing, &["/nowhere/launcher".into()]).unwrap_err();
    assert!(output.contains("starting the launcher"), "{output}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "the probe should leave nothing behind");
}

#[test]
fn the_probe_reports_a_file_whose_owner_an_overlay_cannot_preserve() {
    for user in users() {
        let setting = Setting::new(user);
        let because = "which an overlay cannot preserve without root privileges";
        if user.is_some() {
            if setting.refused() {
                continue;
            }
            let file = setting.root().join("src/a.txt");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
            lchown(&file, Some(0), None).unwrap();
            let output = setting.probe().unwrap();
            assert_eq!(output, format!("src/a.txt belongs to another user or group, {because}"));
            let mut command = setting.in_overlay(&setting.root(), "/bin/sh");
            command.args(["-c", "echo x >> src/a.txt"]);
            assert!(String::from_utf8_lossy(&command.output().unwrap().stderr).contains("Value too large"));
        } else if !rustix::process::geteuid().is_root() {
            let launcher = [support::launcher().into_os_string()];
            let output = overlay::probe(Path::new("/usr"), &setting.dir(), &launcher).unwrap_err();
            assert_eq!(output, format!("/usr belongs to another user or group, {because}"));
        }
    }
}

#[test]
fn refused_user_namespaces_are_reported() {
    for user in users() {
        let setting = Setting::new(user);
        if setting.refused() {
            continue;
        }
        // Forbid more user namespaces, drop all capabilities, then probe again.
        let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-current-user", "--keep-caps", "sh", "-c", forbid, "sh"]);
        command.arg(setting.place.path().join("test")).args(["--exact", "probe_says_why_not", "--nocapture"]);
        let mut command = setting.as_user(command);
        command.env(ASK, setting.root()).env(ASK_DIR, setting.dir());
        let output = succeeds(command);
        let why = "overlay: creating a user namespace, which this user needs for an overlay: No space left on device";
        assert!(output.contains(why), "{output}");
    }
}

#[test]
fn mounts_and_nested_overlays_are_detected() {
    for user in users() {
        let setting = Setting::new(user);
        if setting.refused() {
            continue;
        }
        let ask = |root: &Path, dir: &Path| {
            let mut command = setting.inside(&setting.root(), "probe_says_why_not");
            command.env(ASK, root).env(ASK_DIR, dir);
            succeeds(command)
        };
        let above = setting.root().parent().unwrap().to_owned();
        let output = ask(&above, &setting.dir().with_extension("2"));
        let mount =
            format!("overlay: {} is a separate mount inside the repository", setting.root().display());
        assert!(output.contains(&mount), "{output}");
        let (other, in_overlay) =
            (setting.place.path().join("session/other"), setting.root().join("changes"));
        put(&other, "a", "a\n");
        setting.give();
        let output = ask(&other, &in_overlay);
        assert!(output.contains("overlay: ") && !output.contains("overlay: yes"), "{output}");
    }
}

#[test]
fn a_file_system_that_cannot_be_a_lower_layer_is_refused() {
    let place = tempfile::tempdir_in(support::place()).unwrap();
    let own = format!("/proc/{}/attr", std::process::id());
    let output = overlay::probe(Path::new(&own), place.path(), &[support::launcher().into()]).unwrap_err();
    assert!(output.starts_with("mounting the overlay: "), "{output}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn the_terminal_and_the_process_id_are_kept() {
    for user in users() {
        let setting = Setting::new(user);
        if setting.refused() {
            continue;
        }
        let quoted = |path: PathBuf| format!("'{}'", path.display());
        let paths = [setting.root(), setting.dir(), setting.root()].map(quoted).join(" ");
        // `exec` keeps the process id, so the launcher has the same id as the shell that `script`
        // started.
        let line = format!(
            "echo before $$ $(tty); exec ./launcher {paths} /bin/sh -c 'echo inside $PPID $(tty) && : < /dev/tty'"
        );
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]);
        let mut command = setting.as_user(command);
        command.current_dir(setting.place.path());
        let output = succeeds(command);
        let words = |name: &str| output.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        assert_eq!(words("before"), words("inside"), "{output}");
        assert!(words("inside").contains("/dev/pts/"), "{output}");
    }
}

#[test]
fn nothing_done_in_an_overlay_reaches_the_repository() {
    for user in users() {
        let setting = Setting::new(user);
        if setting.refused() {
            continue;
        }
        let before = observe(&setting.root());
        for merged in setting.places() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut command = setting.inside(&merged, "every_kind_of_work");
            command.env("OVERLAY_TEST_PORT", listener.local_addr().unwrap().port().to_string());
            ran_one(command);
            same(&observe(&setting.root()), &before);
            let left: Vec<_> = fs::read_dir(setting.dir()).unwrap().map(|e| e.unwrap().path()).collect();
            assert!(left.is_empty(), "{left:?}");
            assert!(merged == setting.root() || !merged.exists());
        }
    }
}

/// Changes a repository in every way that a run can: with commits, a confined command, git and
/// direct writes. The test above runs this one in overlays. On its own, it runs without an overlay
/// and shows that the same changes succeed there.
#[tokio::test]
async fn every_kind_of_work() {
    let (_setting, root) = match merged() {
        Some(root) => {
            let port = env::var("OVERLAY_TEST_PORT").unwrap().parse().unwrap();
            TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert_eq!(fs::read_to_string(root.join("ignored/installed")).unwrap(), "dependency\n");
            (None, root)
        }
        None => {
            let setting = Setting::new(None);
            let root = setting.root();
            (Some(setting), root)
        }
    };
    assert_eq!(git(&root, &["status", "--porcelain"]), " M b.txt\n?? untracked.txt\n");
    let state = tempfile::tempdir().unwrap();
    let baseline = Baseline::take(&root, &state.path().join("baseline")).unwrap();
    let ws = Workspace::open_with(&root, state.path().join("state")).unwrap();
    let path = |p: &str| ws.target(p).unwrap();
    let write = |p: &str| Change::Write {
        path: path(p),
        bytes: b"new\n".to_vec(),
        executable: None,
        expect: Expect::Any,
    };
    let rename = |from: &str, to: &str| Change::Rename {
        from: path(from),
        to: path(to),
        bytes: None,
        executable: None,
        expect: Expect::Any,
    };
    let delete = Change::Delete { path: path("b.txt"), expect: Expect::Any };
    let changes = vec![
        write("src/a.txt"),
        write("made/x.txt"),
        write("fixed.sh"),
        delete,
        rename("src/deep/c.txt", "made/c.txt"),
    ];
    ws.commit(changes).unwrap();
    assert_eq!(fs::metadata(root.join("fixed.sh")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(baseline.diff().unwrap().files.len(), 5);
    let made = History::open(&state.path().join("state")).unwrap().standing(..).unwrap();
    ws.put_back(&made).unwrap();
    assert_eq!(baseline.diff().unwrap().files.len(), 0);
    ws.commit(vec![write("src/a.txt")]).unwrap();

    let done = sandbox(&root).run(sandbox::Command::shell("set -e; git status; git log; cat src/a.txt; echo x > by-command; rm -rf src/deep ignored; mkdir -p build/out; mv link moved-link; chmod 700 fixed.sh; ! touch .git/index")).await.unwrap();
    assert!(done.status.success(), "{}", done.output.text());
    assert!(done.output.text().contains("new\n"));
    assert!(root.join("build/out").exists() && !root.join("src/deep").exists());

    git(&root, &["add", "-A"]);
    git(&root, &["commit", "-qm", "second"]);
    git(&root, &["gc", "-q", "--prune=now"]);
    git(&root, &["checkout", "-q", "-b", "other", "HEAD~1"]);
    git(&root, &["config", "a.b", "c"]);
    git(&root, &["update-index", "--refresh"]);
    fs::write(root.join("src/a.txt"), "in place\n").unwrap();
    fs::File::options().append(true).open(root.join("fixed.sh")).unwrap().set_len(0).unwrap();
    fs::set_permissions(root.join("b.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::File::open(root.join("src")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::hard_link(root.join("b.txt"), root.join("hard")).unwrap();
    fs::create_dir(root.join("closed")).unwrap();
    fs::create_dir(root.join("closed/in")).unwrap();
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    if merged().is_some() {
        fs::remove_dir_all(root.join(".git")).unwrap();
    }
}

#[test]
fn a_confined_command_reaches_the_overlay_but_not_its_layers() {
    for user in users() {
        let setting = Setting::new(user);
        if setting.refused() {
            continue;
        }
        for merged in setting.places() {
            let mut command = setting.inside(&merged, "a_command_tries_to_access_the_layers");
            command.env(ASK, setting.root()).env(ASK_DIR, setting.dir());
            ran_one(command);
        }
    }
}

/// The test above runs this one in overlays. On its own, it shows that each attempt succeeds
/// without a sandbox.
#[tokio::test]
async fn a_command_tries_to_access_the_layers() {
    let attempts = |root: &Path, dir: &Path| {
        let quoted = |p: PathBuf| format!("'{}'", p.display());
        vec![
            format!("echo x > {} && echo escaped", quoted(dir.join("upper/evil"))),
            format!("cat {} && echo escaped", quoted(dir.join("upper/written"))),
            format!("ls {} && echo escaped", quoted(dir.join("work"))),
            format!("echo x >> {} && echo escaped", quoted(root.join("b.txt"))),
            format!("umount {}; grep -q overlay /proc/mounts || echo escaped", quoted(root.to_owned())),
        ]
    };
    let Some(merged) = merged() else {
        let place = tempfile::tempdir().unwrap();
        put(place.path(), "upper/written", "");
        put(place.path(), "work/work", "");
        for line in &attempts(place.path(), place.path())[..4] {
            let output = Command::new("sh").args(["-c", line]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap().lines().last(), Some("escaped"), "{line}");
        }
        return;
    };
    let (root, dir) =
        (PathBuf::from(env::var_os(ASK).unwrap()), PathBuf::from(env::var_os(ASK_DIR).unwrap()));
    let sandbox = sandbox(&merged);
    let report = sandbox.probe().await.unwrap();
    assert!(report.enforced && report.user_namespaces, "{report:?}");
    let done = sandbox.run(sandbox::Command::shell("echo y > written && cat written b.txt")).await.unwrap();
    assert_eq!(done.output.text(), "y\nchanged before\n");
    assert_eq!(fs::read_to_string(dir.join("upper/written")).unwrap(), "y\n");
    for line in attempts(&root, &dir) {
        if merged == root && line.contains("b.txt") {
            continue; // this path leads to the file in the overlay, which the command may write to
        }
        let text = sandbox.run(sandbox::Command::shell(line.as_str())).await.unwrap().output.text();
        assert!(!text.contains("escaped"), "{line}: {text}");
    }
}

#[test]
fn git_in_an_overlay_of_a_worktree_leaves_its_repository_alone() {
    for user in users() {
        let setting = Setting::new(user);
        if setting.refused() {
            continue;
        }
        let main = setting.place.path().join("home/main");
        fs::rename(setting.root(), &main).unwrap();
        git(&main, &["worktree", "add", "-q", "-b", "tree", setting.root().to_str().unwrap()]);
        setting.give();
        let before = (observe(&main), observe(&setting.root()));
        for merged in setting.places() {
            let mut command = setting.inside(&merged, "a_worktree_is_detached");
            command.env(ASK, setting.root());
            ran_one(command);
            same(&observe(&main), &before.0);
            same(&observe(&setting.root()), &before.1);
        }
    }
}

/// The test above runs this one in overlays. On its own, it shows that a repository that is not a
/// worktree is left alone.
#[test]
fn a_worktree_is_detached() {
    let Some(merged) = merged() else {
        let setting = Setting::new(None);
        assert!(!Workspace::open(setting.root()).unwrap().detach_git(&setting.root()).unwrap());
        return;
    };
    let original = Workspace::open(env::var_os(ASK).unwrap()).unwrap();
    assert!(original.detach_git(&merged).unwrap());
    put(&merged, "b.txt", "B\n");
    assert_eq!(git(&merged, &["status", "--porcelain"]), " M b.txt\n");
    git(&merged, &["commit", "-qam", "in the overlay"]);
    git(&merged, &["gc", "-q", "--prune=now"]);
    assert_eq!(git(&merged, &["log", "--format=%s"]), "in the overlay\nfirst\n");
}

#[test]
fn an_interrupted_overlay_can_be_resumed_and_removed() {
    for user in users() {
        let setting = Setting::new(user);
        if setting.refused() {
            continue;
        }
        let shell = |line: &str| {
            let mut command = setting.in_overlay(&setting.root(), "/bin/sh");
            command.args(["-c", line]);
            command
        };
        let killed = "echo x > made; rm b.txt; mkdir -p shut/in; chmod 0 shut/in shut; kill -9 $PPID";
        let goes_on = "cat made; ls -d b.txt shut; exit 3";
        assert_eq!(shell(killed).status().unwrap().code(), None);
        assert!(!setting.root().join("made").exists() && setting.root().join("b.txt").exists());
        let output = shell(goes_on).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "x\nshut\n");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(fs::read_dir(setting.dir()).unwrap().count(), 0);
        // This time, `overlay::remove` removes the changes. Above, the resumed overlay removed them
        // when it ended.
        assert_eq!(shell(killed).status().unwrap().code(), None);
        overlay::remove(&setting.dir()).unwrap();
        assert_eq!(fs::read_dir(setting.dir()).unwrap().count(), 0);
    }
}

#[test]
fn a_multithreaded_process_cannot_enter_an_overlay() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    fs::create_dir(&root).unwrap();
    let output = overlay::enter(&root, &place.path().join("dir"), &root).unwrap_err();
    assert_eq!(output.to_string(), "an overlay can only be entered while the process has one thread");
    assert!(!place.path().join("dir").exists());
}
