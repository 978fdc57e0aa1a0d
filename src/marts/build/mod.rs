//! Builds: a mart's file becomes a table, which is its verification, too.
//!
//! After its [`footer`] was found whole, a [`builder`] process reads every row group of a file once,
//! without any filter, into a DuckDB database that lies in memory (or, beyond
//! `MARTD_TABLE_MEMORY`, in an unlinked file in `MARTD_TABLE_DIR`). The front seals it; engines attach
//! it as it is. A poisoned file can kill a builder and nothing else.
//!
//! Invariants:
//! - A verdict is about one file. A builder in which DuckDB reported an internal or fatal error, that
//!   crashed, hung or was killed is thrown away, and its file is read by another one alone.
//! - What was built by a builder that failed later is trusted, because the front had sealed it before.
//! - Only what DuckDB says of the content is remembered. Whatever else fails is tried again.
//! - Nothing is left in the file system, however a builder or the front ends.
//! - Reasons show no paths, descriptors or stack traces.
//!
//! The front gives each builder the draft to build into and takes none from it: a builder cannot hand
//! over anything but bytes in a draft that the front knows. Deliberately absent: filters, statistics,
//! any knowledge of which version is served.

mod builder;
mod child;
mod footer;
mod legacy;
mod messages;
mod nesting;
mod pool;
mod queue;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use builder::{SUBCOMMAND, main};
pub(crate) use child::SCRATCH_PREFIX;
pub use child::{BuilderSettings, choose_scratch};
pub use footer::{Footer, FooterError, has_tail};
pub use legacy::BuiltLegacyTable;
pub use pool::Pool;
#[cfg(test)]
pub(crate) use table::table_of;
pub use table::{BuiltTable, TableBudget, TableKind};

use crate::mart_pin::MartPin;

/// The table's name in the database of a [`BuiltTable`], in schema `main`.
pub const TABLE: &str = "t";

/// What a table has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its rows.
    pub rows: u64,
    /// The columns, in the file's order.
    pub columns: Vec<ReportColumn>,
    /// Whether it is a file's one row of NULLs alone, which is what dbt-duckdb writes for an empty model.
    pub is_null_row: bool,
}

/// A column as DuckDB reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportColumn {
    /// Its name.
    pub name: String,
    /// DuckDB's name for its type.
    #[serde(rename = "type")]
    pub ty: String,
}

/// Why a content has no table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRejection {
    /// For people, without paths.
    pub reason: String,
    /// Whether it holds for the content. What does not, a deadline or a want of memory, is tried
    /// again with growing pauses for as long as somebody holds the pin.
    pub lasting: bool,
}

/// What building a content came to: its table, or why it has none. Whoever drops the last of a table's gives
/// its memory back.
pub type Verdict = Result<Arc<BuiltTable>, FileRejection>;

/// What became of a version that was submitted.
#[derive(Debug, Clone)]
pub enum BuildResult {
    /// There is a table.
    Built(Arc<BuiltTable>),
    /// There is none. When that is not lasting, another outcome follows some time.
    Rejected(FileRejection),
    /// The file was rewritten in place while it was read: what was found says nothing about it.
    Rewritten,
    /// A newer version of the mart was submitted before this one was begun with.
    Superseded,
}

impl From<Option<Verdict>> for BuildResult {
    /// There is no verdict on a file that was rewritten.
    fn from(verdict: Option<Verdict>) -> Self {
        match verdict {
            Some(Ok(table)) => Self::Built(table),
            Some(Err(rejection)) => Self::Rejected(rejection),
            None => Self::Rewritten,
        }
    }
}

/// What a [`Pool`] reports, once or (after a rejection that is not lasting) more often for each version.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The mart's name, as it was submitted.
    pub name: String,
    /// The version.
    pub pin: Arc<MartPin>,
    /// What became of it.
    pub result: BuildResult,
}

impl From<io::Error> for FileRejection {
    fn from(error: io::Error) -> Self {
        Self::passing(error.to_string())
    }
}

impl FileRejection {
    fn lasting(reason: String) -> Self {
        Self { reason, lasting: true }
    }

    pub(crate) fn passing(reason: String) -> Self {
        Self { reason, lasting: false }
    }
}
