//! A ledger of invoices, oldest first.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead},
};

/// One entry of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Invoice {
    pub id: u64,
    pub cents: i64,
    pub note: Option<String>,
}

#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    Line { number: usize, why: &'static str },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "cannot read the ledger: {e}"),
            Self::Line { number, why } => write!(f, "line {number}: {why}"),
        }
    }
}

impl Invoice {
    fn parse(line: &str, number: usize) -> Result<Self, Error> {
        let mut parts = line.splitn(3, ';');
        let id = parts.next().and_then(|p| p.parse().ok());
        let cents = parts.next().and_then(|p| p.parse().ok());
        match (id, cents) {
            (Some(id), Some(cents)) => Ok(Self {
                id,
                cents,
                note: parts.next().map(str::to_owned),
            }),
            _ => Err(Error::Line { number, why: "expected id;cents;note" }),
        }
    }

    pub fn is_credit(&self) -> bool {
        self.cents < 0
    }
}

/// Reads all invoices; the last one with an id wins.
pub fn read(input: impl BufRead) -> Result<BTreeMap<u64, Invoice>, Error> {
    let mut out = BTreeMap::new();
    for (i, line) in input.lines().enumerate() {
        let line = line.map_err(Error::Io)?;
        if line.trim().is_empty() {
            continue;
        }
        let invoice = Invoice::parse(&line, i + 1)?;
        out.insert(invoice.id, invoice);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_two() {
        let ledger = read(&b"1;200;tea\n2;-50\n"[..]).unwrap();
        assert_eq!(ledger.len(), 2);
        assert!(ledger[&2].is_credit());
    }
}
