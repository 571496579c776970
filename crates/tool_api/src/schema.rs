//! Derives JSON Schemas from argument types, and coerces values to fit them where only one
//! interpretation is possible. The schemas are kept small, because every byte costs prompt tokens
//! on every task.

use jsonschema::Validator;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};

/// Derives the schema of an argument type. It has no references, titles or formats, and no null
/// variants for optional arguments.
pub(crate) fn of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    shrink(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.shift_remove("description"); // documents the Rust type, not the tool
    }
    schema
}

/// Returns the part of a schema that the model is shown. It omits hidden arguments, and
/// `additionalProperties`, which models respect anyway.
pub(crate) fn shown(schema: &Value) -> Value {
    let mut shown = schema.clone();
    fn without(schema: &mut Value) {
        let Some(object) = schema.as_object_mut() else { return };
        object.shift_remove("additionalProperties");
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            properties.retain(|_, property| !is_hidden(property));
        }
        for value in object.values_mut() {
            match value {
                Value::Object(_) => without(value),
                Value::Array(items) => items.iter_mut().for_each(without),
                _ => {}
            }
        }
    }
    without(&mut shown);
    shown
}

/// Returns a stricter version of `shown`, the part of a schema that the model is shown: an object
/// allows only its listed properties, and a map allows only the values that `full` allows. `full`
/// is the schema that arguments are validated against.
pub(crate) fn closed(shown: &Value, full: &Value) -> Value {
    let mut closed = shown.clone();
    if let Some(object) = closed.as_object_mut() {
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            for (name, property) in properties {
                *property = self::closed(property, &full["properties"][name.as_str()]);
            }
            object.insert("additionalProperties".into(), Value::Bool(false));
        } else if let Some(values) = full.get("additionalProperties") {
            object.insert("additionalProperties".into(), values.clone());
        }
        if let Some(items) = object.get_mut("items") {
            *items = self::closed(items, &full["items"]);
        }
    }
    closed
}

/// The schema keys that hold shared definitions.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Whether a schema contains references to other parts of the schema.
pub(crate) fn has_references(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => {
            object.contains_key("$ref")
                || object.contains_key("$dynamicRef")
                || object.values().any(has_references)
        }
        Value::Array(items) => items.iter().any(has_references),
        _ => false,
    }
}

/// Moves the targets of a schema's references, so that the schema can become part of another one.
/// Definitions are moved to `all`, with `owner` prefixed to their names. If a reference points to
/// any other part of the schema, the entire schema is moved to `all` under the name `owner`.
pub(crate) fn move_definitions(schema: &mut Value, owner: &str, all: &mut Map<String, Value>) {
    /// Updates the references. Returns whether any of them points to something other than a
    /// definition.
    fn adapt(schema: &mut Value, owner: &str) -> bool {
        let mut other = false;
        match schema {
            Value::Object(object) => {
                if let Some(Value::String(target)) = object.get_mut("$ref") {
                    let found = DEFINITIONS.iter().find_map(|key| target.strip_prefix(&format!("#/{key}/")));
                    if let Some(name) = found {
                        *target = format!("#/$defs/{owner}.{name}");
                    } else if let Some(pointer) =
                        target.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/'))
                    {
                        *target = format!("#/$defs/{owner}{pointer}");
                        other = true;
                    }
                }
                object.values_mut().for_each(|value| other |= adapt(value, owner));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| other |= adapt(item, owner)),
            _ => {}
        }
        other
    }
    let moved = schema.as_object_mut().into_iter().flat_map(|object| {
        DEFINITIONS.iter().filter_map(|key| object.shift_remove(*key)).collect::<Vec<_>>()
    });
    let moved: Vec<Value> = moved.collect();
    let mut other = adapt(schema, owner);
    for mut definition in moved {
        other |= adapt(&mut definition, owner);
        let named = definition.as_object_mut().map(std::mem::take).into_iter().flatten();
        all.extend(named.map(|(name, schema)| (format!("{owner}.{name}"), schema)));
    }
    if other {
        let reference = serde_json::json!({ "$ref": format!("#/$defs/{owner}") });
        all.insert(owner.to_owned(), std::mem::replace(schema, reference));
    }
}

/// Whether an argument is accepted but not shown: `#[schemars(extend("hidden" = true))]`.
pub(crate) fn is_hidden(property: &Value) -> bool {
    property["hidden"] == true
}

fn shrink(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    for key in ["title", "format", "$schema", "default"] {
        object.shift_remove(key);
    }
    // `Option<T>` means that the argument is optional; "or null" would only cost tokens.
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if types.len() == 1 {
            let only = types.remove(0);
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(variants)) = object.get_mut("anyOf") {
        variants.retain(|v| v["type"] != "null");
        variants.iter_mut().for_each(shrink);
        if variants.len() == 1
            && let Value::Object(only) = variants.remove(0)
        {
            object.shift_remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(shrink);
    }
    if let Some(items) = object.get_mut("items") {
        shrink(items);
    }
}

/// Whether an object schema requires this property.
pub(crate) fn required(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name))
}

/// Coerces a value where the schema allows only one interpretation: `"5"` for an integer, `"true"`
/// for a boolean, a JSON array or object written as a string, a single item for an array of such
/// items. Everything else stays as it is.
pub(crate) fn coerce(value: Value, schema: &Value) -> Value {
    let Some(wanted) = schema["type"].as_str() else { return value };
    match (wanted, value) {
        ("integer", Value::String(s)) => s.trim().parse::<i64>().map_or(Value::String(s), Value::from),
        ("integer", Value::Number(n)) => match n.as_f64() {
            Some(f) if n.as_i64().is_none() && f.fract() == 0.0 && f.abs() < 9e15 => Value::from(f as i64),
            _ => Value::Number(n),
        },
        ("boolean", Value::String(s)) => match s.trim() {
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            _ => Value::String(s),
        },
        ("array" | "object", Value::String(s)) => match serde_json::from_str::<Value>(&s) {
            Ok(v) if (wanted == "array" && v.is_array()) || (wanted == "object" && v.is_object()) => {
                coerce(v, schema)
            }
            _ if wanted == "array" && schema["items"]["type"] == "string" => {
                Value::Array(vec![Value::String(s)])
            }
            _ => Value::String(s),
        },
        ("array", Value::Object(o)) if schema["items"]["type"] == "object" => {
            Value::Array(vec![coerce(Value::Object(o), &schema["items"])])
        }
        ("array", Value::Array(items)) => {
            Value::Array(items.into_iter().map(|v| coerce(v, &schema["items"])).collect())
        }
        ("object", Value::Object(fields)) => Value::Object(
            fields
                .into_iter()
                .map(|(k, v)| {
                    let v = coerce(v, &schema["properties"][k.as_str()]);
                    (k, v)
                })
                .collect::<Map<_, _>>(),
        ),
        (_, value) => value,
    }
}

/// Validates a value. The error says where the problem is and what was expected. It never includes
/// the value, which may be huge.
pub(crate) fn check(validator: &Validator, value: &Value, place: &str) -> Result<(), String> {
    let Some(error) = validator.iter_errors(value).next() else { return Ok(()) };
    let path = error.instance_path().to_string();
    Err(format!("{place}{path}: {}", error.masked_with("the value given")))
}

/// Returns an object with the shape that a schema requires, for an error message.
pub(crate) fn example(schema: &Value) -> String {
    let mut fields = Map::new();
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties.iter().filter(|(name, _)| required(schema, name)) {
            fields.insert(name.clone(), Value::from(property["type"].as_str().unwrap_or("value")));
        }
    }
    format!("such as {}", Value::Object(fields))
}
