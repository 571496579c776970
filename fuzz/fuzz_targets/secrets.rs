//! Masks arbitrary bytes. Masking must not panic, must be idempotent and must keep the number of
//! lines. Another [`Secrets`] that has read only the original text must be able to undo the
//! masking. Masking a stream must give the same result as masking the whole text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use secrets::Secrets;

fn secrets() -> Secrets {
    Secrets::new("session", vec!["Zx81-spectrum".into(), "Zx81-spectrum+9".into()])
}

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let secrets = secrets();
    let masked = secrets.mask_bytes(bytes).into_owned();
    assert_eq!(secrets.mask_bytes(&masked), masked);
    let lines = |text: &[u8]| text.iter().filter(|b| **b == b'\n').count();
    assert_eq!(lines(&masked), lines(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let masked = String::from_utf8(masked).expect("masking keeps UTF-8 valid");
    let other = self::secrets();
    other.learn(bytes);
    // `restore` may refuse text that begins like a placeholder. If it succeeds, it returns the
    // original text.
    if let Ok(restored) = other.restore(&masked, &[bytes]) {
        assert_eq!(restored, text);
    }
    let (mut stream, mut out) = (self::secrets().mask_stream().expect("secrets are configured"), String::new());
    let letters: Vec<char> = text.chars().collect();
    for piece in letters.chunks(usize::from(*size).max(1)) {
        out += &stream.feed(&piece.iter().collect::<String>());
    }
    out += &stream.end();
    assert_eq!(out.as_bytes(), self::secrets().mask_known(bytes).as_ref());
});
