//! The task of a run: from an argument, a file, standard input, a template or an issue.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};
use workspace::Workspace;

use crate::console;
use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::layers::read_file;

/// Maximum length of a task, in bytes. A longer task would not fit in many context windows.
pub(crate) const LIMIT: u64 = 256 * 1024;
/// Maximum size of an issue as JSON, in bytes.
const ISSUE_LIMIT: u64 = 4 << 20;
/// Maximum number of comments per issue to show to the model. If there are more, only the last ones
/// are shown.
const COMMENTS: usize = 20;
/// The folder for a repository's templates, relative to the root.
const TEMPLATES: &str = ".agents/templates";

/// The source of the task, as specified by the user.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The text on the command line; `-` means standard input.
    pub(crate) text: Option<String>,
    pub(crate) file: Option<PathBuf>,
    /// The name of a template. It is filled in from `text` and `values`, which are then `KEY=VALUE`
    /// pairs.
    pub(crate) template: Option<String>,
    pub(crate) values: Vec<String>,
    /// A file with an issue as JSON, `-` for standard input, or the URL of an issue.
    pub(crate) issue: Option<String>,
}

/// A task and its title.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) text: String,
    /// The title, on one line.
    pub(crate) title: String,
}

impl Source {
    /// Reads the task.
    ///
    /// # Errors
    /// If it cannot be read, or is empty or too long.
    pub(crate) fn read(self, context: &Context) -> Result<Task> {
        let (text, title) = match (self.template, self.issue) {
            (Some(name), _) => {
                (from_template(&name, self.text.into_iter().chain(self.values), context)?, None)
            }
            (None, Some(issue)) => {
                let issue = read_issue(&issue, context)?;
                let added = self.text.map(|text| format!("\n\n{text}")).unwrap_or_default();
                (issue.text() + &added, Some(issue.title))
            }
            (None, None) => (plain(self.text, self.file.as_deref())?, None),
        };
        if text.trim().is_empty() {
            return Err(Failure::misuse("the task is empty; describe what to do"));
        }
        if text.len() as u64 > LIMIT {
            return Err(Failure::misuse(format!("the task is longer than {} KiB", LIMIT / 1024)));
        }
        let title = title.as_ref().unwrap_or(&text).trim().lines().next().unwrap_or_default().to_owned();
        Ok(Task { title, text })
    }
}

/// Reads the task from the argument, a file or standard input.
fn plain(given: Option<String>, file: Option<&Path>) -> Result<String> {
    match given.filter(|given| file.is_none() && given != "-") {
        Some(given) => Ok(given),
        None => String::from_utf8(console::read_input("the task", file, LIMIT)?)
            .map_err(|_| Failure::misuse("the task is not UTF-8")),
    }
}

/// Fills in the template with this name: the repository's or, if it has none, the user's.
fn from_template(name: &str, values: impl Iterator<Item = String>, context: &Context) -> Result<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(Failure::misuse(format!(
            "invalid template name {name:?}: use letters, digits, `-` and `_`"
        )));
    }
    let file = format!("{name}.md");
    let user = context.environment.user_file().map(|settings| settings.with_file_name("templates"));
    let of_user = || user.as_ref().and_then(|folder| read_file(&folder.join(&file)).transpose());
    let found = of_repository(&file, context).or_else(of_user).transpose()?;
    let Some(text) = found else {
        let folders = [Some(TEMPLATES.to_owned()), user.map(|folder| folder.display().to_string())];
        let folders: Vec<_> = folders.into_iter().flatten().collect();
        return Err(Failure::misuse(format!("there is no template {file} in {}", folders.join(" or "))));
    };
    let mut variables = Map::new();
    for value in values {
        let (key, value) = value.split_once('=').ok_or_else(|| {
            Failure::misuse(format!("{value:?} is not a value for the template {name}: write KEY=VALUE"))
        })?;
        variables.insert(key.to_owned(), value.into());
    }
    batch::tasks::fill_template(&text, &variables)
        .map_err(|why| Failure::misuse(format!("cannot fill in the template {file}: {why}")))
}

/// Reads a template from the repository. Someone else may have written the template, so it must be
/// a file inside the repository, not a link to a file elsewhere.
fn of_repository(file: &str, context: &Context) -> Option<Result<String>> {
    let path = format!("{TEMPLATES}/{file}");
    let root = context.tree().ok()?;
    root.join(&path).symlink_metadata().ok()?;
    let read = || {
        let workspace = Workspace::open(root).map_err(Failure::refused)?;
        let clean = workspace.resolve(&path).map_err(Failure::misuse)?;
        let bytes = workspace.read_bytes(&clean, LIMIT).map_err(Failure::misuse)?;
        String::from_utf8(bytes).map_err(|_| Failure::misuse(format!("{path} is not UTF-8")))
    };
    Some(read())
}

/// An issue on a git host.
struct Issue {
    number: Option<u64>,
    title: String,
    body: String,
    /// Author and text of each comment.
    comments: Vec<(String, String)>,
}

impl Issue {
    /// Reads JSON from GitHub's or GitLab's command-line program or REST API.
    fn of(json: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
        let first = |keys: &[&str]| keys.iter().map(|key| &json[key]).find(|value| !value.is_null());
        let comment = |comment: &Value| {
            let author = ["author", "user"].iter().map(|key| &comment[key]);
            let author = author.flat_map(|who| [&who["login"], &who["username"]]).find_map(Value::as_str);
            (author.unwrap_or("somebody").to_owned(), text(&comment["body"]))
        };
        // GitLab also lists events such as "changed the label" as notes.
        let comments = first(&["comments", "notes", "Notes"]).and_then(Value::as_array);
        let comments = comments.into_iter().flatten().filter(|comment| comment["system"] != true);
        Some(Self {
            number: first(&["number", "iid"]).and_then(Value::as_u64),
            title: Some(text(&json["title"])).filter(|title| !title.is_empty())?,
            body: first(&["body", "description"]).map(text).unwrap_or_default(),
            comments: comments.map(comment).filter(|(_, text)| !text.is_empty()).collect(),
        })
    }

    fn text(&self) -> String {
        let number = self.number.map(|n| format!(" #{n}")).unwrap_or_default();
        let mut text = format!("Resolve issue{number}: {}", self.title);
        if !self.body.is_empty() {
            text.push_str(&format!("\n\n{}", self.body));
        }
        let omitted = self.comments.len().saturating_sub(COMMENTS);
        if omitted > 0 {
            text.push_str(&format!("\n\n({omitted} earlier comments are omitted)"));
        }
        for (author, comment) in &self.comments[omitted..] {
            text.push_str(&format!("\n\nComment by {author}:\n{comment}"));
        }
        text
    }
}

fn read_issue(from: &str, context: &Context) -> Result<Issue> {
    let bytes = if from.starts_with("https://") || from.starts_with("http://") {
        ask_host(from, context)?
    } else {
        let file = Some(Path::new(from)).filter(|_| from != "-");
        console::read_input("the issue", file, ISSUE_LIMIT)?
    };
    let wrong = |why: &str| {
        Failure::misuse(format!("cannot read the issue from {from}: {why}"))
            .hint("it must be JSON as printed by `gh issue view N --json number,title,body,comments`")
    };
    let json: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(&e.to_string()))?;
    Issue::of(&json).ok_or_else(|| wrong("it has no title"))
}

/// Runs the git host's command-line program, which uses the user's login. The agent itself does not
/// connect to git hosts.
fn ask_host(url: &str, context: &Context) -> Result<Vec<u8>> {
    let is_gitlab = url.contains("/-/");
    let (program, arguments): (_, &[&str]) = match is_gitlab {
        true => ("glab", &["issue", "view", url, "--comments", "--output", "json"]),
        false => ("gh", &["issue", "view", url, "--json", "number,title,body,comments"]),
    };
    let line = format!("{program} {}", arguments.join(" "));
    let root = context.repository.as_deref().unwrap_or(&context.directory);
    let output = Command::new(program)
        .args(arguments)
        .current_dir(&context.directory)
        .env("PATH", workspace::search_path(root)) // without folders in the repository
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            Failure::misuse(format!("cannot run `{program}` to read {url}: {e}"))
                .hint(format!("install it, or save the issue elsewhere: {line} > issue.json"))
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::misuse(format!("`{line}` failed: {}", said.trim())));
    }
    Ok(output.stdout)
}
