//! The policy, as a pure function.
//!
//! Under `file` every valid file is served as it lands. Under `build` the ledger decides: the marts
//! of a build are exchanged together, once nothing is outstanding and every version that the ledger
//! names is at hand. Until then the last good snapshot stays. This is write-audit-publish for a
//! directory of files. A rollback puts what an earlier build had come to in the place of the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use super::{Chosen, Staged, Target, Version};
use crate::ledger::{Ledger, Model, NodeKind, Outstanding, REFUSED, Rollback, SKIPPED, UNTESTED};
use crate::scan::file_name;

/// What a hold says of a build that a rollback asks for and that is not at hand.
pub const CANNOT_BE_SERVED: &str = "cannot be served here";

/// `MARTD_PUBLISH`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// As `build` once there is a ledger, as `file` until then.
    #[default]
    Auto,
    /// Every valid file, as it lands.
    File,
    /// Whole builds that the ledger vouches for.
    Build,
}

/// `MARTD_UNVERIFIED`: what to serve after a start when the ledger does not vouch for the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Unverified {
    /// What is on disk, marked as unverified, with a freshness of at least `warn`.
    #[default]
    Serve,
    /// Nothing: stay unready until a build is good.
    Refuse,
}

/// Why the newest files are not served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// The build that the ledger speaks of.
    pub invocation_id: Option<String>,
    /// The builds that the ledger knows of.
    #[serde(skip)]
    pub builds: Vec<String>,
    /// The reason in a sentence.
    pub reason: String,
    /// Nodes that failed and have not succeeded since.
    pub outstanding: Vec<Outstanding>,
    /// Files that belong to no finished build.
    pub pending: Vec<Pending>,
    /// The build that is served in the place of the newest one, because somebody asked for it.
    pub rollback: Option<String>,
    /// When they asked.
    #[serde(skip)]
    pub rolled_back_at: Option<Timestamp>,
    /// Whether a file that a finished build wrote cannot be had.
    #[serde(skip)]
    pub is_incomplete: bool,
    /// Builds whose files are there and not served: another record that counts as newer names other bytes.
    #[serde(skip)]
    pub overtaken: Vec<String>,
}

impl Hold {
    /// Whether nothing but files of a build is held that has not ended, as far as can be told. `is_reading`:
    /// whether files are on their way still.
    pub fn is_under_way(&self, is_reading: bool) -> bool {
        self.outstanding.is_empty()
            && self.rollback.is_none()
            && (!self.is_incomplete || is_reading)
    }
}

/// A file that belongs to no finished build: one is running, was killed, or two overlapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The file's name, or that of a directory of parts and a slash.
    pub file: String,
    /// What the ledger expects and what is there.
    pub reason: String,
    /// The build that wrote the file, if dbt did.
    pub invocation_id: Option<String>,
}

/// What the policy looks at.
#[derive(Debug)]
pub struct Situation<'a> {
    /// `MARTD_PUBLISH`
    pub policy: Policy,
    /// Whether, after a start, the time to wait for a good build is over and unverified files may
    /// be served.
    pub unverified_due: bool,
    /// Whether the legacy file is served meanwhile. Then a first build that is under way replaces it
    /// as a whole, and not file by file.
    pub legacy: bool,
    /// The ledger in force.
    pub ledger: Option<&'a Arc<Ledger>>,
    /// Whether a mirror writes files here, and has not brought the first record yet.
    pub awaits_record: bool,
    /// The last good version of every mart whose file is there (or gone for a moment only).
    pub files: &'a BTreeMap<String, Arc<Version>>,
    /// Why the directory of a mart is no version as it is now.
    pub waiting: &'a BTreeMap<String, String>,
    /// Why nothing can be known of a mart that is there.
    pub unseen: &'a BTreeMap<String, String>,
    /// Earlier versions.
    pub staged: &'a Staged,
    /// What is served now.
    pub published: Option<&'a Target>,
    /// What was served of the build that a rollback asks for.
    pub kept: Option<&'a Target>,
}

/// What the policy says.
#[derive(Debug)]
pub struct Decision {
    /// What to serve; `None` when nothing may be served yet.
    pub target: Option<Target>,
    /// Whether `target` is a finished build, so that nothing is gained by waiting for more files.
    pub settled: bool,
    /// What is held back, if anything is.
    pub held: Option<Hold>,
}

/// Whether the ledger decides.
pub fn goes_by_builds(policy: Policy, has_ledger: bool) -> bool {
    match policy {
        Policy::Auto => has_ledger,
        Policy::File => false,
        Policy::Build => true,
    }
}

/// Decides what is to be served.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let ledger = situation.ledger;
    match ledger.filter(|_| goes_by_builds(situation.policy, ledger.is_some())) {
        Some(ledger) => match &ledger.rollback {
            Some(rollback) => rolled_back(situation, ledger, rollback),
            None => by_ledger(situation, ledger),
        },
        None if situation.awaits_record && situation.policy != Policy::File => {
            before_records(situation)
        }
        None if situation.policy == Policy::Build => without_ledger(situation),
        None if situation.policy == Policy::Auto && situation.legacy => without_ledger(situation),
        None => every_file(situation, ledger),
    }
}

fn every_file(situation: &Situation<'_>, ledger: Option<&Arc<Ledger>>) -> Decision {
    let marts: BTreeMap<_, _> = situation
        .files
        .iter()
        .map(|(name, version)| {
            (name.clone(), Chosen { version: Arc::clone(version), orphan: false })
        })
        .collect();
    let target = Target { marts, ledger: ledger.cloned(), verified: true };
    let anything = !target.marts.is_empty() || situation.published.is_some();
    Decision { target: anything.then_some(target), settled: false, held: None }
}

fn without_ledger(situation: &Situation<'_>) -> Decision {
    let pending: Vec<_> = situation
        .files
        .values()
        .filter(|version| version.invocation_id.is_some())
        .map(|version| pending(version, "no record names it yet".to_owned()))
        .collect();
    if pending.is_empty() {
        return every_file(situation, None);
    }
    let held = Hold {
        reason: "no record vouches for the files; run dbt build to its end, or martd publish"
            .to_owned(),
        pending,
        ..Hold::default()
    };
    keep(situation, held)
}

/// Nobody can tell yet which files belong together, and to which build.
fn before_records(situation: &Situation<'_>) -> Decision {
    let reason = "the mirror has not brought a whole build and its record yet";
    keep(situation, Hold { reason: reason.to_owned(), ..Hold::default() })
}

/// What is served stays, and nothing is served where nothing was.
fn keep(situation: &Situation<'_>, held: Hold) -> Decision {
    Decision { target: situation.published.cloned(), settled: false, held: Some(held) }
}

fn rolled_back(situation: &Situation<'_>, ledger: &Ledger, to: &Rollback) -> Decision {
    let mut decision = match &to.ledger {
        Some(earlier) => by_ledger(situation, earlier),
        None => {
            let reason = "no record is of that build".to_owned();
            keep(situation, Hold { reason, ..Hold::default() })
        }
    };
    let problem = decision.held.filter(|_| !decision.settled);
    let problem = problem.map(|held| format!(", which {CANNOT_BE_SERVED}: {}", held.reason));
    let reason = format!(
        "rolled back to build {}{}; martd rollback --release ends it",
        to.build,
        problem.unwrap_or_default()
    );
    decision.held = Some(Hold {
        invocation_id: Some(ledger.invocation_id.clone()),
        builds: ledger.builds.clone(),
        reason,
        rollback: Some(to.build.clone()),
        rolled_back_at: Some(to.at),
        ..Hold::default()
    });
    decision
}

fn by_ledger(situation: &Situation<'_>, ledger: &Arc<Ledger>) -> Decision {
    let published = |name: &str| situation.published.and_then(|target| target.marts.get(name));
    let mut vouched = BTreeMap::new();
    let mut waiting = Vec::new();
    let mut missing = false;

    let models = ledger.models.iter().map(|model| (model, false));
    for (model, orphan) in models.chain(ledger.left.iter().map(|model| (model, true))) {
        let name = &model.name;
        let file = situation.files.get(name);
        if orphan && file.is_none() {
            continue;
        }
        let version = at_hand(situation, model);
        let has_version = version.is_some();
        if let Some(version) = version {
            vouched.insert(name.clone(), Chosen { version: Arc::clone(version), orphan });
        } else if !orphan {
            missing = true;
        }
        let reason = situation.waiting.get(name).filter(|_| model.is_directory());
        let unseen = situation.unseen.get(name).filter(|_| !has_version);
        let reason = unseen.or(reason);
        let pending = match reason {
            Some(reason) => Some(pending_of(model, reason.clone(), None)),
            None => difference(model, file, has_version),
        };
        waiting.extend(pending.map(|pending| (has_version, pending)));
    }

    // Files that the ledger does not name.
    let mut others = BTreeMap::new();
    for (name, version) in situation.files {
        if ledger.names(name) {
            continue;
        }
        let served = published(name);
        if is_unclaimed(version, ledger, served) {
            waiting.push((true, pending(version, "no record names it yet".to_owned())));
            if let Some(served) = served {
                others.insert(name.clone(), served.clone());
            }
        } else {
            let chosen =
                Chosen { version: Arc::clone(version), orphan: version.invocation_id.is_some() };
            others.insert(name.clone(), chosen);
        }
    }
    // What keeps a build from being served comes before what may be a build that runs.
    waiting.sort_by_key(|(has_version, _)| *has_version);
    let waiting = waiting.into_iter().map(|(_, pending)| pending).collect();

    let good = ledger.is_clear() && !missing;
    let held = hold(ledger, waiting, missing);
    if good {
        others.extend(vouched);
        let target = Target { marts: others, ledger: Some(Arc::clone(ledger)), verified: true };
        return Decision { target: Some(target), settled: true, held };
    }
    let target = match situation.published {
        // The last good build stays; files that no build owns go on by themselves.
        Some(last) => {
            let owned = |name: &str| {
                ledger.names(name) || last.ledger.as_ref().is_some_and(|old| old.names(name))
            };
            let kept = last.marts.iter().filter(|(name, _)| owned(name));
            others.retain(|name, _| !owned(name));
            others.extend(kept.map(|(name, chosen)| (name.clone(), chosen.clone())));
            Some(Target { marts: others, ledger: last.ledger.clone(), verified: last.verified })
        }
        None if situation.unverified_due && !situation.files.is_empty() => {
            let mut target = every_file(situation, Some(ledger)).target;
            if let Some(target) = &mut target {
                target.verified = false;
                for (name, chosen) in &mut target.marts {
                    chosen.orphan =
                        chosen.version.invocation_id.is_some() && ledger.model(name).is_none();
                }
            }
            target
        }
        None => None,
    };
    Decision { target, settled: false, held }
}

/// The version that is vouched for, wherever it is held.
fn at_hand<'s>(situation: &'s Situation<'_>, model: &Model) -> Option<&'s Arc<Version>> {
    let of = |target: Option<&'s Target>| target?.marts.get(&model.name).map(|mart| &mart.version);
    let file = situation.files.get(&model.name);
    let candidates =
        [file, situation.staged.get(model), of(situation.published), of(situation.kept)];
    candidates.into_iter().flatten().find(|version| version.is_of(model))
}

/// What is to be said of a mart whose file is not the one that is vouched for.
fn difference(model: &Model, file: Option<&Arc<Version>>, has_version: bool) -> Option<Pending> {
    let build = &model.invocation_id;
    let reason = match file {
        Some(file) if file.is_of(model) => return None,
        Some(file) => match &file.invocation_id {
            Some(own) if own != build => format!("the file is of build {own}, the ledger names {build}"),
            None if model.files.is_empty() => {
                format!("dbt did not write this file, but the ledger names build {build}")
            }
            _ if has_version => format!("it was written after build {build} had recorded it"),
            _ => "overwritten by another run; build again".to_owned(),
        },
        None if has_version => {
            "the file is gone; its last version is served until its model leaves the project or a build \
             writes it again"
                .to_owned()
        }
        None => format!("build {build} wrote it, but no valid file is there"),
    };
    let invocation_id = file.map_or(Some(build), |file| file.invocation_id.as_ref()).cloned();
    Some(pending_of(model, reason, invocation_id.filter(|_| file.is_some() || has_version)))
}

fn pending_of(model: &Model, reason: String, invocation_id: Option<String>) -> Pending {
    Pending { file: file_name(&model.name, model.is_directory()), reason, invocation_id }
}

/// Whether a file that no record names is of a run that has not ended, or never will.
fn is_unclaimed(version: &Version, ledger: &Ledger, served: Option<&Chosen>) -> bool {
    match ledger.recorded_since {
        Some(since) => version.modified() >= since,
        // The first edition's ledger was dbt's alone: other files were not its business.
        None => {
            version.invocation_id.is_some()
                && version.modified() > ledger.finished_at
                && served.is_none_or(|served| served.version.pin.hash() != version.pin.hash())
        }
    }
}

fn hold(ledger: &Ledger, pending: Vec<Pending>, is_incomplete: bool) -> Option<Hold> {
    let outstanding = ledger.outstanding.clone();
    let reason = match (outstanding.first(), pending.first()) {
        (None, None) => return None,
        (Some(first), _) => outstanding_reason(first, &outstanding),
        (None, Some(first)) => format!(
            "{}: {}{}",
            first.file,
            first.reason,
            match pending.len() {
                1 => String::new(),
                more => format!(" (and {} more files)", more - 1),
            },
        ),
    };
    let (invocation_id, builds) = (Some(ledger.invocation_id.clone()), ledger.builds.clone());
    Some(Hold {
        invocation_id,
        builds,
        reason,
        outstanding,
        pending,
        is_incomplete,
        ..Hold::default()
    })
}

/// Names what failed first, and counts the rest by what became of it.
fn outstanding_reason(first: &Outstanding, all: &[Outstanding]) -> String {
    let others = |kind| all[1..].iter().filter(|node| node.kind() == kind).count();
    let counts = [
        (others(NodeKind::Failed), "more failed"),
        (others(NodeKind::Untested), "not tested"),
        (others(NodeKind::Skipped), "skipped"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, word)| format!("{count} {word}")).collect();
    let counts = match counts.is_empty() {
        true => String::new(),
        false => format!(" ({})", counts.join(", ")),
    };
    let Outstanding { unique_id, status, .. } = first;
    match status.as_str() {
        UNTESTED => {
            let why = first.message.as_deref().unwrap_or("has not run");
            format!("not tested yet: {unique_id} {why}{counts}; run the tests")
        }
        SKIPPED => format!("{unique_id} was skipped{counts}; build it again"),
        _ if first.can_be_cleared() => {
            let word = if status == REFUSED { "was refused" } else { "has failed" };
            format!(
                "{unique_id} {word} and has not succeeded since{counts}; publish it again when it is well, or \
                 end this with martd publish --clear '{unique_id}'"
            )
        }
        _ => format!(
            "{unique_id} has failed and not succeeded since{counts}; fix it and build it again"
        ),
    }
}

fn pending(version: &Version, reason: String) -> Pending {
    Pending { file: version.file_name(), reason, invocation_id: version.invocation_id.clone() }
}
