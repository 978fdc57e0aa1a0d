//! What is published, and what is held back.
//!
//! A [`Version`] is what a file held at a time, a [`Target`] a set of versions to serve together, and
//! [`decide`] the policy. Nothing here looks at a clock, a file or a lock.

mod policy;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use jiff::Timestamp;

use crate::digest::{Digest, Hasher};
use crate::ledger::{self, Ledger, Model};
use crate::mart_pin::MartPin;
use crate::marts::build::BuiltTable;
use crate::scan::file_name;

pub use policy::{
    CANNOT_BE_SERVED, Decision, Hold, Pending, Policy, Situation, Unverified, decide,
    goes_by_builds,
};

/// Versions of one mart that are kept until the ledger has spoken.
const STAGED_PER_MART: usize = 3;

/// One version of a mart: the content of its files at a time.
#[derive(Debug)]
pub struct Version {
    /// The mart's name.
    pub name: String,
    /// The dbt build that wrote it, if dbt did.
    pub invocation_id: Option<String>,
    /// Its bytes.
    pub pin: Arc<MartPin>,
    /// When martd had read them. Of two versions of a mart, the later is the newer, whatever their
    /// files' times say.
    pub landed: Instant,
    /// Its table, once that is built. Nothing is published before.
    pub table: OnceLock<Arc<BuiltTable>>,
}

impl Version {
    /// A version that was read at this moment and has no table yet.
    pub fn new(name: String, invocation_id: Option<String>, pin: Arc<MartPin>) -> Self {
        Self { name, invocation_id, pin, landed: Instant::now(), table: OnceLock::new() }
    }

    /// When the last of its files was written.
    pub fn modified(&self) -> Timestamp {
        self.pin.modified()
    }

    /// The build that wrote it: a record says so, or else its file.
    pub fn build(&self, ledger: Option<&Ledger>) -> Option<String> {
        let models = ledger.into_iter().flat_map(|ledger| ledger.models.iter().chain(&ledger.left));
        let mut models = models.filter(|model| model.name == self.name && self.is_of(model));
        models.next().map(|model| &model.invocation_id).or(self.invocation_id.as_ref()).cloned()
    }

    /// The entry of the mart directory that it is.
    pub fn file_name(&self) -> String {
        file_name(&self.name, self.pin.file().is_none())
    }

    /// Whether it is these files and no others.
    pub fn is_made_of(&self, files: &[ledger::File]) -> bool {
        let own = self.pin.files();
        let has = |file: &ledger::File| {
            let index = own.binary_search_by(|own| own.path.as_str().cmp(&file.path));
            index.is_ok_and(|index| own[index].pin.hash() == file.sha256)
        };
        own.len() == files.len() && files.iter().all(has)
    }

    /// Whether these are the bytes that are vouched for. A stamp need not be there, and counts where it is.
    fn is_of(&self, model: &Model) -> bool {
        let stamp = self.invocation_id.as_ref();
        match &*model.files {
            [] => stamp == Some(&model.invocation_id),
            files => {
                stamp.is_none_or(|stamp| *stamp == model.invocation_id) && self.is_made_of(files)
            }
        }
    }
}

/// The last versions of each mart, so that a build can be published even when the next one has
/// overwritten its files by then.
#[derive(Debug, Default)]
pub struct Staged(HashMap<String, VecDeque<Arc<Version>>>);

impl Staged {
    /// Keeps a version; the oldest of too many goes. One whose content is there already counts as new
    /// again.
    pub fn add(&mut self, version: &Arc<Version>) {
        let versions = self.0.entry(version.name.clone()).or_default();
        versions.retain(|staged| staged.pin.hash() != version.pin.hash());
        versions.push_back(Arc::clone(version));
        if versions.len() > STAGED_PER_MART {
            versions.pop_front();
        }
    }

    fn get(&self, model: &Model) -> Option<&Arc<Version>> {
        self.0.get(&model.name)?.iter().rev().find(|version| version.is_of(model))
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
        if let Some(index) = versions.iter().position(|staged| Arc::ptr_eq(staged, version)) {
            versions.drain(..index);
        }
    }
}

/// A version that is to be served.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The version.
    pub version: Arc<Version>,
    /// Whether it was written for a model that its project has no more.
    pub orphan: bool,
}

/// The build that vouches for what is served under a ledger.
pub fn vouching(ledger: Option<&Ledger>, verified: bool) -> Option<&str> {
    ledger.filter(|_| verified).map(|ledger| ledger.invocation_id.as_str())
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
            for file in chosen.version.pin.files() {
                hasher.update_text(name);
                hasher.update_text(&file.path);
                hasher.update(file.pin.hash().as_bytes());
            }
        }
        hasher.finish().short()
    }

    /// The build that vouches for it.
    pub fn build(&self) -> Option<&str> {
        vouching(self.ledger.as_deref(), self.verified)
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
