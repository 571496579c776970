//! An answer without a call that is a patch.

use serde_json::{Value, json};

/// The arguments that apply the patch an answer ends with; a sentence where a patch is in it that cannot be taken so.
pub(crate) fn read(text: &str) -> Option<Result<Value, String>> {
    if let Some(patch) = patch::whole_answer(text) {
        return Some(Ok(json!({ "patch": patch })));
    }
    let why = "your answer has a patch in it that is not complete, or that is not the last thing in it, so nothing was \
               changed; send the whole patch as {\"tool\": \"apply_patch\", \"arguments\": {\"patch\": \"LINES OF THE \
               PATCH, EACH ENDING IN \\n\"}}";
    has_patch(text).then(|| Err(why.to_owned()))
}

/// Whether lines stand in a text that only a patch has.
fn has_patch(text: &str) -> bool {
    let begins = |mark: &str| text.lines().any(|line| line.trim_start().starts_with(mark));
    ["*** Begin Patch", "*** Update File:", "*** Add File:", "<<<<<<< SEARCH"].iter().any(|mark| begins(mark))
        || begins("@@ -")
        || (begins("--- ") && begins("+++ "))
}
