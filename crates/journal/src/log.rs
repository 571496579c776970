//! Append-only files of JSON records, one per line, that survive a kill at any point.
//!
//! Each record is appended in one write. An interrupted write leaves a torn last line, which the
//! next reader ignores and the next writer truncates. Damage anywhere else is an error.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, io_error};

/// A record that includes the version of its format.
pub trait Versioned {
    /// The version that this program supports.
    const VERSION: u32;

    /// Returns the version of this record.
    fn version(&self) -> u32;
}

/// A log that this process appends to. The caller holds a [`LockFile`](crate::LockFile), so that no
/// other process appends to it.
#[derive(Debug)]
pub struct Log<T> {
    path: PathBuf,
    file: File,
    records: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + Versioned> Log<T> {
    /// Opens or creates a log, and returns its records. Removes a torn last line.
    ///
    /// # Errors
    /// When the file cannot be opened, read or truncated, or is damaged before its last line.
    pub fn open(path: PathBuf) -> Result<(Self, Vec<T>), Error> {
        let mut records = Vec::new();
        let log = Self::open_with(path, |record| records.push(record))?;
        Ok((log, records))
    }

    /// Same as [`open`](Self::open), but passes the records to `each`, one at a time.
    ///
    /// # Errors
    /// Same as [`open`](Self::open).
    pub fn open_with(path: PathBuf, each: impl FnMut(T)) -> Result<Self, Error> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(io_error("cannot open", &path))?;
        let whole = parse(&path, &file, each)?;
        file.set_len(whole)
            .and_then(|()| file.seek(SeekFrom::Start(whole)))
            .map_err(io_error("cannot repair", &path))?;
        Ok(Self { path, file, records: PhantomData })
    }

    /// Reads a log, even while another process is appending to it.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged before its last line.
    pub fn read(path: &Path) -> Result<Vec<T>, Error> {
        let mut records = Vec::new();
        Self::read_with(path, |record| records.push(record))?;
        Ok(records)
    }

    /// Same as [`read`](Self::read), but passes the records to `each`, one at a time.
    ///
    /// # Errors
    /// Same as [`read`](Self::read).
    pub fn read_with(path: &Path, each: impl FnMut(T)) -> Result<(), Error> {
        let file = File::open(path).map_err(io_error("cannot open", path))?;
        parse(path, &file, each).map(drop)
    }

    /// Encodes a record for [`append`](Self::append), without the newline.
    ///
    /// # Errors
    /// When the record cannot be encoded.
    pub fn encode(&self, record: &T) -> Result<String, Error> {
        let failed = |e: serde_json::Error| io_error("cannot encode a record for", &self.path)(e.into());
        serde_json::to_string(record).map_err(failed)
    }

    /// Appends an encoded record in one write. With `sync`, the record is on disk when this
    /// returns. After an error, the log contains only the complete records before this one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, mut line: String, sync: bool) -> Result<(), Error> {
        line.push('\n');
        let mut append = || -> io::Result<()> {
            let before = self.file.stream_position()?;
            let written = self.file.write_all(line.as_bytes());
            let written = written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
            if written.is_err() {
                // On a full disk, part of the line may have been written.
                let _ = self.file.set_len(before);
                let _ = self.file.seek(SeekFrom::Start(before));
            }
            written
        };
        append().map_err(io_error("cannot write", &self.path))
    }
}

/// Reads the records of a log. Returns the number of bytes in complete lines.
fn parse<T: DeserializeOwned + Versioned>(
    path: &Path,
    file: &File,
    mut each: impl FnMut(T),
) -> Result<u64, Error> {
    let mut reader = BufReader::new(file);
    let (mut records, mut whole, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line).map_err(io_error("cannot read", path))?;
        if n == 0 || line.last() != Some(&b'\n') {
            return Ok(whole); // the end, or a torn line
        }
        let corrupt = |why| Error::Corrupt { path: path.into(), line: records + 1, why };
        match serde_json::from_slice::<T>(&line) {
            Ok(record) if record.version() == T::VERSION => each(record),
            Ok(record) => {
                let why = format!(
                    "it is version {}, but this program supports only {}",
                    record.version(),
                    T::VERSION
                );
                return Err(corrupt(why));
            }
            // After a power loss, the last line may be a block of zeros. Treat it as torn, too.
            Err(_) if reader.fill_buf().is_ok_and(<[u8]>::is_empty) => return Ok(whole),
            Err(e) => return Err(corrupt(e.to_string())),
        }
        records += 1;
        whole += n as u64;
    }
}
