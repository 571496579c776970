//! Images sent with the first message of a task.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Maximum size of an image, in bytes. Servers allow between 10 and 20 MB per image.
pub const MAX_BYTES: u64 = 10 << 20;

/// Maximum number of images in a task. Each one is resent with every request.
pub const MAX_IMAGES: usize = 8;

/// The formats that all servers with vision models accept, each as a media type and a file
/// extension.
const FORMATS: [(&str, &str); 4] =
    [("image/png", "png"), ("image/jpeg", "jpg"), ("image/webp", "webp"), ("image/gif", "gif")];

/// An image for the model.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    name: String,
    media_type: &'static str,
    base64: String,
}

impl Image {
    /// Creates an image from a file's contents. Detects the format from the first bytes, without
    /// decoding the image.
    ///
    /// # Errors
    /// Returns the reason, worded so that it can follow "cannot use FILE: ".
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("it is larger than {} MiB", MAX_BYTES >> 20));
        }
        let Some((media_type, extension)) = format(bytes) else {
            return Err("it is not a PNG, JPEG, WebP or GIF image".into());
        };
        let digest = Sha256::digest(bytes);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: format!("{digest}.{extension}"), media_type, base64: STANDARD.encode(bytes) })
    }

    /// Creates an empty placeholder for an image in a recorded session, for models that send no
    /// requests.
    #[must_use]
    pub fn recorded(name: &str) -> Self {
        Self { name: name.to_owned(), media_type: FORMATS[0].0, base64: String::new() }
    }

    /// Returns the name, which is the SHA-256 digest in hexadecimal plus the format's extension. It
    /// is safe to use as a file name, unless the image comes from [`Image::recorded`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the content as base64.
    #[must_use]
    pub fn base64(&self) -> &str {
        &self.base64
    }

    /// Returns the content as a `data:` URL.
    pub(crate) fn url(&self) -> String {
        format!("data:{};base64,{}", self.media_type, self.base64)
    }
}

/// Shows the name without the content.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({})", self.name)
    }
}

fn format(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let [png, jpeg, webp, gif] = FORMATS;
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(png),
        [0xff, 0xd8, 0xff, ..] => Some(jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(webp),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(gif),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_from_the_first_bytes() {
        for (bytes, media_type, extension) in [
            (&b"\x89PNG\r\n\x1a\nrest"[..], "image/png", "png"),
            (b"\xff\xd8\xff\xe0rest", "image/jpeg", "jpg"),
            (b"RIFF\x01\x02\x03\x04WEBPrest", "image/webp", "webp"),
            (b"GIF89arest", "image/gif", "gif"),
        ] {
            let image = Image::new(bytes).unwrap();
            assert!(image.url().starts_with(&format!("data:{media_type};base64,")), "{}", image.url());
            assert_eq!(image.name().rsplit_once('.').unwrap().1, extension);
            assert_eq!(image.name().len(), 64 + 1 + extension.len());
        }
        for bytes in [&b""[..], b"\x89PNG", b"GIF88a", b"RIFF\x01\x02\x03\x04WAVE", b"<svg/>", b"%PDF-1.7"] {
            assert!(Image::new(bytes).unwrap_err().contains("not a PNG"), "{bytes:?}");
        }
    }

    #[test]
    fn an_image_of_exactly_the_limit_is_accepted() {
        let mut bytes = b"GIF89a".to_vec();
        bytes.resize(MAX_BYTES as usize, 0);
        assert!(Image::new(&bytes).is_ok());
        bytes.push(0);
        assert_eq!(Image::new(&bytes).unwrap_err(), "it is larger than 10 MiB");
    }
}
