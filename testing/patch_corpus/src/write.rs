//! Writes a draft as a patch in the draft's form. The draft's style determines which mistakes in
//! notation the patch contains.

use serde_json::json;

use crate::{
    Edit, Form, Input,
    base::Base,
    edit::{FileEdit, Line, Mark},
    hunk::{Hunk, hunks},
    style::{Around, Header, Returns, Sent, Style},
    text::End,
};

/// The hunks and the style that a patch is written from.
#[derive(Debug, Clone)]
pub(crate) struct Draft<'a> {
    pub(crate) base: &'a Base,
    pub(crate) form: Form,
    /// The hunks of each file edit.
    pub(crate) hunks: Vec<Vec<Hunk>>,
    pub(crate) style: Style,
    /// Whether the old lines are the same as in the file.
    pub(crate) exact: bool,
    pub(crate) shuffled: bool,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(base: &'a Base, form: Form, context: usize, markers: bool) -> Self {
        let unified = matches!(form, Form::Unified | Form::Git);
        let hunks = base.edits.iter().map(|e| hunks(e, context, unified && markers)).collect();
        let style = Style {
            prefixes: true,
            stamps: false,
            quoted: form == Form::Git,
            git_headers: form == Form::Git,
            section: form == Form::Git,
            header: Header::Right,
            offset: 0,
            returns: Returns::AsInTheFile,
            markers: unified && markers,
            bom: true,
            bom_before: false,
            blank_prefixes: true,
            around: Around::Nothing,
            split: false,
            landmark: 0,
            end_of_file: false,
            begin_patch: true,
            end_patch: true,
            naming: 0,
            long_markers: false,
            newline: true,
            sent: Sent::Text,
            last_newline: true,
        };
        Self { base, form, hunks, style, exact: true, shuffled: false }
    }

    pub(crate) fn unified(&self) -> bool {
        matches!(self.form, Form::Unified | Form::Git)
    }

    pub(crate) fn write(&self) -> Input {
        match self.form {
            Form::Unified | Form::Git => self.finish(self.diff()),
            Form::Envelope => self.finish(self.envelope()),
            Form::Blocks => self.finish(self.blocks()),
            Form::Edits => self.edits(),
            Form::Whole => self.whole(),
        }
    }

    /// Returns the text of each line of a hunk, with the carriage returns and the byte order mark
    /// that the style requires.
    fn shown(&self, edit: &FileEdit, hunk: &Hunk) -> Vec<String> {
        let bom = self.style.bom && edit.before.as_ref().or(edit.created.as_ref()).is_some_and(|t| t.bom);
        let first_removed = hunk.lines.iter().any(|l| l.mark == Mark::Remove && l.old == 0);
        let first_added = hunk
            .lines
            .iter()
            .position(|l| l.mark == Mark::Add)
            .filter(|_| first_removed || edit.created.is_some());
        let show = |(i, line): (usize, &Line)| {
            let first = line.mark != Mark::Add && line.old == 0 || Some(i) == first_added;
            let cr = match self.style.returns {
                Returns::AsInTheFile => line.end == End::CrLf,
                Returns::Everywhere => true,
                Returns::None => false,
            };
            let bom = if bom && first { "\u{feff}" } else { "" };
            format!("{bom}{}{}", line.text, if cr { "\r" } else { "" })
        };
        hunk.lines.iter().enumerate().map(show).collect()
    }

    fn marked(&self, edit: &FileEdit, hunk: &Hunk) -> String {
        let mut out = String::new();
        for (line, text) in hunk.lines.iter().zip(self.shown(edit, hunk)) {
            let bare = !self.style.blank_prefixes && line.mark == Mark::Keep && line.text.is_empty();
            out += match line.mark {
                Mark::Keep if bare => "",
                Mark::Keep => " ",
                Mark::Remove => "-",
                Mark::Add => "+",
            };
            out += &text;
            out.push('\n');
            if self.style.markers && line.end == End::Nothing {
                out += "\\ No newline at end of file\n";
            }
        }
        out
    }

    fn name(&self, side: char, path: &str) -> String {
        let prefix = if self.style.prefixes { format!("{side}/") } else { String::new() };
        let plain = path.bytes().all(|b| (b' '..127).contains(&b) && b != b'"' && b != b'\\');
        let name = format!("{prefix}{path}");
        if plain || !self.style.quoted {
            return name;
        }
        let quoted: String = name
            .bytes()
            .map(|b| match b {
                b'"' => "\\\"".to_owned(),
                b'\\' => "\\\\".to_owned(),
                b' '..127 => (b as char).to_string(),
                _ => format!("\\{b:03o}"),
            })
            .collect();
        format!("\"{quoted}\"")
    }

    fn diff(&self) -> String {
        let mut out = String::new();
        for (edit, hunks) in self.base.edits.iter().zip(&self.hunks) {
            let parts: Vec<&[Hunk]> = match self.style.split {
                true if hunks.len() > 1 && edit.plain() => hunks.chunks(1).collect(),
                _ => vec![&hunks[..]],
            };
            for part in parts {
                self.diff_head(edit, &mut out);
                let mut delta = 0;
                for hunk in part {
                    out += &self.hunk_header(edit, hunk, delta);
                    out += &self.marked(edit, hunk);
                    delta += hunk.count(Mark::Add) as isize - hunk.count(Mark::Remove) as isize;
                }
            }
        }
        out
    }

    fn diff_head(&self, edit: &FileEdit, out: &mut String) {
        let (old, new) = (&edit.path, edit.after_path());
        let mode = |x: bool| if x { "100755" } else { "100644" };
        if self.style.git_headers {
            *out += &format!("diff --git {} {}\n", self.name('a', old), self.name('b', new));
            match (&edit.created, edit.deleted) {
                (Some(_), _) => *out += &format!("new file mode {}\n", mode(edit.executable_after)),
                (_, true) => *out += &format!("deleted file mode {}\n", mode(edit.executable)),
                _ if edit.executable != edit.executable_after => {
                    let (a, b) = (mode(edit.executable), mode(edit.executable_after));
                    *out += &format!("old mode {a}\nnew mode {b}\n");
                }
                _ => {}
            }
            if edit.to.is_some() {
                let share = if edit.ops.is_empty() { 100 } else { 90 };
                *out += &format!("similarity index {share}%\nrename from {old}\nrename to {new}\n");
            }
            let changes = edit.created.as_ref().is_some_and(|t| !t.rows.is_empty())
                || edit.deleted
                || !edit.ops.is_empty();
            if !changes && edit.final_newline.is_none() {
                return;
            }
            *out += "index 3f2a1bc..9d04e7f";
            let same = edit.created.is_none() && !edit.deleted && edit.executable == edit.executable_after;
            *out += &if same { format!(" {}\n", mode(edit.executable)) } else { "\n".into() };
        }
        let stamp = |name: String, when: &str| match self.style.stamps {
            true => format!("{name}\t2026-03-0{when} 10:15:00.000000000 +0100"),
            false if self.form == Form::Git && name.contains(' ') && !name.starts_with('"') => name + "\t",
            false => name,
        };
        let old = if edit.created.is_some() { "/dev/null".into() } else { self.name('a', old) };
        let new = if edit.deleted { "/dev/null".into() } else { self.name('b', new) };
        *out += &format!("--- {}\n+++ {}\n", stamp(old, "1"), stamp(new, "2"));
    }

    fn hunk_header(&self, edit: &FileEdit, hunk: &Hunk, delta: isize) -> String {
        let added = hunk.count(Mark::Add);
        let removed = hunk.count(Mark::Remove);
        let kept = hunk.lines.len() - added - removed;
        let (mut old, mut new) = (removed + kept, added + kept);
        let line = |count: usize, delta: isize| {
            let at = hunk.start as isize + delta + isize::from(count > 0);
            if edit.created.is_some() || edit.deleted {
                at.max(0)
            } else {
                (at + self.style.offset).max(isize::from(count > 0))
            }
        };
        let (start, new_start) = (line(old, 0), line(new, delta));
        let landmark = landmark(edit, hunk);
        match self.style.header {
            Header::Right | Header::WrongCounts => {
                if self.style.header == Header::WrongCounts {
                    // Miscount the way models do: too high or too low, depending on the hunk.
                    (old, new) = match hunk.start % 4 {
                        _ if edit.created.is_some() => (0, new + 1),
                        0 => (old + 1, new + 1),
                        1 => (old.saturating_sub(1).max(1), new),
                        2 => (old + 2, new + 3),
                        _ => (old, new.saturating_sub(2).max(1)),
                    };
                }
                let range = |start: isize, count: usize| match count {
                    1 => format!("{start}"),
                    _ => format!("{start},{count}"),
                };
                let section = landmark.filter(|_| self.style.section).map(|l| format!(" {l}"));
                format!(
                    "@@ -{} +{} @@{}\n",
                    range(start, old),
                    range(new_start, new),
                    section.unwrap_or_default()
                )
            }
            Header::NoCounts => format!("@@ -{start} +{new_start} @@\n"),
            Header::Bare => "@@\n".into(),
            Header::Dots => "@@ ... @@\n".into(),
            Header::Letters => "@@ -X,Y +X,Z @@\n".into(),
            Header::Text => match landmark {
                Some(text) => format!("@@ {text} @@\n"),
                None => "@@ ... @@\n".into(),
            },
        }
    }

    fn envelope(&self) -> String {
        let mut out = String::from(if self.style.begin_patch { "*** Begin Patch\n" } else { "" });
        for (edit, hunks) in self.base.edits.iter().zip(&self.hunks) {
            if edit.created.is_some() {
                out += &format!("*** Add File: {}\n", edit.path);
                out += &hunks.iter().map(|h| self.marked(edit, h)).collect::<String>();
                continue;
            }
            if edit.deleted {
                out += &format!("*** Delete File: {}\n", edit.path);
                continue;
            }
            out += &format!("*** Update File: {}\n", edit.path);
            if let Some(to) = &edit.to {
                out += &format!("*** Move to: {to}\n");
            }
            for hunk in hunks {
                let landmark = landmark(edit, hunk);
                out += &match (self.style.landmark, landmark) {
                    (1, Some(text)) => format!("@@ {text}\n"),
                    (2, Some(text)) => format!("@@ {}\n", roughly(&text)),
                    _ => "@@\n".to_owned(),
                };
                out += &self.marked(edit, hunk);
                let rows = edit.before.as_ref().map_or(0, |t| t.rows.len());
                if self.style.end_of_file && hunk.start + hunk.before().len() == rows {
                    out += "*** End of File\n";
                }
            }
        }
        if self.style.end_patch {
            out += "*** End Patch\n";
        }
        out
    }

    /// Returns the old and new lines of a hunk, each joined into a single string.
    fn sides(&self, edit: &FileEdit, hunk: &Hunk, newline: bool) -> (String, String) {
        let texts = self.shown(edit, hunk);
        let side = |without: Mark| {
            let lines = hunk.lines.iter().zip(&texts).filter(|(l, _)| l.mark != without);
            let mut out: String = lines.map(|(_, text)| format!("{text}\n")).collect();
            if !newline && out.ends_with('\n') {
                out.pop();
                if out.ends_with('\r') {
                    out.pop();
                }
            }
            out
        };
        (side(Mark::Add), side(Mark::Remove))
    }

    fn blocks(&self) -> String {
        let long = if self.style.long_markers { "<<" } else { "" };
        let mut out = String::new();
        for (edit, hunks) in self.base.edits.iter().zip(&self.hunks) {
            for (i, hunk) in hunks.iter().enumerate() {
                let (search, replace) = self.sides(edit, hunk, true);
                let path = &edit.path;
                out += &match self.style.naming {
                    1 => format!("**{path}**\n"),
                    2 => format!("File: {path}\n"),
                    3 if i > 0 => String::new(),
                    4 => format!("{path}\n```\n"),
                    _ => format!("{path}\n"),
                };
                out += &format!(
                    "<<<<<<<{long} SEARCH\n{search}=======\n{replace}>>>>>>>{} REPLACE\n",
                    long.replace('<', ">")
                );
                if self.style.naming == 4 {
                    out += "```\n";
                }
            }
        }
        out
    }

    fn edits(&self) -> Input {
        let mut list = Vec::new();
        for (edit, hunks) in self.base.edits.iter().zip(&self.hunks) {
            for hunk in hunks {
                let unfinished = hunk.lines.iter().any(|l| l.end == End::Nothing);
                let emptied = hunk.after().is_empty();
                let newline = (self.style.newline || emptied) && !unfinished;
                let (search, replace) = self.sides(edit, hunk, newline);
                list.push(Edit { path: edit.path.clone(), search, replace });
            }
        }
        if self.style.sent == Sent::Text {
            return Input::Edits(list);
        }
        let edits: Vec<_> =
            list.iter().map(|e| json!({"path": e.path, "search": e.search, "replace": e.replace})).collect();
        let value =
            if self.style.sent == Sent::JsonObject { json!({ "edits": edits }) } else { json!(edits) };
        Input::Text(if list.len() % 2 == 0 { value.to_string() } else { format!("{value:#}") })
    }

    fn whole(&self) -> Input {
        let edit = &self.base.edits[0];
        let path = edit.path.clone();
        let Some(after) = edit.after() else { return Input::Delete { path } };
        let mut content = after.whole();
        if self.style.returns == Returns::None {
            content = content.replace("\r\n", "\n");
        }
        if !self.style.bom {
            content = content.trim_start_matches('\u{feff}').into();
        }
        if !self.style.last_newline {
            content = content.strip_suffix('\n').unwrap_or(&content).into();
            content = content.strip_suffix('\r').unwrap_or(&content).into();
        }
        match self.style.sent {
            Sent::Lines => Input::WholeLines { path, lines: content.lines().map(str::to_owned).collect() },
            _ => Input::Whole { path, content },
        }
    }

    fn finish(&self, mut patch: String) -> Input {
        if !self.style.last_newline {
            patch.pop();
        }
        let ends = if patch.ends_with('\n') { "" } else { "\n" };
        patch = match self.style.around {
            Around::Nothing => patch,
            Around::Prose => format!(
                "I found the cause; this patch fixes it.\n\n{patch}{ends}\nThe tests should pass now.\n"
            ),
            Around::Fence => format!("```diff\n{patch}{ends}```\n"),
            Around::FenceAndProse => format!(
                "Here's what I'd change:\n\n1. the names,\n2. the order.\n\n```\n{patch}{ends}```\n\nLet me know if it doesn't apply - I can send it again.\n"
            ),
        };
        if self.style.returns == Returns::Everywhere {
            patch = patch.replace("\r\n", "\n").replace('\n', "\r\n");
        }
        if self.style.bom_before {
            patch.insert(0, '\u{feff}');
        }
        match self.style.sent {
            Sent::Lines => Input::Lines(
                patch.strip_suffix('\n').unwrap_or(&patch).split('\n').map(str::to_owned).collect(),
            ),
            Sent::LinesWithNewlines => Input::Lines(patch.split_inclusive('\n').map(str::to_owned).collect()),
            _ => Input::Text(patch),
        }
    }
}

/// Returns the row that opens the scope of a hunk: the nearest row above it that is less indented
/// and contains letters.
pub(crate) fn landmark(edit: &FileEdit, hunk: &Hunk) -> Option<String> {
    let before = edit.before.as_ref()?;
    let indent = |t: &str| t.len() - t.trim_start().len();
    let first = hunk.before().into_iter().find(|l| !l.trim().is_empty()).map_or(1, indent).max(1);
    let wordy = |t: &str| t.chars().filter(char::is_ascii_alphabetic).count() >= 4;
    let above = before.rows.get(..hunk.start)?.iter().rev().map(|r| &r.text);
    above
        .filter(|t| indent(t) < first && wordy(t))
        .map(|t| t.trim().to_owned())
        .next()
        .filter(|t| t.len() < 80)
}

/// Shortens a header, as a model does when it remembers the header only roughly.
fn roughly(text: &str) -> String {
    let cut = text.find(['(', '{', ':']).filter(|i| *i > 3).unwrap_or(text.len());
    let rough = text[..cut].trim_end();
    if rough == text { format!("{text} ...") } else { rough.to_owned() }
}
