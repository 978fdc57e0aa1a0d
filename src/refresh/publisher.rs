//! The second thread: has the engine serve what is to be served. For the legacy file it has the tables
//! built, too.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tracing::warn;

use super::{Mailbox, RefreshMessage};
use crate::catalog::{Loaded, Mart, Snapshot, Source};
use crate::digest::Hasher;
use crate::engine::{Engine, Lease, Table, TableSpec};
use crate::hooks;
use crate::ledger::{Ledger, Model};
use crate::legacy::LegacyVersion;
use crate::mart_pin::{MartPin, PinnedFile};
use crate::marts::build::{BuiltLegacyTable, BuiltTable, FileRejection, Pool};
use crate::metrics::Metrics;
use crate::publish::{Chosen, Target, Version};
use crate::scan::Remark;
use crate::sql_gate::is_system_schema;
use crate::state::StateDir;

/// Hands targets to the thread. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Publisher {
    jobs: Sender<Job>,
}

#[derive(Debug)]
enum Job {
    Marts { target: Target, current: Option<Arc<Snapshot>> },
    Legacy(LegacyVersion),
}

/// What became of a job.
#[derive(Debug)]
pub(super) enum PreparedSnapshot {
    /// Of a target; an error when the engine does not serve it.
    Snapshot(Result<Snapshot, String>),
    /// Of the legacy file: a snapshot and what it leaves out, or why it cannot be served, which need not say
    /// anything about the file.
    Legacy(Result<(Snapshot, Vec<Remark>), FileRejection>),
}

/// What the thread makes snapshots with.
pub(super) struct Opener {
    pool: Arc<Pool>,
    engine: Engine,
    schemas: Vec<String>,
    metrics: Metrics,
    generation: u64,
    runtime: Handle,
}

impl Publisher {
    /// Starts the thread. `state`, where there is one, keeps what is published.
    pub(super) fn start(
        mut opener: Opener,
        mailbox: Mailbox,
        state: Option<Arc<StateDir>>,
    ) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::Builder::new().name("publish".to_owned()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                hooks::stick("publish");
                let (prepared, published) = match job {
                    Job::Marts { target, current } => {
                        let snapshot = opener.open(target.clone(), current.as_deref());
                        let published = snapshot.is_ok().then_some(target);
                        (PreparedSnapshot::Snapshot(snapshot), published)
                    }
                    Job::Legacy(version) => {
                        (PreparedSnapshot::Legacy(opener.legacy(&version)), None)
                    }
                };
                mailbox.post(RefreshMessage::Prepared(Box::new(prepared)));
                if let (Some(target), Some(state)) = (published, &state)
                    && let Err(error) = state.keep(&target)
                {
                    warn!(%error, "the snapshot cannot be kept for a restart; the last one is");
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Starts making a snapshot of `target`, whose tables are built. Its outcome arrives as a message.
    pub(super) fn prepare(&self, target: Target, current: Option<Arc<Snapshot>>) {
        self.send(Job::Marts { target, current });
    }

    /// The same for a version of the legacy file, whose tables are not built.
    pub(super) fn prepare_legacy(&self, version: LegacyVersion) {
        self.send(Job::Legacy(version));
    }

    fn send(&self, job: Job) {
        self.jobs.send(job).expect("the publish thread lives as long as this");
    }
}

impl Opener {
    /// Must be called where there is a runtime.
    pub(super) fn new(
        pool: Arc<Pool>,
        engine: Engine,
        schemas: Vec<String>,
        metrics: Metrics,
    ) -> Self {
        Self { pool, engine, schemas, metrics, generation: 0, runtime: Handle::current() }
    }

    fn open(&mut self, target: Target, current: Option<&Snapshot>) -> Result<Snapshot, String> {
        let mut marts = marts(&target)?;
        let tables = tables(&target, &marts);
        let id = snapshot_id(&target, &marts);
        let lease = match current.filter(|current| current.lease.serves(&tables)) {
            // Only the ledger changed, for example after `dbt test`.
            Some(current) => Arc::clone(&current.lease),
            None => self.engine.publish(&id, tables)?,
        };
        self.note_loaded(&mut marts, target.ledger.as_deref(), current, &lease);
        Ok(self.snapshot(id, Source::Parquet, marts, lease, target))
    }

    fn legacy(
        &mut self,
        version: &LegacyVersion,
    ) -> Result<(Snapshot, Vec<Remark>), FileRejection> {
        let built = match self.pool.build_legacy(version, &self.schemas) {
            Err(FileRejection { reason, lasting: false }) => {
                let reason = format!("the legacy file could not be read: {reason}");
                return Err(FileRejection::passing(reason));
            }
            _ if !version.is_copied() && !version.is_current() => {
                let reason = "the legacy file was written while it was read".to_owned();
                return Err(FileRejection::passing(reason));
            }
            built => built?,
        };
        let (mut tables, mut chosen, mut left_out) = (Vec::new(), BTreeMap::new(), Vec::new());
        for BuiltLegacyTable { schema, name, outcome } in built {
            let table = match outcome {
                Ok(table) => table,
                Err(reason) => {
                    let reason =
                        format!("is a view of the legacy file that cannot be read: {reason}");
                    left_out.push(Remark { file: format!("{schema}.{name}"), reason });
                    continue;
                }
            };
            let file = PinnedFile { path: name.clone(), pin: Arc::clone(&version.file) };
            let mart = Version::new(name.clone(), None, Arc::new(MartPin::new(vec![file])));
            let _ = mart.table.set(Arc::clone(&table));
            let mut table = engine_table(&name, None, table);
            table.spec.schema = Some(schema);
            tables.push(table);
            chosen.insert(name, Chosen { version: Arc::new(mart), orphan: false });
        }
        let target = Target { marts: chosen, ledger: None, verified: true };
        let marts = marts(&target).map_err(FileRejection::passing)?;
        let id = version.id();
        let lease = self.engine.publish(&id, tables).map_err(FileRejection::passing)?;
        Ok((self.snapshot(id, Source::Duckdb, marts, lease, target), left_out))
    }

    /// Asks each mart whose rule names a column for that column's newest value, unless that is known.
    fn note_loaded(
        &self,
        marts: &mut BTreeMap<String, Mart>,
        ledger: Option<&Ledger>,
        current: Option<&Snapshot>,
        lease: &Arc<Lease>,
    ) {
        for (name, mart) in marts {
            let rule = ledger.and_then(|ledger| ledger.model(name)?.freshness());
            let Some(field) = rule.and_then(|rule| rule.loaded_at_field) else { continue };
            let known = current
                .and_then(|current| current.marts.get(name))
                .filter(|known| known.version.pin.hash() == mart.version.pin.hash())
                .and_then(|known| known.loaded.as_ref())
                .filter(|loaded| loaded.field == field);
            mart.loaded = Some(known.cloned().unwrap_or_else(move || {
                let newest = self.runtime.block_on(self.engine.newest(lease, name, &field));
                if let Err(reason) = &newest {
                    warn!(mart = name, reason, "meta.freshness.loaded_at_field tells nothing");
                }
                Loaded { field, newest }
            }));
        }
    }

    fn snapshot(
        &mut self,
        id: String,
        source: Source,
        marts: BTreeMap<String, Mart>,
        lease: Arc<Lease>,
        target: Target,
    ) -> Snapshot {
        self.generation += 1;
        Snapshot {
            generation: self.generation,
            id,
            source,
            published_at: Timestamp::now(),
            marts,
            ledger: target.ledger.clone(),
            verified: target.verified,
            lease,
            target,
            live: self.metrics.live_snapshot(),
        }
    }
}

fn marts(target: &Target) -> Result<BTreeMap<String, Mart>, String> {
    let mart = |(name, chosen): (&String, &Chosen)| {
        let version = Arc::clone(&chosen.version);
        let table = version.table.get().ok_or_else(|| format!("mart {name} has no table"))?;
        let is_empty_model = is_empty_model(&version, target.ledger.as_deref());
        let build = version.build(target.ledger.as_deref());
        let (table, orphan) = (Arc::clone(table), chosen.orphan);
        Ok((name.clone(), Mart { version, table, is_empty_model, orphan, build, loaded: None }))
    };
    target.marts.iter().map(mart).collect()
}

fn tables(target: &Target, marts: &BTreeMap<String, Mart>) -> Vec<Table> {
    let table = |(name, mart): (&String, &Mart)| {
        let model = target.ledger.as_ref().and_then(|ledger| ledger.model(name));
        let mut table = engine_table(name, model, Arc::clone(&mart.table));
        table.spec.is_empty = mart.is_empty_model;
        table
    };
    marts.iter().map(table).collect()
}

/// A mart with what its project says of it.
fn engine_table(name: &str, model: Option<&Model>, table: Arc<BuiltTable>) -> Table {
    let report = table.report();
    let meanings = report.columns.iter().filter_map(|column| {
        let meaning = model?.meaning(&column.name).filter(|meaning| !meaning.is_empty())?;
        Some((column.name.clone(), meaning.to_owned()))
    });
    let spec = TableSpec {
        number: table.number(),
        name: name.to_owned(),
        schema: model.and_then(|model| model.schema.clone()).filter(|own| !is_system_schema(own)),
        columns: report.columns.clone(),
        is_empty: false,
        description: model.and_then(|model| model.description.clone()).unwrap_or_default(),
        meanings: meanings.collect(),
    };
    Table { spec, table }
}

/// The id of a snapshot: of what its files have, and of those that are empty models only because the ledger
/// says so.
fn snapshot_id(target: &Target, marts: &BTreeMap<String, Mart>) -> String {
    let id = target.id();
    let mut empty = marts.iter().filter(|(_, mart)| mart.is_empty_model).peekable();
    if empty.peek().is_none() {
        return id;
    }
    let mut hasher = Hasher::default();
    hasher.update_text(&id);
    empty.for_each(|(name, _)| hasher.update_text(name));
    hasher.finish().short()
}

/// Whether a version is what dbt-duckdb writes for a model without rows: one row of NULLs alone, in a
/// file that dbt stamped, or of a model that the ledger names. Others mean their one row.
pub(super) fn is_empty_model(version: &Version, ledger: Option<&Ledger>) -> bool {
    let is_dbts = || {
        version.invocation_id.is_some()
            || ledger.is_some_and(|ledger| ledger.model(&version.name).is_some())
    };
    version.table.get().is_some_and(|table| table.report().is_null_row) && is_dbts()
}
