//! Handles an answer that is a patch instead of a call.

use serde_json::{Value, json};
use tool_api::Parsed;

use crate::arguments::ParsedPatch;

/// A call that applies a patch, as an example for the model.
const AS_A_CALL: &str =
    "{\"tool\": \"apply_patch\", \"arguments\": {\"patch\": \"LINES OF THE PATCH, EACH ENDING IN \\n\"}}";

/// Words that suggest that the patch after them should not be applied: it may be a proposal, an
/// example, or a report of an earlier change.
const DOUBTS: &[&str] = &[
    "would",
    "could",
    "might",
    "may",
    "maybe",
    "perhaps",
    "example",
    "e.g",
    "suggest",
    "suggestion",
    "propose",
    "proposal",
    "alternative",
    "alternatively",
    "instead",
    "not",
    "cannot",
    "never",
    "without",
    "wrong",
    "previously",
    "already",
    "commit",
    "committed",
    "if you",
];

/// Returns the arguments of a call that applies the patch at the end of an answer. Returns an error
/// for the model if the patch is incomplete or not at the end, or if the answer does not clearly
/// say to apply it. Returns `None` if the answer contains no patch.
pub(crate) fn read(text: &str, parsed: &mut Parsed) -> Option<Result<Value, String>> {
    if let Some((patch, patches)) = patch::patch_in_answer(text) {
        let before = (patch.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
        if !is_doubtful(before.and_then(|end| text.get(..end)).unwrap_or_default()) {
            ParsedPatch::keep(patch.to_owned(), Ok(patches), parsed);
            return Some(Ok(json!({ "patch": patch })));
        }
        return Some(Err(format!(
            "your answer has a patch in it, but does not clearly say to apply it, so nothing was changed; to apply it, \
             send it as {AS_A_CALL}"
        )));
    }
    let why = format!(
        "your answer has a patch in it that is incomplete or not at the end, so nothing was changed; send the whole \
         patch as {AS_A_CALL}"
    );
    has_patch(text).then_some(Err(why))
}

/// Returns whether the text contains lines that occur only in patches.
fn has_patch(text: &str) -> bool {
    let begins = |mark: &str| text.lines().any(|line| line.trim_start().starts_with(mark));
    ["*** Begin Patch", "*** Update File:", "*** Add File:", "<<<<<<< SEARCH"].iter().any(|mark| begins(mark))
        || begins("@@ -")
        || (begins("--- ") && begins("+++ "))
}

/// Returns whether the text before a patch asks a question, or suggests that the patch should not
/// be applied.
fn is_doubtful(before: &str) -> bool {
    let layout = |line: &&str| !line.starts_with("```") && !line.starts_with("~~~") && !line.contains("<<");
    let prose: Vec<&str> = before.lines().map(str::trim).filter(layout).collect();
    let mut paragraphs = prose.rsplit(|line| line.is_empty()).filter(|lines| !lines.is_empty());
    let last = sentences(paragraphs.next().unwrap_or_default());
    // The question may be in the paragraph above: "Shall I apply this?", then "Here it is:".
    let above = sentences(paragraphs.next().unwrap_or_default());
    let asks = |sentence: &String| sentence.ends_with(['?', '？']);
    let doubts = |sentence: &String| {
        let words = sentence.to_lowercase().replace("n't", " not").replace("n’t", " not");
        let words: Vec<&str> = words.split(|c: char| !c.is_alphanumeric() && c != '.').collect();
        let words = words.iter().map(|word| word.trim_matches('.')).filter(|word| !word.is_empty());
        let words = format!(" {} ", words.collect::<Vec<_>>().join(" "));
        DOUBTS.iter().any(|doubt| words.contains(&format!(" {doubt} ")))
    };
    last.iter().any(asks) || above.last().is_some_and(asks) || last.last().is_some_and(doubts)
}

/// Splits a paragraph into sentences, keeping final punctuation but dropping quotes and emphasis.
fn sentences(lines: &[&str]) -> Vec<String> {
    let text = lines.join(" ");
    let mut out = vec![String::new()];
    for word in text.split_whitespace() {
        let word = word.trim_matches(['*', '_', '"', '\'', '”', '“', ')', '(', '`']);
        if let Some(sentence) = out.last_mut() {
            sentence.push_str(word);
            sentence.push(' ');
        }
        if word.ends_with(['.', '!', '?', '？', '。']) && !word.eq_ignore_ascii_case("e.g.") {
            out.push(String::new());
        }
    }
    out.into_iter()
        .map(|sentence| sentence.trim_end().to_owned())
        .filter(|sentence| !sentence.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "a.py\n<<<<<<< SEARCH\n    return 1\n=======\n    return 2\n>>>>>>> REPLACE\n";
    const DIFF: &str =
        "```diff\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n def f():\n-    return 1\n+    return 2\n```\n";

    fn read(text: &str) -> Option<Result<Value, String>> {
        super::read(text, &mut Parsed::default())
    }

    fn is_applied(prose: &str) -> bool {
        [BLOCK, DIFF].iter().all(|patch| matches!(read(&format!("{prose}{patch}")), Some(Ok(_))))
    }

    #[test]
    fn a_patch_that_an_answer_announces_is_applied() {
        for prose in [
            "",
            "I will fix it.\n\n",
            "The function does not add, it subtracts. It should add instead. I fix that:\n\n",
            "Why does it fail? The sign is wrong.\n\nI looked at both places.\n\nNow the patch:\n\n",
            "**Fix:**\n",
        ] {
            assert!(is_applied(prose), "{prose}");
        }
    }

    #[test]
    fn a_patch_that_is_only_proposed_or_shown_is_not_applied() {
        for prose in [
            "Shall I apply this?\n\n",
            "**Shall I apply this?**\n\n",
            "Should I make this change?\n\nHere it is:\n\n",
            "Is that what you want? This is the change:\n",
            "One could write:\n\n",
            "I would change it like this.\n\n",
            "For example:\n\n",
            "A fix, e.g. this one:\n\n",
            "I won't apply this:\n\n",
            "Do not do this:\n\n",
            "The last commit made this change:\n\n",
            "If you agree, this is the patch:\n\n",
        ] {
            for patch in [BLOCK, DIFF] {
                let why = read(&format!("{prose}{patch}")).unwrap().unwrap_err();
                assert!(why.contains("to apply it, send it as {\"tool\": \"apply_patch\""), "{prose}: {why}");
            }
        }
    }
}
