//! Commands: confinement, limits, output capture.
