//! What is published, and what is held back: the policy, as a pure function.
//!
//! Under `file` every valid file is served as it lands. Under `build` the ledger decides: the marts
//! of a build are exchanged together, once nothing is outstanding and every version that the ledger
//! names is at hand. Until then the last good snapshot stays. This is write-audit-publish for a
//! directory of files.
//!
//! Nothing here looks at a clock, a file or a lock, so each rule can be tested in a line or two.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use crate::digest::{Digest, Hasher};
use crate::ledger::{Ledger, Outstanding};
use crate::marts::build::BuiltTable;
use crate::pin::Pin;

/// Versions of one mart that are kept until the ledger has spoken.
const STAGED_PER_MART: usize = 3;

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

/// One version of a mart: the content of a file at a time.
#[derive(Debug)]
pub struct Version {
    /// The mart's name.
    pub name: String,
    /// The dbt build that wrote it, if dbt did.
    pub invocation_id: Option<String>,
    /// Its bytes.
    pub pin: Arc<Pin>,
    /// When martd had read them. Of two versions of a mart, the later is the newer, whatever their
    /// files' times say.
    pub landed: Instant,
    /// Its table, once that is built. Nothing is published before.
    pub table: OnceLock<Arc<BuiltTable>>,
}

impl Version {
    /// A version that was read at this moment and has no table yet.
    pub fn new(name: String, invocation_id: Option<String>, pin: Arc<Pin>) -> Self {
        Self { name, invocation_id, pin, landed: Instant::now(), table: OnceLock::new() }
    }

    /// When the file was last written.
    pub fn modified(&self) -> Timestamp {
        self.pin.identity().modified()
    }

    fn is_of(&self, invocation: &str) -> bool {
        self.invocation_id.as_deref() == Some(invocation)
    }
}

/// The last versions of each mart by invocation, so that a build can be published even when the
/// next one has overwritten its files by then.
#[derive(Debug, Default)]
pub struct Staged(HashMap<String, VecDeque<Arc<Version>>>);

impl Staged {
    /// Keeps a version that dbt wrote; the oldest of too many goes. A version that is there already
    /// counts as new again.
    pub fn add(&mut self, version: &Arc<Version>) {
        let Some(invocation) = &version.invocation_id else { return };
        let versions = self.0.entry(version.name.clone()).or_default();
        versions.retain(|staged| !staged.is_of(invocation));
        versions.push_back(Arc::clone(version));
        if versions.len() > STAGED_PER_MART {
            versions.pop_front();
        }
    }

    /// The staged version of a mart that a build wrote.
    pub fn get(&self, name: &str, invocation: &str) -> Option<&Arc<Version>> {
        self.0.get(name)?.iter().rev().find(|version| version.is_of(invocation))
    }

    /// Drops what can never be published.
    pub fn retain(&mut self, keep: impl Fn(&Version) -> bool) {
        for versions in self.0.values_mut() {
            versions.retain(|version| keep(version));
        }
        self.0.retain(|_, versions| !versions.is_empty());
    }

    /// Drops the versions of a mart that came before this one.
    pub fn drop_before(&mut self, name: &str, version: &Arc<Version>) {
        let Some(versions) = self.0.get_mut(name) else { return };
        if let Some(place) = versions.iter().position(|staged| Arc::ptr_eq(staged, version)) {
            versions.drain(..place);
        }
    }
}

/// A version that is to be served.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The version.
    pub version: Arc<Version>,
    /// Whether dbt wrote it for a model that the project has no more.
    pub orphan: bool,
}

/// A set of versions to serve together.
#[derive(Debug, Clone)]
pub struct Target {
    /// By the mart's name.
    pub marts: BTreeMap<String, Chosen>,
    /// The ledger that vouches for it, or that was in force when it was chosen.
    pub ledger: Option<Arc<Ledger>>,
    /// `false` when a ledger is there but does not vouch for these versions.
    pub verified: bool,
}

impl Target {
    /// The content-derived id: equal in every replica that sees the same files.
    pub fn id(&self) -> String {
        let mut hasher = Hasher::default();
        for (name, chosen) in &self.marts {
            hasher.update_text(name);
            hasher.update_text(&format!("{name}.parquet"));
            hasher.update(chosen.version.pin.hash().as_bytes());
        }
        hasher.finish().short()
    }

    /// Its versions.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.marts.values().map(|chosen| &chosen.version)
    }

    /// Whether each of its versions has a table.
    pub fn is_built(&self) -> bool {
        self.versions().all(|version| version.table.get().is_some())
    }

    /// What can be served of it now: of a mart whose version has no table yet, the one that is served, if
    /// any.
    pub fn built_part(&self, served: Option<&Self>) -> Self {
        let is_built = |chosen: &Chosen| chosen.version.table.get().is_some();
        let marts = self.marts.iter().filter_map(|(name, chosen)| {
            let served = served.and_then(|served| served.marts.get(name));
            let chosen = if is_built(chosen) { chosen } else { served? };
            Some((name.clone(), chosen.clone()))
        });
        Self { marts: marts.collect(), ..self.clone() }
    }

    /// Whether the two serve the same in every respect that a client can see.
    pub fn same_as(&self, other: &Self) -> bool {
        let key = |target: &Self| -> Vec<(Digest, bool, Timestamp)> {
            let facts = |chosen: &Chosen| {
                (chosen.version.pin.hash(), chosen.orphan, chosen.version.modified())
            };
            target.marts.values().map(facts).collect()
        };
        self.verified == other.verified
            && self.ledger == other.ledger
            && self.marts.keys().eq(other.marts.keys())
            && key(self) == key(other)
    }
}

/// Why the newest files are not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// The build that the ledger speaks of.
    pub invocation_id: Option<String>,
    /// The reason in a sentence.
    pub reason: String,
    /// Nodes that failed and have not succeeded since.
    pub outstanding: Vec<Outstanding>,
    /// Files that belong to no finished build.
    pub pending: Vec<Pending>,
}

/// A file that belongs to no finished build: one is running, was killed, or two overlapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The file's name.
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
    /// The last good version of every mart whose file is there (or gone for a moment only).
    pub files: &'a BTreeMap<String, Arc<Version>>,
    /// Earlier versions by invocation.
    pub staged: &'a Staged,
    /// What is served now.
    pub published: Option<&'a Target>,
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

/// Decides what is to be served.
pub fn decide(situation: &Situation<'_>) -> Decision {
    match (situation.policy, situation.ledger) {
        (Policy::Auto, None) if situation.legacy => without_ledger(situation),
        (Policy::File, ledger) | (Policy::Auto, ledger @ None) => every_file(situation, ledger),
        (Policy::Build | Policy::Auto, Some(ledger)) => by_ledger(situation, ledger),
        (Policy::Build, None) => without_ledger(situation),
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
        .map(|version| pending(version, "there is no ledger _build.json yet".to_owned()))
        .collect();
    if pending.is_empty() {
        return every_file(situation, None);
    }
    let held = Hold {
        invocation_id: None,
        reason: "no ledger _build.json vouches for the files; run dbt build to its end".to_owned(),
        outstanding: Vec::new(),
        pending,
    };
    Decision { target: situation.published.cloned(), settled: false, held: Some(held) }
}

fn by_ledger(situation: &Situation<'_>, ledger: &Arc<Ledger>) -> Decision {
    let published = |name: &str| situation.published.and_then(|target| target.marts.get(name));
    let mut vouched = BTreeMap::new();
    let mut waiting = Vec::new();
    let mut missing = false;

    for model in &ledger.models {
        let (name, invocation) = (&model.name, &model.invocation_id);
        let file = situation.files.get(name);
        let version = file
            .filter(|version| version.is_of(invocation))
            .or_else(|| situation.staged.get(name, invocation))
            .or_else(|| {
                published(name).map(|chosen| &chosen.version).filter(|v| v.is_of(invocation))
            });
        match version {
            Some(version) => {
                let chosen = Chosen { version: Arc::clone(version), orphan: false };
                vouched.insert(name.clone(), chosen);
            }
            None => missing = true,
        }
        match file {
            Some(file) if file.is_of(invocation) => {}
            Some(file) => waiting.push(pending(file, mismatch(file, invocation))),
            None if version.is_none() => waiting.push(Pending {
                file: format!("{name}.parquet"),
                reason: format!("the ledger names build {invocation}, but no valid file is there"),
                invocation_id: None,
            }),
            None => waiting.push(Pending {
                file: format!("{name}.parquet"),
                reason: "the file is gone; its last version is served until the ledger drops the \
                         model or a build writes it again"
                    .to_owned(),
                invocation_id: Some(invocation.clone()),
            }),
        }
    }

    // Files that the ledger does not name.
    let mut others = BTreeMap::new();
    for (name, version) in situation.files {
        if ledger.model(name).is_some() {
            continue;
        }
        let served = published(name);
        let foreign = version.invocation_id.is_some();
        // What dbt wrote after the last build ended, and no build has claimed, is of a running one.
        let unclaimed = foreign
            && version.modified() > ledger.finished_at
            && served.is_none_or(|served| served.version.pin.hash() != version.pin.hash());
        if unclaimed {
            let reason = "no finished build has written this mart yet".to_owned();
            waiting.push(pending(version, reason));
            if let Some(served) = served {
                others.insert(name.clone(), served.clone());
            }
        } else {
            let chosen = Chosen { version: Arc::clone(version), orphan: foreign };
            others.insert(name.clone(), chosen);
        }
    }

    let good = ledger.is_clear() && !missing;
    let held = hold(ledger, waiting);
    if good {
        others.extend(vouched);
        let target = Target { marts: others, ledger: Some(Arc::clone(ledger)), verified: true };
        return Decision { target: Some(target), settled: true, held };
    }
    let target = match situation.published {
        // The last good build stays; files that no build owns go on by themselves.
        Some(last) => {
            let owned = |name: &str| {
                ledger.model(name).is_some()
                    || last.ledger.as_ref().is_some_and(|old| old.model(name).is_some())
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

fn hold(ledger: &Ledger, pending: Vec<Pending>) -> Option<Hold> {
    let outstanding = ledger.outstanding.clone();
    let reason = match (outstanding.first(), pending.first()) {
        (None, None) => return None,
        (Some(first), _) => format!(
            "{} has failed and not succeeded since{}; fix it and build it again",
            first.unique_id,
            match outstanding.len() {
                1 => String::new(),
                more => format!(" (and {} more)", more - 1),
            }
        ),
        (None, Some(first)) => format!(
            "{} of {} belongs to no finished build (one is running, was stopped, or two overlapped); \
             the next whole build is served",
            first.file,
            match pending.len() {
                1 => "1 file".to_owned(),
                more => format!("{more} files"),
            },
        ),
    };
    let invocation_id = Some(ledger.invocation_id.clone());
    Some(Hold { invocation_id, reason, outstanding, pending })
}

fn mismatch(file: &Version, invocation: &str) -> String {
    match &file.invocation_id {
        Some(own) => format!("the file is of build {own}, the ledger names {invocation}"),
        None => format!("dbt did not write this file, but the ledger names build {invocation}"),
    }
}

fn pending(version: &Version, reason: String) -> Pending {
    Pending {
        file: format!("{}.parquet", version.name),
        reason,
        invocation_id: version.invocation_id.clone(),
    }
}
