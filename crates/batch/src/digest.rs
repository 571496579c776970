//! Short digests for naming files and queue messages.

use sha2::{Digest as _, Sha256};

/// Returns 16 hex digits that identify these parts in this order.
#[must_use]
pub fn short_digest(parts: &[&[u8]]) -> String {
    let mut all = Sha256::new();
    for part in parts {
        all.update((part.len() as u64).to_le_bytes());
        all.update(part);
    }
    all.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
