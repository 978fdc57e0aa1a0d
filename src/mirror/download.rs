//! An object that was downloaded, before its file is in its place.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::{NamedTempFile, TempPath};

use super::bucket::{Bucket, BucketError, Received};
use super::object::{Object, ObjectKind, kind, record_of};
use crate::ledger::{MAX_BYTES, Record};
use crate::record_files;

/// A downloaded object whose file is not in its place yet.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) object: Object,
    /// Closed, for all files of a build wait here for each other.
    pub(super) file: TempPath,
    pub(super) received: Received,
}

impl Download {
    /// Downloads an object as it was listed, into a temporary file.
    ///
    /// # Errors
    /// The object, and why it is not to be had.
    pub(super) async fn fetch(
        bucket: &Bucket,
        object: Object,
        file: io::Result<NamedTempFile>,
    ) -> Result<Self, (Object, BucketError)> {
        let get = async {
            let mut file = file?;
            let received = bucket.get(&object, file.as_file_mut()).await?;
            // As old as the object: replicas tell by it which files were there before the first record.
            let modified = u64::try_from(object.version.modified_ms).ok();
            let modified = modified.map(Duration::from_millis);
            if let Some(modified) = modified.and_then(|since| UNIX_EPOCH.checked_add(since)) {
                file.as_file().set_modified(modified)?;
            }
            file.as_file().sync_all()?;
            Ok((file.into_temp_path(), received))
        };
        match get.await {
            Ok((file, received)) => Ok(Self { object, file, received }),
            Err(error) => Err((object, error)),
        }
    }
}

/// The record in a downloaded file, if it is one that counts.
pub(super) fn record_in(download: &Download) -> Option<Record> {
    record_of(&download.object.path)?;
    parse_record(&download.object.path, &text_of(download)).map(|(_, record)| record)
}

/// The record that a file of the ledger is, and what the mirror knows it by, if it counts.
pub(super) fn parse_record(path: &str, text: &[u8]) -> Option<(String, Record)> {
    let record = record_files::parse(path, text, None).ok()?;
    Some((record_of(path).unwrap_or(path).to_owned(), record))
}

/// The text of a downloaded file of the ledger; nothing of others, nor of what cannot be read, which is no
/// record then.
pub(super) fn text_of(download: &Download) -> Vec<u8> {
    let mut text = Vec::new();
    if kind(&download.object.path) == Some(ObjectKind::Record) {
        let file = File::open(&download.file);
        let _ = file.and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    }
    text
}
