//! The catalog: what is served at this moment, swapped as a whole.
//!
//! Invariants: a [`State`] is immutable; a request loads one and keeps to it. The refresh thread is
//! the only writer. Generations only grow.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::engine::Lease;
use crate::ledger::Ledger;
use crate::legacy::Trouble;
use crate::marts::build::{BuiltTable, ReportColumn};
use crate::metrics::Counted;
use crate::mirror::MirrorStatus;
use crate::publish::{Hold, Target, Version};
use crate::scan::{Fault, Remark};
use crate::watch::WatchMode;

/// A mart as a snapshot serves it.
#[derive(Debug)]
pub struct Mart {
    /// The version.
    pub version: Arc<Version>,
    /// What it is served from.
    pub table: Arc<BuiltTable>,
    /// Whether it is an empty model of dbt's: its one row, of NULLs alone, is not served.
    pub is_empty_model: bool,
    /// Whether it was written for a model that its project has no more.
    pub orphan: bool,
    /// The build that wrote it, where that is known.
    pub build: Option<String>,
    /// What the column says that tells when it was loaded, where its rule names one.
    pub loaded: Option<Loaded>,
}

impl Mart {
    /// The rows that are served.
    pub fn rows(&self) -> u64 {
        if self.is_empty_model { 0 } else { self.table.report().rows }
    }

    /// Its columns, in the file's order.
    pub fn columns(&self) -> &[ReportColumn] {
        &self.table.report().columns
    }
}

/// What `meta.freshness.loaded_at_field` came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The column.
    pub field: String,
    /// Its newest value, `None` when no row has one; or why it does not tell.
    pub newest: Result<Option<Timestamp>, String>,
}

/// What a snapshot is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The Parquet files of the mart directory.
    Parquet,
    /// The tables of the legacy DuckDB file.
    Duckdb,
}

impl Source {
    /// As headers and documents have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Duckdb => "duckdb",
        }
    }
}

/// What is published together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Publishing {
    /// Nothing: each file as it lands.
    #[default]
    Files,
    /// The marts of a build that a record vouches for.
    Builds,
}

/// An immutable set of marts, and the database over their tables.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows with each publish; means nothing in another process.
    pub generation: u64,
    /// Derived from names and contents: equal in every replica that sees the same files.
    pub id: String,
    /// What it is made from.
    pub source: Source,
    /// When it was swapped in.
    pub published_at: Timestamp,
    /// The marts by name.
    pub marts: BTreeMap<String, Mart>,
    /// The ledger that vouches for it, if one does.
    pub ledger: Option<Arc<Ledger>>,
    /// `false` when a ledger is there that does not vouch for it.
    pub verified: bool,
    /// What it was made from.
    pub target: Target,
    /// Has the engine answer from it.
    pub lease: Arc<Lease>,
    /// Counts it as alive.
    pub live: Counted,
}

impl Snapshot {
    /// Whether it was decided with this record in view: a build's that it shows, or one that came before;
    /// or what a rollback has put aside.
    pub fn goes_by(&self, record: &str) -> bool {
        self.vouching().is_some_and(|ledger| ledger.knows(record))
    }

    /// The records that tell how new it is; none where no ledger vouches for it. See [`Ledger::heads`].
    pub fn heads(&self) -> &[String] {
        self.vouching().map_or(&[], |ledger| &ledger.heads)
    }

    /// The ledger whose last build it shows; none where it shows no build whole.
    pub fn vouching(&self) -> Option<&Ledger> {
        self.ledger.as_deref().filter(|_| self.verified)
    }

    /// The newest modification time of its marts; `None` without marts.
    pub fn last_refresh(&self) -> Option<Timestamp> {
        self.marts.values().map(|mart| mart.version.modified()).max()
    }
}

/// A build that is held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// What and why.
    #[serde(flatten)]
    pub hold: Hold,
    /// Since when.
    pub since: Timestamp,
}

impl Held {
    /// A hold that takes the place of another, or of none. It goes on since that one began, unless somebody
    /// rolled back or ended that meanwhile.
    pub(crate) fn after(before: Option<Self>, hold: Hold) -> Self {
        let goes_on = before.filter(|before| before.hold.rollback == hold.rollback);
        let since = hold.rolled_back_at.or(goes_on.map(|before| before.since));
        Self { since: since.unwrap_or_else(Timestamp::now), hold }
    }
}

/// A snapshot that was replaced and can still be read by its id.
#[derive(Debug, Clone)]
pub struct Retained {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// When it was replaced.
    pub replaced: Instant,
}

/// Everything that is true at one moment.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What is served; `None` until the first mart is valid.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Earlier snapshots, the newest first.
    pub retained: Vec<Retained>,
    /// The ids of some that cannot be read any more.
    pub gone: Arc<VecDeque<String>>,
    /// What is published together.
    pub publishing: Publishing,
    /// What is not served, be it that a build is under way.
    pub held: Option<Held>,
    /// Files that will not be served.
    pub rejected: Vec<Fault>,
    /// Files that are not complete yet.
    pub landing: Vec<Fault>,
    /// How many files are read and made tables of at this moment, and how many there are.
    pub building: (usize, usize),
    /// Names and types that are never served.
    pub ignored: Vec<Remark>,
    /// Why the directory cannot be read, when it cannot.
    pub directory: Option<String>,
    /// Why a snapshot of what is there cannot be opened, when it cannot.
    pub unopened: Option<String>,
    /// Why nothing is made from the legacy file, while something should be.
    pub legacy: Option<Trouble>,
    /// What a mirror says that writes into the directory, if one does.
    pub mirror: Option<MirrorStatus>,
    /// How changes are noticed.
    pub watch: WatchMode,
    /// Why changes are noticed by polling although inotify was asked for.
    pub watch_degraded: Option<String>,
}

impl State {
    /// What answers come from at present.
    pub fn source(&self) -> Source {
        self.snapshot.as_ref().map_or(Source::Parquet, |snapshot| snapshot.source)
    }

    /// A build that has ended and is not served: something failed, a rollback asks for another, or a
    /// file that it wrote is not there.
    pub fn held_back(&self) -> Option<&Held> {
        self.held.as_ref().filter(|held| !self.is_under_way(&held.hold))
    }

    /// Files that no finished build wrote: one runs, until it says otherwise.
    pub fn under_way(&self) -> Option<&Held> {
        self.held.as_ref().filter(|held| self.is_under_way(&held.hold))
    }

    fn is_under_way(&self, hold: &Hold) -> bool {
        hold.is_under_way(self.building.0 > 0 || !self.landing.is_empty())
    }

    /// Whether nobody could tell the two apart.
    fn says_the_same_as(&self, other: &Self) -> bool {
        let snapshots = |state: &Self| -> Vec<*const Snapshot> {
            let retained = state.retained.iter().map(|retained| &retained.snapshot);
            state.snapshot.iter().chain(retained).map(Arc::as_ptr).collect()
        };
        let Self { publishing, held, rejected, landing, ignored, building, .. } = self;
        let Self { directory, unopened, legacy, mirror, watch, watch_degraded, .. } = self;
        snapshots(self) == snapshots(other)
            && self.snapshot.is_some() == other.snapshot.is_some()
            && (publishing, held, rejected) == (&other.publishing, &other.held, &other.rejected)
            && (landing, ignored, building) == (&other.landing, &other.ignored, &other.building)
            && (directory, unopened) == (&other.directory, &other.unopened)
            && (legacy, mirror) == (&other.legacy, &other.mirror)
            && (watch, watch_degraded) == (&other.watch, &other.watch_degraded)
    }

    /// Whether the work of a build is served: of the last one that vouches, or one before it.
    pub fn serves_build(&self, build: &str) -> bool {
        let ledger = self.snapshot.as_ref().and_then(|snapshot| snapshot.vouching());
        let overtaken = self.held.iter().flat_map(|held| &held.hold.overtaken);
        let is_overtaken = overtaken.into_iter().any(|overtaken| overtaken == build);
        !is_overtaken
            && ledger.is_some_and(|ledger| ledger.builds.iter().any(|known| known == build))
    }

    /// The current or a retained snapshot with this id.
    pub fn snapshot_by_id(&self, id: &str) -> Option<&Arc<Snapshot>> {
        self.snapshot
            .iter()
            .chain(self.retained.iter().map(|retained| &retained.snapshot))
            .find(|snapshot| snapshot.id == id)
    }
}

/// A cheap handle on the current [`State`]. A clone shares it.
#[derive(Debug, Clone)]
pub struct Catalog {
    state: Arc<ArcSwap<State>>,
    /// Tells waiters that the state was swapped; carries nothing, for the state is loaded anew.
    changed: watch::Sender<()>,
}

impl Default for Catalog {
    fn default() -> Self {
        let problem = "the mart directory has not been read yet".to_owned();
        let state = State { directory: Some(problem), ..State::default() };
        Self { state: Arc::new(ArcSwap::from_pointee(state)), changed: watch::Sender::new(()) }
    }
}

impl Catalog {
    /// The state of this moment. A request calls this once.
    pub fn load(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Notified after every change.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Looks at each state until `find` has found something, or else until the time is over: then at the last one.
    ///
    /// # Errors
    /// The last state, when nothing was found in time.
    pub async fn find<T>(
        &self,
        deadline: tokio::time::Instant,
        mut find: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, Arc<State>> {
        // Subscribed before the first look: a swap in between wakes the wait below.
        let mut changes = self.subscribe();
        loop {
            let state = self.load();
            if let Some(found) = find(&state) {
                return Ok(found);
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return Err(state);
            }
        }
    }

    /// Swaps in a new state, for the refresh thread alone. Returns the one before it, unless the two
    /// are the same: nobody is woken then.
    pub(crate) fn store(&self, state: Arc<State>) -> Option<Arc<State>> {
        if self.state.load().says_the_same_as(&state) {
            return None;
        }
        let before = self.state.swap(state);
        self.changed.send_replace(());
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_woken_for_a_state_that_says_the_same() {
        let catalog = Catalog::default();
        let mut changes = catalog.subscribe();
        let state = State::clone(&catalog.load());
        assert!(catalog.store(Arc::new(state.clone())).is_none());
        assert!(!changes.has_changed().expect("the catalog is there"));
        let since = Timestamp::UNIX_EPOCH;
        let fault = Fault { file: "a.parquet".to_owned(), reason: "no PAR1".to_owned(), since };
        for changed in [
            State { directory: None, ..state.clone() },
            State { rejected: vec![fault], ..state.clone() },
            State { legacy: Some(Trouble::Locked), ..state },
        ] {
            assert!(catalog.store(Arc::new(changed)).is_some());
            assert!(changes.has_changed().expect("the catalog is there"));
            changes.mark_unchanged();
        }
    }
}
