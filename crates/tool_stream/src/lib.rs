//! Bytes in, tool objects out, while they arrive.
