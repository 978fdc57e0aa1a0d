//! The engine: the process that has DuckDB, which may die, and the front's way to it.
//!
//! **Purpose.** A statement of anybody can crash DuckDB, hang in it, or invalidate its database for all.
//! So DuckDB runs in a process of its own, which is replaced while clients wait, and the front never
//! calls it.
//!
//! The front's side: [`Engine`] answers queries ([`statement`]), keeps one process at work
//! ([`supervisor`], [`process`]), has it serve the snapshots that are leased ([`lease`]), runs suspects
//! alone ([`isolation`]), and does not run again what brought one down ([`quarantine`]). The engine's side:
//! [`worker`] is its `main`, [`database`] the locked DuckDB database, [`snapshot`] the views of one
//! snapshot, [`session`] the life of a query, [`freshness`] the newest value of a column. Both sides share
//! [`protocol`] and [`scope`].
//!
//! **Invariants.**
//! - A statement that brought an engine down is never run again for its client; one that was beside it
//!   is, and its client notices a delay at most, unless its answer had begun.
//! - What a client sends can neither choose the kind of an error nor who is blamed for it.
//! - An engine ends with the front, however that ends, and leaves nothing behind.
//!
//! **Callers.** `http` asks, `refresh` publishes. **Absent**: what is published when; the result cache;
//! who may ask.

mod database;
mod freshness;
mod introspection;
mod isolation;
mod describe;
mod lease;
mod pg_catalog;
mod process;
mod protocol;
mod quarantine;
mod scope;
mod session;
mod snapshot;
mod statement;
mod supervisor;
mod worker;

use rustix::process::Resource;

pub use lease::{Lease, Table};
pub use protocol::{
    Description, End, Parameters, ProcessSettings, QueryError, QueryJob, StartError, TableSpec,
    UNTYPED, dialect,
};
pub use quarantine::Principal;
pub use scope::{Scope, Scoping};
pub use statement::{Head, Part, Query};
pub use supervisor::{Engine, EngineSettings, EngineStatus, Replacement, StartReason};
pub use worker::{SUBCOMMAND, main};

/// Memory that an engine takes beside what DuckDB may have (`MARTD_MEMORY`), in bytes: the stacks of its
/// threads, answers being encoded, and what DuckDB does not count.
pub fn overhead_bytes(queries: usize, threads: usize) -> u64 {
    /// The C library's, where the limit of stacks is not one.
    const UNLIMITED: u64 = 2 << 20;
    /// DuckDB, the validator and the allocator's reserve.
    const BASE: u64 = 320 << 20;
    /// An answer of 4 MiB, compressed too, and what a scalar function builds.
    const PER_QUERY: u64 = 32 << 20;
    let stack = rustix::process::getrlimit(Resource::Stack).current.unwrap_or(UNLIMITED);
    let queries = (queries + supervisor::OTHER_SLOTS) as u64;
    BASE + (threads as u64).saturating_mul(stack)
        + queries.saturating_mul(worker::STACK_BYTES as u64 + PER_QUERY)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::time::Duration;

    use super::database::LockedDatabase;
    use super::protocol::SnapshotSpec;
    use super::snapshot::EngineSnapshot;
    use super::*;
    use crate::duck::Database;
    use crate::encode::{Coding, Codings, Format};
    use crate::marts::build::ReportColumn;
    use crate::sql_gate::{ValidatedStatement, Validator};

    pub(super) fn settings() -> ProcessSettings {
        ProcessSettings {
            memory_bytes: 64 << 20,
            data_bytes: 1 << 30,
            threads: 1,
            time_zone: "Pacific/Auckland".to_owned(),
            schemas: vec!["mart".to_owned()],
            scoping: None,
            table_dir: None,
            postgres: true,
        }
    }

    pub(super) fn database() -> Arc<LockedDatabase> {
        let database = LockedDatabase::open(&settings()).expect("DuckDB opens");
        database.lock(1).expect("it can be locked");
        database
    }

    /// The file of a table with the rows of a SELECT, and its columns.
    fn table(select: &str) -> (OwnedFd, Vec<ReportColumn>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("t.duckdb");
        let connection = Database::open_in_memory(&[]).unwrap().connect().unwrap();
        let sql = format!("ATTACH '{}' AS f; CREATE TABLE f.t AS {select}", path.display());
        connection.execute(&sql).expect("a table");
        let statement = connection.prepare("FROM f.t").expect("its rows");
        let columns = statement.columns().into_iter();
        let columns = columns.map(|c| ReportColumn { name: c.name, ty: c.ty.to_string() });
        let columns = columns.collect();
        drop(statement);
        connection.execute("DETACH f").expect("written");
        (std::fs::File::open(&path).expect("there").into(), columns)
    }

    /// A snapshot of marts that have the rows of these SELECTs.
    pub(super) fn open(marts: &[(&str, &str)]) -> EngineSnapshot {
        open_in(&database(), marts, None)
    }

    pub(super) fn open_in(
        database: &Arc<LockedDatabase>,
        marts: &[(&str, &str)],
        scoping: Option<&Scoping>,
    ) -> EngineSnapshot {
        let (mut specs, mut attached) = (Vec::new(), Vec::new());
        for (number, (name, select)) in (1..).zip(marts) {
            let (file, columns) = table(select);
            let name = (*name).to_owned();
            specs.push(TableSpec {
                number,
                name,
                schema: None,
                columns,
                is_empty: false,
                description: String::new(),
                meanings: Vec::new(),
            });
            attached.push(Arc::new(database.attach_table(file).expect("attached")));
        }
        let spec = SnapshotSpec { number: 1, id: "id".to_owned(), tables: specs };
        let schemas = ["mart".to_owned(), "Other \"one\"".to_owned()];
        EngineSnapshot::open(database, &schemas, scoping, spec, attached).expect("a snapshot")
    }

    pub(super) fn validate(sql: &str) -> ValidatedStatement {
        (*Validator::new().unwrap().validate(sql).expect(sql)).clone()
    }

    pub(super) fn job(sql: &str) -> QueryJob {
        QueryJob {
            sql: sql.to_owned(),
            parameters: Parameters::default(),
            moment: None,
            scope: Scope::AllRows,
            format: Format::Csv,
            binary: Vec::new(),
            codings: Codings { best: Coding::Identity, identity: true },
            limit: None,
            max_rows: 1 << 20,
            max_bytes: 1 << 30,
            elapsed: Duration::ZERO,
        }
    }
}
