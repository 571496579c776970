//! Tests the index: updates, the cache, ranks and maps.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use symbols::{Cache, Index, Limits, Listed, Map, Stamp, Updated};

/// Files in memory, with a record of which ones have been read.
#[derive(Default)]
struct Files {
    texts: BTreeMap<String, (String, Stamp)>,
    read: Mutex<Vec<String>>,
}

impl Files {
    fn of(files: &[(&str, &str)]) -> Self {
        let mut all = Self::default();
        for (n, (path, text)) in files.iter().enumerate() {
            all.texts.insert((*path).into(), ((*text).into(), stamp(n as u64)));
        }
        all
    }

    fn update(&self, index: &mut Index) -> Updated {
        let listed = |(path, (text, stamp)): (&String, &(String, Stamp))| Listed {
            path: path.clone(),
            size: text.len() as u64,
            stamp: *stamp,
        };
        let listed: Vec<Listed> = self.texts.iter().map(listed).collect();
        let read = |path: &str| {
            self.read.lock().unwrap().push(path.to_owned());
            self.text(path).map(String::into_bytes)
        };
        index.update(&listed, &read, &Limits::default(), &AtomicBool::new(false))
    }

    fn text(&self, path: &str) -> Option<String> {
        self.texts.get(path).map(|(text, _)| text.clone())
    }

    fn take_read(&self) -> Vec<String> {
        let mut read = std::mem::take(&mut *self.read.lock().unwrap());
        read.sort();
        read
    }
}

/// Returns the stamp of a file that was written long ago.
fn stamp(inode: u64) -> Stamp {
    Stamp { modified_ns: 1_000_000_000, inode: inode + 1 }
}

fn example() -> Files {
    Files::of(&[
        ("a.py", "def one(): pass\n"),
        ("b.py", "def two(): one()\n"),
        ("c.py", "def three(): one(); two()\n"),
        ("notes.txt", "one two three"),
    ])
}

#[test]
fn an_update_reads_changed_files_and_parses_those_with_another_content() {
    let (mut files, mut index) = (example(), Index::default());
    assert_eq!(files.update(&mut index), Updated { parsed: 3, removed: 0, left_over: 0 });
    assert_eq!(files.take_read(), ["a.py", "b.py", "c.py"]);
    assert_eq!((files.update(&mut index).parsed, files.take_read().len()), (0, 0));
    files.texts.get_mut("a.py").unwrap().1 = stamp(77);
    files.texts.insert("b.py".into(), ("def new(): one()\n".into(), stamp(78)));
    files.texts.remove("c.py");
    assert_eq!(files.update(&mut index), Updated { parsed: 1, removed: 1, left_over: 0 });
    assert_eq!(files.take_read(), ["a.py", "b.py"]);
    assert!(index.find("two").definitions.is_empty());
    assert_eq!(index.find("one").uses, [("b.py", 1)]);
}

#[test]
fn a_file_that_was_just_written_is_read_again() {
    let (mut files, mut index) = (example(), Index::default());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    files.texts.get_mut("a.py").unwrap().1 = Stamp { modified_ns: now.as_nanos() as i64, inode: 1 };
    files.update(&mut index);
    files.take_read();
    files.update(&mut index);
    assert_eq!(files.take_read(), ["a.py"]);
}

#[test]
fn a_stored_index_is_loaded_without_reading_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path(), "/repository".as_ref());
    let (files, mut index) = (example(), Index::default());
    files.update(&mut index);
    assert!(cache.store(&mut index).unwrap() > 0);
    assert_eq!(cache.store(&mut index).unwrap(), 0, "nothing has changed since");
    files.take_read();
    let mut loaded = cache.load();
    assert_eq!(files.update(&mut loaded), Updated::default());
    assert_eq!(files.take_read(), [""; 0]);
    assert_eq!(loaded.find("one"), index.find("one"));
    let other = Cache::new(folder.path(), "/other".as_ref());
    assert!(other.load().is_empty(), "each repository has its own index");
}

#[test]
fn the_indexes_of_few_repositories_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..40 {
        let (files, mut index) = (example(), Index::default());
        files.update(&mut index);
        Cache::new(folder.path(), format!("/repository/{n}").as_ref()).store(&mut index).unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 32);
}

#[test]
fn an_update_that_is_stopped_leaves_files_over() {
    let (files, mut index) = (example(), Index::default());
    let listed = [Listed { path: "a.py".into(), size: 16, stamp: stamp(1) }];
    let read = |path: &str| files.text(path).map(String::into_bytes);
    let updated = index.update(&listed, &read, &Limits::default(), &AtomicBool::new(true));
    assert_eq!(updated, Updated { parsed: 0, removed: 0, left_over: 1 });
    assert_eq!(files.update(&mut index).parsed, 3);
}

#[test]
fn the_words_of_the_task_decide_and_otherwise_what_other_code_uses() {
    let (files, mut index) = (
        Files::of(&[
            ("core.py", "def shared(): pass\n"),
            ("colors.py", "def blend_colors(): shared()\n"),
            ("menu.py", "def open_menu(): shared()\n"),
            ("sound.py", "def play(): shared()\n"),
        ]),
        Index::default(),
    );
    files.update(&mut index);
    let content = |path: &str| files.text(path).map(String::into_bytes);
    assert_eq!(index.rank("Opening the menu fails", 4, 1, content)[0].path, "menu.py");
    assert_eq!(index.rank("blends of two colors look wrong", 4, 1, content)[0].path, "colors.py");
    assert_eq!(index.rank("Something is broken", 4, 1, content)[0].path, "core.py");
}

#[test]
fn a_map_ends_with_paths_and_fits_its_budget() {
    let names: Vec<(String, String)> = (0..100)
        .map(|n| (format!("lib/menu_{n}.py"), format!("def open_menu_{n}(item):\n    pass\n")))
        .collect();
    let listed: Vec<(&str, &str)> = names.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let (files, mut index) = (Files::of(&listed), Index::default());
    files.update(&mut index);
    for budget in [0, 10, 300, 1_000] {
        let map = Map::new(&index, "the menu", budget, |_| None, |path| files.text(path));
        let Some(map) = map else {
            assert!(budget < 100);
            continue;
        };
        assert!(map.text.len() <= budget && map.files.len() > budget / 40, "{}", map.text);
        assert!(map.text.starts_with("lib/menu_0.py\n  1: def open_menu_0(item)\n"), "{}", map.text);
        assert!(map.text.lines().last().unwrap().starts_with("lib/menu_"), "{}", map.text);
    }
}
