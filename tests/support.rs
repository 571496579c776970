//! A world of its own for each test: a home, a state folder, a git repository, and the binary run in it.
