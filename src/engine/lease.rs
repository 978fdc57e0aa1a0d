//! A snapshot that engines serve for as long as somebody holds its lease.

use std::sync::{Arc, Weak};

use super::protocol::{SnapshotSpec, TableSpec};
use super::supervisor::EngineShared;
use crate::marts::build::{BuiltTable, ReportColumn};

/// A mart that a snapshot is to serve.
#[derive(Debug, Clone)]
pub struct Table {
    /// The mart's name.
    pub name: String,
    /// A schema under which this mart alone can be named as well.
    pub schema: Option<String>,
    /// Its bytes.
    pub table: Arc<BuiltTable>,
    /// Its columns.
    pub columns: Vec<ReportColumn>,
    /// Whether to serve it without rows whatever the table holds (dbt-duckdb's empty model).
    pub is_empty: bool,
    /// What it holds, as its project says; empty when that says nothing.
    pub description: String,
    /// What columns mean, by name.
    pub meanings: Vec<(String, String)>,
}

/// The right to ask for a snapshot. Engines drop the snapshot with it.
#[derive(Debug)]
pub struct Lease {
    spec: SnapshotSpec,
    tables: Vec<Arc<BuiltTable>>,
    engine: Weak<EngineShared>,
}

impl Lease {
    pub(super) fn new(
        number: u64,
        id: &str,
        tables: Vec<Table>,
        engine: Weak<EngineShared>,
    ) -> Self {
        let (mut specs, mut built) = (Vec::new(), Vec::new());
        for Table { name, schema, table, columns, is_empty, description, meanings } in tables {
            let number = table.number();
            specs.push(TableSpec {
                number,
                name,
                schema,
                columns,
                is_empty,
                description,
                meanings,
            });
            built.push(table);
        }
        let spec = SnapshotSpec { number, id: id.to_owned(), tables: specs };
        Self { spec, tables: built, engine }
    }

    pub(super) fn spec(&self) -> &SnapshotSpec {
        &self.spec
    }

    pub(super) fn tables(&self) -> &[Arc<BuiltTable>] {
        &self.tables
    }

    /// Whether these tables under these names are what it serves.
    pub fn serves(&self, tables: &[Table]) -> bool {
        self.tables.len() == tables.len()
            && self.spec.tables.iter().zip(&self.tables).zip(tables).all(|((spec, own), other)| {
                Arc::ptr_eq(own, &other.table)
                    && spec.name == other.name
                    && spec.schema == other.schema
                    && spec.is_empty == other.is_empty
                    && spec.description == other.description
                    && spec.meanings == other.meanings
            })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.forget(self);
        }
    }
}
