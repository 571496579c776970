//! Templates: a task's `for` key is a list of items, each with variables. The task is repeated for
//! each item, and each `{{name}}` in the task's strings is replaced with the value of that
//! variable. Performs no I/O.
//!
//! ```text
//! - id: drop-python-2-{{name}}
//!   repo: ../{{name}}
//!   task: Drop support for Python 2.
//!   for: [{name: shop}, {name: blog}]
//! ```

use serde_json::{Map, Value};

use super::Problem;
use super::entry::{Entry, Field};

/// The key with the list of items.
pub(super) const KEY: &str = "for";

/// Returns the tasks of a template, or the entry itself if it is not a template.
pub(super) fn expand(entry: Entry) -> Result<Vec<Entry>, Problem> {
    let Some(field) = entry.field(KEY) else { return Ok(vec![entry]) };
    let problem = |line, message| Problem { file: entry.file.clone(), line, message };
    let items: Option<Vec<_>> =
        field.value.as_array().and_then(|items| items.iter().map(Value::as_object).collect());
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let message = "\"for\" must be a list of items with variables, such as [{name: shop}]".to_owned();
        return Err(problem(field.line, message));
    };
    let expanded = items.into_iter().map(|variables| {
        let replaced =
            |text: &str, line| fill_template(text, variables).map_err(|message| problem(line, message));
        let fields =
            entry.fields.iter().filter(|field| field.key != KEY).map(|Field { key, line, value }| {
                let value = value_with(value, variables).map_err(|message| problem(*line, message))?;
                Ok(Field { key: key.clone(), line: *line, value })
            });
        let body = entry.body.as_deref().map(|body| replaced(body, entry.line)).transpose()?;
        Ok(Entry {
            file: entry.file.clone(),
            line: entry.line,
            fields: fields.collect::<Result<_, _>>()?,
            body,
        })
    });
    expanded.collect()
}

fn value_with(value: &Value, variables: &Map<String, Value>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(fill_template(text, variables)?),
        Value::Array(values) => {
            Value::Array(values.iter().map(|value| value_with(value, variables)).collect::<Result<_, _>>()?)
        }
        other => other.clone(),
    })
}

/// Replaces every `{{name}}` with the value of the `name` variable, which must be a string or a
/// number. Ignores whitespace around the name.
///
/// # Errors
/// If a variable is unknown, if its value is not a string or a number, or if braces are not closed.
pub fn fill_template(text: &str, variables: &Map<String, Value>) -> Result<String, String> {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, behind) =
            after.split_once("}}").ok_or_else(|| format!("{:?} is not closed by }}}}", first_line(after)))?;
        let name = name.trim();
        replaced.push_str(before);
        match variables.get(name) {
            Some(Value::String(value)) => replaced.push_str(value),
            Some(Value::Number(value)) => replaced.push_str(&value.to_string()),
            Some(_) => return Err(format!("the variable {name:?} must be a string or a number")),
            None => {
                let known: Vec<_> = variables.keys().map(String::as_str).collect();
                return Err(format!("unknown variable {name:?}; available variables: {}", known.join(", ")));
            }
        }
        rest = behind;
    }
    replaced.push_str(rest);
    Ok(replaced)
}

fn first_line(text: &str) -> String {
    let start: String = text.lines().next().unwrap_or_default().chars().take(20).collect();
    format!("{{{{{start}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_are_replaced_and_other_braces_stay() {
        let variables = json!({"name": "shop", "n": 2});
        let of = |text| fill_template(text, variables.as_object().unwrap());
        assert_eq!(of("{{name}}-{{ n }} {name} }}").as_deref(), Ok("shop-2 {name} }}"));
        assert_eq!(of("{{nmae}}"), Err("unknown variable \"nmae\"; available variables: name, n".to_owned()));
        assert_eq!(of("a {{name"), Err("\"{{name\" is not closed by }}".to_owned()));
    }
}
