//! Names that other agents use for a tool that looks up symbols, and for its arguments.

use tool_api::{Aliases, Take};

pub(crate) const ALIASES: &Aliases = &Aliases {
    tools: "symbol find_symbol find_symbols lookup_symbol symbol_search search_symbol search_symbols \
        go_to_definition goto_definition find_definition find_references find_referencing_symbols \
        find_usages code_definition",
    words: "",
    arguments: &[
        ("symbol symbol_name name_path identifier query", Take::As("name")),
        (Aliases::FOLDER, Take::As("path")),
        ("relative_path file_path file filename file_name", Take::As("path")),
        ("limit max_results max_answer_chars include_body depth kind language", Take::LeftOut),
    ],
    convert: None,
};
