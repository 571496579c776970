//! Assembles native tool calls from their fragments.

use std::collections::VecDeque;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::frames::MAX_LINE;
use crate::{Delta, EndReason, Error};

/// Maximum number of unfinished tool calls at a time. Servers normally send calls one after
/// another.
const MAX_CALLS: usize = 128;

/// The calls being assembled, latest first.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

/// A call being assembled.
#[derive(Debug, Default)]
struct Call {
    /// Its index, if the server sends one.
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Calls {
    /// Adds a chunk's fragments and emits the calls that they complete.
    pub(super) fn add(&mut self, fragments: &[Value], out: &mut VecDeque<Delta>) -> Result<(), Error> {
        fragments.iter().enumerate().try_for_each(|(at, fragment)| self.add_one(fragment, at == 0, out))
    }

    fn add_one(&mut self, fragment: &Value, first: bool, out: &mut VecDeque<Delta>) -> Result<(), Error> {
        let index = fragment["index"].as_u64();
        let at = match self.continued(index, fragment, first) {
            Some(at) => at,
            None => self.start(index, out),
        };
        let Some(call) = self.0.get_mut(at) else { return Ok(()) };
        if call.id.is_empty() {
            call.id.push_str(fragment["id"].as_str().unwrap_or_default());
        }
        if let Some(part) = fragment["function"]["name"].as_str() {
            // Some servers send the name in pieces; others repeat the whole name.
            if call.name != part {
                call.name.push_str(part);
            }
        }
        match &fragment["function"]["arguments"] {
            Value::String(part) => call.arguments.push_str(part),
            Value::Null => {}
            whole => call.arguments = whole.to_string(),
        }
        let size: usize = self.0.iter().map(|call| call.name.len() + call.arguments.len()).sum();
        if size > MAX_LINE || self.0.len() > MAX_CALLS {
            return Err(Error::Protocol(format!(
                "the server sent more than {MAX_LINE} bytes of tool calls, or more than {MAX_CALLS} calls at a time"
            )));
        }
        Ok(())
    }

    /// Returns the call that a fragment continues, or `None` if the fragment starts a new call. The
    /// index is not enough to decide, because some servers give every call the index 0 and others
    /// send no index at all. An id alone is not enough either, because some servers make up an id
    /// for every fragment. A fragment with a name and a new id starts a call. A fragment that has a
    /// name, but neither an index nor the open call's id, also starts a call in two cases: if it is
    /// not the first fragment in its chunk, or if the open call's arguments are complete and the
    /// fragment does not merely repeat the name.
    fn continued(&self, index: Option<u64>, fragment: &Value, first: bool) -> Option<usize> {
        let at =
            self.0.iter().rposition(|call| index.is_none() || call.index.is_none() || index == call.index)?;
        let call = self.0.get(at)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (id, name) = (text(&fragment["id"]), text(&fragment["function"]["name"]));
        let new_id = !id.is_empty() && !call.id.is_empty() && id != call.id;
        let same_id = !id.is_empty() && id == call.id;
        let arguments = &fragment["function"]["arguments"];
        let repeated = name == call.name && (arguments.is_null() || arguments == "");
        let after_another =
            index.is_none() && !same_id && (!first || (!repeated && is_complete(&call.arguments)));
        let starts = !name.is_empty() && (new_id || after_another);
        (!starts).then_some(at)
    }

    /// Starts a call, which completes all other calls except those with a higher index.
    fn start(&mut self, index: Option<u64>, out: &mut VecDeque<Delta>) -> usize {
        let open = |call: &Call| index.zip(call.index).is_some_and(|(new, old)| new < old);
        let (open, complete): (Vec<_>, Vec<_>) = self.0.drain(..).partition(open);
        self.0 = open;
        out.extend(complete.into_iter().map(Call::complete));
        self.0.insert(0, Call { index, ..Call::default() });
        0
    }

    /// Emits the remaining calls at the end of the answer. Calls that were truncated by the token
    /// limit are dropped.
    pub(super) fn finish(&mut self, reason: EndReason, out: &mut VecDeque<Delta>) {
        let calls = self.0.drain(..).filter(|call| reason == EndReason::Stop || is_complete(&call.arguments));
        out.extend(calls.map(Call::complete));
    }
}

fn is_complete(arguments: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(arguments).is_ok()
}

impl Call {
    /// Returns the completed call. Arguments that are not JSON remain a string, so that the error
    /// can be reported to the model.
    fn complete(self) -> Delta {
        let arguments = match self.arguments.trim() {
            "" => json!({}),
            text => serde_json::from_str(text).unwrap_or(Value::String(self.arguments)),
        };
        Delta::ToolCall { name: self.name, arguments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(fragments: &[Value]) -> Vec<Delta> {
        let (mut calls, mut out) = (Calls::default(), VecDeque::new());
        for fragment in fragments {
            calls.add(std::slice::from_ref(fragment), &mut out).unwrap();
        }
        calls.finish(EndReason::Stop, &mut out);
        out.into()
    }

    #[test]
    fn a_new_id_starts_a_new_call_whatever_its_index() {
        let part = |index: Option<u64>, id: &str, name: &str, arguments: &str| {
            let function = json!({"name": Some(name).filter(|n| !n.is_empty()), "arguments": arguments});
            let mut part = json!({"id": Some(id).filter(|id| !id.is_empty()), "function": function});
            if let Some(index) = index {
                part["index"] = json!(index);
            }
            part
        };
        let calls = |x: u64, y: u64| {
            let call =
                |name: &str, x: u64| Delta::ToolCall { name: name.to_owned(), arguments: json!({ "x": x }) };
            vec![call("f", x), call("f", y)]
        };
        for index in [None, Some(0)] {
            let whole = [part(index, "a", "f", "{\"x\": 1}"), part(index, "b", "f", "{\"x\": 2}")];
            assert_eq!(run(&whole), calls(1, 2), "{index:?}");
            let pieces = [
                part(index, "a", "f", ""),
                part(index, "", "", "{\"x\""),
                part(index, "a", "f", ": 1}"),
                part(index, "b", "f", "{\"x\""),
                part(index, "", "", ": 2}"),
            ];
            assert_eq!(run(&pieces), calls(1, 2), "{index:?}");
        }
        // If a fragment has neither an index nor an id, its name starts another call.
        let whole = [part(None, "", "f", "{\"x\": 1}"), part(None, "", "f", "{\"x\": 2}")];
        assert_eq!(run(&whole), calls(1, 2));
        // Some servers make up an id for every fragment, so a fragment without a name continues the
        // call.
        let pieces = [
            part(Some(0), "a", "f", "{\"x\""),
            part(Some(0), "b", "", ": 1}"),
            part(Some(1), "c", "f", "{\"x\": 2}"),
        ];
        assert_eq!(run(&pieces), calls(1, 2));
        let bare = [part(None, "", "f", ""), part(None, "", "f", "{\"x\": 2}")];
        let (mut both, mut out) = (Calls::default(), VecDeque::new());
        both.add(&bare, &mut out).unwrap();
        both.finish(EndReason::Stop, &mut out);
        assert_eq!(out.len(), 2, "two fragments of one chunk should be two calls");
        // A fragment that merely repeats the name does not start another call, even if the
        // arguments are already complete.
        let pieces = [part(None, "", "f", "{\"x\": 1}"), part(None, "", "f", "")];
        assert_eq!(run(&pieces), calls(1, 2)[..1]);
    }
}
