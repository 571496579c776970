//! A commit that a crash cut in the middle is taken back.

use std::io;

use crate::{
    Workspace,
    place::{Found, Place},
    root::lock,
    store::{FileRecord, REPLACE_LIMIT, Record, State, Store},
};

impl Workspace {
    /// Takes back every commit in this tree that was begun and not finished. Files that somebody else has written since are left alone.
    pub(crate) fn recover(&self) -> io::Result<()> {
        let _writing = lock(&self.0.writing);
        let Some(store) = &self.0.store else { return Ok(()) };
        let ids = store.ids()?;
        for &id in &ids {
            let done = store.is_done(id);
            if done && Some(&id) != ids.last() {
                continue;
            }
            // What was begun in the tree of a dry-run, which may be gone, is nobody's business here.
            match store.record(id)? {
                Some(record) if record.tree != self.0.root => continue,
                Some(record) if done => self.clear(&record),
                Some(record) => {
                    for file in record.files.iter().rev() {
                        self.take_back(store, id, &record, file)?;
                    }
                    self.unmake(&record.made);
                    store.forget(id)?;
                }
                None => store.forget(id)?,
            }
        }
        Ok(())
    }

    /// Removes what the last commit left behind when it was done and could not tidy up.
    fn clear(&self, record: &Record) {
        for file in record.files.iter().filter(|file| !file.temp.is_empty()) {
            if let Ok(Some(place)) = self.place(&file.path, None) {
                // Litter, if it cannot be removed.
                let _ = place.remove(&file.temp);
            }
        }
    }

    fn take_back(&self, store: &Store, id: u64, record: &Record, file: &FileRecord) -> io::Result<()> {
        let Some(place) = self.place(&file.path, None).map_err(io::Error::other)? else { return Ok(()) };
        let back = format!("{}.back", file.temp);
        if !file.temp.is_empty() {
            place.end_exchange(&file.temp)?;
            place.end_exchange(&back)?;
        }
        let Some(now) = state(&place, place.name())? else { return Ok(()) };
        if now == file.after && now != file.before {
            match file.before {
                None => place.remove(place.name())?,
                // The old file itself, with its times and other names, when it is still there.
                Some(_) if state(&place, &file.temp)? == Some(file.before) => {
                    put(&place, &file.temp, now.is_some())?;
                }
                Some(state) => {
                    // Not under the commit's own temporary name: that may hold something else.
                    place.remove(&back)?;
                    place.stage(&back, &store.image(id, record, state)?, place.file()?.as_ref(), true)?;
                    put(&place, &back, now.is_some())?;
                }
            }
        }
        // Also what an earlier recovery, itself cut, has left.
        place.remove(&back)?;
        place.remove(&file.temp)?;
        place.sync()
    }
}

fn put(place: &Place, temp: &str, replaces: bool) -> io::Result<()> {
    if replaces { place.exchange(temp) } else { place.appear(temp) }
}

/// What stands there; the outer `None` when it is nothing that a commit makes.
fn state(place: &Place, name: impl rustix::path::Arg + Copy) -> io::Result<Option<Option<State>>> {
    Ok(match place.find_as(name, REPLACE_LIMIT)? {
        Found::File(image, _) => Some(Some(State::of(&image))),
        Found::Nothing => Some(None),
        Found::Other => None,
    })
}
