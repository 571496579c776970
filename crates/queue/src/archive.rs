//! Packs a session's folder into a compressed tar archive, and unpacks it again.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use journal::JOURNAL;
use tar::{Archive, Builder, EntryType};

/// The maximum size of an unpacked session, in bytes.
const LARGEST: u64 = 256 << 20;
/// The maximum number of files in a session.
const MOST: usize = 1000;

/// Packs the regular files of a folder, but not its subfolders.
pub(crate) fn pack(folder: &Path) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            archive.append_path_with_name(entry.path(), entry.file_name())?;
        }
    }
    archive.into_inner()?.finish()
}

/// Unpacks an archive into a folder, unless that has already been done. Accepts only regular files
/// directly in the folder, because the archive comes from another machine. A folder is considered a
/// session once it contains a journal, so the journal is renamed to its final name last. A call
/// that is killed therefore does not leave an incomplete session behind.
pub(crate) fn unpack(archive: &[u8], folder: &Path) -> io::Result<()> {
    if folder.join(JOURNAL).exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?; // private to the user
    let mut files = Archive::new(GzDecoder::new(archive).take(LARGEST));
    let unfinished = folder.join(format!("{JOURNAL}.unfinished"));
    let mut has_journal = false;
    for (number, file) in files.entries()?.enumerate() {
        let mut file = file?;
        if number == MOST {
            return Err(io::Error::other("too many files"));
        }
        let path = file.path()?.into_owned();
        let plain = path.components().count() == 1 && path.file_name() == Some(path.as_os_str());
        if file.header().entry_type() != EntryType::Regular || !plain {
            return Err(io::Error::other(format!("unexpected entry {}", path.display())));
        }
        let is_journal = path.as_os_str() == JOURNAL;
        has_journal |= is_journal;
        let target = if is_journal { unfinished.clone() } else { folder.join(path) };
        io::copy(&mut file, &mut fs::File::create(target)?)?;
    }
    if has_journal { fs::rename(unfinished, folder.join(JOURNAL)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpacked_session_equals_the_packed_one() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        fs::create_dir_all(from.join("folder")).unwrap();
        fs::write(from.join("journal.jsonl"), "{}\n").unwrap();
        let archive = pack(&from).unwrap();
        unpack(&archive, &to).unwrap();
        unpack(&archive, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("journal.jsonl")).unwrap(), "{}\n");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }

    #[test]
    fn bug_a_killed_fetch_left_a_folder_that_was_listed_as_a_session() {
        let place = tempfile::tempdir().unwrap();
        let store = journal::Store::new(place.path());
        let from = place.path().join("from");
        fs::create_dir(&from).unwrap();
        fs::write(from.join(JOURNAL), "x".repeat(100_000)).unwrap();
        let archive = pack(&from).unwrap();
        // The rest of the archive is missing, as if the process had been killed while unpacking it.
        assert!(unpack(&archive[..archive.len() / 2], &store.folder("s")).is_err());
        assert_eq!(store.ids().unwrap(), [""; 0]);
        unpack(&archive, &store.folder("s")).unwrap();
        assert_eq!(store.ids().unwrap(), ["s"]);
        assert_eq!(fs::read_dir(store.folder("s")).unwrap().count(), 1);
    }

    #[test]
    fn an_archive_cannot_write_outside_its_folder() {
        let place = tempfile::tempdir().unwrap();
        let packed = |entry: EntryType, path: &str| {
            let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(entry);
            header.set_size(0);
            let name = &mut header.as_gnu_mut().unwrap().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, io::empty()).unwrap();
            archive.into_inner().unwrap().finish().unwrap()
        };
        let refused = [
            packed(EntryType::Regular, "../evil"),
            packed(EntryType::Regular, "/evil"),
            packed(EntryType::Regular, "a/b"),
            packed(EntryType::Symlink, "link"),
        ];
        for (n, archive) in refused.iter().enumerate() {
            assert!(unpack(archive, &place.path().join("in").join(n.to_string())).is_err(), "{n}");
        }
        let files = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
        assert_eq!(files(place.path()), 1);
        for n in 0..refused.len() {
            assert_eq!(files(&place.path().join("in").join(n.to_string())), 0, "{n}");
        }
    }
}
