//! End to end: the real binary as a child process, observed from outside.

mod support;

mod command_line;
