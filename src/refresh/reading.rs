//! From what a scan found to a version: which files are the mart, and what they hold.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::ledger::{self, Model};
use crate::mart_pin::{MartPin, PinnedFile};
use crate::marts::build::{self, Footer, FooterError};
use crate::pin::{Budget, Pin, PinError};
use crate::publish::Version;
use crate::scan::{Candidate, Found, Identity, MOST_PARTS, OpenDir};

/// No writer gets more done in a millisecond: what takes it longer than a tick of the clock changes
/// the file's time. Parquet files are written as a whole.
const WRITTEN_IN_A_MILLISECOND: u64 = 16 << 20;

/// What reading a mart came to, with the reason where it is no version.
pub(super) enum Reading {
    Version(Arc<Version>),
    /// Not complete yet: rejected when that lasts and nothing changes.
    Landing(String),
    /// A directory whose `_SUCCESS` or record has not come. It is *landing* to who asks, but never rejected: its
    /// writer may take any time.
    Waiting(String),
    Rejected(String),
    /// Reading failed, and may succeed although nothing changes.
    Failed(String),
    Gone,
}

/// What a mart is read with.
pub(super) struct Reader<'r> {
    pub(super) dir: &'r OpenDir,
    pub(super) budget: &'r Arc<Budget>,
    /// How far apart two writes are told.
    pub(super) tick: Duration,
    /// What a record says of the mart.
    pub(super) model: Option<&'r Model>,
    /// What was read of the mart last.
    pub(super) known: Option<&'r Arc<Version>>,
}

impl Reader<'_> {
    /// Reads a mart. Its files have the identities then that they had when they were opened.
    pub(super) fn read(&self, candidate: &mut Candidate) -> Reading {
        let Some(directory) = &candidate.directory else {
            return self.pin(&candidate.name, &mut candidate.files);
        };
        if let Some(problem) = &directory.problem {
            return Reading::Rejected(problem.clone());
        }
        let mut reason =
            "no record names its parts, and it has no _SUCCESS that is newer than them".to_owned();
        if let Some(model) = self.model.filter(|model| model.is_directory()) {
            let what = match choose(&candidate.files, &model.files) {
                Ok(mut parts) => match self.pin_parts(&candidate.name, &mut parts) {
                    Reading::Version(version) if version.is_made_of(&model.files) => {
                        return Reading::Version(version);
                    }
                    Reading::Version(_) => "a part".to_owned(),
                    other => return other,
                },
                Err(part) => part,
            };
            reason = format!(
                "{what} is not as build {} has recorded it: a run is writing, or another one has overwritten \
                 it; build again",
                model.invocation_id
            );
        }
        if !directory.is_complete {
            return Reading::Waiting(reason);
        }
        let outcome = self.pin_parts(&candidate.name, &mut candidate.files.clone());
        match self.dir.parts(&candidate.name, |_| {}) {
            Ok(Some(now)) if now == *candidate => outcome,
            _ => Reading::Failed("has changed while it was read".to_owned()),
        }
    }

    /// The parts of a directory, which must be what the scan saw.
    fn pin_parts(&self, name: &str, parts: &mut [Found]) -> Reading {
        if parts.len() > MOST_PARTS {
            return Reading::Rejected(format!(
                "has {} parts, and {MOST_PARTS} are the most; write fewer and larger ones",
                parts.len()
            ));
        }
        let seen = parts.to_vec();
        match self.pin(name, parts) {
            Reading::Version(_) if seen != parts => Reading::Landing("is being written".to_owned()),
            outcome => outcome,
        }
    }

    /// Opens and pins files together, and parses their footers. What is known and the same is not read.
    fn pin(&self, name: &str, files: &mut [Found]) -> Reading {
        let known = self.known.map(|version| version.pin.files()).unwrap_or_default();
        let known: HashMap<&str, &Arc<Pin>> =
            known.iter().map(|file| (file.path.as_str(), &file.pin)).collect();
        let (mut pins, mut stamps) = (Vec::with_capacity(files.len()), Vec::new());
        for Found { path, identity } in files {
            match self.pin_file(path, identity, known.get(path.as_str()).copied()) {
                Ok((pin, stamp)) => {
                    pins.push(PinnedFile { path: path.clone(), pin });
                    stamps.push(stamp);
                }
                Err(outcome) if path.contains('/') => return outcome.of_part(shown(path)),
                Err(outcome) => return outcome,
            }
        }
        stamps.dedup();
        let stamp = if stamps.len() == 1 { stamps.remove(0) } else { None };
        let is_known = pins.len() == known.len()
            && pins.iter().all(|file| {
                known.get(file.path.as_str()).is_some_and(|pin| Arc::ptr_eq(pin, &file.pin))
            });
        match self.known.filter(|_| is_known) {
            Some(version) => Reading::Version(Arc::clone(version)),
            None => {
                let pin = Arc::new(MartPin::new(pins));
                Reading::Version(Arc::new(Version::new(name.to_owned(), stamp, pin)))
            }
        }
    }

    /// Pins one file. Returns the build that its footer names, too.
    fn pin_file(
        &self,
        path: &str,
        identity: &mut Identity,
        known: Option<&Arc<Pin>>,
    ) -> Result<(Arc<Pin>, Option<String>), Reading> {
        let file = self.dir.open_file(path).map_err(|error| unreadable(&error))?;
        *identity = Identity::of_open(&file).unwrap_or(*identity);
        build::has_tail(&file).map_err(|error| unreadable(&error))?.map_err(Reading::Landing)?;
        let known = known.filter(|pin| *pin.identity() == *identity);
        let pin = match known.map(|pin| self.is_same(pin, &file)) {
            Some(Err(error)) => return Err(failed(error)),
            Some(Ok(true)) => known.map(Arc::clone),
            _ => None,
        };
        let pin = match pin {
            Some(pin) => pin,
            None => Arc::new(Pin::new(file, self.budget).map_err(failed)?),
        };
        *identity = *pin.identity();
        match Footer::read(&pin) {
            Ok(footer) => Ok((pin, footer.invocation_id)),
            Err(FooterError::Incomplete(reason)) => Err(Reading::Landing(reason)),
            Err(FooterError::Broken(reason)) => Err(Reading::Rejected(reason)),
        }
    }

    /// Whether an open file with a pin's identity has its bytes. They are read only where a rewrite could
    /// have left the identity as it was.
    fn is_same(&self, pin: &Pin, file: &File) -> Result<bool, PinError> {
        if may_hide_a_rewrite(pin.identity(), pin.read_at(), self.tick) {
            return pin.is_of(file);
        }
        Ok(pin.is_intact())
    }
}

/// Finds the parts that a record names among those that are there, or says which one is not as it should be.
fn choose(there: &[Found], named: &[ledger::File]) -> Result<Vec<Found>, String> {
    let find = |file: &ledger::File| {
        let index = there.binary_search_by(|found| found.path.as_str().cmp(&file.path));
        let found = index.ok().map(|index| &there[index]);
        let found = found.filter(|found| found.identity.size() == file.bytes);
        found.cloned().ok_or_else(|| shown(&file.path).to_owned())
    };
    named.iter().map(find).collect()
}

/// The path of a part in its mart.
fn shown(path: &str) -> &str {
    path.split_once('/').map_or(path, |(_, part)| part)
}

impl Reading {
    /// The same, said of a part of a mart.
    fn of_part(self, part: &str) -> Self {
        let said = |reason: String| format!("{part} {reason}");
        match self {
            Self::Landing(reason) | Self::Waiting(reason) => Self::Landing(said(reason)),
            Self::Gone => Self::Landing(said("is gone".to_owned())),
            Self::Rejected(reason) => Self::Rejected(said(reason)),
            Self::Failed(reason) => Self::Failed(said(reason)),
            Self::Version(version) => Self::Version(version),
        }
    }
}

fn unreadable(error: &io::Error) -> Reading {
    match error.kind() {
        io::ErrorKind::NotFound => Reading::Gone,
        io::ErrorKind::PermissionDenied => {
            Reading::Rejected("may not be read by martd's user; give it read permission".to_owned())
        }
        _ => Reading::Failed(format!("cannot be read: {error}")),
    }
}

fn failed(error: PinError) -> Reading {
    match error {
        PinError::Moved => Reading::Landing(error.to_string()),
        PinError::Read(error) => unreadable(&error),
    }
}

/// Whether a file that was read from `began` on could have been rewritten since then, or be yet, and
/// look the same.
pub(super) fn may_hide_a_rewrite(identity: &Identity, began: Timestamp, tick: Duration) -> bool {
    let most = u128::from(WRITTEN_IN_A_MILLISECOND) * tick.as_millis();
    u128::from(identity.size()) <= most && identity.is_young(began, tick)
}
