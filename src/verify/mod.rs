//! Whether a file's bytes are a whole Parquet file, asked before anything serves it.
//!
//! In two steps. The [`footer`] is parsed here, in safe Rust: a file without a whole one is still
//! being written. Then every row group is decoded once by DuckDB in a [`child`] process: a poisoned
//! file can kill that child and nothing else. Reports are kept by content, so the same bytes are
//! never decoded twice.

mod book;
pub mod child;
mod children;
mod footer;
mod nesting;
mod workers;

use serde::{Deserialize, Serialize};

pub use child::Depth;
pub use children::Kept;
pub use footer::{Footer, FooterError, has_tail};
pub use workers::Verifier;

/// What decoding a mart found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The rows that are served.
    pub rows: u64,
    /// The columns, in the file's order.
    pub columns: Vec<ReportColumn>,
    /// dbt-duckdb writes one all-NULL row for an empty model; such a file is served with no rows.
    pub empty_model: bool,
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

/// What verification says of a version: a report, or the reason why it is rejected.
pub type Verdict = Result<Report, String>;
