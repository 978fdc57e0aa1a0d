//! The ledger: what writers say of their builds, in records that are never changed.
//!
//! A writer puts one [`Record`] for each run into `_builds/`, and [`fold()`] makes of all of them what is
//! so now: a [`Ledger`]. Nothing here reads a file, a clock or a lock, and a fold depends on the records
//! alone, so every replica comes to the same state. `docs/ledger.md` is for those who write records.
//!
//! What people write by hand into a model's `meta` is read leniently: what is wrong there concerns that
//! model alone.

mod first_edition;
mod fold;
mod freshness;
mod order;
mod record;
#[cfg(test)]
pub(crate) mod samples;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use first_edition::convert as of_first_edition;
pub(crate) use fold::REMEMBERED;
pub use fold::{Compaction, compact, fold};
pub use freshness::{FreshnessRule, Period, Unit};
pub use order::{MOST_AHEAD, newest_ahead, overtaken_by, too_far_ahead};
pub use record::{
    Build, Column, EMPTY, File, MAX_BYTES, Model, NodeResult, REFUSED, Record, RecordError,
    SKIPPED, Status, UNTESTED, is_id,
};

/// The directory of the records, beside the marts.
pub const RECORDS: &str = "_builds";
/// The one file of the first edition's ledger.
pub const FIRST_EDITION: &str = "_build.json";

/// The status of a mart that two projects build.
const CONFLICT: &str = "conflict";

/// What all records come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The last build.
    pub invocation_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether everything in it succeeded.
    pub status: Status,
    /// All builds, the newest last.
    pub builds: Vec<String>,
    /// The newest build of each project, and the last rollback or release where no build came after it. A
    /// martd that knows of these knows of all records that count here, for each writer's come in order.
    #[serde(default)]
    pub heads: Vec<String>,
    /// What is known beside `builds`: rollbacks, their releases, and builds that came after the one that is
    /// served in their place.
    #[serde(default)]
    pub beside: Vec<String>,
    /// When the first recorded build began; `None` when the first edition's ledger is all there is. Of
    /// a file that is older than this nobody could have kept a record.
    pub recorded_since: Option<Timestamp>,
    /// Every node that failed, was skipped or not tested, and has not succeeded since: what failed first.
    pub outstanding: Vec<Outstanding>,
    /// Every mart that a project has, by name.
    pub models: Vec<Model>,
    /// Marts that have left their projects.
    pub left: Vec<Model>,
    /// The earlier build that is to be served in the place of this one.
    #[serde(skip)]
    pub rollback: Option<Rollback>,
}

/// An earlier build that is to be served until the rollback is released.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollback {
    /// Its id.
    pub build: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// What the records came to when it had ended; `None` when no record is of that build.
    pub ledger: Option<Arc<Ledger>>,
}

/// A node that has not succeeded since it failed, was skipped, or could have been tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outstanding {
    /// Its id, in dbt's way.
    pub unique_id: String,
    /// The project that it is of, where its writer names one.
    pub project: Option<String>,
    /// Its writer's word for what it came to.
    pub status: String,
    /// What went wrong.
    pub message: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

impl Outstanding {
    /// What became of it.
    pub(crate) fn kind(&self) -> NodeKind {
        match self.status.as_str() {
            SKIPPED => NodeKind::Skipped,
            UNTESTED => NodeKind::Untested,
            _ => NodeKind::Failed,
        }
    }

    /// Whether `martd publish --clear` is the way to end it: no run of dbt reports a success for it, or need not.
    pub(crate) fn can_be_cleared(&self) -> bool {
        const OF_DBT: [&str; 6] = ["model", "test", "seed", "snapshot", "unit_test", "operation"];
        let (kind, _) = self.unique_id.split_once('.').unwrap_or_default();
        let is_dbts = OF_DBT.contains(&kind) || self.project.is_some();
        self.status == REFUSED || self.status != CONFLICT && !is_dbts
    }
}

/// What can become of a node, in the order in which people want to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeKind {
    Failed,
    /// Nobody looked at it.
    Untested,
    /// Because another one failed.
    Skipped,
}

impl NodeKind {
    pub(crate) const ALL: [Self; 3] = [Self::Failed, Self::Untested, Self::Skipped];

    /// The word of records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Untested => UNTESTED,
            Self::Skipped => SKIPPED,
        }
    }
}

impl Ledger {
    /// The entry of a mart.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// What a record says of a mart, be it that its project has it no more.
    pub fn record_of(&self, name: &str) -> Option<&Model> {
        self.models.iter().chain(&self.left).find(|model| model.name == name)
    }

    /// Whether a record is of this mart.
    pub fn names(&self, name: &str) -> bool {
        self.record_of(name).is_some()
    }

    /// Whether this record counts here: a build's, a rollback's, a release's.
    pub fn knows(&self, id: &str) -> bool {
        self.builds.iter().chain(&self.beside).rev().any(|known| known == id)
    }

    /// Whether nothing is outstanding.
    pub fn is_clear(&self) -> bool {
        self.outstanding.is_empty()
    }
}

#[cfg(test)]
mod tests;
