//! What is known of one file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::warn;

use crate::digest::Digest;
use crate::ledger::File;
use crate::publish::Version;
use crate::scan::{Candidate, Fault};

/// A file that is not valid this long after its last change is rejected, no longer landing.
const LANDING_FOR: Duration = Duration::from_secs(30);
/// A file is dropped once it has been gone this long: old writers unlink, then rename.
pub(super) const GONE_FOR: Duration = Duration::from_secs(2);

/// A file of the mart directory or a directory of parts, and what was last good in it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seen: Candidate,
    /// The parts that a record named when it was read.
    pub(super) named: Vec<File>,
    /// When to read the file again although its identity stays the same: it was written a moment
    /// ago, so that another write could have left the identity as it is; or reading failed.
    pub(super) read_again: Option<Duration>,
    pub(super) last_change: Instant,
    pub(super) condition: Condition,
    pub(super) since: Timestamp,
    /// The file's content, if it has a whole footer.
    pub(super) newest: Option<Arc<Version>>,
    /// The newest content when it has no table, by hash and time: to read it again tells nothing new.
    pub(super) refused: Option<(Digest, Timestamp)>,
    /// The newest content when its table is tried again, which goes on for as long as this is held.
    pub(super) retried: Option<Arc<Version>>,
    /// The last content that has a table.
    pub(super) proven: Option<Arc<Version>>,
    pub(super) gone: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Valid,
    Landing(String),
    /// A directory whose `_SUCCESS` or record has not come, however long that takes.
    Waiting(String),
    Rejected(String),
}

impl Entry {
    pub(super) fn new(seen: Candidate, now: Instant) -> Self {
        Self {
            seen,
            named: Vec::new(),
            read_again: None,
            last_change: now,
            condition: Condition::Landing("has not been read yet".to_owned()),
            since: Timestamp::now(),
            newest: None,
            refused: None,
            retried: None,
            proven: None,
            gone: None,
        }
    }

    /// Notes what became of the file's content as it is now.
    pub(super) fn set(&mut self, condition: Condition) {
        if std::mem::discriminant(&self.condition) != std::mem::discriminant(&condition) {
            self.since = Timestamp::now();
        }
        self.condition = condition;
        self.refused = None;
    }

    /// Rejects what has been landing for too long.
    pub(super) fn give_up_landing(&mut self, now: Instant) {
        if let Condition::Landing(reason) = &self.condition
            && now.duration_since(self.last_change) >= LANDING_FOR
        {
            let reason = format!("{reason}, and has not changed for {} s", LANDING_FOR.as_secs());
            warn!(file = self.seen.file_name(), reason, "rejected");
            self.set(Condition::Rejected(reason));
        }
    }

    /// When to look at the file again although nothing may happen.
    pub(super) fn look_again(&self, now: Instant) -> Option<Duration> {
        let due = match (&self.condition, self.gone) {
            (_, Some(gone)) => Some((gone + GONE_FOR).saturating_duration_since(now)),
            (Condition::Landing(_), None) => {
                Some((self.last_change + LANDING_FOR).saturating_duration_since(now))
            }
            _ => None,
        };
        due.into_iter().chain(self.read_again).min()
    }

    /// What is to be said of a file that is landing.
    pub(super) fn landing(&self) -> Option<Fault> {
        match &self.condition {
            Condition::Landing(reason) | Condition::Waiting(reason) => Some(self.fault(reason)),
            _ => None,
        }
    }

    /// What is to be said of a file that is rejected.
    pub(super) fn rejected(&self) -> Option<Fault> {
        let Condition::Rejected(reason) = &self.condition else { return None };
        Some(self.fault(reason))
    }

    fn fault(&self, reason: &str) -> Fault {
        Fault { file: self.seen.file_name(), reason: reason.to_owned(), since: self.since }
    }
}
