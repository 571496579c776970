//! The skill tool: reads a skill, which is a folder with a `SKILL.md` that contains instructions
//! for one kind of work. Skills belong to a repository or to the user.
//!
//! The prompt lists only the names and descriptions of the skills, as part of the tool's
//! description. The model reads a skill when it needs it. The tool is available only if there are
//! skills.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Deserialize;
use tool_api::{Effect, Outcome, Spec, ToolError, TypedTool};
use workspace::Workspace;

/// The file with a skill's instructions.
const FILE: &str = "SKILL.md";
/// Maximum number of folders examined in each place.
const MAX_SKILLS: usize = 100;
/// Maximum size of a file in a skill, in bytes: about 8,000 tokens.
const MAX_BYTES: u64 = 32 << 10;
/// Maximum length of a description in the prompt, in characters.
const MAX_DESCRIPTION: usize = 200;
/// Maximum length of the list in the prompt, in bytes: about 500 tokens.
const MAX_LIST: usize = 2_000;
/// Maximum number of additional files listed for a skill.
const MAX_FILES: usize = 50;

/// A folder with skills.
#[derive(Debug, Clone)]
pub struct Place {
    /// The tree that contains the folder. Nothing outside it is read.
    pub workspace: Workspace,
    /// The path of the folder in the tree; empty for the root.
    pub folder: String,
}

impl Place {
    /// Returns the path of an entry in the folder.
    fn path(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) }
    }

    /// Reads a text file in the folder.
    fn read(&self, name: &str) -> Result<String, String> {
        let path = self.workspace.resolve(&self.path(name)).map_err(|e| e.to_string())?;
        let view = self.workspace.read_up_to(&path, MAX_BYTES).map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(view.text()).into_owned())
    }

    /// Returns the names of the entries in a subfolder.
    fn list(&self, name: &str) -> Vec<String> {
        let path = self.workspace.root().join(self.path(name));
        let names = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// The header of a `SKILL.md`.
#[derive(Debug, Default, Deserialize)]
struct Header {
    name: Option<String>,
    description: Option<String>,
}

#[derive(Debug, Clone)]
struct Skill {
    name: String,
    description: String,
    place: Place,
    /// The name of its folder.
    folder: String,
}

/// The skill tool.
#[derive(Debug, Clone)]
pub struct ReadSkill(Vec<Skill>);

/// What to read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    name: String,
    /// another file of the skill
    file: Option<String>,
}

impl ReadSkill {
    /// Creates the tool, or returns `None` if there are no skills. If several skills have the same
    /// name, the first one wins.
    #[must_use]
    pub fn find(places: &[Place]) -> Option<Self> {
        let mut names = HashSet::new();
        let skills = places.iter().flat_map(|place| {
            place.list("").into_iter().take(MAX_SKILLS).filter_map(|folder| Skill::read(place, folder))
        });
        let skills: Vec<_> =
            skills.filter(|skill| names.insert(skill.name.clone())).take(MAX_SKILLS).collect();
        (!skills.is_empty()).then_some(Self(skills))
    }

    fn names(&self) -> String {
        self.0.iter().map(|skill| skill.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn skill(&self, name: &str) -> Result<&Skill, String> {
        let found = self.0.iter().find(|skill| skill.name == name.trim());
        found.ok_or_else(|| format!("there is no skill {name:?}; the skills are {}", self.names()))
    }
}

impl Skill {
    fn read(place: &Place, folder: String) -> Option<Self> {
        // Check first, because `resolve` would search the whole tree for a missing path.
        place.workspace.root().join(place.path(&folder)).join(FILE).is_file().then_some(())?;
        let text = place.read(&format!("{folder}/{FILE}")).ok()?;
        let header: Header =
            split(&text).0.and_then(|header| serde_saphyr::from_str(header).ok()).unwrap_or_default();
        let name = one_line(header.name.as_deref().unwrap_or(&folder), MAX_DESCRIPTION);
        let description = one_line(header.description.as_deref().unwrap_or_default(), MAX_DESCRIPTION);
        (!name.is_empty()).then(|| Self { name, description, place: place.clone(), folder })
    }

    /// Returns the paths of the skill's files, except `SKILL.md`.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for name in self.place.list(&format!("{}/{folder}", self.folder)) {
                let path = format!("{folder}{name}");
                let entry = self.place.workspace.root().join(self.place.path(&self.folder)).join(&path);
                match entry.symlink_metadata() {
                    Ok(metadata) if metadata.is_dir() && files.len() < MAX_FILES => folders.push(path + "/"),
                    Ok(metadata) if metadata.is_file() && path != FILE => files.push(path),
                    _ => {}
                }
            }
        }
        files.sort();
        files.truncate(MAX_FILES);
        files
    }
}

/// Splits the text into its front matter, if it has any, and the rest.
fn split(text: &str) -> (Option<&str>, &str) {
    let after = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n"));
    let Some((header, rest)) = after.and_then(|after| after.split_once("\n---")) else { return (None, text) };
    (Some(header), rest.split_once('\n').map_or("", |(_, rest)| rest))
}

/// Returns the text as a single line without hidden characters, truncated to `length` characters.
fn one_line(text: &str, length: usize) -> String {
    preview::sanitize::short(&text.split_whitespace().collect::<Vec<_>>().join(" "), length)
}

#[async_trait::async_trait]
impl TypedTool for ReadSkill {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        let mut text =
            "Read the instructions for a kind of work, before you do such work. Skills:".to_owned();
        for (i, skill) in self.0.iter().enumerate() {
            let line = format!("\n- {}: {}", skill.name, skill.description);
            if text.len() + line.len() > MAX_LIST {
                text.push_str(&format!("\n- {} more", self.0.len() - i));
                break;
            }
            text.push_str(&line);
        }
        Spec { repeatable: true, ..Spec::of::<Arguments>("skill", text + "\nArguments", Effect::Read) }
    }

    // There is no `judge_field`, because a replay has no skills and therefore could not reproduce a
    // refusal in the middle of an answer.

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let skill = self.skill(&arguments.name).map_err(ToolError::Model)?;
        let file = arguments.file.as_deref().map(str::trim).filter(|file| !file.is_empty() && *file != FILE);
        if let Some(file) = file {
            let files = skill.files();
            if !files.iter().any(|known| known == file) {
                let files = if files.is_empty() { "none".to_owned() } else { files.join(", ") };
                let message =
                    format!("the skill {} has no file {file:?}; its files are: {files}", skill.name);
                return Err(ToolError::Model(message));
            }
            let text = skill.place.read(&format!("{}/{file}", skill.folder)).map_err(ToolError::Model)?;
            return Ok(Outcome::ok(text));
        }
        let text = skill.place.read(&format!("{}/{FILE}", skill.folder)).map_err(ToolError::Model)?;
        let mut text = split(&text).1.trim().to_owned();
        let files = skill.files();
        if !files.is_empty() {
            let folder = skill.place.path(&skill.folder);
            text.push_str(&format!("\n\nFiles of this skill, in {folder}: {}", files.join(", ")));
        }
        Ok(Outcome::ok(text))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place(files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("skills").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let workspace = Workspace::open(folder.path()).unwrap();
        (folder, Place { workspace, folder: "skills".into() })
    }

    fn call(tool: &ReadSkill, name: &str, file: Option<&str>) -> Result<String, ToolError> {
        let arguments = Arguments { name: name.into(), file: file.map(str::to_owned) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(tool.call(arguments)).map(|outcome| outcome.text)
    }

    #[test]
    fn the_description_lists_skills_and_a_call_reads_one() {
        let (_folder, place) = place(&[
            (
                "release/SKILL.md",
                "---\nname: release\ndescription: >\n  How to\n  release.\n---\n\n1. Tag it.\n",
            ),
            ("release/scripts/tag.sh", "git tag\n"),
            ("plain/SKILL.md", "No header.\n"),
            ("empty/README.md", "not a skill\n"),
        ]);
        let tool = ReadSkill::find(std::slice::from_ref(&place)).unwrap();
        let description = tool.spec().description;
        assert!(description.contains("\n- plain: \n- release: How to release.\n"), "{description}");
        let text = call(&tool, "release", None).unwrap();
        assert_eq!(text, "1. Tag it.\n\nFiles of this skill, in skills/release: scripts/tag.sh");
        assert_eq!(call(&tool, "release", Some("scripts/tag.sh")).unwrap(), "git tag\n");
        let error = call(&tool, "release", Some("../plain/SKILL.md")).unwrap_err().to_string();
        assert!(error.ends_with("its files are: scripts/tag.sh"), "{error}");
        assert!(call(&tool, "nope", None).unwrap_err().to_string().contains("plain, release"));
    }

    #[test]
    fn without_skills_there_is_no_tool() {
        let (_folder, place) = place(&[("README.md", "nothing")]);
        assert!(ReadSkill::find(&[place]).is_none());
    }

    #[test]
    fn hostile_skills_are_bounded_and_links_are_not_followed() {
        let long =
            format!("---\nname: \"a\\nb\\u202e\"\ndescription: \"{}\"\n---\nx\n", "word\\n".repeat(5_000));
        let many: Vec<_> = (0..300).map(|i| format!("s{i}/SKILL.md")).collect();
        let mut files: Vec<(&str, &str)> = many.iter().map(|path| (path.as_str(), long.as_str())).collect();
        files.push(("broken/SKILL.md", "---\nname: [\n---\n"));
        let huge = "x".repeat(1 << 20);
        files.push(("huge/SKILL.md", &huge));
        let (folder, place) = place(&files);
        let secret = tempfile::tempdir().unwrap();
        fs::write(secret.path().join("SKILL.md"), "secret").unwrap();
        fs::write(secret.path().join("key"), "secret").unwrap();
        let skills = folder.path().join("skills");
        std::os::unix::fs::symlink(secret.path(), skills.join("link")).unwrap();
        std::os::unix::fs::symlink(secret.path().join("key"), skills.join("broken/key")).unwrap();
        let tool = ReadSkill::find(&[place]).unwrap();
        assert!(
            !tool.names().contains('\u{202e}') && tool.names().starts_with("broken, a b"),
            "{}",
            tool.names()
        );
        assert!(tool.spec().description.len() < MAX_LIST + 200);
        assert!(call(&tool, "broken", Some("key")).unwrap_err().to_string().contains("its files are: none"));
    }
}
