//! What survives a restart: the files of the last published snapshot, in `MARTD_STATE_DIR`, and those
//! of the builds before it, for a rollback.
//!
//! A restart or an upgrade in the middle of a hold then goes on with the last good build, although
//! the mart directory holds a bad one by now. The directory is martd's own: a copy of each file under
//! the name of its content's hash, and a manifest that is replaced last. So whatever moment martd
//! dies at, the manifest names files that are whole; what it does not name is removed.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirEntry, File, FileTimes};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::digest::Digest;
use crate::ledger::Ledger;
use crate::mart_pin::{MartPin, PinnedFile};
use crate::marts::build::SCRATCH_PREFIX;
use crate::pin::{Budget, Pin};
use crate::publish::{Chosen, Target, Version, vouching};

const MANIFEST: &str = "snapshot.json";
const LOCK: &str = "lock";
/// Manifests of other layouts are ignored.
const LAYOUT: u32 = 3;
const COPY_BUFFER_BYTES: usize = 1 << 20;

/// The state directory. One martd at a time may have it.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// How many builds are kept, the served one among them.
    keep_builds: usize,
    /// Held as long as this lives, by whoever writes here.
    _lock: Option<File>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    layout: u32,
    /// The newest first.
    snapshots: Vec<SavedSnapshot>,
}

/// A snapshot that was published.
#[derive(Debug, Serialize, Deserialize)]
struct SavedSnapshot {
    id: String,
    verified: bool,
    ledger: Option<Ledger>,
    marts: BTreeMap<String, SavedMart>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedMart {
    /// By their paths in the mart directory.
    files: BTreeMap<String, Digest>,
    invocation_id: Option<String>,
    orphan: bool,
}

#[derive(Deserialize)]
struct SavedLayout {
    layout: u32,
}

impl SavedSnapshot {
    fn of(target: &Target) -> Self {
        let entry = |chosen: &Chosen| SavedMart {
            files: chosen
                .version
                .pin
                .files()
                .iter()
                .map(|file| (file.path.clone(), file.pin.hash()))
                .collect(),
            invocation_id: chosen.version.invocation_id.clone(),
            orphan: chosen.orphan,
        };
        let marts = target.marts.iter().map(|(name, chosen)| (name.clone(), entry(chosen)));
        Self {
            id: target.id(),
            verified: target.verified,
            ledger: target.ledger.as_deref().cloned(),
            marts: marts.collect(),
        }
    }
}

impl StateDir {
    /// Takes a directory, which is created if it is not there.
    ///
    /// # Errors
    /// When it cannot be created or written, or another martd has it.
    pub fn open(path: &Path, keep_builds: usize) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = File::create(path.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => io::Error::other("another martd has it"),
            other => other.into(),
        })?;
        let state = Self { keep_builds, _lock: Some(lock), ..Self::view(path) };
        // A martd that is killed between making a builder's folder and starting it leaves it behind.
        for left in fs::read_dir(path)?.filter_map(Result::ok).filter(is_scratch) {
            let _ = fs::remove_dir_all(left.path()); // it may be on its way already
        }
        Ok(state)
    }

    /// The same to be read alone, also while a martd has it.
    pub fn view(path: &Path) -> Self {
        Self { path: path.to_owned(), keep_builds: 0, _lock: None }
    }

    /// The snapshot that was published last, pinned again. `None`, with a line in the log, when there
    /// is none or it is damaged: then the mart directory alone decides.
    pub fn restore(&self, budget: &Arc<Budget>) -> Option<Target> {
        self.pinned(budget, |_| true, "restored the last snapshot")
    }

    /// Why it is not known what is kept.
    pub fn problem(&self) -> Option<String> {
        self.manifest().err()
    }

    /// The same as `restore` for what was served of a build.
    pub fn build(&self, id: &str, budget: &Arc<Budget>) -> Option<Target> {
        self.pinned(
            budget,
            |kept| vouching(kept.ledger.as_ref(), kept.verified) == Some(id),
            "the build was kept",
        )
    }

    fn pinned(
        &self,
        budget: &Arc<Budget>,
        is_it: impl Fn(&SavedSnapshot) -> bool,
        found: &str,
    ) -> Option<Target> {
        let kept = self.manifest().and_then(|manifest| {
            let kept = manifest.into_iter().find(is_it);
            kept.map(|kept| self.pin(kept, budget)).transpose()
        });
        match kept {
            Ok(target) => target.inspect(|target| {
                info!(snapshot = target.id(), marts = target.marts.len(), "{found}");
            }),
            Err(reason) => {
                warn!(reason, directory = %self.path.display(), "the kept snapshot is ignored");
                None
            }
        }
    }

    /// What is kept, the newest first.
    fn manifest(&self) -> Result<Vec<SavedSnapshot>, String> {
        let text = match fs::read(self.path.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(format!("{MANIFEST} cannot be read: {error}")),
        };
        let broken = |error| format!("{MANIFEST} does not parse: {error}");
        // Of another layout, nothing else is known to parse.
        let layout: SavedLayout = serde_json::from_slice(&text).map_err(broken)?;
        if layout.layout != LAYOUT {
            return Err(format!("{MANIFEST} has layout {}, not {LAYOUT}", layout.layout));
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(broken)?;
        Ok(manifest.snapshots)
    }

    fn pin(&self, kept: SavedSnapshot, budget: &Arc<Budget>) -> Result<Target, String> {
        let mut marts = BTreeMap::new();
        for (name, entry) in kept.marts {
            let mut files = Vec::with_capacity(entry.files.len());
            for (path, hash) in entry.files {
                let pin = File::open(self.file(&hash))
                    .map_err(|error| error.to_string())
                    .and_then(|file| Pin::new(file, budget).map_err(|error| error.to_string()))
                    .map_err(|error| format!("the copy of {path}: {error}"))?;
                if pin.hash() != hash {
                    return Err(format!("the copy of {path} is not what was kept"));
                }
                files.push(PinnedFile { path, pin: Arc::new(pin) });
            }
            let pin = Arc::new(MartPin::new(files));
            let version = Version::new(name.clone(), entry.invocation_id, pin);
            marts.insert(name, Chosen { version: Arc::new(version), orphan: entry.orphan });
        }
        let target = Target { marts, ledger: kept.ledger.map(Arc::new), verified: kept.verified };
        if target.id() != kept.id {
            return Err(format!("{MANIFEST} names snapshot {}, its files do not", kept.id));
        }
        Ok(target)
    }

    /// Keeps a snapshot before the others, of which enough for `keep_builds` builds stay, if the disk has
    /// room for them.
    ///
    /// # Errors
    /// When the disk is full or fails; then the last snapshot is kept still.
    pub fn keep(&self, target: &Target) -> io::Result<()> {
        // What cannot be read is of no use.
        let mut earlier = self.manifest().unwrap_or_default();
        if self.copy_all(target).is_err() {
            earlier.truncate(1);
            let manifest = Manifest { layout: LAYOUT, snapshots: earlier };
            self.write(&manifest)?;
            self.copy_all(target)?;
            earlier = manifest.snapshots;
        }
        let builds =
            |kept: &SavedSnapshot| kept.ledger.as_ref().map(|ledger| ledger.invocation_id.clone());
        let newest = SavedSnapshot::of(target);
        let own = builds(&newest);
        earlier.retain(|kept| kept.verified && builds(kept).is_some() && builds(kept) != own);
        earlier.truncate(self.keep_builds.saturating_sub(1));
        earlier.insert(0, newest);
        self.write(&Manifest { layout: LAYOUT, snapshots: earlier })
    }

    fn copy_all(&self, target: &Target) -> io::Result<()> {
        let files = target.versions().flat_map(|version| version.pin.files());
        files.into_iter().try_for_each(|file| self.copy(&file.pin))
    }

    /// Replaces the manifest, and removes what the new one does not name.
    fn write(&self, manifest: &Manifest) -> io::Result<()> {
        let text = serde_json::to_vec(manifest)?;
        self.replace(MANIFEST, |file| file.write_all(&text))?;
        self.remove_unnamed(manifest)
    }

    fn file(&self, hash: &Digest) -> PathBuf {
        self.path.join(format!("{}.parquet", hash))
    }

    /// Copies a file's bytes, and its modification time, which tells how fresh it is.
    fn copy(&self, pin: &Pin) -> io::Result<()> {
        let modified = SystemTime::from(pin.identity().modified());
        let path = self.file(&pin.hash());
        if let Ok(there) = File::open(&path) {
            return there.set_times(FileTimes::new().set_modified(modified));
        }
        let name = path.file_name().and_then(|name| name.to_str()).expect("made of ASCII");
        self.replace(name, |file| {
            let mut buffer = vec![0; COPY_BUFFER_BYTES];
            let mut offset = 0;
            while offset < pin.size() {
                let left = usize::try_from(pin.size() - offset).unwrap_or(usize::MAX);
                let part = &mut buffer[..left.min(COPY_BUFFER_BYTES)];
                pin.read_exact_at(part, offset)?;
                file.write_all(part)?;
                offset += part.len() as u64;
            }
            file.set_times(FileTimes::new().set_modified(modified))
        })
    }

    /// Writes a file beside its place, makes sure that the disk has it, and moves it there.
    fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.new"));
        let mut file = File::create(&temporary)?;
        write(&mut file).and_then(|()| file.sync_all()).inspect_err(|_| {
            let _ = fs::remove_file(&temporary); // of a full disk, every byte is welcome
        })?;
        fs::rename(&temporary, self.path.join(name))
    }

    fn remove_unnamed(&self, manifest: &Manifest) -> io::Result<()> {
        let marts = manifest.snapshots.iter().flat_map(|kept| kept.marts.values());
        let hashes = marts.flat_map(|entry| entry.files.values());
        let mut named: HashSet<PathBuf> = hashes.map(|hash| self.file(hash)).collect();
        named.extend([self.path.join(MANIFEST), self.path.join(LOCK)]);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if !named.contains(&entry.path()) && !is_scratch(&entry) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Whether this is a builder's folder.
fn is_scratch(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(SCRATCH_PREFIX.as_bytes())
}
