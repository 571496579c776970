//! The event log: what happened, in order, before its effect; sessions on disk.
