//! What a start would find, once and without serving it: the same scan, pins, tables and policy.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::files::Files;
use super::kept::Kept;
use super::publisher::is_empty_model;
use crate::mart_dir::MartDir;
use crate::marts::build::{self, Pool, TableBudget};
use crate::pin::{Budget, PinKind};
use crate::publish::{self, Decision, Hold, Policy, Situation, Target, Unverified, Version};
use crate::scan::{Fault, Remark};
use crate::state::StateDir;

/// Where marts come from, and what decides about them.
#[derive(Debug, Clone)]
pub struct Intake {
    /// Where they are.
    pub dir: MartDir,
    /// `MARTD_PUBLISH`
    pub policy: Policy,
    /// `MARTD_UNVERIFIED`
    pub unverified: Unverified,
    /// `MARTD_PIN_MEMORY`, in bytes.
    pub pin_bytes: u64,
    /// The program that builds tables: martd itself.
    pub program: PathBuf,
    /// `MARTD_SCRATCH_DIR`
    pub scratch_dir: Option<PathBuf>,
    /// `MARTD_TABLE_MEMORY`, in bytes.
    pub table_bytes: u64,
    /// `MARTD_TABLE_DIR`
    pub table_dir: Option<PathBuf>,
    /// `MARTD_STATE_DIR`, which is both where neither is given.
    pub state_dir: Option<PathBuf>,
}

impl Intake {
    /// How tables are built. Looks for a scratch folder and starts a spawner, so ask before rights are given up.
    ///
    /// # Errors
    /// When there is no scratch folder, or no thread.
    pub fn builders(&self) -> io::Result<build::BuilderSettings> {
        let state_dir = self.state_dir.as_deref();
        let scratch = build::choose_scratch(self.scratch_dir.as_deref(), state_dir)?;
        let table_dir = self.table_dir.as_deref().or(state_dir);
        let budget = TableBudget::new(self.table_bytes, table_dir.map(Path::to_owned));
        build::BuilderSettings::new(self.program.clone(), scratch, budget)
    }
}

/// What is there, and what would become of it.
#[derive(Debug)]
pub struct Inspection {
    /// Every mart whose file is whole or would be served.
    pub marts: Vec<Inspected>,
    /// Files that will not be served.
    pub rejected: Vec<Fault>,
    /// Files that are not complete yet.
    pub landing: Vec<Fault>,
    /// Names and types that are never served.
    pub ignored: Vec<Remark>,
    /// Why the newest files would not be served.
    pub held: Option<Hold>,
    /// Why what the state directory keeps is not known.
    pub unknown_state: Option<String>,
    /// Whether there is a ledger.
    pub recorded: bool,
    /// Whether the ledger vouches for what would be served.
    pub verified: bool,
}

/// One mart.
#[derive(Debug)]
pub struct Inspected {
    /// Its name.
    pub name: String,
    /// Its file, or its directory.
    pub file: String,
    /// Whether it would be served.
    pub served: bool,
    /// Whether dbt wrote it for a model that the project has no more.
    pub orphan: bool,
    /// Its rows.
    pub rows: u64,
    /// The size of its files in bytes.
    pub bytes: u64,
    /// When it was written.
    pub modified: Timestamp,
    /// How it would be held.
    pub pin: PinKind,
    /// The build that wrote it, if a record or its file names one.
    pub build: Option<String>,
    /// Whether it is what the directory has now, and not what was served before.
    pub is_newest: bool,
}

/// Looks at the mart directory as a start of martd would.
///
/// # Errors
/// When the directory cannot be read, or there is no folder to build tables in.
pub fn inspect(intake: &Intake) -> io::Result<Inspection> {
    let dir = intake.dir.open()?;
    let mut files = Files::new(Budget::new(intake.pin_bytes));
    files.sweep(&dir, Instant::now(), |_, _| {})?;
    let pool = Pool::start(intake.builders()?, |_| {})?;
    let kept = Last::look(intake, &files, &pool);

    // A file that has no table changes what the policy can choose from, so it is asked again.
    let decision = loop {
        let good = files.good();
        let verdicts = pool.build_all(good.values().map(|version| &version.pin));
        for version in good.values() {
            files.learn(version, &verdicts.get(&version.pin.hash()).cloned().into());
        }
        if files.good().len() == good.len() {
            break decide(intake, &files, &good, &kept);
        }
    };
    let target = decision.target;
    let verified = target.as_ref().is_none_or(|target| target.verified);
    let ledgers =
        [target.as_ref().and_then(|target| target.ledger.clone()), files.ledger().cloned()];
    let chosen = target.map(|target| target.marts).unwrap_or_default();
    let good = files.good();
    let mut marts = good.clone();
    marts.extend(chosen.iter().map(|(name, mart)| (name.clone(), Arc::clone(&mart.version))));
    let marts = marts.into_iter().map(|(name, version)| Inspected {
        file: version.file_name(),
        served: chosen.contains_key(&name),
        orphan: chosen.get(&name).is_some_and(|mart| mart.orphan),
        rows: match version.table.get() {
            Some(table) if !is_empty_model(&version, files.ledger().map(Arc::as_ref)) => {
                table.report().rows
            }
            _ => 0,
        },
        bytes: version.pin.size(),
        modified: version.modified(),
        pin: version.pin.kind(),
        build: {
            let mut ledgers = ledgers.iter().flatten();
            ledgers.find_map(|ledger| version.build(Some(ledger))).or(version.build(None))
        },
        is_newest: good.get(&name).is_some_and(|newest| newest.pin.hash() == version.pin.hash()),
        name,
    });
    Ok(Inspection {
        marts: marts.collect(),
        rejected: files.rejected().collect(),
        landing: files.landing().collect(),
        ignored: files.ignored().to_vec(),
        held: decision.held,
        unknown_state: kept.problem,
        recorded: files.ledger().is_some(),
        verified,
    })
}

/// What the state directory has kept: what a start would begin with, and the build that a rollback asks for.
#[derive(Default)]
struct Last {
    published: Option<Target>,
    kept: Kept,
    problem: Option<String>,
}

impl Last {
    fn look(intake: &Intake, files: &Files, pool: &Pool) -> Self {
        let Some(dir) = &intake.state_dir else { return Self::default() };
        let (state, budget) = (Arc::new(StateDir::view(dir)), Budget::new(intake.pin_bytes));
        let published = state.restore(&budget);
        let problem = state.problem();
        let mut kept = Kept::new(Some(state));
        kept.look(files.ledger(), &[], &budget);
        let versions = || published.iter().chain(kept.target()).flat_map(Target::versions);
        let verdicts = pool.build_all(versions().map(|version| &version.pin));
        for version in versions() {
            if let Some(Ok(table)) = verdicts.get(&version.pin.hash()) {
                let _ = version.table.set(Arc::clone(table)); // each is there once
            }
        }
        Self { published, kept, problem }
    }
}

fn decide(
    intake: &Intake,
    files: &Files,
    good: &BTreeMap<String, Arc<Version>>,
    last: &Last,
) -> Decision {
    publish::decide(&Situation {
        policy: intake.policy,
        unverified_due: intake.unverified == Unverified::Serve,
        legacy: false,
        ledger: files.ledger(),
        awaits_record: files.awaits_record(),
        files: good,
        waiting: &files.waiting(),
        unseen: files.unseen(),
        staged: files.staged(),
        published: last.published.as_ref(),
        kept: last.kept.target(),
    })
}
