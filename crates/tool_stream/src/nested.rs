//! Arrays and objects written as nested elements, as MiniMax M3 does: `<item>` for an array
//! element, and an element named after the key for an object member.

use memchr::memmem;
use serde_json::{Map, Value};

use crate::markup::{MINIMAX, untyped};
use crate::tags::{Plain, plain_element};
use crate::text::Repairs;

/// The maximum nesting depth of elements.
const MAX_DEPTH: usize = 16;

/// Returns the array or object in `bytes`, or `None` if they are just text. If the value begins
/// with MiniMax's token, tags without the token are text. Otherwise, only an array can be
/// distinguished from text.
pub(crate) fn value(bytes: &[u8], repairs: &mut Repairs) -> Option<Value> {
    let text = bytes.trim_ascii();
    let prefix = if text.starts_with(MINIMAX) { MINIMAX } else { b"" };
    if prefix.is_empty() && !text.starts_with(b"<item>") {
        return None;
    }
    container(text, prefix, MAX_DEPTH, repairs)
}

fn container(mut text: &[u8], prefix: &[u8], depth: usize, repairs: &mut Repairs) -> Option<Value> {
    let (mut items, mut members) = (Vec::new(), Map::new());
    while !text.is_empty() {
        let (name, body, rest) = element(text, prefix)?;
        let value = match body.trim_ascii() {
            inner if depth > 0 && element(inner, prefix).is_some() => {
                container(inner, prefix, depth - 1, repairs)?
            }
            _ => untyped(&name, body, repairs),
        };
        if name == "item" {
            items.push(value);
        } else if members.insert(name, value).is_some() {
            return None;
        }
        text = rest.trim_ascii();
    }
    match (items.is_empty(), members.is_empty()) {
        (false, true) => Some(Value::Array(items)),
        (true, false) => Some(Value::Object(members)),
        _ => None,
    }
}

/// Parses the element at the start of `text`. Returns its name, its content, and the text after it.
fn element<'a>(text: &'a [u8], prefix: &[u8]) -> Option<(String, &'a [u8], &'a [u8])> {
    let tag = text.strip_prefix(prefix)?.trim_ascii_start();
    let len = memchr::memchr(b'>', tag)? + 1;
    let (name, Plain::Open) = plain_element(&tag[..len])? else { return None };
    let body = &tag[len..];
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (mut from, mut depth) = (0, 0);
    loop {
        let end = from + memmem::find(&body[from..], close.as_bytes())?;
        depth += memmem::find_iter(&body[from..end], open.as_bytes()).count();
        let before = body[..end].trim_ascii_end();
        let structural = before.ends_with(prefix);
        from = end + close.len();
        if !structural {
            continue;
        }
        if depth == 0 {
            let inner = if prefix.is_empty() { &body[..end] } else { before.strip_suffix(prefix)? };
            return Some((name.to_owned(), inner, &body[from..]));
        }
        depth -= 1;
    }
}
