//! Finds skills, which are folders that contain a `SKILL.md`. Searches the repository's
//! `.agents/skills`, and the `skills` folder next to the user's settings file.

use std::path::Path;
use std::sync::Arc;

use tool_api::{Tool, TypedTool};
use tool_skill::{Place, ReadSkill};
use workspace::Workspace;

use crate::layers::Environment;

/// The folder for a repository's skills, relative to the root.
const FOLDER: &str = ".agents/skills";

/// Returns the tool that reads skills, if there are any. A skill in the repository shadows the
/// user's skill of the same name.
pub(crate) fn tool(repository: &Path, environment: &Environment) -> Option<Arc<dyn Tool>> {
    let place = |root: &Path, folder: &str| {
        root.join(folder).is_dir().then_some(())?;
        Some(Place { workspace: Workspace::open(root).ok()?, folder: folder.to_owned() })
    };
    let user = environment.user_file().map(|file| file.with_file_name("skills"));
    let places = [place(repository, FOLDER), user.and_then(|root| place(&root, ""))];
    let places: Vec<_> = places.into_iter().flatten().collect();
    Some(ReadSkill::find(&places)?.into_tool())
}
