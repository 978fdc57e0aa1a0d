//! What is known of each file in the mart directory.
//!
//! Invariant: a file whose identity has not changed is not opened again. So a sweep costs what
//! changed, not what exists.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{info, warn};

use super::entry::{Condition, Entry, GONE_FOR, file_name};
use super::ledger_files::LedgerFiles;
use crate::digest::Digest;
use crate::ledger::Ledger;
use crate::marts::build::{self, BuildResult, Footer, FooterError, Rejection};
use crate::pin::{Budget, Pin, PinError};
use crate::publish::{Staged, Target, Version};
use crate::scan::{Candidate, DirId, Fault, Identity, OpenDir, Remark};
use crate::watch;

/// When to try again what failed for a reason that is not the file's, for example for want of
/// descriptors.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// No writer gets more done in a millisecond: what takes it longer than a tick of the clock changes
/// the file's time. Parquet files are written as a whole.
const WRITTEN_IN_A_MILLISECOND: u64 = 16 << 20;

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
    last_scan: Instant,
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

/// What reading a file came to.
enum Outcome {
    Version(Arc<Version>),
    Landing(String),
    Rejected(String),
    /// Reading failed, and may succeed although the file stays as it is.
    Failed(String),
    Gone,
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
            last_scan: Instant::now(),
        }
    }

    /// Scans the directory and pins what changed since the last sweep.
    ///
    /// # Errors
    /// When the directory cannot be read; then nothing is known to have changed.
    pub(super) fn sweep(&mut self, dir: &OpenDir, now: Instant) -> io::Result<Sweep> {
        self.last_scan = now;
        let mut scan = dir.scan(|name| self.entries.contains_key(name))?;
        // A file system that was unmounted leaves an empty directory of another identity behind.
        let known = self.entries.values().any(|entry| entry.gone.is_none());
        if self.dir.is_some_and(|last| last != dir.id()) && scan.candidates.is_empty() && known {
            self.replaced_by_empty = Some(
                "the mart directory was replaced by an empty one; the last snapshot is served",
            );
            return Ok(Sweep::default());
        }
        self.dir = Some(dir.id());
        self.replaced_by_empty = None;
        self.ignored = scan.ignored;
        self.note_misnamed(scan.rejected);

        let tick = watch::clock_tick(dir);
        let mut sweep = Sweep::default();
        // The ledger first: what it names was on disk before it was, so it is read below.
        let (changed, look_again) = self.ledger.look(dir, tick, now);
        sweep.changed |= changed;
        soonest(&mut sweep.look_again, look_again);
        // The smallest first, so that those that the budget has no room for are the largest.
        scan.candidates.sort_by_key(|candidate| candidate.identity.size());
        for candidate in &scan.candidates {
            sweep.landed.extend(self.look_at(dir, candidate, tick, now));
        }
        sweep.changed |= !sweep.landed.is_empty();
        let there = scan.candidates.iter().map(|candidate| &candidate.name).chain(&scan.unseen);
        sweep.changed |= self.drop_gone(&there.map(String::as_str).collect(), now);

        for entry in self.entries.values() {
            soonest(&mut sweep.look_again, entry.look_again(now));
        }
        Ok(sweep)
    }

    /// When the directory was last scanned.
    pub(super) fn last_scan(&self) -> Instant {
        self.last_scan
    }

    /// Set when the directory was replaced by an empty one, which changes nothing.
    pub(super) fn replaced_by_empty(&self) -> Option<&str> {
        self.replaced_by_empty
    }

    /// The ledger in force.
    pub(super) fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.in_force()
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
        self.entries.iter().filter_map(|(name, entry)| entry.landing(name))
    }

    /// Files that will not be served.
    pub(super) fn rejected(&self) -> impl Iterator<Item = Fault> {
        let entries = self.entries.iter().filter_map(|(name, entry)| entry.rejected(name));
        self.ledger.faults().chain(self.misnamed.iter().cloned()).chain(entries)
    }

    /// Names and types that are never served.
    pub(super) fn ignored(&self) -> &[Remark] {
        &self.ignored
    }

    /// The version of this pin whose table is being tried again.
    pub(super) fn retried(&self, name: &str, pin: &Arc<Pin>) -> Option<Arc<Version>> {
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

    fn reject(&mut self, version: &Version, rejection: &Rejection) {
        let hash = version.pin.hash();
        self.staged.retain(|version| version.pin.hash() != hash);
        let Some(entry) = self.entries.get_mut(&version.name) else { return };
        let is_it = |known: &mut Arc<Version>| known.pin.hash() == hash;
        let newest = entry.newest.take_if(is_it);
        if let Some(newest) = &newest {
            warn!(file = file_name(&version.name), reason = rejection.reason, "rejected");
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

    /// Reads a file unless it is known. Returns its version if that is a new one.
    fn look_at(
        &mut self,
        dir: &OpenDir,
        candidate: &Candidate,
        tick: Duration,
        now: Instant,
    ) -> Option<Arc<Version>> {
        let known = self.entries.get_mut(&candidate.name);
        if let Some(entry) = known {
            entry.gone = None;
            if entry.identity == candidate.identity && entry.read_again.is_none() {
                entry.give_up_landing(&candidate.name, now);
                return None;
            }
        }
        let began = Timestamp::now();
        let (identity, outcome) = self.read(dir, candidate);
        let read_again = match outcome {
            Outcome::Failed(_) => Some(RETRY_INTERVAL),
            _ => may_hide_a_rewrite(&identity, began, tick).then_some(tick),
        };
        let entry = self
            .entries
            .entry(candidate.name.clone())
            .or_insert_with(|| Entry::new(candidate.identity, now));
        if entry.identity != identity {
            entry.last_change = now;
        }
        entry.identity = identity;
        entry.read_again = read_again;
        match outcome {
            Outcome::Gone => None,
            Outcome::Landing(reason) => {
                entry.set(Condition::Landing(reason));
                entry.give_up_landing(&candidate.name, now);
                None
            }
            Outcome::Failed(reason) => {
                if entry.condition != Condition::Landing(reason.clone()) {
                    warn!(file = file_name(&candidate.name), reason, "it will be tried again");
                }
                entry.set(Condition::Landing(reason));
                None
            }
            Outcome::Rejected(reason) => {
                warn!(file = file_name(&candidate.name), reason, "rejected");
                entry.set(Condition::Rejected(reason));
                None
            }
            Outcome::Version(version) => {
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

    /// Opens and pins a file, and parses its footer. One that is read again, and has the bytes that it
    /// had, is neither copied again nor parsed.
    fn read(&self, dir: &OpenDir, candidate: &Candidate) -> (Identity, Outcome) {
        let unreadable = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => Outcome::Gone,
            io::ErrorKind::PermissionDenied => Outcome::Rejected(
                "may not be read by martd's user; give it read permission".to_owned(),
            ),
            _ => Outcome::Failed(format!("cannot be read: {error}")),
        };
        let file = match dir.open_file(&file_name(&candidate.name)) {
            Ok(file) => file,
            Err(error) => return (candidate.identity, unreadable(&error)),
        };
        let identity = Identity::of_open(&file).unwrap_or(candidate.identity);
        match build::has_tail(&file) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return (identity, Outcome::Landing(reason)),
            Err(error) => return (identity, unreadable(&error)),
        }
        let failed = |error: PinError| match error {
            PinError::Moved => (identity, Outcome::Landing(error.to_string())),
            PinError::Read(error) => (identity, unreadable(&error)),
        };
        let known = self.entries.get(&candidate.name).and_then(|entry| entry.newest.as_ref());
        if let Some(version) = known.filter(|version| *version.pin.identity() == identity) {
            match version.pin.is_of(&file) {
                Ok(true) => return (identity, Outcome::Version(Arc::clone(version))),
                Ok(false) => {}
                Err(error) => return failed(error),
            }
        }
        let pin = match Pin::new(file, &self.budget) {
            Ok(pin) => pin,
            Err(error) => return failed(error),
        };
        let identity = *pin.identity();
        let outcome = match Footer::read(&pin) {
            Ok(footer) => {
                let (name, pin) = (candidate.name.clone(), Arc::new(pin));
                Outcome::Version(Arc::new(Version::new(name, footer.invocation_id, pin)))
            }
            Err(FooterError::Incomplete(reason)) => Outcome::Landing(reason),
            Err(FooterError::Broken(reason)) => Outcome::Rejected(reason),
        };
        (identity, outcome)
    }

    fn drop_gone(&mut self, there: &HashSet<&str>, now: Instant) -> bool {
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
                info!(file = file_name(name), "gone");
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

/// What tells versions apart.
fn content(version: &Version) -> (Digest, Timestamp) {
    (version.pin.hash(), version.modified())
}

/// Whether a file that was read from `began` on could have been rewritten since then, or be yet, and
/// look the same.
fn may_hide_a_rewrite(identity: &Identity, began: Timestamp, tick: Duration) -> bool {
    let most = u128::from(WRITTEN_IN_A_MILLISECOND) * tick.as_millis();
    u128::from(identity.size()) <= most && identity.is_young(began, tick)
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
