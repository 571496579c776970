//! Downloads from Hugging Face. Its API reports a file's size and SHA-256, and downloads can resume
//! at any byte.

use futures_util::StreamExt;
use models::{download, host};
use serde::Deserialize;

use super::part::Part;
use super::{Failed, Pull};
use crate::catalog::Hub;

/// The maximum size of a repository's file list, in bytes.
const MAX_LIST: usize = 16 << 20;

#[derive(Deserialize)]
struct Entry {
    path: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

pub(super) async fn pull(pull: &mut Pull<'_>, hub: &Hub) -> Result<(), Failed> {
    let base = pull.sources.hub.trim_end_matches('/').to_owned();
    let Hub { repository, file } = hub;
    pull.source = format!("{repository} at {}", host::shown(&base));
    pull.tell(format!("looking for {}", pull.source), 0, 0);
    let list = format!("{base}/api/models/{repository}/tree/main");
    let list = pull.document(&list, "application/json", MAX_LIST).await?;
    let entries: Vec<Entry> = serde_json::from_slice(&list)
        .map_err(|why| models::Error::Protocol(format!("cannot parse the list of files: {why}")))?;
    let lfs = entries.into_iter().find(|entry| entry.path == *file).and_then(|entry| entry.lfs);
    let lfs =
        lfs.ok_or_else(|| models::Error::Refused(format!("the repository has no file {file} in Git LFS")))?;
    if lfs.oid.len() != 64 {
        return Err(models::Error::Protocol(format!("{:?} is not a SHA-256", lfs.oid)).into());
    }
    let mut part = pull.open(&lfs.oid, lfs.size)?;
    let url = format!("{base}/{repository}/resolve/main/{file}");
    let mut attempt = 0;
    while part.length() < lfs.size {
        let before = part.length();
        match fetch(pull, &url, &mut part, lfs.size).await {
            Err(Failed::Source(error)) => {
                attempt = if part.length() > before { 0 } else { attempt };
                pull.retry(attempt, error, part.length(), lfs.size).await?;
                attempt += 1;
            }
            other => other?,
        }
    }
    pull.finish(part, &lfs.oid).await
}

/// Requests the rest of the file and appends it.
async fn fetch(pull: &mut Pull<'_>, url: &str, part: &mut Part, total: u64) -> Result<(), Failed> {
    let wrong = |why: String| Failed::Source(models::Error::Refused(why));
    let mut download = download::get(url, None, part.length(), &pull.sources.access).await?;
    if let Some(other) = download.total.filter(|other| *other != total) {
        return Err(wrong(format!("the file on the server is {other} bytes long, not {total}")));
    }
    if download.from != part.length() {
        if download.from > 0 {
            return Err(wrong(format!("the server resumed the file at the wrong byte: {}", download.from)));
        }
        // The server cannot resume, so it sends the whole file again.
        part.truncate(0).map_err(|why| pull.io(why))?;
    }
    let status = format!("downloading from {}", pull.source);
    while let Some(bytes) = download.bytes.next().await {
        let bytes = bytes?;
        if part.length() + bytes.len() as u64 > total {
            return Err(wrong(format!("the server sent more than {total} bytes")));
        }
        part.write(&bytes).map_err(|why| pull.io(why))?;
        pull.tell(&status, part.length(), total);
    }
    if part.length() < total {
        let message = format!("the connection ended after {} of {total} bytes", part.length());
        return Err(models::Error::Transport(message).into());
    }
    Ok(())
}
