//! Confined access to a repository: reading, walking, the one write path, copies and diffs.
