//! The list_files tool.
