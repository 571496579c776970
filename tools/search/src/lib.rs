//! The search tool.
