//! Patch dialects, matching, applying, previews: pure functions from bytes to bytes.
