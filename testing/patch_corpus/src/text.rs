//! The base texts, and the representation of a file as rows with line endings.

use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Lf,
    CrLf,
    /// The end of the last row of a file without a final newline.
    Nothing,
}

impl End {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
            Self::Nothing => "",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) text: String,
    pub(crate) end: End,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Text {
    pub(crate) bom: bool,
    pub(crate) rows: Vec<Row>,
}

impl Text {
    pub(crate) fn of(text: &str) -> Self {
        let rows = text.split_inclusive('\n').map(|line| match line.strip_suffix('\n') {
            Some(text) => Row { text: text.into(), end: End::Lf },
            None => Row { text: line.into(), end: End::Nothing },
        });
        Self { bom: false, rows: rows.collect() }
    }

    pub(crate) fn whole(&self) -> String {
        let rows = self.rows.iter().map(|r| format!("{}{}", r.text, r.end.text()));
        std::iter::once(if self.bom { "\u{feff}" } else { "" }.to_owned()).chain(rows).collect()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.whole().into_bytes()
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        self.rows.iter().map(|r| &r.text[..]).collect()
    }

    pub(crate) fn unfinished(&self) -> bool {
        self.rows.last().is_some_and(|r| r.end == End::Nothing)
    }

    pub(crate) fn has(&self, end: End) -> bool {
        self.rows.iter().any(|r| r.end == end)
    }

    pub(crate) fn mixed(&self) -> bool {
        self.has(End::Lf) && self.has(End::CrLf)
    }
}

/// The path and the content of each base text.
pub(crate) const TEXTS: &[(&str, &str)] = &[
    ("src/service.py", include_str!("../texts/service.py")),
    ("app/handlers.py", include_str!("../texts/handlers.py")),
    ("src/ledger.rs", include_str!("../texts/ledger.rs")),
    ("lib/cart.js", include_str!("../texts/cart.js")),
    ("web/table.tsx", include_str!("../texts/table.tsx")),
    ("server.go", include_str!("../texts/server.go")),
    ("src/ring.c", include_str!("../texts/ring.c")),
    ("src/main/java/Account.java", include_str!("../texts/Account.java")),
    ("public/page.html", include_str!("../texts/page.html")),
    ("public/style.css", include_str!("../texts/style.css")),
    ("compose.yaml", include_str!("../texts/compose.yaml")),
    ("project.toml", include_str!("../texts/project.toml")),
    ("settings.json", include_str!("../texts/settings.json")),
    ("docs/GUIDE.md", include_str!("../texts/GUIDE.md")),
    ("db/schema.sql", include_str!("../texts/schema.sql")),
    ("Makefile", include_str!("../texts/Makefile")),
    ("scripts/deploy.sh", include_str!("../texts/deploy.sh")),
    ("data/rows.csv", include_str!("../texts/rows.csv")),
    ("letter.txt", include_str!("../texts/letter.txt")),
    ("src/strings.py", include_str!("../texts/strings.py")),
    ("essay.md", include_str!("../texts/essay.md")),
    ("config.ini", include_str!("../texts/config.ini")),
    ("web/Lookup.vue", include_str!("../texts/Lookup.vue")),
    ("lib/stack.rb", include_str!("../texts/stack.rb")),
];

const NOUNS: &[&str] =
    &["invoice", "booking", "parcel", "ticket", "recipe", "player", "sensor", "lesson", "voucher", "report"];

fn capital(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

fn renamed(text: &str, noun: &str) -> String {
    text.replace("invoice", noun).replace("Invoice", &capital(noun)).replace("INVOICE", &noun.to_uppercase())
}

/// The layout of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Plain,
    CrLf,
    Mixed,
    Bom,
    BomCrLf,
    Unfinished,
    UnfinishedCrLf,
    TrailingBlanks,
    Tabs,
    Twice,
    LongLines,
}

impl Layout {
    pub(crate) const ALL: &'static [Self] = &[
        Self::Plain,
        Self::CrLf,
        Self::Plain,
        Self::Unfinished,
        Self::Plain,
        Self::Tabs,
        Self::Twice,
        Self::Mixed,
        Self::Plain,
        Self::Bom,
        Self::TrailingBlanks,
        Self::BomCrLf,
        Self::Plain,
        Self::UnfinishedCrLf,
        Self::Twice,
        Self::LongLines,
        Self::Plain,
    ];
}

/// Returns a base text in a given layout, with a random noun in place of `invoice`.
pub(crate) fn make(base: &str, layout: Layout, random: &mut Random) -> Text {
    let first = *random.pick(NOUNS);
    let mut text = renamed(base, first);
    if layout == Layout::Twice {
        let second = NOUNS[(random.below(NOUNS.len() - 1) + 1) % NOUNS.len()];
        text = format!("{text}\n{}", renamed(base, second));
    }
    let mut out = Text::of(&text);
    let last = out.rows.len().saturating_sub(1);
    let mixed: Vec<bool> = (0..out.rows.len()).map(|_| random.percent(12)).collect();
    let mut crlf = random.percent(50);
    for (i, row) in out.rows.iter_mut().enumerate() {
        match layout {
            Layout::CrLf | Layout::BomCrLf | Layout::UnfinishedCrLf => row.end = End::CrLf,
            Layout::Mixed => {
                // Switch to the other ending at only a few rows, so that most rows have neighbors
                // with the same ending.
                crlf ^= mixed[i];
                row.end = if crlf { End::CrLf } else { End::Lf };
            }
            Layout::TrailingBlanks if mixed[i] || i % 7 == 3 => {
                row.text += if i % 2 == 0 { "  " } else { " \t" };
            }
            Layout::Tabs => row.text = tabbed(&row.text),
            Layout::LongLines if mixed[i] && row.text.trim().len() > 8 => {
                let more: String = (0..400).map(|n| format!(" {}{n}", &first[..3])).collect();
                row.text += &more;
            }
            _ => {}
        }
        if i == last && matches!(layout, Layout::Unfinished | Layout::UnfinishedCrLf) {
            row.end = End::Nothing;
        }
    }
    out.bom = matches!(layout, Layout::Bom | Layout::BomCrLf);
    out
}

/// Replaces indentation with tabs: one for every four spaces or, if the width is not a multiple of
/// four, one for every two. An odd number of spaces is left alone.
fn tabbed(line: &str) -> String {
    let rest = line.trim_start_matches(' ');
    let blanks = line.len() - rest.len();
    if blanks % 2 == 1 || rest.is_empty() {
        return line.into();
    }
    let unit = if blanks.is_multiple_of(4) { 4 } else { 2 };
    "\t".repeat(blanks / unit) + rest
}
