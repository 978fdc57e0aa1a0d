//! The second thread: decodes what is to be served and opens the database over it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use blake3::Hash;
use jiff::Timestamp;
use tracing::warn;

use super::{Mailbox, Message};
use crate::catalog::{Loaded, Mart, Snapshot, Source};
use crate::engine::{self, Instance, LegacyTable, Table};
use crate::hooks;
use crate::ledger::Ledger;
use crate::legacy::LegacyVersion;
use crate::metrics::Metrics;
use crate::publish::{Chosen, Target, Version};
use crate::state::StateDir;
use crate::verify::{Verdict, Verifier};

/// Hands targets to the thread. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Publisher {
    jobs: Sender<Job>,
}

#[derive(Debug)]
enum Job {
    Marts { target: Target, current: Option<Arc<Snapshot>> },
    Legacy(Arc<LegacyVersion>),
}

/// What became of a job.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Of a target.
    Marts {
        /// What was to be served.
        target: Target,
        /// What decoding found, by content.
        verdicts: HashMap<Hash, Verdict>,
        /// The snapshot; `None` when one of its files does not decode, an error when no database
        /// could be opened.
        snapshot: Result<Option<Snapshot>, String>,
    },
    /// Of the legacy file: a snapshot or the reason why it cannot be served; an error when no
    /// database could be opened.
    Legacy(Result<Result<Snapshot, String>, String>),
}

impl Publisher {
    /// Starts the thread. `state`, where there is one, keeps what is published.
    pub(super) fn start(
        verifier: Arc<Verifier>,
        engine: engine::Settings,
        mailbox: Mailbox,
        state: Option<StateDir>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let schemas = engine.schemas.clone();
        let mut generation = 0;
        thread::Builder::new().name("publish".to_owned()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                hooks::stick("publish");
                let (target, current) = match job {
                    Job::Marts { target, current } => (target, current),
                    Job::Legacy(version) => {
                        let snapshot = verifier
                            .verify_legacy(&version, &schemas)
                            .map_err(|error| format!("it could not be verified: {error}"))
                            .and_then(|tables| match tables {
                                Ok(tables) => {
                                    open_legacy(version, tables, &engine, &mut generation, &metrics)
                                        .map(Ok)
                                }
                                Err(reason) => Ok(Err(reason)),
                            });
                        mailbox.post(Message::Prepared(Box::new(Prepared::Legacy(snapshot))));
                        continue;
                    }
                };
                let pins = target.marts.values().map(|chosen| &chosen.version.pin);
                let (verdicts, snapshot) = match verifier.verify(pins) {
                    Ok(verdicts) => {
                        let target = target.clone();
                        let current = current.as_ref();
                        let snapshot =
                            open(target, current, &verdicts, &engine, &mut generation, &metrics);
                        (verdicts, snapshot)
                    }
                    Err(error) => {
                        (HashMap::new(), Err(format!("files could not be verified: {error}")))
                    }
                };
                let published = matches!(snapshot, Ok(Some(_)));
                let prepared = Prepared::Marts { target: target.clone(), verdicts, snapshot };
                mailbox.post(Message::Prepared(Box::new(prepared)));
                if let (true, Some(state)) = (published, &state)
                    && let Err(error) = state.keep(&target)
                {
                    warn!(%error, "the snapshot cannot be kept for a restart; the last one is");
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Starts making a snapshot of `target`. Its outcome arrives as a message.
    pub(super) fn prepare(&self, target: Target, current: Option<Arc<Snapshot>>) {
        self.send(Job::Marts { target, current });
    }

    /// The same for a version of the legacy file.
    pub(super) fn prepare_legacy(&self, version: Arc<LegacyVersion>) {
        self.send(Job::Legacy(version));
    }

    fn send(&self, job: Job) {
        self.jobs.send(job).expect("the publish thread lives as long as this");
    }
}

fn open(
    target: Target,
    current: Option<&Arc<Snapshot>>,
    verdicts: &HashMap<Hash, Verdict>,
    engine: &engine::Settings,
    generation: &mut u64,
    metrics: &Metrics,
) -> Result<Option<Snapshot>, String> {
    let mut marts = BTreeMap::new();
    for (name, chosen) in &target.marts {
        let Some(Ok(report)) = verdicts.get(&chosen.version.pin.hash()) else { return Ok(None) };
        let mart = Mart {
            version: Arc::clone(&chosen.version),
            report: report.clone(),
            orphan: chosen.orphan,
            loaded: None,
        };
        marts.insert(name.clone(), mart);
    }
    let tables = tables(&target, &marts);
    let instance = match current.filter(|current| current.instance.serves(&tables)) {
        // Only the ledger changed, for example after `dbt test`.
        Some(current) => Arc::clone(&current.instance),
        None => {
            let opened = Instance::open(engine, tables);
            opened.map_err(|error| error.to_string())?
        }
    };
    note_loaded(&mut marts, target.ledger.as_deref(), current.map(Arc::as_ref), &instance);
    *generation += 1;
    Ok(Some(Snapshot {
        generation: *generation,
        id: target.id(),
        source: Source::Parquet,
        published_at: Timestamp::now(),
        marts,
        ledger: target.ledger.clone(),
        verified: target.verified,
        instance,
        target,
        live: metrics.live_snapshot(),
    }))
}

/// Asks each mart whose rule names a column for that column's newest value, unless that is known.
fn note_loaded(
    marts: &mut BTreeMap<String, Mart>,
    ledger: Option<&Ledger>,
    current: Option<&Snapshot>,
    instance: &Instance,
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
            let newest = instance.newest(name, &field);
            if let Err(reason) = &newest {
                warn!(mart = name, reason, "meta.freshness.loaded_at_field tells nothing");
            }
            Loaded { field, newest }
        }));
    }
}

fn open_legacy(
    version: Arc<LegacyVersion>,
    found: Vec<LegacyTable>,
    engine: &engine::Settings,
    generation: &mut u64,
    metrics: &Metrics,
) -> Result<Snapshot, String> {
    let (mut marts, mut tables, mut chosen) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for LegacyTable { schema, name, outcome } in found {
        let report = match outcome {
            Ok(report) => report,
            Err(reason) => {
                warn!(schema, name, reason, "a view of the legacy file is left out");
                continue;
            }
        };
        let pin = Arc::clone(&version.file);
        tables.push(Table {
            name: name.clone(),
            schema: Some(schema),
            pin: Arc::clone(&pin),
            columns: report.columns.clone(),
            rows: report.rows,
            empty: false,
        });
        let version = Arc::new(Version {
            name: name.clone(),
            invocation_id: None,
            pin,
            landed: Instant::now(),
        });
        chosen.insert(name.clone(), Chosen { version: Arc::clone(&version), orphan: false });
        marts.insert(name, Mart { version, report, orphan: false, loaded: None });
    }
    let id = version.id();
    let instance = Instance::open_legacy(engine, tables, version);
    *generation += 1;
    Ok(Snapshot {
        generation: *generation,
        id,
        source: Source::Duckdb,
        published_at: Timestamp::now(),
        marts,
        ledger: None,
        verified: true,
        instance: instance.map_err(|error| error.to_string())?,
        target: Target { marts: chosen, ledger: None, verified: true },
        live: metrics.live_snapshot(),
    })
}

fn tables(target: &Target, marts: &BTreeMap<String, Mart>) -> Vec<Table> {
    marts
        .iter()
        .map(|(name, mart)| Table {
            name: name.clone(),
            schema: target
                .ledger
                .as_ref()
                .and_then(|ledger| ledger.model(name))
                .and_then(|model| model.schema.clone()),
            pin: Arc::clone(&mart.version.pin),
            columns: mart.report.columns.clone(),
            rows: mart.report.rows,
            empty: mart.report.empty_model,
        })
        .collect()
}
