//! What the front and a builder say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Report;

/// What a builder may take for one request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Allowance {
    /// Seconds of processor time, after which the kernel ends it. The front's deadline is shorter.
    pub(super) cpu_seconds: u64,
    /// Bytes of the table.
    pub(super) table_bytes: u64,
}

/// What the front asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum BuildRequest {
    /// Build the table of a mart. Descriptors: its files, the draft. Of a mart that is a directory, `parts`
    /// are the paths of the files in it.
    Parquet { parts: Vec<String>, block: u32, allowance: Allowance },
    /// Attach a legacy file and list what is in it. Descriptors: the file and its logs, unless there
    /// is a path; then places that are to be writable for a later [`BuildRequest::Export`].
    Attach {
        catalog: String,
        schemas: Vec<String>,
        path: Option<PathBuf>,
        /// The endings of the logs' names.
        logs: Vec<String>,
        allowance: Allowance,
    },
    /// Build the table of one of a legacy file's. Descriptor: the draft.
    Export { block: u32, schema: String, name: String, allowance: Allowance },
}

/// What a builder answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum BuildResponse {
    /// The table is in its draft.
    Built(Report),
    /// What a legacy file has.
    Listed(Vec<Listed>),
    /// Neither; this builder is of no use any more.
    Failed(ReadFailure),
}

/// A table or view of a legacy file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) is_view: bool,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ReadFailure {
    pub(super) cause: Cause,
    /// Without paths.
    pub(super) reason: String,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// The content, for good.
    Content,
    /// DuckDB itself: an internal or fatal error.
    Internal,
    /// The machine: no memory, no room, a disk that fails.
    Resources,
    /// The table is larger than it was allowed to be.
    TooLarge,
}
