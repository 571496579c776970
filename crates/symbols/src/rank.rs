//! Orders files by how likely it is that a task is about them.
//!
//! The first ranking is based on two things. One is the words of the task: how many of them occur
//! in the file's path, in the names it defines, and in the names it uses. Rare words count for
//! more. The other is PageRank: how much other code uses what the file defines. A use counts most
//! if the code around it contains words from the task.
//!
//! The highest-ranked files are then read and reranked by the words in their text, including
//! comments, strings and local names.

use std::collections::HashMap;

use aho_corasick::AhoCorasick;

use crate::graph::Graph;
use crate::tags::Kind;
use crate::{Index, words};

/// The maximum number of a task's words that are used. Each word is represented by one bit.
const MAX_WORDS: usize = 64;
/// If more files than this define a name, it is unclear which of them a use refers to, so the name
/// adds no edges to the graph.
const MAX_DEFINERS: usize = 20;
/// The weights of a word in a folder's name, in a name that the file uses, and in any name that the
/// file defines. By comparison, a word in the file's own name has a weight of 1, and one in its
/// best definition has a weight of 0.5 to 1.
const FOLDER: f32 = 0.4;
const USED: f32 = 0.35;
const OTHERS: f32 = 0.4;
/// The weight of PageRank relative to the words.
const RANK: f32 = 0.3;
/// The weight of a word in the text of a file, and the number of files whose text is read.
const TEXT: f32 = 0.5;
const MAX_READ: usize = 400;

/// A file and its rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked<'a> {
    /// Its path.
    pub path: &'a str,
    /// How strongly the task points to this file.
    pub score: f32,
    /// The line, kind and name of each of its definitions, most important first.
    pub definitions: Vec<(u32, Kind, &'a str)>,
}

/// The words of the task that occur in a name.
#[derive(Debug, Clone, Copy, Default)]
struct Hits {
    mask: u64,
    /// The share of the name's words that occur in the task.
    share: f32,
}

/// The words of a task.
struct Query {
    words: Vec<String>,
    finder: Option<AhoCorasick>,
}

impl Query {
    fn new(task: &str) -> Self {
        let mut words = words::of_task(task);
        words.truncate(MAX_WORDS);
        let finder = AhoCorasick::builder().ascii_case_insensitive(true).build(&words).ok();
        Self { words, finder }
    }

    fn hits(&self, name: &str) -> Hits {
        let mut hits = Hits::default();
        // Most names contain none of the words, and splitting a name is slow.
        if self.words.is_empty() || self.finder.as_ref().is_some_and(|finder| !finder.is_match(name)) {
            return hits;
        }
        let (mut all, mut found) = (0, 0);
        words::each(name, |word| {
            all += 1;
            if let Some(n) = self.words.iter().position(|w| w == word) {
                found += 1;
                hits.mask |= 1 << n;
            }
        });
        hits.share = found as f32 / all.max(1) as f32;
        hits
    }

    /// Returns which words of the task occur in the text, even as parts of longer words.
    fn inside(&self, text: &[u8]) -> u64 {
        let all = u64::MAX >> (MAX_WORDS - self.words.len()).min(63);
        let mut mask = 0;
        for found in self.finder.iter().flat_map(|finder| finder.find_overlapping_iter(text)) {
            mask |= 1 << found.pattern().as_usize();
            if mask == all {
                break;
            }
        }
        mask
    }
}

/// The words of the task that occur in each part of a file.
struct Words {
    stem: u64,
    folders: u64,
    defined: u64,
    used: u64,
}

impl Index {
    /// Returns at most `limit` files, most likely first, each with at most `definitions`
    /// definitions. `read` returns the content of a file.
    #[must_use]
    pub fn rank(
        &self,
        task: &str,
        limit: usize,
        definitions: usize,
        read: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Vec<Ranked<'_>> {
        let query = Query::new(task);
        let hits: HashMap<u32, Hits> = self
            .names
            .iter()
            .enumerate()
            .filter_map(|(n, name)| Some((n as u32, query.hits(name))).filter(|(_, hits)| hits.mask != 0))
            .collect();
        let words: Vec<Words> = self
            .files
            .iter()
            .map(|(path, file)| {
                let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
                let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
                let of = |name: &u32| hits.get(name).map_or(0, |hits| hits.mask);
                Words {
                    stem: query.hits(stem).mask,
                    folders: query.hits(folders).mask,
                    defined: file.definitions.iter().fold(0, |mask, d| mask | of(&d.name)),
                    used: file.uses.iter().fold(0, |mask, (name, _)| mask | of(name)),
                }
            })
            .collect();
        let value = values(&words, query.words.len());
        let sum = |mask: u64| ones(mask).map(|n| value[n]).sum::<f32>();
        let best_name = |file: &crate::index::File| {
            let of = |d: &crate::index::Definition| {
                hits.get(&d.name).map_or(0.0, |hits| sum(hits.mask) * (0.5 + 0.5 * hits.share))
            };
            file.definitions.iter().map(of).fold(0.0, f32::max)
        };
        let lexical: Vec<f32> = self
            .files
            .values()
            .zip(&words)
            .map(|(file, words)| {
                best_name(file)
                    + sum(words.stem)
                    + FOLDER * sum(words.folders & !words.stem)
                    + OTHERS * sum(words.defined)
                    + USED * sum(words.used & !words.defined)
            })
            .collect();
        let most = lexical.iter().copied().fold(0.0, f32::max);
        let (graph, used) = self.graph();
        let rank = graph.rank(&lexical.iter().map(|l| l * l).collect::<Vec<_>>());
        let files = self.files.len() as f32;
        let mut order: Vec<(f32, &String, &crate::index::File)> = self
            .files
            .iter()
            .zip(lexical.iter().zip(&rank))
            .map(|((path, file), (lexical, rank))| {
                let lexical = if most > 0.0 { lexical / most } else { 0.0 };
                (lexical + RANK * (1.0 + rank * files).ln() / files.max(2.0).ln(), path, file)
            })
            .collect();
        // A file without definitions is useful only if its path contains a word of the task.
        order.retain(|(_, path, file)| !file.definitions.is_empty() || query.hits(path).mask != 0);
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        order.truncate(limit.max(MAX_READ));
        if most > 0.0 {
            for (score, path, _) in order.iter_mut().take(MAX_READ) {
                let inside = read(path).map_or(0, |text| query.inside(&text));
                *score += TEXT * sum(inside) / most;
            }
            order.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        }
        order.truncate(limit);
        let best = |file: &crate::index::File| {
            let mut scored: Vec<(f32, u32, Kind, &str)> = file
                .definitions
                .iter()
                .filter_map(|d| {
                    let name: &str = self.names.get_index(d.name as usize)?;
                    let hits = hits.get(&d.name).map_or(0.0, |h| sum(h.mask) * (0.5 + 0.5 * h.share));
                    let used = used.get(d.name as usize).copied().unwrap_or_default();
                    Some((hits + 0.2 * (1.0 + used as f32).ln(), d.line, d.kind, name))
                })
                .collect();
            scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            scored.truncate(definitions);
            scored.into_iter().map(|(_, line, kind, name)| (line, kind, name)).collect()
        };
        let ranked = order.into_iter();
        ranked.map(|(score, path, file)| Ranked { path, score, definitions: best(file) }).collect()
    }

    /// Returns the graph of files, with an edge from each file that uses a name to each file that
    /// defines it. Also returns the number of files that use each name.
    fn graph(&self) -> (Graph, Vec<u32>) {
        let mut definers: Vec<Vec<u32>> = vec![Vec::new(); self.names.len()];
        for (n, file) in self.files.values().enumerate() {
            for definition in &file.definitions {
                let Some(files) = definers.get_mut(definition.name as usize) else { continue };
                if files.last() != Some(&(n as u32)) && files.len() <= MAX_DEFINERS {
                    files.push(n as u32);
                }
            }
        }
        let mut graph = Graph::new(self.files.len());
        let mut used = vec![0; self.names.len()];
        for (n, file) in self.files.values().enumerate() {
            for (name, count) in &file.uses {
                let Some(files) = definers.get(*name as usize) else { continue };
                if files.is_empty() {
                    continue;
                }
                used[*name as usize] += 1;
                if files.len() > MAX_DEFINERS {
                    continue;
                }
                if graph.is_full() {
                    break;
                }
                let weight = (*count as f32).sqrt() / files.len() as f32;
                for to in files.iter().filter(|to| **to != n as u32) {
                    graph.add(n as u32, *to, weight);
                }
            }
        }
        (graph, used)
    }
}

/// Returns the value of each word. Rarer words have higher values.
fn values(words: &[Words], count: usize) -> Vec<f32> {
    let mut files = vec![0_u32; count];
    for words in words {
        for n in ones(words.stem | words.folders | words.defined | words.used) {
            files[n] += 1;
        }
    }
    files.into_iter().map(|n| (1.0 + words.len() as f32 / (n as f32 + 0.5)).ln()).collect()
}

/// Returns the positions of the bits that are set.
fn ones(mask: u64) -> impl Iterator<Item = usize> {
    (0..u64::BITS as usize).filter(move |n| mask & 1 << n != 0)
}
