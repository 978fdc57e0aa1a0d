//! `martd publish --to`: files first, and then the records that name them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use jiff::Timestamp;

use super::Uploaded;
use super::bucket::{Bucket, BucketError};
use super::remote::{RemoteCopy, RemoteLedger, compare};
use crate::digest::Digest;
use crate::ledger::{self, File, MOST_AHEAD, RECORDS, Record};
use crate::scan::OpenDir;

/// Objects that are sent, or compared, at once.
const AT_ONCE: usize = 4;

/// What could not be sent, and why.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The store refused, or something is wrong with the file.
    #[error("{object}: {error}")]
    Object {
        /// The path, or the bucket's URL.
        object: String,
        /// What.
        error: BucketError,
    },
    /// Records are never changed.
    #[error(
        "the bucket has another record of build {0}, and records are never changed: remove {RECORDS}/{0}.json here, \
         and publish its marts again under another id"
    )]
    OtherRecord(String),
    /// Nobody would be shown a build.
    #[error("build {build} is not sent: {reason}")]
    Order {
        /// Its id.
        build: String,
        /// The record in the way, and what to do.
        reason: String,
    },
}

impl UploadError {
    /// Of what is wrong with an object.
    pub(super) fn of(object: &str) -> impl Fn(BucketError) -> Self {
        move |error| Self::Object { object: object.to_owned(), error }
    }
}

/// A record that is here as a file, and its text.
type Own<'r> = (&'r Record, Vec<u8>);

/// What sends.
#[derive(Debug)]
pub struct BucketUpload<'u> {
    /// To here.
    pub bucket: &'u Bucket,
    /// From here.
    pub dir: &'u OpenDir,
    /// Whether what the bucket has already is compared, too, and sent again where it differs.
    pub looks_at_all: bool,
}

impl BucketUpload<'_> {
    /// Sends the records that the bucket does not have, after the files that they name and it does not have. Nothing
    /// is sent when one of them would not be in force, or the bucket has another one of its build.
    ///
    /// `begin` is told how many bytes that may be, and `sent` how many have been; `done` is what has been sent so far,
    /// also after an error.
    ///
    /// # Errors
    /// The first object that fails; it may be tried again.
    pub async fn run(
        &self,
        remote: &mut RemoteLedger,
        records: &[Record],
        done: &RefCell<Uploaded>,
        (begin, sent): (impl Fn(u64), impl Fn(u64)),
    ) -> Result<(), UploadError> {
        remote.look(self.bucket, records).await?;
        done.borrow_mut().warnings.extend(remote.damaged());
        let (new, damaged) = self.compare(remote, records).await?;
        check_order(records, &new, remote.records())?;

        let sends = new.iter().chain(&damaged).map(|(record, _)| *record);
        let named: Vec<&Record> =
            if self.looks_at_all { records.iter().collect() } else { sends.collect() };
        let ledger = ledger::fold(records.iter().chain(remote.records()));
        let models = ledger.iter().flat_map(|ledger| &ledger.models);
        let files: Vec<&File> = in_force(models.flat_map(|model| &model.files), &named);
        begin(files.iter().map(|file| file.bytes).fold(0, u64::saturating_add));
        let sends = files.into_iter().map(|file| self.send(remote, file, done, &sent));
        let sends = futures_util::stream::iter(sends).buffer_unordered(AT_ONCE);
        sends.try_collect::<()>().await?;

        for own in damaged {
            self.write_anew(own, done).await?;
        }
        for own in new {
            self.create(own, remote, done).await?;
        }
        Ok(())
    }

    /// The records that the bucket does not have, the oldest first, and those in whose place it has no record.
    async fn compare<'r>(
        &self,
        remote: &RemoteLedger,
        records: &'r [Record],
    ) -> Result<(Vec<Own<'r>>, Vec<Own<'r>>), UploadError> {
        // Not the first edition's ledger, which has no file among the records.
        let own = records.iter().filter(|record| self.dir.identity(&path(record)).is_some());
        let compared = own.map(async |record| {
            let path = path(record);
            let text = self.text(&path).map_err(|error| UploadError::of(&path)(error.into()))?;
            let copy = match remote.listing().get(&path) {
                None => None,
                Some(listed) => {
                    let own = (record, &*text);
                    let copy = compare(self.bucket, &path, listed, own, self.looks_at_all).await;
                    Some(copy.map_err(UploadError::of(&path))?)
                }
            };
            // The text of what is not sent is not kept.
            let is_sent = copy != Some(RemoteCopy::Same);
            Ok::<_, UploadError>((copy, (record, if is_sent { text } else { Vec::new() })))
        });
        let mut compared = futures_util::stream::iter(compared).buffer_unordered(AT_ONCE);
        let (mut new, mut damaged) = (Vec::new(), Vec::new());
        while let Some((copy, own)) = compared.try_next().await? {
            match copy {
                None => new.push(own),
                Some(RemoteCopy::Same) => {}
                Some(RemoteCopy::Damaged) => damaged.push(own),
                Some(RemoteCopy::Other) => {
                    return Err(UploadError::OtherRecord(own.0.build.id.clone()));
                }
            }
        }
        new.sort_by(|(one, _), (other, _)| one.build.order().cmp(&other.build.order()));
        Ok((new, damaged))
    }

    async fn send(
        &self,
        remote: &RemoteLedger,
        file: &File,
        done: &RefCell<Uploaded>,
        sent: impl Fn(u64),
    ) -> Result<(), UploadError> {
        let listed = remote.listing().get(&file.path);
        let is_listed = listed.is_some_and(|listed| listed.size == file.bytes);
        let send = async {
            if is_listed && self.bucket.digest(&file.path).await? == Some(file.sha256) {
                sent(file.bytes);
                return Ok(());
            }
            let from = self.dir.open_file(&file.path)?;
            self.bucket.put(&file.path, from, (file.bytes, file.sha256), sent).await?;
            let mut done = done.borrow_mut();
            done.files += 1;
            done.bytes = done.bytes.saturating_add(file.bytes);
            Ok(())
        };
        send.map_err(UploadError::of(&file.path)).await
    }

    /// Writes a record where there was none. One that another machine has written meanwhile is compared.
    async fn create(
        &self,
        (record, text): Own<'_>,
        remote: &mut RemoteLedger,
        done: &RefCell<Uploaded>,
    ) -> Result<(), UploadError> {
        let path = path(record);
        match self.bucket.create(&path, &text).await {
            Ok(()) => {
                done.borrow_mut().records += 1;
                return Ok(());
            }
            Err(BucketError::Exists) => {}
            Err(error) => return Err(UploadError::of(&path)(error)),
        }
        remote.look(self.bucket, std::slice::from_ref(record)).await?;
        let listed = remote.listing().get(&path);
        let listed = listed.ok_or_else(|| UploadError::of(&path)(BucketError::Exists))?;
        let copy = compare(self.bucket, &path, listed, (record, &text), true).await;
        match copy.map_err(UploadError::of(&path))? {
            RemoteCopy::Same => Ok(()),
            RemoteCopy::Other => Err(UploadError::OtherRecord(record.build.id.clone())),
            RemoteCopy::Damaged => self.write_anew((record, text), done).await,
        }
    }

    /// Writes a record in the place of what is none.
    async fn write_anew(
        &self,
        (record, text): Own<'_>,
        done: &RefCell<Uploaded>,
    ) -> Result<(), UploadError> {
        let path = path(record);
        self.bucket.replace(&path, &text).await.map_err(UploadError::of(&path))?;
        let mut done = done.borrow_mut();
        done.records += 1;
        done.warnings.push(format!("{path} of the bucket was damaged, and is written anew"));
        Ok(())
    }

    fn text(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.dir.open_file(path)?.read_to_end(&mut text)?;
        Ok(text)
    }
}

fn path(record: &Record) -> String {
    format!("{RECORDS}/{}.json", record.build.id)
}

/// The files that one of these records names. What a later one replaces, also another machine's, is nowhere any more,
/// and nobody asks for it.
fn in_force<'f>(files: impl Iterator<Item = &'f File>, records: &[&Record]) -> Vec<&'f File> {
    let marts = records.iter().flat_map(|record| &record.marts);
    let named: BTreeSet<(&str, Digest)> =
        marts.flat_map(|mart| &mart.files).map(|file| (file.path.as_str(), file.sha256)).collect();
    files.filter(|file| named.contains(&(file.path.as_str(), file.sha256))).collect()
}

/// Whether the new ones among `records` would count, were they in the bucket. Only the newest of each writer need: what
/// came before it is history.
fn check_order(records: &[Record], new: &[Own<'_>], others: &[Record]) -> Result<(), UploadError> {
    let Some((last, _)) = new.last() else { return Ok(()) };
    let refuse = |record: &Record, reason| {
        Err(UploadError::Order { build: record.build.id.clone(), reason })
    };
    let is_new = |record: &Record| new.iter().any(|(new, _)| new.build.id == record.build.id);
    let sent = records.iter().filter(|record| !is_new(record));
    match ledger::newest_ahead(others.iter().chain(sent), Timestamp::now()) {
        Some((build, ahead))
            if ahead > MOST_AHEAD && build.finished_at > last.build.finished_at =>
        {
            return refuse(last, ledger::too_far_ahead(build, "the bucket"));
        }
        _ => {}
    }
    let mut newest: BTreeMap<_, &Record> = BTreeMap::new();
    // What stands for others is of no new build.
    for record in records.iter().filter(|record| record.replaces.is_empty()) {
        let key = (record.is_of_a_build(), record.build.project.as_deref());
        let known = newest.entry(key).or_insert(record);
        if record.build.order() > known.build.order() {
            *known = record;
        }
    }
    let mut sent = newest.into_values().filter(|record| is_new(record));
    match sent.find_map(|record| Some((record, ledger::overtaken_by(record, others)?))) {
        None => Ok(()),
        Some((record, other)) => refuse(
            record,
            format!(
                "nobody would be shown it, for the record of build {} in the bucket ends later, at {}; publish again, \
                 for a build that ends after it",
                other.build.id, other.build.finished_at
            ),
        ),
    }
}
