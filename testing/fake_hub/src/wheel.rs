//! Writes Python wheels, which are zip archives.

use std::io::Write;

use flate2::{Compression, write::DeflateEncoder};

/// Returns a wheel with these files. The first file is stored uncompressed; the others are
/// deflated.
#[must_use]
pub fn wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    for (n, (name, bytes)) in files.iter().enumerate() {
        let mut packed = bytes.to_vec();
        if n > 0 {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            packed = encoder.finish().unwrap();
        }
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let mut common = vec![20, 0, 0, 0];
        common.extend([if n > 0 { 8 } else { 0 }, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        common.extend(size(&packed));
        common.extend(size(bytes));
        common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);
        let offset = size(&out);
        list.extend(b"PK\x01\x02\x14\0");
        list.extend(&common);
        list.extend([0; 10]);
        list.extend(offset);
        list.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(packed);
    }
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    let size = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let at = out.len();
    out.extend(&list);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count);
    out.extend(count);
    out.extend(size(list.len()));
    out.extend(size(at));
    out.extend([0, 0]);
    out
}
