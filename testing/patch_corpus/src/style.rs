//! How a patch is written.

/// What stands in a hunk's `@@` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    Right,
    WrongCounts,
    NoCounts,
    Bare,
    Dots,
    Letters,
    Text,
}

/// What becomes of carriage returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returns {
    AsInTheFile,
    None,
    Everywhere,
}

/// How the model is quoted: prose and fences around the patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    Nothing,
    Prose,
    Fence,
    FenceAndProse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Text,
    Lines,
    LinesWithNewlines,
    Json,
    JsonObject,
}

#[derive(Debug, Clone)]
pub(crate) struct Style {
    pub(crate) prefixes: bool,
    pub(crate) stamps: bool,
    pub(crate) quoted: bool,
    pub(crate) git_headers: bool,
    pub(crate) section: bool,
    pub(crate) header: Header,
    /// By how much the line numbers are off.
    pub(crate) offset: isize,
    pub(crate) returns: Returns,
    /// `\ No newline at end of file`.
    pub(crate) markers: bool,
    pub(crate) bom: bool,
    pub(crate) bom_before: bool,
    pub(crate) blank_prefixes: bool,
    pub(crate) around: Around,
    /// Each hunk in a section of its own.
    pub(crate) split: bool,
    /// The `@@` line of an envelope: 0 bare, 1 right, 2 slightly wrong.
    pub(crate) landmark: usize,
    pub(crate) end_of_file: bool,
    pub(crate) begin_patch: bool,
    pub(crate) end_patch: bool,
    /// How blocks are named: 0 plain, 1 bold, 2 `File:`, 3 once only, 4 in the fence.
    pub(crate) naming: usize,
    pub(crate) long_markers: bool,
    /// Whether the texts of edits end with a newline.
    pub(crate) newline: bool,
    pub(crate) sent: Sent,
    pub(crate) last_newline: bool,
}
