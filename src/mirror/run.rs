//! The mirror's rounds: list, compare, download, write, remove, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::bucket::{Bucket, BucketError};
use super::download::{Download, record_in};
use super::folder::{Folder, FolderError};
use super::object::{Object, unusable};
use super::plan::{self, Listing, Missing, ObjectChanges};
use super::rights::MirrorRights;
use super::setbacks::Setbacks;
use super::status::{Behind, MirrorFailure, MirrorStatus};
use crate::scan::SUCCESS;

/// Objects that are downloaded at once.
const AT_ONCE: usize = 8;
/// How often `serve` is told of long downloads.
const TELL_INTERVAL: Duration = Duration::from_secs(2);
/// How soon a bucket is listed again that changed while it was mirrored, and how often in a row.
const SOON: Duration = Duration::from_millis(100);
const SOON_AT_MOST: u32 = 20;
/// Rounds in a row in which an object may be another one than was listed, before that is told.
const CHANGED_AT_MOST: u32 = 5;
/// The longest pause after failures, unless the interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a mirror needs to know beside the bucket.
#[derive(Debug, Clone)]
pub struct MirrorSettings {
    /// The mart directory.
    pub dir: PathBuf,
    /// How often it looks.
    pub interval: Duration,
    /// Whether files of other programs are replaced.
    pub overwrites: bool,
}

/// A mirror of a bucket's prefix.
#[derive(Debug)]
pub struct Mirror {
    bucket: Bucket,
    folder: Folder,
    interval: Duration,
    status: MirrorStatus,
    /// Rounds in a row in which the store failed.
    failures: u32,
    /// Rounds in a row after which the directory was not equal, and nothing failed.
    changes: u32,
    /// Objects that were others than were listed, and in how many rounds in a row.
    moved: BTreeMap<String, u32>,
    /// Objects that came and were not what they should be.
    setbacks: Setbacks,
    /// What this thread may write, where it has given up the rest.
    rights: Option<MirrorRights>,
    /// What the last round missed: when it does so again, it is no matter of a moment.
    missed: Option<Missing>,
}

/// What is wrong, of one round.
struct Trouble {
    object: Option<String>,
    reason: String,
    /// Whether the store does not answer as it should, and should be left in peace.
    is_of_store: bool,
}

impl Trouble {
    fn new(object: impl Into<Option<String>>, reason: impl ToString) -> Self {
        Self { object: object.into(), reason: reason.to_string(), is_of_store: false }
    }

    fn of_store(object: Option<String>, error: BucketError) -> Self {
        let reason = match &object {
            Some(path) => format!("{path}: {error}"),
            None => error.to_string(),
        };
        Self { object, reason, is_of_store: matches!(error, BucketError::Store(_)) }
    }
}

impl From<FolderError> for Trouble {
    fn from(error: FolderError) -> Self {
        Self::new(None, error)
    }
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// The directory is equal to the bucket.
    Equal,
    /// The bucket changed meanwhile.
    Changed,
    /// Something is wrong; [`Mirror::status`] says what.
    Failed,
}

impl Mirror {
    /// Opens the directory. The bucket is not asked yet.
    ///
    /// # Errors
    /// When another mirror has the directory, or it cannot be used.
    pub fn open(bucket: Bucket, settings: &MirrorSettings) -> Result<Self, FolderError> {
        let folder = Folder::open(&settings.dir, bucket.url(), settings.overwrites)?;
        let (started_at, succeeded_at) = history(&folder, &bucket);
        let status = MirrorStatus {
            source: bucket.url().to_owned(),
            interval_seconds: settings.interval.as_secs_f64(),
            started_at,
            checked_at: Timestamp::now(),
            succeeded_at,
            objects: 0,
            bytes: 0,
            behind: Behind::default(),
            awaits_record: folder.awaits_record(),
            error: None,
        };
        let interval = settings.interval;
        Ok(Self {
            bucket,
            folder,
            interval,
            status,
            failures: 0,
            changes: 0,
            moved: BTreeMap::new(),
            setbacks: Setbacks::new(interval),
            rights: None,
            missed: None,
        })
    }

    /// How it is.
    pub fn status(&self) -> &MirrorStatus {
        &self.status
    }

    /// Takes the right to write anywhere but in `PARQUET_DIR` from this thread and all that it starts.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn give_up_rights(&mut self) -> Result<(), String> {
        let _ = self.find_folder(); // the next round tells
        let [dir, above] = self.folder.directories();
        self.rights = Some(MirrorRights::give_up_others(above, dir)?);
        Ok(())
    }

    /// Goes round until it is dropped; then it has left nothing half done. Ends when `PARQUET_DIR` is another directory
    /// than that in which this thread may write.
    pub async fn run(&mut self) {
        while self.rights.as_ref().is_none_or(MirrorRights::suffice) {
            let round = self.round().await;
            self.changes = if round == Round::Changed { self.changes + 1 } else { 0 };
            tokio::time::sleep(self.pause(round)).await;
        }
    }

    fn pause(&self, round: Round) -> Duration {
        match round {
            Round::Changed if self.changes <= SOON_AT_MOST => self.interval.min(SOON),
            Round::Failed if self.failures > 0 => {
                let longest = LONGEST_PAUSE.max(self.interval);
                let pause = self.interval.saturating_mul(1 << self.failures.min(16)).min(longest);
                pause.mul_f64(0.5 + jitter() / 2.0) // many mirrors do not come back at once
            }
            _ => self.interval,
        }
    }

    /// Makes the directory equal to the bucket, as far as it can.
    pub async fn round(&mut self) -> Round {
        let outcome = match self.find_folder() {
            Ok(()) => self.mirror().await,
            Err(error) => Err(error.into()),
        };
        self.status.awaits_record &= self.folder.records().is_empty();
        let saved = self.folder.save();
        let (round, trouble) = match (outcome, saved) {
            (Ok(is_equal), Ok(())) => (if is_equal { Round::Equal } else { Round::Changed }, None),
            (Err(trouble), _) => (Round::Failed, Some(trouble)),
            (_, Err(error)) => (Round::Failed, Some(error.into())),
        };
        self.note(round, trouble);
        self.tell();
        round
    }

    /// Opens the directory anew if it is another one than before, and tells `serve` that it is not equal yet.
    fn find_folder(&mut self) -> Result<(), FolderError> {
        if self.folder.find_again()? {
            warn!(
                source = self.bucket.url(),
                "the mart directory was replaced; mirroring into the new one"
            );
            (self.status.started_at, self.status.succeeded_at) =
                history(&self.folder, &self.bucket);
            self.status.awaits_record = self.folder.awaits_record();
            self.tell();
        }
        Ok(())
    }

    /// Takes note of how a round ended, and logs what is new of it.
    fn note(&mut self, round: Round, trouble: Option<Trouble>) {
        if round == Round::Equal {
            self.status.succeeded_at = Some(Timestamp::now());
            self.status.behind = Behind::default();
        }
        let before = self.status.error.take();
        self.failures = match &trouble {
            Some(Trouble { is_of_store: true, .. }) => self.failures + 1,
            _ => 0,
        };
        self.status.error = match trouble {
            Some(Trouble { object, reason, .. }) => {
                let is_news = before.as_ref().is_none_or(|before| before.reason != reason);
                if is_news {
                    warn!(
                        source = self.bucket.url(),
                        object, reason, "what is here is left as it is"
                    );
                }
                let since = before.map_or_else(Timestamp::now, |before| before.since);
                Some(MirrorFailure { reason, object, since })
            }
            None if round == Round::Equal => {
                if before.is_some() {
                    info!(source = self.bucket.url(), "mirroring again");
                }
                None
            }
            None => before,
        };
    }

    fn tell(&mut self) {
        self.status.checked_at = Timestamp::now();
        (self.status.objects, self.status.bytes) = self.folder.size();
        if let Err(error) = self.folder.tell(&self.status)
            && self.folder.is_there()
        {
            warn!(reason = error.to_string(), "serve is not told how the mirror is");
        }
    }

    /// One round: whether the directory is equal to the listing.
    async fn mirror(&mut self) -> Result<bool, Trouble> {
        let listed = self.bucket.list().await;
        let (listing, odd) = listed.map_err(|error| Trouble::of_store(None, error))?;
        if listing.is_empty() && odd.is_empty() && self.folder.mirrored().is_empty() {
            let url = self.bucket.url();
            let reason =
                format!("nothing is listed below {url} that martd reads; is the prefix right?");
            return Err(Trouble::new(None, reason));
        }
        let known: Vec<String> = self.folder.mirrored().keys().cloned().collect();
        let mut troubles = Vec::new();
        for path in listing.keys().chain(&known) {
            troubles.extend(self.folder.look(path).err().map(Trouble::from));
        }
        let ObjectChanges { mut data, mut records, foreign } = plan::changes(
            &listing,
            self.folder.mirrored(),
            |path| self.folder.seen(path),
            |path, version| self.folder.may_be(path, version),
        );
        if let Some(path) = foreign.first() {
            troubles.push(Trouble::new(path.clone(), self.folder.refusal(path)));
        }
        self.status.awaits_record = false;
        self.await_record(plan::has_records(&listing, self.folder.mirrored()))?;
        let asked = data.len() + records.len();
        let sizes = data.iter().chain(&records).map(|object| object.version.size);
        let bytes = sizes.fold(0, u64::saturating_add); // a listing may say anything
        self.moved.retain(|path, _| listing.contains_key(path));
        self.status.behind = Behind { objects: asked as u64, bytes };
        self.setbacks.compare(&listing);
        for objects in [&mut data, &mut records] {
            let held = self.setbacks.hold_back(objects, Instant::now());
            troubles.extend(held.into_iter().map(|(path, reason)| Trouble::new(path, reason)));
        }

        let mut written = self.write(data, &mut troubles).await?;
        // Records are small; what they name has been asked for before they were.
        let downloads = self.download(records, &mut troubles).await;
        let (good, missing) = self.choose(downloads);
        let (count, refused) = self.folder.install(good)?;
        written += count;
        self.status.behind.objects = (asked - written) as u64;
        troubles.extend(refused.into_iter().map(Trouble::from));
        if let Some(Missing { build, path }) = &missing
            && self.missed == missing
        {
            let reason = format!(
                "the record of build {build} names bytes of {path} that the bucket does not have; the next whole build \
                 ends this"
            );
            troubles.push(Trouble::new(path.clone(), reason));
        }
        self.missed = missing;
        let is_written = written == asked && troubles.is_empty() && self.missed.is_none();
        let is_equal = is_written && self.remove(&listing, &mut troubles);
        self.mark_complete(&listing, &mut troubles);
        // Last, for the directory is as equal to the bucket as it can be.
        troubles.extend(left_out(&odd));
        if written > 0 {
            info!(source = self.bucket.url(), objects = written, of = asked, "mirrored");
        }
        troubles.into_iter().next().map_or(Ok(is_equal), Err)
    }

    /// Where a record is coming and none is here, tells `serve` so before the files that it may name are here.
    fn await_record(&mut self, is_coming: bool) -> Result<(), Trouble> {
        if is_coming && self.folder.records().is_empty() && !self.status.awaits_record {
            self.status.awaits_record = true;
            self.folder.tell(&self.status)?;
        }
        Ok(())
    }

    /// Downloads marts and parts, and puts them into their places together.
    async fn write(
        &mut self,
        objects: Vec<Object>,
        troubles: &mut Vec<Trouble>,
    ) -> Result<usize, Trouble> {
        let downloads = self.download(objects, troubles).await;
        self.await_record(downloads.iter().any(|download| download.received.is_recorded))?;
        let (count, refused) = self.folder.install(downloads)?;
        troubles.extend(refused.into_iter().map(Trouble::from));
        Ok(count)
    }

    /// Downloads what can be; tells `serve` of it now and then.
    async fn download(
        &mut self,
        objects: Vec<Object>,
        troubles: &mut Vec<Trouble>,
    ) -> Vec<Download> {
        let mut done = Vec::new();
        if objects.is_empty() {
            return done;
        }
        let Self { bucket, folder, status, moved, setbacks, .. } = self;
        let downloads =
            objects.into_iter().map(|object| Download::fetch(bucket, object, folder.temporary()));
        let mut downloads = futures_util::stream::iter(downloads).buffer_unordered(AT_ONCE);
        let mut tick = tokio::time::interval(TELL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        loop {
            let next = tokio::select! {
                next = downloads.next() => next,
                _ = tick.tick() => {
                    status.checked_at = Timestamp::now();
                    let _ = folder.tell(status); // the end of the round tells of failures
                    continue;
                }
            };
            match next {
                Some(Ok(download)) => {
                    status.behind.bytes -= download.object.version.size.min(status.behind.bytes);
                    status.behind.objects -= 1.min(status.behind.objects);
                    moved.remove(&download.object.path);
                    done.push(download);
                }
                // The next listing tells, unless the store never has what it lists.
                Some(Err((Object { path, .. }, BucketError::Changed))) => {
                    let rounds = moved.entry(path.clone()).or_default();
                    *rounds += 1;
                    if *rounds > CHANGED_AT_MOST {
                        let reason = format!(
                            "{path}: the store does not have it as it lists it, round after round: it changes all \
                             the time, or its ETag or version is not the one in the listing"
                        );
                        troubles.push(Trouble::new(path, reason));
                    }
                }
                Some(Err((object, error))) => {
                    let is_content = matches!(error, BucketError::Content(_));
                    let trouble = Trouble::of_store(Some(object.path.clone()), error);
                    if is_content {
                        setbacks.note(&object, &trouble.reason, Instant::now());
                    }
                    troubles.push(trouble);
                }
                None => return done,
            }
        }
    }

    /// The records that may be written: those whose files have been here, in the order in which they are folded, and
    /// what is no record that counts, for `serve` to tell.
    fn choose(&self, downloads: Vec<Download>) -> (Vec<Download>, Option<Missing>) {
        let (mut good, mut new) = (Vec::new(), Vec::new());
        for download in downloads {
            match record_in(&download) {
                Some(record) => new.push((record, download)),
                None => good.push(download),
            }
        }
        new.sort_by(|(one, _), (other, _)| one.build.order().cmp(&other.build.order()));
        let (records, downloads): (Vec<_>, Vec<_>) = new.into_iter().unzip();
        let has_had = |path: &str, content: &_| self.folder.has_had(path, content);
        let (count, missing) = plan::ready(self.folder.records(), &records, has_had);
        good.extend(downloads.into_iter().take(count));
        (good, missing)
    }

    /// Removes what has left the bucket. Returns whether nothing is kept that has left.
    fn remove(&mut self, listing: &Listing, troubles: &mut Vec<Trouble>) -> bool {
        let removals = plan::removals(listing, self.folder.mirrored(), self.folder.records());
        let failed = removals.remove.iter().filter_map(|path| self.folder.remove(path).err());
        let failed: Vec<Trouble> = failed.map(Trouble::from).collect();
        let removed = removals.remove.len() - failed.len();
        if removed > 0 {
            info!(source = self.bucket.url(), objects = removed, "removed");
        }
        troubles.extend(failed);
        let Some(first) = removals.keep.first() else { return true };
        let count = removals.keep.len();
        let reason = if listing.is_empty() {
            format!("the bucket lists nothing here; what was mirrored ({count} objects) is kept")
        } else {
            format!(
                "{count} objects are gone from the bucket and kept, {first} first: records name them, or no \
                 other record replaces them; publish again, or begin with an empty directory"
            )
        };
        troubles.push(Trouble::new(first.clone(), reason));
        false
    }

    /// Marks directories of parts that are complete in the bucket and here.
    fn mark_complete(&mut self, listing: &Listing, troubles: &mut Vec<Trouble>) {
        if listing.is_empty() {
            return; // as nothing is removed then
        }
        let complete = plan::complete(listing, self.folder.mirrored());
        let marked = self.folder.mirrored().keys();
        let marked = marked.filter_map(|path| path.strip_suffix(SUCCESS)?.strip_suffix('/'));
        let left = marked.filter(|mart| !complete.contains_key(mart));
        for mart in left.map(str::to_owned).collect::<Vec<_>>() {
            troubles.extend(self.folder.unseal(&mart).err().map(Trouble::from));
        }
        for (mart, (mark, is_here)) in complete {
            let path = format!("{mart}/{SUCCESS}");
            let known = self.folder.mirrored().get(&path);
            let is_marked = known.is_some_and(|known| known.version.as_ref() == Some(mark))
                && self.folder.seen(&path) == plan::LocalFile::Own;
            if is_here && !is_marked {
                troubles.extend(self.folder.seal(mart, mark).err().map(Trouble::from));
            }
        }
    }
}

/// When the directory began to be a mirror of the bucket, and when it was last equal: a mirror that is started again
/// is not less behind for it.
fn history(folder: &Folder, bucket: &Bucket) -> (Timestamp, Option<Timestamp>) {
    let before = folder.told().filter(|before| before.source == bucket.url());
    before
        .map_or_else(|| (Timestamp::now(), None), |before| (before.started_at, before.succeeded_at))
}

/// What is said of objects whose paths no file can have.
fn left_out(odd: &BTreeSet<String>) -> Option<Trouble> {
    let (first, count) = (odd.first()?, odd.len());
    let why = unusable(first).unwrap_or("another object has the name of its folder");
    let reason = format!(
        "{count} objects are left out, for no file can have their names, {first:?} first: {why}; write them \
         under other names, and remove these"
    );
    Some(Trouble::new(first.clone(), reason))
}

/// Between 0 and 1.
fn jitter() -> f64 {
    let mut drawn = [0; 2];
    // Without, nothing is wrong but that mirrors may come back together.
    let _ = rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::empty());
    f64::from(u16::from_le_bytes(drawn)) / f64::from(u16::MAX)
}
