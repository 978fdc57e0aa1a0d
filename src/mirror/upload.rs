//! `martd publish --to`: files first, and then the records that name them.

use std::collections::BTreeSet;
use std::io::Read;

use futures_util::{StreamExt, TryFutureExt, TryStreamExt};

use super::Uploaded;
use super::bucket::{Bucket, BucketError};
use crate::ledger::{self, File, RECORDS, Record};
use crate::scan::OpenDir;

/// Files that are sent at once.
const AT_ONCE: usize = 4;

/// What could not be sent, and why.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {error}")]
pub struct UploadError {
    object: String,
    error: BucketError,
}

/// Sends the records that the bucket does not have, after the files that they name and it does not have.
/// `begin` is told how many bytes that may be, and `sent` how many have been.
///
/// # Errors
/// The first object that fails. Then no record was sent, or not all; it may be tried again.
pub async fn upload(
    bucket: &Bucket,
    dir: &OpenDir,
    records: &[Record],
    begin: impl Fn(u64),
    sent: impl Fn(u64),
) -> Result<Uploaded, UploadError> {
    let of = |object: &str| {
        let object = object.to_owned();
        move |error| UploadError { object, error }
    };
    let (listing, _) = bucket.list().await.map_err(of(bucket.url()))?;
    let path = |record: &Record| format!("{RECORDS}/{}.json", record.build.id);
    // Not the first edition's ledger, which has no file among the records.
    let is_new = |record: &&Record| {
        !listing.contains_key(&path(record)) && dir.identity(&path(record)).is_some()
    };
    let mut new: Vec<&Record> = records.iter().filter(is_new).collect();
    new.sort_by(|one, other| {
        (one.build.finished_at, &one.build.id).cmp(&(other.build.finished_at, &other.build.id))
    });
    // What a later record replaces is nowhere any more, and nobody asks for it.
    let ledger = ledger::fold(records);
    let in_force: Vec<&File> =
        ledger.iter().flat_map(|ledger| &ledger.models).flat_map(|model| &model.files).collect();
    let named: BTreeSet<&str> = new
        .iter()
        .flat_map(|record| &record.marts)
        .flat_map(|mart| &mart.files)
        .map(|file| file.path.as_str())
        .collect();
    let files: Vec<&File> =
        in_force.into_iter().filter(|file| named.contains(file.path.as_str())).collect();
    begin(files.iter().map(|file| file.bytes).sum());
    let sends = files.into_iter().map(|file| {
        let is_listed = listing.get(&file.path).is_some_and(|listed| listed.size == file.bytes);
        let sent = &sent;
        let send = async move {
            if is_listed && bucket.digest(&file.path).await? == Some(file.sha256) {
                sent(file.bytes);
                return Ok(0);
            }
            let from = dir.open_file(&file.path)?;
            bucket.put(&file.path, from, (file.bytes, file.sha256), sent).await?;
            Ok(file.bytes)
        };
        send.map_err(of(&file.path))
    });
    let sent: Vec<u64> =
        futures_util::stream::iter(sends).buffer_unordered(AT_ONCE).try_collect().await?;
    let mut uploaded = Uploaded {
        files: sent.iter().filter(|bytes| **bytes > 0).count(),
        bytes: sent.iter().sum(),
        records: 0,
    };
    for record in new {
        let path = path(record);
        let read = || {
            let mut content = Vec::new();
            dir.open_file(&path)?.read_to_end(&mut content).map(|_| content)
        };
        let content = read().map_err(|error| of(&path)(error.into()))?;
        match bucket.create(&path, content).await {
            Ok(()) => uploaded.records += 1,
            Err(BucketError::Exists) => {} // records are never changed
            Err(error) => return Err(of(&path)(error)),
        }
    }
    Ok(uploaded)
}
