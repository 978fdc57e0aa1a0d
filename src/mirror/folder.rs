//! The mart directory as the mirror writes it.
//!
//! What is being written, a lock, and what is known of each file lie in a directory of the mirror's own. A
//! content is noted there before its file is renamed into place, so that a mirror that was killed knows its
//! files again, and none of another program's is taken for one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use tempfile::NamedTempFile;

use super::OWN_DIRECTORY;
use super::download::{Download, text_of};
use super::object::{ObjectKind, ObjectVersion, directory, kind, record_of};
use super::plan::{LocalFile, Mirrored, MirroredObject, MirroredRecords};
use super::state::{Stamp, State};
use super::status::{MirrorStatus, STATUS_FILE};
use crate::digest::{Digest, Hasher};
use crate::ledger::{self, FIRST_EDITION, Record};
use crate::scan::SUCCESS;

const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
const TEMPORARY: &str = "tmp_";

/// Why the directory cannot be mirrored into.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another mirror writes there.
    #[error("another mirror writes into {0}; end it first")]
    Locked(PathBuf),
    /// It mirrors something else.
    #[error(
        "{dir} mirrors {known}, and not {asked}: name an empty directory, or remove {OWN_DIRECTORY} in it \
         and start once with --overwrite",
        dir = dir.display()
    )]
    OtherSource {
        /// The directory.
        dir: PathBuf,
        /// What it mirrors.
        known: String,
        /// What it was to mirror.
        asked: String,
    },
    /// What is known of it does not parse.
    #[error("{path} does not parse: {error}; remove it and start once with --overwrite", path = path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: serde_json::Error,
    },
    /// Something in it cannot be read or written.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// What.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another program's file is where one is to be written.
    #[error("{0} was written by another program; remove it, or start once with --overwrite")]
    Foreign(String),
}

/// A file of another program's.
#[derive(Debug, Default)]
struct ForeignFile {
    /// As it was when that was found out.
    stamp: Stamp,
    /// The object that it is no copy of.
    differs_from: Option<ObjectVersion>,
}

/// The mart directory, as long as no other mirror has it.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    own: PathBuf,
    overwrites: bool,
    state: State,
    /// The state as it is on disk.
    saved: Option<State>,
    /// Files of other programs.
    foreign: BTreeMap<String, ForeignFile>,
    records: MirroredRecords,
    _lock: File,
}

fn at<T>(path: &Path, outcome: io::Result<T>) -> Result<T, FolderError> {
    outcome.map_err(|error| FolderError::File { path: path.to_owned(), error })
}

impl Folder {
    /// Opens the directory, which is made where it is not there.
    pub(super) fn open(dir: &Path, source: &str, overwrites: bool) -> Result<Self, FolderError> {
        let own = dir.join(OWN_DIRECTORY);
        at(&own, fs::create_dir_all(&own))?;
        let lock_path = own.join(LOCK_FILE);
        let lock = at(&lock_path, File::options().create(true).append(true).open(&lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(FolderError::Locked(dir.to_owned())),
            outcome => at(&lock_path, outcome.map_err(io::Error::from))?,
        }
        // What a mirror that was killed had begun.
        for entry in at(&own, fs::read_dir(&own))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let _ = fs::remove_file(entry.path()); // the next start tries again
            }
        }
        let path = own.join(STATE_FILE);
        let saved: Option<State> = match fs::read(&path) {
            Ok(text) => {
                let parsed = serde_json::from_slice(&text);
                Some(parsed.map_err(|error| FolderError::State { path: path.clone(), error })?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(FolderError::File { path, error }),
        };
        let state = saved.clone().unwrap_or_else(|| State::new(source));
        if state.source != source {
            let (dir, known, asked) = (dir.to_owned(), state.source, source.to_owned());
            return Err(FolderError::OtherSource { dir, known, asked });
        }
        let mut folder = Self {
            dir: dir.to_owned(),
            own,
            overwrites,
            state,
            saved,
            foreign: BTreeMap::new(),
            records: MirroredRecords::new(),
            _lock: lock,
        };
        let paths: Vec<String> = folder.state.objects.keys().cloned().collect();
        for path in paths {
            if folder.look(&path)? == LocalFile::Own
                && let Ok(text) = fs::read(folder.dir.join(&path))
            {
                folder.note_record(&path, &text);
            }
        }
        Ok(folder)
    }

    /// What was mirrored.
    pub(super) fn mirrored(&self) -> &Mirrored {
        &self.state.objects
    }

    /// The records among it.
    pub(super) fn records(&self) -> &MirroredRecords {
        &self.records
    }

    /// How many files there are, and their size.
    pub(super) fn size(&self) -> (u64, u64) {
        let bytes = self.state.stamps.values().map(|stamp| stamp.size).sum();
        (self.state.stamps.len() as u64, bytes)
    }

    /// Whether a content is, or has lately been, the mirror's at a path.
    pub(super) fn has_had(&self, path: &str, content: &Digest) -> bool {
        self.state.objects.get(path).is_some_and(|known| known.contents.contains(content))
    }

    /// What is at a path. A file that is not as it was left is read. What cannot be looked at is another program's.
    pub(super) fn look(&mut self, path: &str) -> Result<LocalFile, FolderError> {
        let found = self.look_at(path);
        if found.is_err() {
            self.state.stamps.remove(path);
            self.foreign.insert(path.to_owned(), ForeignFile::default());
        }
        found
    }

    fn look_at(&mut self, path: &str) -> Result<LocalFile, FolderError> {
        let whole = self.dir.join(path);
        let metadata = match fs::symlink_metadata(&whole) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.state.stamps.remove(path);
                return Ok(LocalFile::Absent);
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                self.foreign.entry(path.to_owned()).or_default();
                return Ok(LocalFile::Foreign);
            }
            Err(error) => return Err(FolderError::File { path: whole, error }),
        };
        let stamp = Stamp::of(&metadata);
        if self.state.stamps.get(path) == Some(&stamp) {
            return Ok(LocalFile::Own);
        }
        if self.foreign.get(path).is_some_and(|foreign| foreign.stamp == stamp) {
            return Ok(LocalFile::Foreign);
        }
        if let Some(known) = self.state.objects.get_mut(path)
            && metadata.is_file()
        {
            let content = at(&whole, Digest::of_file(&whole))?;
            if let Some(place) = known.contents.iter().position(|own| *own == content) {
                if place > 0 {
                    known.version = None; // an older one of the mirror's
                }
                self.state.stamps.insert(path.to_owned(), stamp);
                return Ok(LocalFile::Own);
            }
        }
        self.state.stamps.remove(path);
        let foreign = ForeignFile { stamp, differs_from: None };
        self.foreign.insert(path.to_owned(), foreign);
        Ok(LocalFile::Foreign)
    }

    /// What is at a path, as it was when it was looked at.
    pub(super) fn seen(&self, path: &str) -> LocalFile {
        match (self.state.stamps.contains_key(path), self.foreign.contains_key(path)) {
            (true, _) => LocalFile::Own,
            (false, true) if !self.overwrites => LocalFile::Foreign,
            (false, _) => LocalFile::Absent,
        }
    }

    /// Whether another program's file may be a copy of an object.
    pub(super) fn may_be(&self, path: &str, version: &ObjectVersion) -> bool {
        self.foreign.get(path).is_some_and(|foreign| {
            foreign.stamp.size == version.size && foreign.differs_from.as_ref() != Some(version)
        })
    }

    /// A file to write an object to.
    pub(super) fn temporary(&self) -> io::Result<NamedTempFile> {
        let everyone = Permissions::from_mode(0o666); // less what the umask takes
        tempfile::Builder::new().prefix(TEMPORARY).permissions(everyone).tempfile_in(&self.own)
    }

    /// Puts files into their places. Returns those that are there now, and what stands in the way of others.
    pub(super) fn install(
        &mut self,
        downloads: Vec<Download>,
    ) -> Result<(usize, Vec<FolderError>), FolderError> {
        let (mut refused, mut ready) = (Vec::new(), Vec::new());
        let mut count = 0;
        for mut download in downloads {
            let path = download.object.path.clone();
            let copy = match self.is_copy(&path, &download.digest) {
                Ok(copy) => copy,
                Err(error) => {
                    refused.push(error);
                    continue;
                }
            };
            if copy == Some(false) {
                let foreign = self.foreign.entry(path.clone()).or_default();
                foreign.differs_from = Some(download.object.version);
                refused.push(FolderError::Foreign(path));
                continue;
            }
            let none = || MirroredObject { version: None, contents: Vec::new() };
            let known = self.state.objects.entry(path.clone()).or_insert_with(none);
            known.remember(download.object.version.clone(), download.digest);
            if copy == Some(true) {
                // It is the mirror's from here on.
                let foreign = self.foreign.remove(&path).expect("it was looked at");
                self.note_record(&path, &text_of(&mut download));
                self.state.stamps.insert(path, foreign.stamp);
                count += 1;
            } else {
                self.state.stamps.remove(&path);
                ready.push(download);
            }
        }
        if ready.is_empty() {
            return Ok((count, refused));
        }
        self.save()?; // before the first of them is there
        let mut parents = BTreeSet::new();
        for download in ready {
            let (path, content) = (download.object.path.clone(), download.digest);
            match self.put(download) {
                Ok(parent) => {
                    parents.insert(parent);
                    count += 1;
                }
                Err(error) => {
                    let known = self.state.objects.get_mut(&path).expect("it was remembered");
                    known.forget(&content); // no record may go by it
                    refused.push(error);
                }
            }
        }
        for parent in parents {
            at(&parent, File::open(&parent).and_then(|dir| dir.sync_all()))?;
        }
        Ok((count, refused))
    }

    /// Whether another program's file is the same as an object; `None` when none is in the way.
    fn is_copy(&mut self, path: &str, content: &Digest) -> Result<Option<bool>, FolderError> {
        if self.look(path)? != LocalFile::Foreign || self.overwrites {
            return Ok(None);
        }
        let whole = self.dir.join(path);
        Ok(Some(at(&whole, Digest::of_file(&whole))? == *content))
    }

    /// Puts one file into its place. Returns the directory that it is in.
    fn put(&mut self, mut download: Download) -> Result<PathBuf, FolderError> {
        let path = download.object.path.clone();
        if let Some(mart) = directory(&path).filter(|_| record_of(&path).is_none()) {
            self.unseal(mart)?;
        }
        let whole = self.dir.join(&path);
        let parent = whole.parent().expect("it is in the directory").to_owned();
        at(&parent, fs::create_dir_all(&parent))?;
        let text = text_of(&mut download);
        let file = download.file.persist(&whole).map_err(|error| error.error);
        let stamp = Stamp::of(&at(&whole, at(&whole, file)?.metadata())?);
        self.foreign.remove(&path);
        self.note_record(&path, &text);
        self.state.stamps.insert(path, stamp);
        Ok(parent)
    }

    /// Removes a file that the mirror wrote, if it still is that one.
    pub(super) fn remove(&mut self, path: &str) -> Result<(), FolderError> {
        let whole = self.dir.join(path);
        let mart = directory(path).filter(|_| record_of(path).is_none());
        if self.look(path)? == LocalFile::Own {
            if let Some(mart) = mart {
                self.unseal(mart)?;
                if kind(path) == Some(ObjectKind::Success) {
                    return Ok(());
                }
            }
            at(&whole, fs::remove_file(&whole))?;
            let mut parent = whole.parent();
            while let Some(dir) =
                parent.filter(|dir| *dir != self.dir && fs::remove_dir(dir).is_ok())
            {
                parent = dir.parent(); // directories that are empty now
            }
        }
        self.state.objects.remove(path);
        self.state.stamps.remove(path);
        self.foreign.remove(path);
        if let Some(id) = record_of(path) {
            self.records.remove(id);
        }
        if path == FIRST_EDITION {
            self.records.remove(FIRST_EDITION);
        }
        Ok(())
    }

    /// Says no more that a directory of parts is complete.
    pub(super) fn unseal(&mut self, mart: &str) -> Result<(), FolderError> {
        let path = format!("{mart}/{SUCCESS}");
        if self.state.objects.contains_key(&path) && self.look(&path)? == LocalFile::Own {
            at(&self.dir.join(&path), fs::remove_file(self.dir.join(&path)))?;
        }
        self.state.objects.remove(&path);
        self.state.stamps.remove(&path);
        Ok(())
    }

    /// Says that a directory of parts is complete, as its object says.
    pub(super) fn seal(&mut self, mart: &str, version: &ObjectVersion) -> Result<(), FolderError> {
        let path = format!("{mart}/{SUCCESS}");
        let whole = self.dir.join(&path);
        if self.look(&path)? == LocalFile::Foreign && !self.overwrites {
            return Err(FolderError::Foreign(path));
        }
        let contents = vec![Hasher::default().finish()];
        let known = MirroredObject { version: Some(version.clone()), contents };
        self.state.objects.insert(path.clone(), known);
        self.save()?;
        let file = at(&whole, self.temporary())?;
        let file = at(&whole, file.persist(&whole).map_err(|error| error.error))?;
        let stamp = Stamp::of(&at(&whole, file.metadata())?);
        self.foreign.remove(&path);
        self.state.stamps.insert(path, stamp);
        Ok(())
    }

    /// Keeps what is known over a restart.
    pub(super) fn save(&mut self) -> Result<(), FolderError> {
        if self.saved.as_ref() != Some(&self.state) {
            let text = serde_json::to_vec(&self.state).expect("a state is JSON");
            self.write(&self.own.join(STATE_FILE), &text, true)?;
            self.saved = Some(self.state.clone());
        }
        Ok(())
    }

    /// Tells `serve` how the mirror is.
    pub(super) fn tell(&self, status: &MirrorStatus) -> Result<(), FolderError> {
        let text = serde_json::to_vec_pretty(status).expect("a status is JSON");
        self.write(&self.dir.join(STATUS_FILE), &text, false)
    }

    /// What it was told last; nothing of what does not parse.
    pub(super) fn told(&self) -> Option<MirrorStatus> {
        serde_json::from_slice(&fs::read(self.dir.join(STATUS_FILE)).ok()?).ok()
    }

    fn write(&self, path: &Path, text: &[u8], lasting: bool) -> Result<(), FolderError> {
        let mut file = at(&self.own, self.temporary())?;
        at(path, file.write_all(text))?;
        if lasting {
            at(path, file.as_file().sync_all())?;
        }
        at(path, file.persist(path).map_err(|error| error.error)).map(drop)
    }

    /// Takes note of a record, if the file is one and good.
    fn note_record(&mut self, path: &str, text: &[u8]) {
        if path == FIRST_EDITION {
            let record = ledger::of_first_edition(text, Vec::new()).ok();
            self.records.extend(record.map(|record| (FIRST_EDITION.to_owned(), record)));
        } else if let Some(id) = record_of(path) {
            let record = Record::parse(text).ok().filter(|record| record.build.id == id);
            self.records.extend(record.map(|record| (id.to_owned(), record)));
        }
    }
}

#[cfg(test)]
mod tests;
