//! What is known of the ledger's files: the records in `_builds/`, and the first edition's `_build.json`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{info, warn};

use super::entry::GONE_FOR;
use super::files::{RETRY_INTERVAL, soonest};
use crate::ledger::{self, FIRST_EDITION, Ledger, Model, RECORDS, Record};
use crate::record_files::{self, LoadError, load};
use crate::scan::{Fault, Identity, OpenDir};

/// From here on each new record costs noticeably more than the one before.
const MANY: usize = 1_000;

/// The ledger's files, and what those that are good come to.
#[derive(Debug, Default)]
pub(super) struct LedgerFiles {
    files: BTreeMap<String, RecordFile>,
    /// The directory of records when it was listed last, unless something in it was not settled.
    listed: Option<Identity>,
    /// Why that directory cannot be read.
    unreadable: Option<Fault>,
    in_force: Option<Arc<Ledger>>,
}

/// One file, by its path in the mart directory.
#[derive(Debug)]
struct RecordFile {
    identity: Identity,
    /// When to read it again although it seems to be what it was.
    read_again: Option<Duration>,
    /// The last content that was good.
    record: Option<Record>,
    fault: Option<Fault>,
    gone: Option<Instant>,
}

impl RecordFile {
    fn is_quiet(&self) -> bool {
        self.read_again.is_none() && self.fault.is_none() && self.gone.is_none()
    }
}

impl LedgerFiles {
    /// Reads what has changed, or is too young to tell. Returns whether the ledger is another one now, and
    /// when to look again.
    pub(super) fn look(
        &mut self,
        dir: &OpenDir,
        tick: Duration,
        now: Instant,
    ) -> (bool, Option<Duration>) {
        let mut look_again = None;
        let mut seen: Vec<(String, Identity)> = Vec::new();
        seen.extend(dir.entry(FIRST_EDITION).map(|found| (FIRST_EDITION.to_owned(), found)));
        let listed = self.list(dir, tick);
        if let Err(error) = &listed {
            self.unreadable.get_or_insert_with(|| {
                let reason = format!("cannot be read, so its last records stay in force: {error}");
                warn!(file = RECORDS, reason);
                Fault { file: RECORDS.to_owned(), reason, since: Timestamp::now() }
            });
            soonest(&mut look_again, Some(RETRY_INTERVAL));
        } else {
            self.unreadable = None;
        }
        let listed = listed.ok().flatten();
        let is_listed = listed.is_some();
        seen.extend(listed.into_iter().flatten());
        let mut changed = false;
        for (path, identity) in &seen {
            changed |= self.read(dir, path, *identity, tick);
        }
        let many = self.files.len();
        self.files.retain(|path, known| {
            let is_kept =
                seen.iter().any(|(seen, _)| seen == path) || path != FIRST_EDITION && !is_listed;
            let gone = (!is_kept).then(|| known.gone.unwrap_or(now));
            known.gone = gone;
            gone.is_none_or(|gone| now.duration_since(gone) < GONE_FOR)
        });
        if self.files.len() < many {
            info!(files = many - self.files.len(), "files of the ledger are gone");
            changed = true;
        }
        for known in self.files.values() {
            let gone = known.gone.map(|gone| (gone + GONE_FOR).saturating_duration_since(now));
            soonest(&mut look_again, gone.or(known.read_again));
        }
        (changed && self.fold(), look_again)
    }

    /// The records that are there; `None` when nothing in their directory can have changed.
    fn list(
        &mut self,
        dir: &OpenDir,
        tick: Duration,
    ) -> io::Result<Option<Vec<(String, Identity)>>> {
        let records = match dir.open_dir(RECORDS) {
            Ok(records) => records,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.listed = None;
                return Ok(Some(Vec::new()));
            }
            Err(error) => return Err(error),
        };
        let identity = Identity::of_open(records.as_fd())?;
        let of_records = || self.files.iter().filter(|(path, _)| *path != FIRST_EDITION);
        if self.listed == Some(identity) && of_records().all(|(_, known)| known.is_quiet()) {
            return Ok(None);
        }
        self.listed = None;
        let listed = record_files::list(&records)?;
        if !identity.is_young(Timestamp::now(), tick) {
            self.listed = Some(identity);
        }
        Ok(Some(listed))
    }

    /// Reads a file unless it is known. Returns whether that is news.
    fn read(&mut self, dir: &OpenDir, path: &str, identity: Identity, tick: Duration) -> bool {
        let known = self.files.get(path);
        let is_known =
            |known: &RecordFile| known.identity == identity && known.read_again.is_none();
        if known.is_some_and(is_known) {
            return false;
        }
        let last = known.and_then(|known| known.record.as_ref());
        let outcome = load(dir, path, last);
        let mut read_again = identity.is_young(Timestamp::now(), tick).then_some(tick);
        if matches!(outcome, Err(LoadError::Gone)) {
            return false; // the next look does not see it
        }
        let known = self.files.entry(path.to_owned()).or_insert_with(|| RecordFile {
            identity,
            read_again,
            record: None,
            fault: None,
            gone: None,
        });
        let mut changed = false;
        match outcome {
            Ok(record) => {
                known.fault = None;
                changed = known.record.as_ref() != Some(&record);
                known.record = Some(record);
            }
            Err(error) => {
                // What could not be read may be read later although the file stays as it is.
                if matches!(error, LoadError::Read(_)) {
                    read_again.get_or_insert(RETRY_INTERVAL);
                }
                let reason = error.to_string();
                if known.fault.as_ref().is_none_or(|fault| fault.reason != reason) {
                    warn!(file = path, reason, "what the ledger said before stays in force");
                    let (file, since) = (path.to_owned(), Timestamp::now());
                    known.fault = Some(Fault { file, reason, since });
                }
            }
        }
        (known.identity, known.read_again) = (identity, read_again);
        changed
    }

    /// Returns whether the ledger is another one.
    fn fold(&mut self) -> bool {
        let records = self.files.values().filter_map(|known| known.record.as_ref());
        let ledger = ledger::fold(records).map(Arc::new);
        let count = self.files.len();
        if count >= MANY && count.is_multiple_of(MANY) {
            warn!(records = count, "many records; martd publish --compact makes few of them");
        }
        if self.in_force == ledger {
            return false;
        }
        self.in_force = ledger;
        true
    }

    /// What the records come to.
    pub(super) fn in_force(&self) -> Option<&Arc<Ledger>> {
        self.in_force.as_ref()
    }

    /// The builds whose records name a mart as `is_theirs` knows it.
    pub(super) fn builds_of(&self, is_theirs: impl Fn(&Model) -> bool) -> Vec<String> {
        let records = self.files.values().filter_map(|known| known.record.as_ref());
        let theirs = records.filter(|record| record.marts.iter().any(&is_theirs));
        theirs.map(|record| record.build.id.clone()).collect()
    }

    /// What keeps files of the ledger from being in force.
    pub(super) fn faults(&self) -> impl Iterator<Item = Fault> {
        let there = self.files.values().filter(|known| known.gone.is_none());
        let faults = there.filter_map(|known| known.fault.as_ref());
        self.unreadable.iter().chain(faults).cloned()
    }
}
