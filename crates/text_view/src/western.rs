//! Checks whether a file with very few non-ASCII characters is in a Western European encoding. For
//! such a file, a guess based on frequency means little: it might mistake a pound sign for a Polish
//! letter. Instead, the file is considered Western European if each of these characters is
//! plausible where it appears.

use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, GB18030, GBK, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_10, ISO_8859_13,
    ISO_8859_14, ISO_8859_16, SHIFT_JIS, WINDOWS_1250, WINDOWS_1252, WINDOWS_1257, WINDOWS_1258,
};

/// A file whose non-ASCII characters are all plausible symbols is considered Western European if it
/// has at most this many non-ASCII bytes. A file with more symbols would also contain letters of
/// its language.
const SIGNS: usize = 8;
/// A file whose non-ASCII characters are all plausible symbols or letters is considered Western
/// European if it has at most this many non-ASCII bytes. So few bytes do not reveal which
/// Latin-script language the file is in, and two of them may look like a two-byte character by
/// accident.
const FEW: usize = 2;

/// Returns whether text with `high` non-ASCII bytes is more likely to be Western European than to
/// be in the `guess` encoding.
pub(crate) fn is_likelier(guess: &'static encoding_rs::Encoding, text: &[u8], high: usize) -> bool {
    let rare = [
        ISO_8859_3,
        ISO_8859_4,
        ISO_8859_10,
        ISO_8859_13,
        ISO_8859_14,
        ISO_8859_16,
        WINDOWS_1257,
        WINDOWS_1258,
    ];
    let two_bytes = [BIG5, GBK, GB18030, SHIFT_JIS, EUC_JP, EUC_KR];
    let (few, letters) = match guess {
        _ if rare.contains(&guess) => (FEW, true),
        _ if two_bytes.contains(&guess) => (FEW, true),
        // Central European text would contain non-ASCII letters, so text with only symbols is
        // unlikely to be Central European.
        _ if [WINDOWS_1250, ISO_8859_2].contains(&guess) => (SIGNS, false),
        _ => return false,
    };
    if high > few {
        return false;
    }
    let text = WINDOWS_1252.decode_without_bom_handling(text).0;
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or(' ');
    chars.iter().enumerate().filter(|(_, c)| !c.is_ascii()).all(|(i, c)| {
        let (before, after) = (if i == 0 { ' ' } else { at(i - 1) }, at(i + 1));
        is_plausible(before, *c, after, letters)
    })
}

fn is_plausible(before: char, c: char, after: char, letters: bool) -> bool {
    let number = |c: char| c.is_ascii_digit() || c.is_whitespace() || ".,-+(".contains(c);
    match c {
        '£' | '±' | '¥' | '€' => !before.is_alphabetic() && number(after),
        '«' | '¿' | '¡' | '“' | '„' => {
            !before.is_alphanumeric() && (after.is_alphanumeric() || after.is_whitespace() || after == '¡')
        }
        '»' | '”' => {
            !after.is_alphanumeric() && !before.is_whitespace()
                || before.is_whitespace() && !after.is_alphanumeric()
        }
        '’' | '‘' => before.is_alphabetic() || after.is_alphabetic(),
        'µ' => !before.is_alphabetic() && "msgAVFHWlL ".contains(after),
        '°' => !before.is_alphabetic() && (!after.is_alphabetic() || "CFK".contains(after)),
        '§' | '©' | '®' | '…' | '–' | '—' | '•' | '·' | '×' | '÷' | '™' => true,
        '²' | '³' => before.is_alphanumeric() && !after.is_alphabetic(),
        '½' | '¼' | '¾' => !before.is_alphabetic() && !after.is_alphabetic(),
        'ª' | 'º' => before.is_alphanumeric() && !after.is_alphabetic(),
        'œ' | 'Œ' => "uUiI".contains(after),
        c if c.is_alphabetic() => letters && !(before.is_lowercase() && c.is_uppercase()),
        _ => false,
    }
}
