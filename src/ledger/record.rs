//! A record: what one writer did in one run.
//!
//! Unknown keys are ignored, so that a newer writer can add some.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::FreshnessRule;
use crate::digest::Digest;

/// The version of the format.
const VERSION: u32 = 2;
/// The largest record that is read; a thousand documented models take about 5 MB.
pub const MAX_BYTES: u64 = 64 << 20;
/// The longest id of a build: with `.json` it is a file's name.
const LONGEST_ID: usize = 128;

/// The status of a node that did not run because another had failed.
pub const SKIPPED: &str = "skipped";
/// The status of a test that has not run since its mart was built. Records of a run need not say so.
pub const UNTESTED: &str = "untested";
/// The status of a node that ran over no rows, or some (`dbt --empty`, `--sample`).
pub const EMPTY: &str = "empty";

/// The status of a mart whose files `martd publish` does not vouch for.
pub const REFUSED: &str = "refused";

/// What one writer did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The run.
    pub build: Build,
    /// The marts that it built.
    #[serde(default)]
    pub marts: Vec<Model>,
    /// What became of each node that it ran.
    #[serde(default)]
    pub results: Vec<NodeResult>,
    /// Every node that the project has now: others have left it. `None` when the writer does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeSet<String>>,
    /// The earlier build that is to be served from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// Ends a rollback.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
    /// The builds whose records this one stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
}

/// A run of a writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its id, which is the record's name.
    pub id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended: records are folded in this order.
    pub finished_at: Timestamp,
    /// What wrote the marts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// Whose nodes these are. Writers that name none are one project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Whether everything succeeded.
    pub status: Status,
}

impl Build {
    /// What records are ordered by, the oldest first: when their builds ended, and then their ids.
    pub fn order(&self) -> (Timestamp, &str) {
        (self.finished_at, &self.id)
    }

    /// A run of this moment, of no project, in which nothing failed.
    pub fn now(id: String, writer: &str) -> Self {
        let (now, writer) = (Timestamp::now(), Some(writer.to_owned()));
        let (project, status) = (None, Status::Success);
        Self { id, started_at: now, finished_at: now, writer, project, status }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All nodes passed.
    Success,
    /// At least one did not.
    Error,
}

/// What became of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResult {
    /// Its id, for example `model.finance.fct_transactions`.
    pub id: String,
    /// The writer's word for the outcome.
    pub status: String,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Since when it has been so, where that is not since this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl NodeResult {
    /// Whether the node holds nothing back. A word that is not known does.
    pub fn has_passed(&self) -> bool {
        matches!(&*self.status, "success" | "pass" | "warn" | "no-op" | "reused")
    }
}

/// A mart that was built, and what its project says of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The node that builds it.
    #[serde(rename = "id", default, skip_serializing_if = "Option::is_none")]
    pub unique_id: Option<String>,
    /// Its name: the file's stem.
    pub name: String,
    /// The schema that the project gives it; the mart can be named by it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// What it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The build that last built it, where that is not the record's.
    #[serde(rename = "build", default, skip_serializing_if = "String::is_empty")]
    pub invocation_id: String,
    /// What describes the dataset, and the freshness rule.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Json>,
    /// The columns that the project describes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// The tests that must have passed since it was built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<String>,
    /// What is vouched for. Empty for the first edition's ledger alone, which knew stamps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Whether its project has it no more; in compacted records alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

impl Model {
    /// A mart of which nothing but its name is known.
    pub fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// How old the mart may get: `meta.freshness`.
    pub fn freshness(&self) -> Option<FreshnessRule> {
        FreshnessRule::read(self.meta.get("freshness")?)
    }

    /// What the project says that a column means. Names are compared as DuckDB does, without case.
    pub fn meaning(&self, column: &str) -> Option<&str> {
        let known = self.columns.iter().find(|known| known.name.eq_ignore_ascii_case(column))?;
        known.description.as_deref()
    }

    /// Whether it is a directory of parts.
    pub fn is_directory(&self) -> bool {
        self.files.first().is_some_and(|file| file.path.contains('/'))
    }

    /// The node that builds it; without one its name.
    pub fn node(&self) -> &str {
        self.unique_id.as_deref().unwrap_or(&self.name)
    }
}

/// A column as the project describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its type, where the project says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_type: Option<String>,
}

/// A file of a mart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path in the mart directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes.
    pub sha256: Digest,
}

/// Why a record is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not the JSON that a record is.
    #[error("does not parse: {0}")]
    Parse(#[from] serde_json::Error),
    /// It says what cannot be.
    #[error("{0}")]
    Wrong(String),
}

impl Record {
    /// A record of a run that did nothing yet.
    pub fn new(build: Build) -> Self {
        Self {
            version: VERSION,
            build,
            marts: Vec::new(),
            results: Vec::new(),
            nodes: None,
            rollback: None,
            release: false,
            replaces: Vec::new(),
        }
    }

    /// Reads a record from a file's text.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &[u8]) -> Result<Self, RecordError> {
        let mut record: Self = serde_json::from_slice(text)?;
        record.check().map_err(RecordError::Wrong)?;
        for mart in &mut record.marts {
            if mart.invocation_id.is_empty() {
                mart.invocation_id.clone_from(&record.build.id);
            }
        }
        Ok(record)
    }

    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// The first thing.
    pub fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("is of version {}, and this martd knows {VERSION}", self.version));
        }
        let id = &self.build.id;
        if !is_id(id) {
            return Err(format!(
                "build.id is {id:?}; it must have 1 to {LONGEST_ID} letters, digits, dots, dashes or \
                 underscores, and not begin with a dot or tmp_"
            ));
        }
        let mut nodes = BTreeMap::new();
        for mart in &self.marts {
            let Model { name, files, .. } = mart;
            if let Some(other) = nodes.insert(name, mart.node()) {
                return Err(format!(
                    "{other} and {} both write mart {name}; rename one of the two",
                    mart.node()
                ));
            }
            if name.is_empty() || name.contains('/') {
                return Err(format!("{name:?} is no name of a mart"));
            }
            if files.is_empty() {
                return Err(format!("mart {name} names no files, so nothing is vouched for"));
            }
            let own = [format!("{name}.parquet"), format!("{name}/")];
            let is_part = |path: &str| {
                let part = path.strip_prefix(&own[1]);
                part.is_some_and(|part| {
                    part.split('/').all(|name| !["", ".", ".."].contains(&name))
                })
            };
            let strays = |file: &&File| file.path != own[0] && !is_part(&file.path);
            if let Some(file) = files.iter().find(strays) {
                return Err(format!(
                    "{} is no file of mart {name}, which is {} or lies in {}",
                    file.path, own[0], own[1]
                ));
            }
            let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
            if paths.len() < files.len() || paths.len() > 1 && paths.contains(own[0].as_str()) {
                return Err(format!(
                    "mart {name} names a file twice, or both {} and {}; it is one of the two",
                    own[0], own[1]
                ));
            }
        }
        Ok(())
    }

    /// Whether it tells of a run, and not of what to serve alone.
    pub fn is_of_a_build(&self) -> bool {
        self.rollback.is_none() && !self.release
    }
}

/// Whether a record can have this name.
pub fn is_id(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && !id.starts_with('.')
        && !id.starts_with("tmp_")
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
