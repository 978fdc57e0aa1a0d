//! What is known of each file in the mart directory.
//!
//! Invariant: a file whose identity has not changed is not opened again. So a sweep costs what
//! changed, not what exists.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{info, warn};

use super::entry::{Condition, Entry, GONE_FOR};
use super::ledger_files::LedgerFiles;
use super::reading::{Reader, Reading, may_hide_a_rewrite};
use crate::digest::Digest;
use crate::ledger::Ledger;
use crate::mart_pin::MartPin;
use crate::marts::build::{BuildResult, FileRejection};
use crate::mirror::{MirrorStatus, STATUS_FILE};
use crate::pin::Budget;
use crate::publish::{Hold, Staged, Target, Version};
use crate::scan::{Candidate, DirId, Fault, Found, Identity, OpenDir, Remark};
use crate::watch;

/// When to try again what failed for a reason that is not the file's, for example for want of
/// descriptors.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Two scans are at least this far apart; a writer that renames without a pause costs no more…
const SCAN_INTERVAL: Duration = Duration::from_millis(2);
/// …and listing a directory of many parts takes at most this part of a processor.
const LISTING_SHARE: u32 = 4;

/// No mirror says more of itself.
const MIRROR_STATUS_BYTES: u64 = 64 << 10;

/// All files, and the ledger.
#[derive(Debug)]
pub(super) struct Files {
    budget: Arc<Budget>,
    entries: BTreeMap<String, Entry>,
    staged: Staged,
    ledger: LedgerFiles,
    dir: Option<DirId>,
    replaced_by_empty: Option<&'static str>,
    ignored: Vec<Remark>,
    /// Files that their names keep from being served.
    misnamed: Vec<Fault>,
    /// The marts of which nothing can be known, and why.
    unseen: BTreeMap<String, String>,
    /// The file in which a mirror tells how it is, and what it says or why it cannot be read.
    mirror: Option<(Identity, Result<MirrorStatus, Fault>)>,
    last_scan: Instant,
    /// How long the last scan took to list what is there.
    listing: Duration,
}

/// What a sweep found.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Whether anything that could be served, or the ledger, changed.
    pub(super) changed: bool,
    /// Versions that were not there before.
    pub(super) landed: Vec<Arc<Version>>,
    /// When to look again although nothing may happen.
    pub(super) look_again: Option<Duration>,
}

impl Files {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            entries: BTreeMap::new(),
            staged: Staged::default(),
            ledger: LedgerFiles::default(),
            dir: None,
            replaced_by_empty: None,
            ignored: Vec::new(),
            misnamed: Vec::new(),
            unseen: BTreeMap::new(),
            mirror: None,
            last_scan: Instant::now(),
            listing: Duration::ZERO,
        }
    }

    /// Scans the directory and pins what changed since the last sweep. `enter` is called with each directory
    /// of parts before it is looked at.
    ///
    /// # Errors
    /// When the directory cannot be read; then nothing is known to have changed.
    pub(super) fn sweep(
        &mut self,
        dir: &OpenDir,
        now: Instant,
        enter: impl FnMut(&str, &OpenDir),
    ) -> io::Result<Sweep> {
        self.last_scan = now;
        let tick = watch::clock_tick(dir);
        let mut sweep = Sweep::default();
        if self.dir.is_none() {
            sweep.changed = self.ledger.look(dir, tick, now).0; // it says which marts are no newcomers
        }
        let recorded = self.ledger.in_force();
        let is_recorded = |name: &str| recorded.is_some_and(|ledger| ledger.names(name));
        let is_known = |name: &str| self.entries.contains_key(name) || is_recorded(name);
        let mut scan = dir.scan(is_known, enter)?;
        // A file system that was unmounted leaves an empty directory of another identity behind.
        let known = self.entries.values().any(|entry| entry.gone.is_none());
        if self.dir.is_some_and(|last| last != dir.id()) && scan.candidates.is_empty() && known {
            self.replaced_by_empty = Some(
                "the mart directory was replaced by an empty one; the last snapshot is served",
            );
            return Ok(Sweep::default());
        }
        self.listing = now.elapsed();
        self.dir = Some(dir.id());
        self.replaced_by_empty = None;
        self.ignored = scan.ignored;
        self.note_misnamed(scan.rejected);
        self.note_mirror(dir);

        // The ledger first: what it names was on disk before it was, so it is read below.
        let (changed, look_again) = self.ledger.look(dir, tick, now);
        sweep.changed |= changed;
        soonest(&mut sweep.look_again, look_again);
        // The smallest first, so that those that the budget has no room for are the largest.
        scan.candidates.sort_by_key(Candidate::size);
        let names = scan.candidates.iter().map(|candidate| candidate.name.clone());
        let there: HashSet<String> = names.chain(scan.unseen.keys().cloned()).collect();
        self.unseen = scan.unseen;
        for candidate in scan.candidates {
            sweep.landed.extend(self.look_at(dir, candidate, tick, now));
        }
        sweep.changed |= !sweep.landed.is_empty();
        sweep.changed |= self.drop_gone(&there, now);

        for entry in self.entries.values() {
            soonest(&mut sweep.look_again, entry.look_again(now));
        }
        Ok(sweep)
    }

    fn note_mirror(&mut self, dir: &OpenDir) {
        let found = dir.identity(STATUS_FILE);
        if self.mirror.as_ref().map(|(known, _)| *known) == found {
            return;
        }
        let read = |identity| {
            let file = dir.open_file(STATUS_FILE).map_err(|error| error.to_string());
            let parse = |file: File| serde_json::from_reader(file.take(MIRROR_STATUS_BYTES));
            let status = file.and_then(|file| parse(file).map_err(|error| error.to_string()));
            (identity, status.map_err(unreadable_mirror))
        };
        self.mirror = found.map(read);
    }

    /// What a mirror says of itself that writes into the directory.
    pub(super) fn mirror(&self) -> Option<&MirrorStatus> {
        self.mirror.as_ref().and_then(|(_, status)| status.as_ref().ok())
    }

    /// Whether a mirror writes files whose records are not here yet. It may be so where what it says cannot be read.
    pub(super) fn awaits_record(&self) -> bool {
        let status = self.mirror.as_ref().map(|(_, status)| status.as_ref());
        status.is_some_and(|status| status.map_or(true, |status| status.awaits_record))
    }

    /// When the directory may be scanned again, whatever happens in it.
    pub(super) fn next_scan(&self) -> Instant {
        self.last_scan + SCAN_INTERVAL.max(self.listing * LISTING_SHARE)
    }

    /// Set when the directory was replaced by an empty one, which changes nothing.
    pub(super) fn replaced_by_empty(&self) -> Option<&str> {
        self.replaced_by_empty
    }

    /// The ledger in force.
    pub(super) fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.in_force()
    }

    /// The builds whose files are pending although they are on record: see [`Hold::overtaken`].
    pub(super) fn overtaken(&self, hold: &Hold, served: Option<&Target>) -> Vec<String> {
        let serves = |version: &Version| {
            let mart = served.and_then(|served| served.marts.get(&version.name));
            mart.is_some_and(|mart| mart.version.pin.hash() == version.pin.hash())
        };
        let newest = self.entries.values().filter_map(|entry| entry.newest.as_ref());
        let is_pending = |version: &&Arc<Version>| {
            let file = version.file_name();
            hold.pending.iter().any(|pending| pending.file == file) && !serves(version)
        };
        let pending: Vec<_> = newest.filter(is_pending).collect();
        if pending.is_empty() {
            return Vec::new();
        }
        self.ledger.builds_of(|model| {
            let is_it = |version: &&Arc<Version>| version.name == model.name;
            pending.iter().copied().find(is_it).is_some_and(|own| own.is_made_of(&model.files))
        })
    }

    /// The last versions of each mart.
    pub(super) fn staged(&self) -> &Staged {
        &self.staged
    }

    /// The last good version of each mart whose file is there, or has gone a moment ago.
    pub(super) fn good(&self) -> BTreeMap<String, Arc<Version>> {
        self.entries
            .iter()
            .filter_map(|(name, entry)| {
                let version = entry.newest.as_ref().or(entry.proven.as_ref())?;
                Some((name.clone(), Arc::clone(version)))
            })
            .collect()
    }

    /// How many marts have a version that may be good.
    pub(super) fn good_count(&self) -> usize {
        let is_good = |entry: &&Entry| entry.newest.is_some() || entry.proven.is_some();
        self.entries.values().filter(is_good).count()
    }

    /// Files that are not complete yet.
    pub(super) fn landing(&self) -> impl Iterator<Item = Fault> {
        self.entries.values().filter_map(Entry::landing)
    }

    /// Files that will not be served.
    pub(super) fn rejected(&self) -> impl Iterator<Item = Fault> {
        let entries = self.entries.values().filter_map(Entry::rejected);
        let mirror = self.mirror.as_ref().and_then(|(_, status)| status.as_ref().err());
        let others = self.misnamed.iter().chain(mirror).cloned();
        self.ledger.faults().chain(others).chain(entries)
    }

    /// The marts of which nothing can be known as they are now, and why.
    pub(super) fn unseen(&self) -> &BTreeMap<String, String> {
        &self.unseen
    }

    /// Why the directories of these marts are no versions as they are now.
    pub(super) fn waiting(&self) -> BTreeMap<String, String> {
        let waiting = self.entries.iter().filter_map(|(name, entry)| match &entry.condition {
            Condition::Waiting(reason) => Some((name.clone(), reason.clone())),
            _ => None,
        });
        waiting.collect()
    }

    /// Names and types that are never served.
    pub(super) fn ignored(&self) -> &[Remark] {
        &self.ignored
    }

    /// The version of this pin whose table is being tried again.
    pub(super) fn retried(&self, name: &str, pin: &Arc<MartPin>) -> Option<Arc<Version>> {
        let retried = self.entries.get(name)?.retried.as_ref()?;
        Arc::ptr_eq(&retried.pin, pin).then(|| Arc::clone(retried))
    }

    /// Takes what building a version came to. A file may have changed again meanwhile: what was built is
    /// proven all the same, for the newer version may turn out to be bad. Nor is what comes to be known
    /// last always the newest.
    pub(super) fn learn(&mut self, version: &Arc<Version>, result: &BuildResult) {
        let entry = self.entries.get_mut(&version.name);
        match result {
            BuildResult::Built(table) => {
                let _ = version.table.set(Arc::clone(table));
                let Some(entry) = entry else { return };
                if let Some(retried) = entry.retried.take_if(|r| r.pin.hash() == version.pin.hash())
                {
                    let _ = retried.table.set(Arc::clone(table));
                    if entry.refused == Some(content(&retried)) {
                        entry.set(Condition::Valid);
                    }
                    self.staged.add(&retried);
                    entry.newest = Some(retried);
                }
                let newer = |proven: &Arc<Version>| proven.landed > version.landed;
                if !entry.proven.as_ref().is_some_and(newer) {
                    entry.proven = Some(Arc::clone(version));
                }
            }
            BuildResult::Rejected(rejection) => self.reject(version, rejection),
            // It is of another time now, or of other bytes. They may be on record as read already.
            BuildResult::Rewritten => {
                self.staged.retain(|staged| !Arc::ptr_eq(&staged.pin, &version.pin));
                let Some(entry) = entry else { return };
                let is_it = |known: &mut Arc<Version>| Arc::ptr_eq(known, version);
                let newest = entry.newest.take_if(is_it);
                if newest.or(entry.retried.take_if(is_it)).is_some() {
                    entry.set(Condition::Landing("is being rewritten in place".to_owned()));
                    entry.read_again = Some(Duration::ZERO); // with the next scan, whatever it sees
                }
            }
            BuildResult::Superseded => {} // should it be chosen, it will be asked for
        }
    }

    fn reject(&mut self, version: &Version, rejection: &FileRejection) {
        let hash = version.pin.hash();
        self.staged.retain(|version| version.pin.hash() != hash);
        let Some(entry) = self.entries.get_mut(&version.name) else { return };
        let is_it = |known: &mut Arc<Version>| known.pin.hash() == hash;
        let newest = entry.newest.take_if(is_it);
        if let Some(newest) = &newest {
            warn!(file = version.file_name(), reason = rejection.reason, "rejected");
            entry.refused = Some(content(newest));
            entry.since = Timestamp::now();
        }
        let Some(refused) = newest.or(entry.retried.take_if(is_it)) else { return };
        if entry.refused == Some(content(&refused)) {
            entry.condition = Condition::Rejected(rejection.reason.clone());
        }
        entry.retried = (!rejection.lasting).then_some(refused);
    }

    /// Drops staged versions that are older than what is served: they can never be served any more.
    pub(super) fn forget_older_than(&mut self, served: &Target) {
        for (name, chosen) in &served.marts {
            self.staged.drop_before(name, &chosen.version);
        }
    }

    /// Reads a mart unless it is known. Returns its version if that is a new one.
    fn look_at(
        &mut self,
        dir: &OpenDir,
        mut candidate: Candidate,
        tick: Duration,
        now: Instant,
    ) -> Option<Arc<Version>> {
        let ledger = self.ledger.in_force().filter(|_| candidate.directory.is_some());
        let model = ledger.and_then(|ledger| ledger.record_of(&candidate.name));
        let named = model.map(|model| &*model.files).unwrap_or_default();
        let known = self.entries.get_mut(&candidate.name);
        if let Some(entry) = known {
            entry.gone = None;
            if entry.seen == candidate && entry.named == named && entry.read_again.is_none() {
                entry.give_up_landing(now);
                return None;
            }
        }
        let began = Timestamp::now();
        let known = self.entries.get(&candidate.name).and_then(|entry| entry.newest.as_ref());
        let outcome = Reader { dir, budget: &self.budget, tick, model, known }.read(&mut candidate);
        let hides = |file: &Found| may_hide_a_rewrite(&file.identity, began, tick);
        let read_again = match outcome {
            Reading::Failed(_) => Some(RETRY_INTERVAL),
            Reading::Waiting(_) => None,
            _ => candidate.files.iter().any(hides).then_some(tick),
        };
        let named = named.to_vec();
        let name = candidate.name.clone();
        let entry = self.entries.entry(name).or_insert_with(|| Entry::new(candidate.clone(), now));
        if entry.seen != candidate {
            entry.last_change = now;
        }
        (entry.seen, entry.named) = (candidate, named);
        entry.read_again = read_again;
        match outcome {
            Reading::Gone => None,
            Reading::Landing(reason) => {
                entry.set(Condition::Landing(reason));
                entry.give_up_landing(now);
                None
            }
            Reading::Waiting(reason) => {
                entry.set(Condition::Waiting(reason));
                None
            }
            Reading::Failed(reason) => {
                if entry.condition != Condition::Landing(reason.clone()) {
                    warn!(file = entry.seen.file_name(), reason, "it will be tried again");
                }
                entry.set(Condition::Landing(reason));
                None
            }
            Reading::Rejected(reason) => {
                warn!(file = entry.seen.file_name(), reason, "rejected");
                entry.set(Condition::Rejected(reason));
                None
            }
            Reading::Version(version) => {
                let new = Some(content(&version));
                // Read again because it was young, and it had not changed.
                if new == entry.refused {
                    return None;
                }
                entry.set(Condition::Valid);
                if new == entry.newest.as_deref().map(content) {
                    return None;
                }
                self.staged.add(&version);
                entry.retried = None;
                entry.newest = Some(Arc::clone(&version));
                Some(version)
            }
        }
    }

    fn drop_gone(&mut self, there: &HashSet<String>, now: Instant) -> bool {
        let mut changed = false;
        let folded: HashSet<String> = there.iter().map(|name| name.to_ascii_lowercase()).collect();
        self.entries.retain(|name, entry| {
            if there.contains(name.as_str()) {
                return true;
            }
            let gone = *entry.gone.get_or_insert(now);
            // To DuckDB, names that differ in case alone are one: it was renamed.
            let is_renamed = folded.contains(&name.to_ascii_lowercase());
            let keep = now.duration_since(gone) < GONE_FOR && !is_renamed;
            if !keep {
                info!(file = entry.seen.file_name(), "gone");
                changed = true;
            }
            keep
        });
        changed
    }

    fn note_misnamed(&mut self, remarks: Vec<Remark>) {
        let before = std::mem::take(&mut self.misnamed);
        self.misnamed.extend(remarks.into_iter().map(|Remark { file, reason }| {
            let known = before.iter().find(|fault| fault.file == file);
            let since = known.map_or_else(Timestamp::now, |fault| fault.since);
            Fault { file, reason, since }
        }));
    }
}

fn unreadable_mirror(error: String) -> Fault {
    let reason = format!(
        "what the mirror says of itself cannot be read: {error}; a mirror that runs writes it anew, and where \
         none does, remove it"
    );
    warn!(file = STATUS_FILE, reason, "it cannot be told whether a build is missing");
    Fault { file: STATUS_FILE.to_owned(), reason, since: Timestamp::now() }
}

/// What tells versions apart.
fn content(version: &Version) -> (Digest, Timestamp) {
    (version.pin.hash(), version.modified())
}

/// The sooner of two times to wait, if there are any.
pub(super) fn soonest(best: &mut Option<Duration>, other: Option<Duration>) {
    *best = match (*best, other) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}

#[cfg(test)]
mod tests;
