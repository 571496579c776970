//! The images of a task (`--image`): reads them before the session is created, stores them in the
//! session's folder, and loads them when the session is resumed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use models::image::{Image, MAX_BYTES, MAX_IMAGES};

use crate::exit::{Failure, Result};

/// The subfolder of a session's folder that holds the images.
const FOLDER: &str = "images";

/// An image that was read from one of the user's files.
pub(crate) struct Picture {
    pub(crate) image: Arc<Image>,
    bytes: Vec<u8>,
}

/// Reads the image files that the user specified. Images with the same content are used only once.
///
/// # Errors
/// If a file cannot be read, is not an image or is too large, or if there are too many.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Picture>> {
    if paths.len() > MAX_IMAGES {
        return Err(Failure::misuse(format!(
            "a task may have at most {MAX_IMAGES} images, not {}",
            paths.len()
        )));
    }
    let mut pictures: Vec<Picture> = Vec::new();
    for path in paths {
        let picture = picture(path)?;
        if pictures.iter().all(|other| other.image.name() != picture.image.name()) {
            pictures.push(picture);
        }
    }
    Ok(pictures)
}

fn picture(path: &Path) -> Result<Picture> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::misuse(format!("cannot use the image {}: {why}", path.display()))
    };
    let metadata = std::fs::metadata(path).map_err(|e| cannot(&e))?;
    if !metadata.is_file() {
        return Err(cannot(&"it is not a regular file")); // opening a pipe would block
    }
    let mut bytes = Vec::new();
    // Reading one byte more than the limit reveals that the file is too large.
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|e| cannot(&e))?;
    let image = Image::new(&bytes).map_err(|why| cannot(&why))?;
    Ok(Picture { image: Arc::new(image), bytes })
}

/// Stores the images in the session's folder. Returns only after the files are synced, so the
/// journal never refers to a missing image.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn store(pictures: Vec<Picture>, session: &Path) -> Result<Vec<Arc<Image>>> {
    if pictures.is_empty() {
        return Ok(Vec::new());
    }
    let folder = session.join(FOLDER);
    let cannot =
        |e: std::io::Error| Failure::misuse(format!("cannot write the images to {}: {e}", folder.display()));
    DirBuilder::new().mode(0o700).create(&folder).map_err(cannot)?;
    for Picture { image, bytes } in &pictures {
        let path = folder.join(image.name());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(cannot)?;
    }
    Ok(pictures.into_iter().map(|picture| picture.image).collect())
}

/// Loads a session's images by name.
///
/// # Errors
/// If an image is missing or was changed after the session started.
pub(crate) fn load(names: &[String], session: &Path) -> Result<Vec<Arc<Image>>> {
    names.iter().map(|name| one(name, session)).collect()
}

fn one(name: &str, session: &Path) -> Result<Arc<Image>> {
    let failed =
        |why: &str| Failure::refused(anyhow::anyhow!("cannot resume the session: its image {name} {why}"));
    // The name comes from the journal, which may have been edited.
    if name.contains('/') {
        return Err(failed("has an invalid name"));
    }
    let picture = picture(&session.join(FOLDER).join(name)).map_err(|_| failed("cannot be read"))?;
    if picture.image.name() != name {
        return Err(failed("was changed"));
    }
    Ok(picture.image)
}
