//! The result that a model passes to `finish`: the schema that it must match, and where it goes.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tool_api::Registry;

use crate::console;
use crate::exit::{Failure, Result};
use crate::sanitize;

/// Maximum size of a schema, in bytes. The schema is shown to the model in every request.
const SCHEMA_LIMIT: u64 = 16 * 1024;

/// Where the result of a run goes.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The JSON Schema that the result must match, if one was given.
    pub(crate) schema: Option<Value>,
    /// A file for the result. `None` means standard output.
    file: Option<PathBuf>,
}

impl Output {
    /// Reads the schema, and checks both files.
    ///
    /// # Errors
    /// If the schema is not usable, or the folder of `file` does not exist.
    pub(crate) fn new(schema: Option<&Path>, file: Option<PathBuf>) -> Result<Self> {
        if let Some(file) = &file
            && let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty())
            && !folder.is_dir()
        {
            return Err(Failure::misuse(format!(
                "cannot write {}: the folder {} does not exist",
                file.display(),
                folder.display()
            )));
        }
        Ok(Self { schema: schema.map(read_schema).transpose()?, file })
    }

    /// Returns whether the result goes to a file.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Writes the result to its file or to standard output.
    ///
    /// # Errors
    /// If the file cannot be written. A closed pipe is not an error.
    pub(crate) fn write(&self, result: &Value) -> Result<()> {
        let text = match result {
            Value::String(text) => format!("{}\n", text.trim_end()),
            object => format!("{object:#}\n"),
        };
        let Some(file) = &self.file else {
            let shown = console::stdout_is_terminal().then(|| sanitize::text(&text));
            let _ = console::print(shown.as_deref().unwrap_or(&text));
            return Ok(());
        };
        std::fs::write(file, &text).map_err(|e| {
            let _ = console::print(&text); // a run may have spent hours on it
            let file = file.display();
            Failure::misuse(format!("cannot write the result to {file}: {e}; it is on stdout instead"))
        })
    }
}

/// Reads a JSON Schema, which must describe an object.
fn read_schema(path: &Path) -> Result<Value> {
    let bytes = console::read_input("the output schema", Some(path), SCHEMA_LIMIT)?;
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::misuse(format!("invalid output schema {}: {why}", path.display()))
    };
    let schema: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(&e))?;
    if schema["type"] != "object" {
        return Err(wrong(&"its `type` must be \"object\", because a call's arguments are an object"));
    }
    let tool = planner::finish_tool(false, Some(&schema));
    Registry::of([tool]).map_err(|e| wrong(&e))?;
    Ok(schema)
}
