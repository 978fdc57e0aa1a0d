//! A snapshot that engines serve for as long as somebody holds its lease.

use std::sync::{Arc, Weak};

use super::protocol::{SnapshotSpec, TableSpec};
use super::supervisor::EngineShared;
use crate::marts::build::BuiltTable;

/// A mart that a snapshot is to serve.
#[derive(Debug, Clone)]
pub struct Table {
    /// How it is served.
    pub spec: TableSpec,
    /// Its bytes.
    pub table: Arc<BuiltTable>,
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
        let tables = tables.into_iter().map(|Table { spec, table }| (spec, table));
        let (specs, tables) = tables.unzip();
        let spec = SnapshotSpec { number, id: id.to_owned(), tables: specs };
        Self { spec, tables, engine }
    }

    pub(super) fn spec(&self) -> &SnapshotSpec {
        &self.spec
    }

    pub(super) fn tables(&self) -> &[Arc<BuiltTable>] {
        &self.tables
    }

    /// Whether these tables under these names are what it serves.
    pub fn serves(&self, tables: &[Table]) -> bool {
        self.spec.tables.iter().eq(tables.iter().map(|table| &table.spec))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.forget(self);
        }
    }
}
