//! Properties that hold for any bytes: the decoded text can be written back unchanged, and an edit
//! to one line leaves the bytes of all other lines unchanged.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use proptest::prelude::*;
use text_view::View;

proptest! {
    #[test]
    fn an_edit_of_one_line_leaves_all_other_lines_unchanged(
        lines in prop::collection::vec(prop::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff, Just(b' ')], 0..12), 1..12),
        at in 0_usize..12,
        new in "[a-zñ]{0,8}",
    ) {
        let bytes: Vec<u8> = lines.join(&b'\n');
        // In UTF-16, a single byte is not a line break.
        prop_assume!(![[0xfe, 0xff], [0xff, 0xfe]].iter().any(|mark| bytes.starts_with(mark)));
        let Ok(view) = View::of("a.txt", bytes.clone()) else { return Ok(()) };
        let shown = String::from_utf8_lossy(view.text()).into_owned();
        let mut texts: Vec<&str> = shown.split('\n').collect();
        prop_assert_eq!(texts.len(), lines.len());
        let at = at % texts.len();
        texts[at] = &new;
        if let Ok(written) = view.write(texts.join("\n").as_bytes()) {
            let after: Vec<&[u8]> = written.split(|b| *b == b'\n').collect();
            prop_assert_eq!(after.len(), lines.len());
            for (i, (after, before)) in after.iter().zip(&lines).enumerate() {
                prop_assert!(i == at || *after == &before[..], "line {}", i);
            }
        }
    }

    #[test]
    fn any_bytes_decode_to_utf_8_and_are_written_back_unchanged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(view) = View::of("a.txt", bytes.clone()) {
            prop_assert!(view.is_plain() || std::str::from_utf8(view.text()).is_ok());
            prop_assert_eq!(view.write(view.text()).unwrap(), bytes);
        }
    }
}
