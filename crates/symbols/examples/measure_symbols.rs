//! Measures the index of a repository for `scripts/bench-symbols`: `measure_symbols ROOT CACHE
//! MAP_BYTES`, with one task per line on stdin, as `{"task": …, "path": …}`. Prints times and sizes
//! as one JSON object, and then the map for each task.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for development")]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use symbols::{Cache, Index, Limits, Listed, Map, Stamp};
use workspace::{CleanPath, WalkFilter, Workspace};

/// The number of edits to measure.
const EDITS: usize = 21;

fn list(workspace: &Workspace) -> Vec<Listed> {
    let filter = WalkFilter { limit: 200_000, ..WalkFilter::default() };
    let entries = workspace.walk(&filter).entries.into_iter();
    let stamp = |modified_ns, inode| Stamp { modified_ns, inode };
    entries
        .map(|e| Listed { path: e.path.to_string(), size: e.size, stamp: stamp(e.modified_ns, e.inode) })
        .collect()
}

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let result = work();
    ((begun.elapsed().as_secs_f64() * 10_000.0).round() / 10_000.0, result)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, root, folder, bytes] = arguments.as_slice() else { panic!("ROOT CACHE MAP_BYTES") };
    let workspace = Workspace::open(root).unwrap();
    let cache = Cache::new(Path::new(folder), workspace.root());
    let read = |path: &str| {
        let path = CleanPath::try_from(path.to_owned()).ok()?;
        workspace.read_bytes(&path, 1 << 20).ok()
    };
    let (limits, stop) =
        (Limits { time: Duration::from_secs(3_600), ..Limits::default() }, AtomicBool::new(false));

    let (walk, files) = seconds(|| list(&workspace));
    let mut index = Index::default();
    let (build, updated) = seconds(|| index.update(&files, &read, &limits, &stop));
    let (store, bytes_on_disk) = seconds(|| cache.store(&mut index).unwrap());
    let (load, mut index) = seconds(|| cache.load());
    let (check, _) = seconds(|| index.update(&files, &read, &limits, &stop));
    cache.store(&mut index).unwrap();

    // Each edit gives one file a new stamp and new content. The other files stay unchanged.
    let (mut edits, mut whole) = (Vec::new(), Vec::new());
    for n in 0..EDITS {
        let mut changed = files.clone();
        let at = n * files.len() / EDITS;
        changed[at].stamp.inode += 1;
        let path = changed[at].path.clone();
        let edited = |asked: &str| {
            let mut text = read(asked)?;
            if asked == path {
                text.extend(format!("\n# {n}\n").bytes());
            }
            Some(text)
        };
        changed[at].size += 4 + n.to_string().len() as u64;
        edits.push(seconds(|| index.update_one(&changed[at], &edited, &stop)).0);
        whole.push(seconds(|| cache.store(&mut index).unwrap()).0);
    }
    edits.sort_by(f64::total_cmp);
    whole.sort_by(f64::total_cmp);
    let mut maps = Vec::new();
    let mut times = Vec::new();
    for line in std::io::stdin().lines() {
        let task: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let text = |path: &str| Some(String::from_utf8_lossy(&read(path)?).into_owned());
        let (time, map) =
            seconds(|| Map::new(&index, task["task"].as_str().unwrap(), bytes.parse().unwrap(), read, text));
        times.push(time);
        maps.push(json!({"map": map.map_or(String::new(), |map| map.text)}));
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "files": index.len(), "parsed": updated.parsed, "walk_s": walk, "build_s": build, "store_s": store,
            "load_s": load, "check_s": check, "edit_ms": edits[EDITS / 2] * 1000.0,
            "store_edit_ms": whole[EDITS / 2] * 1000.0, "map_s": times.get(times.len() / 2),
            "disk_mb": bytes_on_disk as f64 / 1e6,
        })
    );
    for map in maps {
        println!("{map}");
    }
}
