//! Measures the similarity of two lines.

/// Compares the pairs of adjacent bytes in two lines. Returns the percentage of pairs that occur in
/// both lines. This is cheap enough for every line of a large file.
pub(crate) fn similarity(a: &[u8], b: &[u8]) -> usize {
    /// The maximum number of bytes to compare per line.
    const MAX_LENGTH: usize = 200;
    let (a, b) = (a.trim_ascii(), b.trim_ascii());
    let (a, b) = (&a[..a.len().min(MAX_LENGTH)], &b[..b.len().min(MAX_LENGTH)]);
    if a.len() < 2 || b.len() < 2 || a.len() > 3 * b.len() || b.len() > 3 * a.len() {
        return 0;
    }
    let slot = |pair: &[u8]| (usize::from(pair[0]) * 31 + usize::from(pair[1])) % 512;
    let mut pairs = [0i16; 512];
    a.windows(2).for_each(|p| pairs[slot(p)] += 1);
    let mut common = 0;
    for pair in b.windows(2) {
        let left = &mut pairs[slot(pair)];
        if *left > 0 {
            *left -= 1;
            common += 2;
        }
    }
    common * 100 / (a.len() + b.len() - 2)
}
