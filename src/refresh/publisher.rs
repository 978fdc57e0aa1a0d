//! The second thread: decodes what is to be served and opens the database over it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use blake3::Hash;
use jiff::Timestamp;
use tracing::warn;

use super::{Mailbox, Settings};
use crate::catalog::{Loaded, Mart, Snapshot};
use crate::engine::{self, Instance, Table};
use crate::ledger::Ledger;
use crate::publish::Target;
use crate::state::StateDir;
use crate::verify::{Verdict, Verifier};

/// Hands targets to the thread. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Publisher {
    jobs: Sender<Job>,
}

#[derive(Debug)]
struct Job {
    target: Target,
    current: Option<Arc<Snapshot>>,
}

/// What became of a target.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What was to be served.
    pub(super) target: Target,
    /// What decoding found, by content.
    pub(super) verdicts: HashMap<Hash, Verdict>,
    /// The snapshot; `None` when one of its files does not decode, an error when no database could
    /// be opened.
    pub(super) snapshot: Result<Option<Snapshot>, String>,
}

impl Publisher {
    /// Starts the thread. `state`, where there is one, keeps what is published.
    pub(super) fn start(
        settings: &Settings,
        mailbox: Mailbox,
        state: Option<StateDir>,
    ) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let mut verifier =
            Verifier::new(settings.program.clone(), settings.decoders, settings.verify);
        let engine = settings.engine.clone();
        let mut generation = 0;
        thread::Builder::new().name("publish".to_owned()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                let target = job.target.clone();
                let pins = job.target.marts.values().map(|chosen| &chosen.version.pin);
                let (verdicts, snapshot) = match verifier.verify(pins) {
                    Ok(verdicts) => {
                        let snapshot = open(job, &verdicts, &engine, &mut generation);
                        (verdicts, snapshot)
                    }
                    Err(error) => {
                        (HashMap::new(), Err(format!("files could not be verified: {error}")))
                    }
                };
                let published = matches!(snapshot, Ok(Some(_)));
                mailbox.prepared(Prepared { target: target.clone(), verdicts, snapshot });
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
        self.jobs.send(Job { target, current }).expect("the publish thread lives as long as this");
    }
}

fn open(
    Job { target, current }: Job,
    verdicts: &HashMap<Hash, Verdict>,
    settings: &engine::Settings,
    generation: &mut u64,
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
    let instance = match current.as_ref().filter(|current| current.instance.serves(&tables)) {
        // Only the ledger changed, for example after `dbt test`.
        Some(current) => Arc::clone(&current.instance),
        None => Instance::open(settings, tables).map_err(|error| error.to_string())?,
    };
    note_loaded(&mut marts, target.ledger.as_deref(), current.as_deref(), &instance);
    *generation += 1;
    Ok(Some(Snapshot {
        generation: *generation,
        id: target.id(),
        published_at: Timestamp::now(),
        marts,
        ledger: target.ledger.clone(),
        verified: target.verified,
        instance,
        target,
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
            empty: mart.report.empty_model,
        })
        .collect()
}
