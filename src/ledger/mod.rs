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
mod record;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use first_edition::convert as of_first_edition;
pub use fold::{Compaction, compact, fold};
pub use freshness::{FreshnessRule, Period, Unit};
pub use record::{
    Build, Column, EMPTY, File, MAX_BYTES, Model, NodeResult, Record, RecordError, SKIPPED, Status,
    UNTESTED, is_id,
};

/// The directory of the records, beside the marts.
pub const RECORDS: &str = "_builds";
/// The one file of the first edition's ledger.
pub const FIRST_EDITION: &str = "_build.json";

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
    /// What failed comes before what nobody looked at, and that before what was skipped for it.
    pub(crate) fn rank(&self) -> u8 {
        match self.status.as_str() {
            SKIPPED => 2,
            UNTESTED => 1,
            _ => 0,
        }
    }
}

impl Ledger {
    /// The entry of a mart.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// Whether a record is of this mart, be it that its project has it no more.
    pub fn names(&self, name: &str) -> bool {
        self.models.iter().chain(&self.left).any(|model| model.name == name)
    }

    /// Whether nothing is outstanding.
    pub fn is_clear(&self) -> bool {
        self.outstanding.is_empty()
    }
}

#[cfg(test)]
mod tests;
