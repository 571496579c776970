//! Detects the encoding and the line endings of a file from its bytes and path.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, GBK, IBM866, ISO_2022_JP, ISO_8859_2, ISO_8859_5, ISO_8859_13, KOI8_R, KOI8_U,
    SHIFT_JIS, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252, WINDOWS_1254, WINDOWS_1257,
};

use crate::declared::declared;
use crate::encoding::{Encoding, LATIN_1, LATIN_5};
use crate::western;

/// The number of bytes to check when telling text from binary, as in git.
const SNIFF: usize = 8000;
/// The maximum number of bytes to use for guessing the encoding.
const GUESSED_FROM: usize = 256 << 10;

/// Pairs of a Windows code page and its ISO counterpart. The two agree on most letters of their
/// languages, and only the remaining letters distinguish them.
const SIMILAR: &[(&encoding_rs::Encoding, Encoding)] = &[
    (WINDOWS_1250, Encoding::Other(ISO_8859_2)),
    (WINDOWS_1254, LATIN_5),
    (WINDOWS_1257, Encoding::Other(ISO_8859_13)),
];

/// Groups of encodings that are easily confused with each other. A file in one of these encodings
/// is considered ambiguous if its number of non-ASCII bytes does not exceed the group's limit.
const CONFUSED: &[(usize, &[&encoding_rs::Encoding])] = &[
    (12, &[GBK, BIG5, EUC_KR, EUC_JP, SHIFT_JIS]),
    (4, &[WINDOWS_1251, KOI8_R, KOI8_U, ISO_8859_5, IBM866]),
];

/// Encodings that the file may be in besides the most likely one.
pub(crate) type Alternatives = [Option<Encoding>; 4];

/// The encoding and line endings of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coding {
    pub(crate) encoding: Encoding,
    /// The encoding of the invalid lines in a file that is otherwise UTF-8.
    pub(crate) stray: Option<Encoding>,
    /// Other encodings that decode the file to the same text, or that cannot be ruled out.
    pub(crate) alternatives: Alternatives,
    /// Whether lines end with a lone carriage return, as on classic Mac OS.
    pub(crate) carriage_returns: bool,
}

impl Coding {
    const UTF_8: Self =
        Self { encoding: Encoding::Utf8, stray: None, alternatives: [None; 4], carriage_returns: false };

    /// Returns every encoding that the file may be in, the most likely one first.
    pub(crate) fn candidates(self) -> impl Iterator<Item = Encoding> + Clone {
        std::iter::once(self.encoding).chain(self.alternatives.into_iter().flatten())
    }

    /// Returns whether the file's bytes are its text, without any conversion.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::UTF_8
    }

    /// Detects the coding of a file. Returns `None` if it is binary.
    pub(crate) fn of(path: &str, bytes: &[u8]) -> Option<Self> {
        let encoding = |encoding| Self { encoding, ..Self::UTF_8 };
        let coding = match bytes {
            [0xff, 0xfe, rest @ ..] if !rest.starts_with(&[0, 0]) => encoding(Encoding::Utf16 { big: false }),
            [0xfe, 0xff, ..] => encoding(Encoding::Utf16 { big: true }),
            _ if bytes.iter().take(SNIFF).any(|b| *b == 0) => encoding(utf16_without_bom(bytes)?),
            _ => Self::of_bytes(path, bytes),
        };
        let wide = matches!(coding.encoding, Encoding::Utf16 { .. });
        if wide && has_zeros(coding.encoding, bytes) {
            return None;
        }
        Some(Self { carriage_returns: ends_with_carriage_returns(coding.encoding, bytes), ..coding })
    }

    fn of_bytes(path: &str, bytes: &[u8]) -> Self {
        let as_declared = || declared(path, bytes).filter(|d| d.can_decode(bytes));
        if bytes.is_ascii() {
            let encoding = match as_declared() {
                Some(encoding) => encoding,
                None if is_iso_2022_jp(bytes) => Encoding::Other(ISO_2022_JP),
                None => Encoding::Utf8,
            };
            return Self { encoding, ..Self::UTF_8 };
        }
        if std::str::from_utf8(bytes).is_ok() {
            return Self::UTF_8;
        }
        if let Some(encoding) = as_declared() {
            return Self { encoding, ..Self::UTF_8 };
        }
        // If most non-ASCII lines are valid UTF-8, that cannot be a coincidence: the file is UTF-8
        // with stray lines in another encoding.
        let lines = || bytes.split_inclusive(|b| *b == b'\n').filter(|line| !line.is_ascii());
        let strays: Vec<&[u8]> = lines().filter(|line| std::str::from_utf8(line).is_err()).collect();
        if 2 * strays.len() < lines().count() || bytes.starts_with(b"\xef\xbb\xbf") {
            let (stray, _) = guessed(strays.into_iter());
            return Self { stray: Some(stray), ..Self::UTF_8 };
        }
        let (encoding, alternatives) = guessed([bytes].into_iter());
        Self { encoding, alternatives, ..Self::UTF_8 }
    }
}

impl Encoding {
    /// Returns whether `bytes` may be in this encoding. Tolerates one invalid character per hundred
    /// non-ASCII characters.
    fn can_decode(self, mut bytes: &[u8]) -> bool {
        let (mut characters, mut slips) = (0_usize, 0_usize);
        while let Some((text, n)) = self.first(bytes) {
            characters += usize::from(!text.is_ascii());
            slips += usize::from(text.contains('\u{fffd}'));
            bytes = &bytes[n..];
        }
        100 * slips <= characters
    }
}

/// Returns the most likely encoding, and other encodings that the bytes do not rule out.
fn guessed<'a>(texts: impl Iterator<Item = &'a [u8]>) -> (Encoding, Alternatives) {
    let (mut detector, mut left) = (EncodingDetector::new(Iso2022JpDetection::Deny), GUESSED_FROM);
    let mut high = Vec::new();
    let mut all = Vec::new();
    for text in texts {
        all.extend_from_slice(text);
        // Start near the first non-ASCII byte, which may come after a long run of ASCII.
        let from = text.iter().position(|b| *b >= 0x80).unwrap_or(0).saturating_sub(SNIFF);
        let part = &text[from..text.len().min(from + left)];
        left -= part.len();
        detector.feed(part, false);
        high.extend(text.iter().filter(|b| **b >= 0x80));
    }
    detector.feed(b"", true);
    let guess = detector.guess(None, Utf8Detection::Deny);
    // If the text has no characters that exist only in Windows-1252, Latin-1 is the safe choice.
    let western = if high.iter().any(|b| *b < 0xa0) { Encoding::Other(WINDOWS_1252) } else { LATIN_1 };
    if guess == WINDOWS_1252 || western::is_likelier(guess, &all, high.len()) {
        return (western, [None; 4]);
    }
    if let Some((_, family)) =
        CONFUSED.iter().find(|(few, family)| family.contains(&guess) && high.len() <= *few)
    {
        let reads = |other: &Encoding| *other != Encoding::Other(guess) && other.can_decode(&all);
        let mut alternatives = family.iter().copied().map(Encoding::Other).filter(reads);
        return (Encoding::Other(guess), std::array::from_fn(|_| alternatives.next()));
    }
    let guess = Encoding::Other(guess);
    let mut family = SIMILAR.iter().map(|(windows, iso)| [Encoding::Other(windows), *iso]);
    let Some(family) = family.find(|family| family.contains(&guess)) else {
        return (guess, [None; 4]);
    };
    let decoded = |encoding: Encoding| high.iter().map(move |b| encoding.first(&[*b]).map(|(text, _)| text));
    let same = |other: &Encoding| *other != guess && decoded(*other).eq(decoded(guess));
    let [windows, iso] = family;
    let alternative = if guess == iso { windows } else { iso };
    (guess, [Some(alternative).filter(same), Some(western).filter(same), None, None])
}

/// Detects UTF-16 without a byte order mark. To be certain, requires the whole file to be text and
/// most of it to be ASCII.
fn utf16_without_bom(bytes: &[u8]) -> Option<Encoding> {
    if bytes.len() < 4 || !bytes.len().is_multiple_of(2) {
        return None;
    }
    [false, true].into_iter().map(|big| Encoding::Utf16 { big }).find(|encoding| {
        let (mut all, mut ascii, mut rest) = (0, 0, bytes);
        while let Some((text, n)) = encoding.first(rest) {
            rest = &rest[n..];
            all += 1;
            let c = text.chars().next().unwrap_or_default();
            if matches!(c, '\u{fffd}'..='\u{ffff}') || c.is_control() && !c.is_ascii_whitespace() {
                return false;
            }
            ascii += usize::from(c.is_ascii());
        }
        4 * ascii >= 3 * all
    })
}

fn has_zeros(encoding: Encoding, bytes: &[u8]) -> bool {
    let zero = encoding.newline(0);
    bytes.chunks_exact(2).take(SNIFF).any(|unit| unit == zero)
}

/// Returns true if more lines end with a lone carriage return than with a newline.
fn ends_with_carriage_returns(encoding: Encoding, bytes: &[u8]) -> bool {
    if !bytes.contains(&b'\r') {
        return false;
    }
    let (mut alone, mut newlines, mut returned) = (0_usize, 0_usize, false);
    let mut next = |c: u8| {
        alone += usize::from(returned && c != b'\n');
        newlines += usize::from(c == b'\n');
        returned = c == b'\r';
    };
    match encoding {
        Encoding::Utf16 { big } => {
            bytes.chunks_exact(2).for_each(|unit| {
                let [high, low] = if big { [unit[0], unit[1]] } else { [unit[1], unit[0]] };
                next(if high == 0 { low } else { 0 });
            });
        }
        _ => bytes.iter().for_each(|b| next(*b)),
    }
    next(0);
    alone > newlines
}

fn is_iso_2022_jp(bytes: &[u8]) -> bool {
    let switches = bytes.windows(3).any(|w| matches!(w, b"\x1b$B" | b"\x1b$@"));
    switches && ISO_2022_JP.decode_without_bom_handling_and_without_replacement(bytes).is_some()
}
