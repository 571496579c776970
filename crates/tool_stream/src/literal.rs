//! Reads unquoted values, and text that consists of a single JSON or Python value.

use memchr::memchr2;
use serde_json::Value;

use crate::event::Repair;
use crate::json::{Reader, Step, Syntax};
use crate::text::Repairs;
use crate::window::Window;

/// Returns the value of an unquoted word, and the repair that it needs, if any.
pub(crate) fn bare_word(word: &[u8]) -> Option<(Value, Option<Repair>)> {
    Some(match word {
        b"true" => (Value::Bool(true), None),
        b"false" => (Value::Bool(false), None),
        b"null" => (Value::Null, None),
        b"True" | b"TRUE" => (Value::Bool(true), Some(Repair::PythonLiteral)),
        b"False" | b"FALSE" => (Value::Bool(false), Some(Repair::PythonLiteral)),
        b"None" | b"NULL" | b"Null" | b"nil" => (Value::Null, Some(Repair::PythonLiteral)),
        // JSON has no value for these.
        b"NaN" | b"nan" | b"Infinity" | b"-Infinity" | b"+Infinity" | b"inf" | b"-inf" | b"undefined" => {
            return None;
        }
        [b'a'..=b'z' | b'A'..=b'Z' | b'_', ..] => {
            let name = word.iter().all(|b| b.is_ascii_alphanumeric() || b"_./-:@".contains(b));
            (
                Value::String(String::from_utf8(word.to_vec()).ok().filter(|_| name)?),
                Some(Repair::UnquotedValue),
            )
        }
        _ => match serde_json::from_slice::<serde_json::Number>(word) {
            // serde_json may get the last bit of a float wrong; the standard library is exact.
            Ok(number) if number.is_f64() => {
                let exact =
                    std::str::from_utf8(word).ok()?.parse().ok().and_then(serde_json::Number::from_f64);
                (Value::Number(exact.unwrap_or(number)), None)
            }
            Ok(number) => (Value::Number(number), None),
            Err(_) => {
                let text = std::str::from_utf8(word).ok()?;
                let (sign, digits) = match text.strip_prefix('-') {
                    Some(digits) => ("-", digits),
                    None => ("", text.strip_prefix('+').unwrap_or(text)),
                };
                let lead = if digits.starts_with('.') { "0" } else { "" };
                let trail = if digits.ends_with('.') { "0" } else { "" };
                let repaired = format!("{sign}{lead}{digits}{trail}");
                (Value::Number(serde_json::from_str(&repaired).ok()?), Some(Repair::NumberFormat))
            }
        },
    })
}

/// Returns the JSON or Python literal, array or object in `bytes`, or `None` if they contain
/// anything else.
pub(crate) fn literal(bytes: &[u8], repairs: &mut Repairs) -> Option<Value> {
    match bytes.first()? {
        b'{' | b'[' => {}
        _ => {
            let (value, repair) = bare_word(bytes).filter(|(value, _)| !value.is_string())?;
            repair.into_iter().for_each(|repair| repairs.add(repair));
            return Some(value);
        }
    }
    // If a single quote comes before any double quote, the text is Python, and Python's string
    // rules apply.
    let python = memchr2(b'\'', b'"', bytes).is_some_and(|at| bytes[at] == b'\'');
    let mut reader = Reader::new(0, 128, if python { Syntax::Python } else { Syntax::Json });
    let win = Window { bytes, base: 0, eof: true };
    loop {
        match reader.step(win) {
            Step::Done(value) if bytes[reader.pos..].trim_ascii().is_empty() => {
                repairs.merge(reader.repairs);
                if python {
                    repairs.add(Repair::PythonLiteral);
                }
                return Some(value);
            }
            Step::Done(_) | Step::More | Step::Bad(_) => return None,
            _ => {}
        }
    }
}
