//! What a start would find, once and without serving it: the same scan, pins, decoding and policy.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::files::Files;
use crate::catalog::Fault;
use crate::pin::{Budget, PinKind};
use crate::publish::{self, Decision, Hold, Policy, Situation, Unverified, Version};
use crate::scan::{MartDir, Remark};
use crate::verify::{Depth, Verifier};

/// Where marts come from, and what decides about them.
#[derive(Debug, Clone)]
pub struct Intake {
    /// Where they are.
    pub dir: MartDir,
    /// `MARTD_PUBLISH`
    pub policy: Policy,
    /// `MARTD_UNVERIFIED`
    pub unverified: Unverified,
    /// `MARTD_VERIFY`
    pub verify: Depth,
    /// The program that decodes files: martd itself.
    pub program: PathBuf,
    /// Children that decode at once.
    pub decoders: usize,
    /// `MARTD_PIN_MEMORY`, in bytes.
    pub pin_bytes: u64,
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
    /// Whether the ledger vouches for what would be served.
    pub verified: bool,
}

/// One mart.
#[derive(Debug)]
pub struct Inspected {
    /// Its name.
    pub name: String,
    /// Whether it would be served.
    pub served: bool,
    /// Whether dbt wrote it for a model that the project has no more.
    pub orphan: bool,
    /// Its rows.
    pub rows: u64,
    /// The size of its file in bytes.
    pub bytes: u64,
    /// When it was written.
    pub modified: Timestamp,
    /// How it would be held.
    pub pin: PinKind,
    /// The dbt build that wrote it, if dbt did.
    pub invocation_id: Option<String>,
}

/// Looks at the mart directory as a start of martd would.
///
/// # Errors
/// When the directory cannot be read, or no child can be started to decode files.
pub fn inspect(intake: &Intake) -> io::Result<Inspection> {
    let dir = intake.dir.open()?;
    let mut files = Files::new(Budget::new(intake.pin_bytes));
    files.sweep(&dir, Instant::now())?;
    let verifier = Verifier::new(intake.program.clone(), intake.decoders, intake.verify);

    // A file that does not decode changes what the policy can choose from, so it is asked again.
    let (decision, verdicts) = loop {
        let good = files.good();
        let verdicts = verifier.verify(good.values().map(|version| &version.pin))?;
        files.learn(good.values(), &verdicts);
        if files.good().len() == good.len() {
            break (decide(intake, &files, &good), verdicts);
        }
    };
    let target = decision.target;
    let verified = target.as_ref().is_none_or(|target| target.verified);
    let chosen = target.map(|target| target.marts).unwrap_or_default();
    let report = |version: &Version| match verdicts.get(&version.pin.hash()) {
        Some(Ok(report)) => report.rows,
        _ => 0,
    };
    let mut marts: BTreeMap<String, Arc<Version>> = files.good();
    marts.extend(chosen.iter().map(|(name, mart)| (name.clone(), Arc::clone(&mart.version))));
    let marts = marts.into_iter().map(|(name, version)| Inspected {
        served: chosen.contains_key(&name),
        orphan: chosen.get(&name).is_some_and(|mart| mart.orphan),
        rows: report(&version),
        bytes: version.pin.size(),
        modified: version.modified(),
        pin: version.pin.kind(),
        invocation_id: version.invocation_id.clone(),
        name,
    });
    Ok(Inspection {
        marts: marts.collect(),
        rejected: files.rejected().collect(),
        landing: files.landing().collect(),
        ignored: files.ignored().to_vec(),
        held: decision.held,
        verified,
    })
}

fn decide(intake: &Intake, files: &Files, good: &BTreeMap<String, Arc<Version>>) -> Decision {
    publish::decide(&Situation {
        policy: intake.policy,
        unverified_due: intake.unverified == Unverified::Serve,
        legacy: false,
        ledger: files.ledger(),
        files: good,
        staged: files.staged(),
        published: None,
    })
}
