//! What a bucket has of the ledger, for `martd publish --to`.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt};

use super::bucket::{Bucket, BucketError};
use super::object::{Object, ObjectVersion, record_of};
use super::plan::Listing;
use super::upload::UploadError;
use crate::digest::Digest;
use crate::ledger::{FIRST_EDITION, MAX_BYTES, Record};
use crate::record_files::{self, LoadError};

/// Records that are downloaded at once.
const AT_ONCE: usize = 4;

/// The objects of a bucket, and the records that it has beside those that are here.
#[derive(Debug, Default)]
pub struct RemoteLedger {
    listing: Listing,
    /// What was downloaded; of what is no record, why not.
    read: BTreeMap<String, (ObjectVersion, Result<Record, String>)>,
    records: Vec<Record>,
}

impl RemoteLedger {
    /// Lists the bucket, and reads its records, but for those that are `here` or that one here replaces. What was read
    /// before is not read again.
    ///
    /// # Errors
    /// What cannot be listed or read.
    pub async fn look(&mut self, bucket: &Bucket, here: &[Record]) -> Result<(), UploadError> {
        (self.listing, _) = bucket.list().await.map_err(UploadError::of(bucket.url()))?;
        let known: BTreeSet<&str> = here
            .iter()
            .flat_map(|record| record.replaces.iter().chain([&record.build.id]))
            .map(String::as_str)
            .collect();
        let is_other = |path: &str| match record_of(path) {
            Some(id) => !known.contains(id),
            None => path == FIRST_EDITION,
        };
        let listing = &self.listing;
        self.read.retain(|path, (version, _)| listing.get(path) == Some(version));
        let others = listing.iter().filter(|(path, _)| is_other(path));
        let new = others.filter(|(path, _)| !self.read.contains_key(*path));
        let reads = new.map(async |(path, version)| {
            let read = match read(bucket, path, version).await {
                // What was damaged on its way is not another time.
                Ok(Err(_)) => read(bucket, path, version).await,
                read => read,
            };
            let read = read.map_err(UploadError::of(path))?.map(|(record, _)| record);
            Ok::<_, UploadError>((path.clone(), (version.clone(), read)))
        });
        let reads = futures_util::stream::iter(reads).buffer_unordered(AT_ONCE);
        let new: Vec<_> = reads.try_collect().await?;
        self.read.extend(new);
        let good = self.read.iter().filter(|(path, _)| is_other(path));
        let good = good.filter_map(|(_, (_, read))| read.as_ref().ok());
        let good: Vec<&Record> = good.filter(|record| !known.contains(&*record.build.id)).collect();
        let replaced: BTreeSet<&String> = good.iter().flat_map(|record| &record.replaces).collect();
        let counts = good.iter().filter(|record| !replaced.contains(&record.build.id));
        self.records = counts.map(|record| (*record).clone()).collect();
        Ok(())
    }

    /// Records of other machines that no other record stands for.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Its objects.
    pub(super) fn listing(&self) -> &Listing {
        &self.listing
    }

    /// What of it counts for nothing, and why.
    pub(super) fn damaged(&self) -> impl Iterator<Item = String> {
        let damaged =
            self.read.iter().filter_map(|(path, (_, read))| Some((path, read.as_ref().err()?)));
        damaged.map(|(path, reason)| {
            format!("{path} of the bucket: {reason}; it counts for nothing until that is mended")
        })
    }
}

/// What the bucket has in the place of a record that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemoteCopy {
    /// The same.
    Same,
    /// No record.
    Damaged,
    /// Another record.
    Other,
}

/// Compares a record with the object of its path, which is not downloaded where its size and its writer's hash are
/// right, unless all is to be looked at.
pub(super) async fn compare(
    bucket: &Bucket,
    path: &str,
    listed: &ObjectVersion,
    (record, text): (&Record, &[u8]),
    looks_at_all: bool,
) -> Result<RemoteCopy, BucketError> {
    let is_trusted = listed.size == text.len() as u64 && !looks_at_all;
    if is_trusted && bucket.digest(path).await? == Some(Digest::of(text)) {
        return Ok(RemoteCopy::Same);
    }
    Ok(match read(bucket, path, listed).await? {
        Ok((_, theirs)) if theirs == text => RemoteCopy::Same,
        // Another program may write the same in another way.
        Ok((theirs, _)) if theirs == *record => RemoteCopy::Same,
        Ok(_) => RemoteCopy::Other,
        Err(_) => RemoteCopy::Damaged,
    })
}

/// A record of the bucket and its text, or why it is none.
async fn read(
    bucket: &Bucket,
    path: &str,
    version: &ObjectVersion,
) -> Result<Result<(Record, Vec<u8>), String>, BucketError> {
    if version.size > MAX_BYTES {
        return Ok(Err(LoadError::TooLarge.to_string()));
    }
    let object = Object { path: path.to_owned(), version: version.clone() };
    let mut text = Vec::new();
    match bucket.get(&object, &mut text).await {
        Ok(_) => {}
        Err(BucketError::Content(reason)) => return Ok(Err(reason)),
        Err(error) => return Err(error),
    }
    let record = record_files::parse(path, &text, None);
    Ok(record.map(|record| (record, text)).map_err(|error| error.to_string()))
}
