//! A session as one file: a compressed tar archive of its folder.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType};

/// The largest session that is unpacked, in bytes.
const LARGEST: u64 = 256 << 20;
/// The largest number of files in a session.
const MOST: usize = 1000;

/// Packs the regular files directly in a folder.
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

/// Unpacks an archive to a new folder. Does nothing if the folder exists. Accepts regular files
/// directly in the folder only, because another machine made the archive.
pub(crate) fn unpack(archive: &[u8], folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent)?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent)?; // private to the user
    let mut files = Archive::new(GzDecoder::new(archive).take(LARGEST));
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
        io::copy(&mut file, &mut fs::File::create_new(partial.path().join(path))?)?;
    }
    match fs::rename(partial.path(), folder) {
        Err(_) if folder.exists() => Ok(()),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_arrives_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        fs::create_dir_all(from.join("folder")).unwrap();
        fs::write(from.join("journal.jsonl"), "{}\n").unwrap();
        let archive = pack(&from).unwrap();
        unpack(&archive, &to).unwrap();
        unpack(&archive, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("journal.jsonl")).unwrap(), "{}\n");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "nothing is left behind");
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
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
