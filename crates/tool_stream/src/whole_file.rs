//! Whole-file mode: reads the content of a fence line by line, up to the closing fence.

use memchr::memchr;

use crate::fence::Fence;
use crate::window::Window;

/// A file being read.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) fence: Fence,
    /// Index of the call.
    pub(crate) call: usize,
    /// Offset of the line being read.
    line: usize,
    /// Offset up to which the current line has been searched for its end.
    searched: usize,
    /// Number of fences that are open inside the file.
    nested: usize,
}

/// The result of reading more bytes.
pub(crate) enum Outcome {
    More,
    /// The content ends at `content_end`, and the closing fence ends at `end`.
    Closed {
        content_end: usize,
        end: usize,
    },
}

impl File {
    pub(crate) fn new(fence: Fence, call: usize) -> File {
        let line = fence.content;
        File { fence, call, line, searched: line, nested: 0 }
    }

    /// Returns the offset up to which the file has been read.
    pub(crate) fn read_upto(&self) -> usize {
        self.searched
    }

    pub(crate) fn run(&mut self, win: Window<'_>, ended_by_itself: bool) -> Outcome {
        loop {
            let line_end = match memchr(b'\n', win.from(self.searched)) {
                Some(hit) => self.searched + hit,
                // The last line may be the closing fence even without a newline.
                None if win.eof && ended_by_itself => win.end(),
                None => {
                    self.searched = win.end();
                    return Outcome::More;
                }
            };
            let line = win.slice(self.line, line_end);
            let run = line.iter().take_while(|b| **b == self.fence.byte).count();
            if run >= self.fence.len {
                let bare = line[run..].iter().all(u8::is_ascii_whitespace);
                match (bare, self.nested) {
                    (true, 0) => return Outcome::Closed { content_end: self.line, end: self.line + run },
                    (true, _) => self.nested -= 1,
                    // A labeled fence begins inside the file, as in Markdown or doc comments.
                    (false, _) if !line[run..].contains(&self.fence.byte) => self.nested += 1,
                    _ => {}
                }
            }
            if line_end == win.end() {
                return Outcome::More;
            }
            self.line = line_end + 1;
            self.searched = self.line;
        }
    }
}
