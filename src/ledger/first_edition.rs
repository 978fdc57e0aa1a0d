//! The ledger of the first edition, `_build.json`: one file that a dbt macro rewrote after each run, in
//! which stamps in the files said what belongs together. It is read as a record that stands for all
//! before it, so nothing else knows of it but that its marts name no files.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::record::{Build, Column, Model, NodeResult, Record, SKIPPED, Status};

#[derive(Deserialize)]
struct Document {
    build: Ledger,
}

#[derive(Deserialize)]
struct Ledger {
    invocation_id: String,
    started_at: Timestamp,
    finished_at: Timestamp,
    status: Status,
    #[serde(default)]
    outstanding: Vec<Outstanding>,
    #[serde(default)]
    models: Vec<Mart>,
}

#[derive(Deserialize)]
struct Outstanding {
    unique_id: String,
    message: Option<String>,
    since: Option<String>,
}

#[derive(Deserialize)]
struct Mart {
    unique_id: Option<String>,
    name: String,
    schema: Option<String>,
    description: Option<String>,
    invocation_id: String,
    #[serde(default)]
    meta: Map<String, Json>,
    #[serde(default)]
    columns: Vec<Column>,
}

/// Reads the file's text as a record that stands for those of the builds that the file spoke of before.
///
/// # Errors
/// What is wrong with the JSON, and where.
pub fn convert(text: &[u8], before: Vec<String>) -> Result<Record, serde_json::Error> {
    let Document { build: ledger } = serde_json::from_slice(text)?;
    let project =
        ledger.models.iter().find_map(|mart| mart.unique_id.as_deref()?.split('.').nth(1));
    let mut record = Record::new(Build {
        id: ledger.invocation_id,
        started_at: ledger.started_at,
        finished_at: ledger.finished_at,
        writer: None,
        project: project.map(str::to_owned),
        status: ledger.status,
    });
    record.replaces = before;
    record.marts = ledger.models.into_iter().map(Mart::into_model).collect();
    record.results = ledger.outstanding.into_iter().map(Outstanding::into_result).collect();
    // It tells of all that is so.
    let marts = record.marts.iter().map(|mart| mart.node().to_owned());
    let failed = record.results.iter().map(|result| result.id.clone());
    record.nodes = Some(marts.chain(failed).collect::<BTreeSet<_>>());
    Ok(record)
}

impl Mart {
    fn into_model(self) -> Model {
        Model {
            unique_id: self.unique_id,
            schema: self.schema,
            description: self.description,
            invocation_id: self.invocation_id,
            meta: self.meta,
            columns: self.columns,
            ..Model::named(self.name)
        }
    }
}

impl Outstanding {
    fn into_result(self) -> NodeResult {
        let was_skipped = self.message.as_ref().is_some_and(|text| text.starts_with(SKIPPED));
        NodeResult {
            id: self.unique_id,
            status: if was_skipped { SKIPPED } else { "error" }.to_owned(),
            message: self.message,
            since: self.since.and_then(|since| since.parse().ok()),
        }
    }
}
