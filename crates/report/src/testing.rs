//! Rows and summaries for unit tests.

use batch::{Row, Summary};
use journal::Ending;

pub(crate) fn row(id: &str, ending: Option<Ending>, message: &str) -> Row {
    Row {
        id: id.into(),
        infrastructure: ending.as_ref().is_some_and(Ending::is_infrastructure),
        ending,
        attempts: 1,
        added: 2,
        removed: 1,
        turns: 3,
        tokens: 1_000,
        cost: None,
        seconds: 1.5,
        session: None,
        message: message.into(),
    }
}

pub(crate) fn summary(rows: Vec<Row>) -> Summary {
    let mut endings: Vec<(String, usize)> = Vec::new();
    for row in &rows {
        match endings.iter_mut().find(|(label, _)| label == row.label()) {
            Some((_, n)) => *n += 1,
            None => endings.push((row.label().to_owned(), 1)),
        }
    }
    Summary {
        v: 1,
        tasks: rows.len(),
        endings,
        stopped: None,
        attempts: rows.len(),
        tokens: 2_000,
        cost: None,
        prices_of: None,
        seconds: 3.0,
        rows,
    }
}
