//! The apply_patch tool.
