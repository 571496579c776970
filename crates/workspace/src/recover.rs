//! Rolls back commits that were interrupted by a crash.

use std::io;

use crate::{
    Workspace,
    place::{Found, Place},
    root::lock,
    store::{FileRecord, REPLACE_LIMIT, Record, State, Store},
};

impl Workspace {
    /// Rolls back every unfinished commit in this tree. Files that someone else has written to
    /// since then are left alone.
    pub(crate) fn recover(&self) -> io::Result<()> {
        let _writing = lock(&self.0.writing);
        let Some(store) = &self.0.store else { return Ok(()) };
        let ids = store.ids()?;
        for &id in &ids {
            let done = store.is_done(id);
            if done && Some(&id) != ids.last() {
                continue;
            }
            // Ignore commits in other trees, such as the tree of a dry run, which may have been
            // deleted.
            match store.record(id)? {
                Some(record) if record.tree != self.0.root => continue,
                Some(record) if done => self.clear(&record),
                Some(record) => {
                    for file in record.files.iter().rev() {
                        self.roll_back(store, id, &record, file)?;
                    }
                    self.remove_empty_folders(&record.made);
                    store.forget(id)?;
                }
                None => store.forget(id)?,
            }
        }
        Ok(())
    }

    /// Removes temporary files of a finished commit.
    fn clear(&self, record: &Record) {
        for file in record.files.iter().filter(|file| !file.temp.is_empty()) {
            if let Ok(Some(place)) = self.place(&file.path, None) {
                // Leaving the file behind does no harm.
                let _ = place.remove(&file.temp);
            }
        }
    }

    fn roll_back(&self, store: &Store, id: u64, record: &Record, file: &FileRecord) -> io::Result<()> {
        let Some(place) = self.place(&file.path, None).map_err(io::Error::other)? else { return Ok(()) };
        let back = format!("{}.back", file.temp);
        if !file.temp.is_empty() {
            place.finish_swap(&file.temp)?;
            place.finish_swap(&back)?;
        }
        let Some(now) = state(&place, place.name())? else { return Ok(()) };
        if now == file.after && now != file.before {
            match file.before {
                None => place.remove(place.name())?,
                // The old file still exists under the temporary name, with its times and hard
                // links.
                Some(_) if state(&place, &file.temp)? == Some(file.before) => {
                    put(&place, &file.temp, now.is_some())?;
                }
                Some(state) => {
                    // Use a name other than the commit's temporary name, which may be taken.
                    place.remove(&back)?;
                    place.stage(&back, &store.image(id, record, state)?, place.file()?.as_ref(), true)?;
                    put(&place, &back, now.is_some())?;
                }
            }
        }
        // An interrupted recovery may have left these files.
        place.remove(&back)?;
        place.remove(&file.temp)?;
        place.sync()
    }
}

fn put(place: &Place, temp: &str, replaces: bool) -> io::Result<()> {
    if replaces { place.swap(temp) } else { place.move_in(temp) }
}

/// Returns the state of a file. The outer `None` means that something other than a file is there.
fn state(place: &Place, name: impl rustix::path::Arg + Copy) -> io::Result<Option<Option<State>>> {
    Ok(match place.find_as(name, REPLACE_LIMIT)? {
        Found::File(image, _) => Some(Some(State::of(&image))),
        Found::Nothing => Some(None),
        Found::Other => None,
    })
}
