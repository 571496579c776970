//! The style in which a patch is written.

/// The content of a hunk's `@@` line.
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

/// Which lines have carriage returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returns {
    AsInTheFile,
    None,
    Everywhere,
}

/// The prose and fences around the patch.
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
    /// The error to add to the line numbers.
    pub(crate) offset: isize,
    pub(crate) returns: Returns,
    /// Whether to write `\ No newline at end of file`.
    pub(crate) markers: bool,
    pub(crate) bom: bool,
    pub(crate) bom_before: bool,
    pub(crate) blank_prefixes: bool,
    pub(crate) around: Around,
    /// Whether the file header is repeated before each hunk.
    pub(crate) split: bool,
    /// The text after `@@` in an envelope: 0 for none, 1 for a line of the file, 2 for an inexact
    /// copy of that line.
    pub(crate) landmark: usize,
    pub(crate) end_of_file: bool,
    pub(crate) begin_patch: bool,
    pub(crate) end_patch: bool,
    /// How blocks name the file: 0 in plain text, 1 in bold, 2 after `File:`, 3 only above the
    /// first block, 4 above the fence of each block.
    pub(crate) naming: usize,
    pub(crate) long_markers: bool,
    /// Whether the strings in a list of edits end with a newline.
    pub(crate) newline: bool,
    pub(crate) sent: Sent,
    pub(crate) last_newline: bool,
}
