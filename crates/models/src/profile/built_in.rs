//! The built-in profiles.

use super::File;

/// Includes files from the `profiles/` folder.
macro_rules! profiles {
    ($($name:literal),* $(,)?) => {
        [$((concat!("profiles/", $name), include_str!(concat!("../../../../profiles/", $name)))),*]
    };
}

/// The name and contents of each file. A test checks that the folder contains the same files.
pub(super) const TEXTS: [(&str, &str); 7] = profiles![
    "deepseek-coder-v2.toml",
    "deepseek-r1.toml",
    "deepseek-v3.1.toml",
    "deepseek.toml",
    "default.toml",
    "qwen2.5-coder.toml",
    "qwen3-coder.toml",
];

/// Returns the parsed files. A test ensures that every file is valid.
pub(super) fn files() -> Vec<File> {
    TEXTS.iter().filter_map(|(name, text)| File::parse(&format!("built-in {name}"), text).ok()).collect()
}
