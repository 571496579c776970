//! Selects and orders the tasks that an invocation runs. Pure: the result depends only on the
//! selection and the tasks.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};
use sha2::{Digest as _, Sha256};

use crate::task::Task;

/// A selection of tasks. The default selects all tasks in file order, but groups tasks from the
/// same repository so that they can reuse the server's prefix cache.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Keeps the tasks that match at least one filter, or all tasks if there are no filters.
    pub filters: Vec<Filter>,
    /// Shuffles the tasks with this seed instead of grouping them by repository.
    pub shuffle: Option<u64>,
    /// Keeps a range of the remaining tasks.
    pub slice: Option<Slice>,
    /// Selects one shard of the remaining tasks.
    pub shard: Option<Shard>,
}

impl Selection {
    /// Returns the selected tasks in the order they should run. The fields apply in declaration
    /// order, so a slice of shuffled tasks is a random sample.
    #[must_use]
    pub fn of(&self, mut tasks: Vec<Task>) -> Vec<Task> {
        tasks.retain(|task| self.filters.is_empty() || self.filters.iter().any(|f| f.matches(task)));
        if let Some(seed) = self.shuffle {
            tasks.sort_by_cached_key(|task| rank(seed, &task.id));
        }
        if let Some(Slice { start, end }) = self.slice {
            tasks.truncate(end.unwrap_or(usize::MAX));
            tasks.drain(..start.min(tasks.len()));
        }
        if let Some(Shard { index, count }) = self.shard {
            tasks = tasks.into_iter().skip(index).step_by(count.max(1)).collect();
        }
        if self.shuffle.is_none() { by_repository(tasks) } else { tasks }
    }
}

/// Returns the sort key of a task for a shuffle with this seed. The key does not depend on the
/// other tasks, so adding a task to the file does not change the order of the others.
fn rank(seed: u64, id: &str) -> [u8; 32] {
    Sha256::new().chain_update(seed.to_le_bytes()).chain_update(id).finalize().into()
}

fn by_repository(tasks: Vec<Task>) -> Vec<Task> {
    let mut first: HashMap<PathBuf, usize> = HashMap::new();
    let place = |(at, task): (usize, Task)| (*first.entry(task.repo.clone()).or_insert(at), task);
    let mut placed: Vec<(usize, Task)> = tasks.into_iter().enumerate().map(place).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, task)| task).collect()
}

/// A pattern for ids, or for tags if it starts with `tag:`. `*` matches any text, and `?` matches
/// one character.
#[derive(Debug, Clone)]
pub struct Filter {
    of_tags: bool,
    pattern: GlobMatcher,
}

impl Filter {
    fn matches(&self, task: &Task) -> bool {
        if self.of_tags {
            task.tags.iter().any(|tag| self.pattern.is_match(tag))
        } else {
            self.pattern.is_match(&task.id)
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let tag = text.strip_prefix("tag:");
        let glob = Glob::new(tag.unwrap_or(text)).map_err(|e| e.kind().to_string())?;
        Ok(Self { of_tags: tag.is_some(), pattern: glob.compile_matcher() })
    }
}

/// A range of tasks. Positions are 0-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// The position of the first task.
    pub start: usize,
    /// The position just past the last task; `None` selects all tasks from `start` on.
    pub end: Option<usize>,
}

impl FromStr for Slice {
    type Err = String;

    /// Parses `A:B`, `A:` or `:B`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |text: &str| text.parse::<usize>().map_err(|_| format!("{text:?} is not a whole number"));
        let (start, end) = text.split_once(':').ok_or("is not of the form A:B")?;
        let start = if start.is_empty() { 0 } else { number(start)? };
        let end = if end.is_empty() { None } else { Some(number(end)?) };
        match end {
            Some(end) if end <= start => {
                Err(format!("contains no tasks, because {end} is not greater than {start}"))
            }
            _ => Ok(Self { start, end }),
        }
    }
}

/// One of the parts that a list is divided into. Neighboring items go to different parts, so that
/// all parts take about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Returns the part with this 0-based index.
    ///
    /// # Errors
    /// If `index` is not less than `count`.
    pub fn new(index: usize, count: usize) -> Result<Self, String> {
        if index < count {
            Ok(Self { index, count })
        } else {
            Err(format!("there is no part {} of {count}", index + 1))
        }
    }
}

impl FromStr for Shard {
    type Err = String;

    /// Parses `I/N`, with I from 1 to N.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(part, count)| Some((part.parse().ok()?, count.parse().ok()?)));
        let (part, count): (usize, usize) =
            parts.ok_or_else(|| format!("{text:?} is not of the form I/N"))?;
        Self::new(part.checked_sub(1).ok_or("parts are numbered from 1")?, count)
    }
}

/// Formats the shard as the name of its results folder, such as `shard-1-of-2`.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard-{}-of-{}", self.index + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(ids_and_repos: &[(&str, &str)]) -> Vec<Task> {
        let task =
            |(id, repo): &(&str, &str)| Task { id: (*id).into(), repo: repo.into(), ..Task::default() };
        ids_and_repos.iter().map(task).collect()
    }

    fn ids(selection: &Selection, tasks: Vec<Task>) -> String {
        selection.of(tasks).into_iter().map(|task| task.id).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tasks_of_one_repository_follow_each_other_in_the_order_of_the_file() {
        let tasks = tasks(&[("a", "x"), ("b", "y"), ("c", "x"), ("d", "z"), ("e", "y"), ("f", "x")]);
        assert_eq!(ids(&Selection::default(), tasks), "a c f b e d");
    }

    #[test]
    fn a_filter_matches_whole_ids_or_tags_and_a_task_need_match_only_one_filter() {
        let mut tasks =
            tasks(&[("django-1", "x"), ("django-22", "x"), ("flask-1", "x"), ("old-django-1", "x")]);
        tasks[2].tags = vec!["slow".into(), "web".into()];
        let select = |filters: &[&str]| {
            let filters = filters.iter().map(|filter| filter.parse().unwrap()).collect();
            ids(&Selection { filters, ..Selection::default() }, tasks.clone())
        };
        assert_eq!(select(&["django-*"]), "django-1 django-22");
        assert_eq!(select(&["django-?"]), "django-1");
        assert_eq!(select(&["tag:slow"]), "flask-1");
        assert_eq!(select(&["tag:w*", "*-22"]), "django-22 flask-1");
        assert_eq!(select(&["tag:django-1"]), "");
        assert!("[".parse::<Filter>().is_err());
    }

    #[test]
    fn a_slice_counts_from_zero_and_excludes_its_end() {
        let select = |slice: &str| {
            let slice = Some(slice.parse().unwrap());
            ids(&Selection { slice, ..Selection::default() }, tasks(&[("a", "x"), ("b", "x"), ("c", "x")]))
        };
        assert_eq!([select("0:2"), select("1:"), select(":1"), select("1:2")], ["a b", "b c", "a", "b"]);
        assert_eq!([select("2:9"), select("7:9")], ["c", ""]);
        for wrong in ["3", "a:b", "2:2", "3:1", "-1:2"] {
            assert!(wrong.parse::<Slice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_shuffled_order_depends_on_the_seed_and_a_new_task_does_not_change_it() {
        let names: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        let shuffled = |seed, count| {
            ids(&Selection { shuffle: Some(seed), ..Selection::default() }, tasks(&pairs[..count]))
        };
        assert_eq!(shuffled(1, 20), shuffled(1, 20));
        assert_ne!(shuffled(1, 20), shuffled(2, 20));
        assert_ne!(shuffled(1, 20), pairs.iter().map(|(id, _)| *id).collect::<Vec<_>>().join(" "));
        let without_last = shuffled(1, 20).split(' ').filter(|id| *id != "t19").collect::<Vec<_>>().join(" ");
        assert_eq!(shuffled(1, 19), without_last);
    }

    #[test]
    fn a_slice_of_shuffled_tasks_is_a_random_sample() {
        let all = tasks(&[("a", "x"), ("b", "x"), ("c", "x"), ("d", "x"), ("e", "x")]);
        let slice = Some(Slice { start: 0, end: Some(2) });
        let shuffled = ids(&Selection { shuffle: Some(3), ..Selection::default() }, all.clone());
        let sample = ids(&Selection { shuffle: Some(3), slice, ..Selection::default() }, all);
        assert!(shuffled.starts_with(&sample) && sample.len() == 3, "{shuffled}: {sample}");
    }

    #[test]
    fn shards_are_disjoint_and_together_contain_all_tasks() {
        let all = tasks(&[("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "x")]);
        let part = |shard: &str| {
            ids(&Selection { shard: Some(shard.parse().unwrap()), ..Selection::default() }, all.clone())
        };
        assert_eq!([part("1/2"), part("2/2")], ["a c e", "b d"]);
        assert_eq!([part("1/3"), part("2/3"), part("3/3")], ["a d", "b e", "c"]);
        assert_eq!([part("5/9"), part("9/9")], ["e", ""]);
        for wrong in ["0/2", "3/2", "1", "1/0", "a/b", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert_eq!(Shard::new(0, 2).unwrap().to_string(), "shard-1-of-2");
    }
}
