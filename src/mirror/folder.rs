//! The mart directory as the mirror writes it.
//!
//! What is being written, a lock, and what is known of each file lie in a directory of the mirror's own. A
//! content is noted there before its file is renamed into place, so that a mirror that was killed knows its
//! files again, and none of another program's is taken for one.

mod error;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use tempfile::{NamedTempFile, TempPath};

pub use self::error::FolderError;
use self::error::at;
use super::OWN_DIRECTORY;
use super::beneath::{self, FileParent};
use super::download::{Download, parse_record, text_of};
use super::object::{ObjectKind, ObjectVersion, directory, kind, record_of};
use super::plan::{LocalFile, Mirrored, MirroredObject, MirroredRecords};
use super::state::{MirrorState, Stamp};
use super::status::{MirrorStatus, STATUS_FILE};
use crate::digest::{Digest, Hasher};
use crate::scan::SUCCESS;

const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
const TEMPORARY: &str = "tmp_";

/// A file of another program's.
#[derive(Debug, Default)]
struct ForeignFile {
    /// As it was when that was found out.
    stamp: Stamp,
    /// Whether it is a file of its own: it may be a copy of an object then.
    is_file: bool,
    /// The object that it is no copy of.
    differs_from: Option<ObjectVersion>,
    /// What stands where the file or a directory of its path is to be, and cannot be replaced.
    blocked_by: Option<String>,
}

/// The mart directory, as long as no other mirror has it.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    own: PathBuf,
    overwrites: bool,
    state: MirrorState,
    /// The state as it is on disk.
    saved: Option<MirrorState>,
    /// Files of other programs.
    foreign: BTreeMap<String, ForeignFile>,
    records: MirroredRecords,
    lock: File,
}

/// Opens the file that is locked, and makes what is needed for that; `None` when a link or a file is where the
/// mirror's own directory is to be.
fn open_lock(dir: &Path) -> io::Result<Option<File>> {
    match beneath::parent(dir, &format!("{OWN_DIRECTORY}/{LOCK_FILE}"), true)? {
        FileParent::Blocked(_) => Ok(None),
        FileParent::Absent => Err(io::ErrorKind::NotFound.into()),
        FileParent::Dir(own) => {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let lock = rustix::fs::openat(own, LOCK_FILE, flags, Mode::from_raw_mode(0o666))?;
            Ok(Some(lock.into()))
        }
    }
}

/// The directory that another one is in.
fn above(dir: &Path) -> &Path {
    dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Folder {
    /// Opens the directory, which is made where it is not there.
    pub(super) fn open(dir: &Path, source: &str, overwrites: bool) -> Result<Self, FolderError> {
        at(dir, fs::create_dir_all(dir))?;
        let own = dir.join(OWN_DIRECTORY);
        let lock_path = own.join(LOCK_FILE);
        let lock = at(&lock_path, open_lock(dir))?
            .ok_or_else(|| FolderError::Blocked(own.display().to_string()))?;
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
        let saved = at(&path, MirrorState::load(&path))?;
        let state = saved.clone().unwrap_or_else(|| MirrorState::new(source));
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
            lock,
        };
        let is_record = |path: &&String| kind(path) == Some(ObjectKind::Record);
        let paths = folder.state.objects.keys().filter(is_record).cloned();
        for path in paths.collect::<Vec<_>>() {
            // The first round tells of what cannot be looked at.
            if matches!(folder.look(&path), Ok(LocalFile::Own))
                && let Ok(text) = fs::read(folder.dir.join(&path))
            {
                folder.records.extend(parse_record(&path, &text));
            }
        }
        Ok(folder)
    }

    /// The mart directory, and the one above it.
    pub(super) fn directories(&self) -> [&Path; 2] {
        [&self.dir, above(&self.dir)]
    }

    /// Whether the directory is still the one that was opened.
    pub(super) fn is_there(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let found = fs::symlink_metadata(self.own.join(LOCK_FILE)).map(identity);
        self.lock.metadata().map(identity).is_ok_and(|opened| found.is_ok_and(|it| it == opened))
    }

    /// Opens the directory anew if it is another one than before, with what is known of that. Where it has been
    /// removed, it is made. Returns whether it was another one.
    pub(super) fn find_again(&mut self) -> Result<bool, FolderError> {
        if self.is_there() {
            return Ok(false);
        }
        let above = above(&self.dir);
        match fs::metadata(above) {
            Ok(metadata) if metadata.is_dir() => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FolderError::File { path: above.to_owned(), error });
            }
            _ => return Err(FolderError::Gone(above.to_owned())),
        }
        *self = Self::open(&self.dir, &self.state.source, self.overwrites)?;
        Ok(true)
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

    /// What is at a path. A file that is not as it was left is read. What cannot be looked at is another program's. A content
    /// that was noted and did not get there is forgotten: no record may go by it.
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
        let metadata = match at(&whole, beneath::parent(&self.dir, path, false))? {
            FileParent::Dir(_) => fs::symlink_metadata(&whole),
            FileParent::Absent => Err(io::ErrorKind::NotFound.into()),
            FileParent::Blocked(by) => {
                self.state.stamps.remove(path);
                let foreign = ForeignFile { blocked_by: Some(by), ..ForeignFile::default() };
                self.foreign.insert(path.to_owned(), foreign);
                return Ok(LocalFile::Foreign);
            }
        };
        let metadata = match metadata {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.state.stamps.remove(path);
                self.foreign.remove(path);
                if let Some(known) = self.state.objects.get_mut(path) {
                    (known.version, known.contents) = (None, Vec::new());
                }
                return Ok(LocalFile::Absent);
            }
            metadata => at(&whole, metadata)?,
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
                    known.contents.drain(..place);
                }
                self.state.stamps.insert(path.to_owned(), stamp);
                return Ok(LocalFile::Own);
            }
        }
        self.state.stamps.remove(path);
        let is_file = metadata.is_file();
        // A file can be replaced, and a directory cannot.
        let blocked_by = metadata.is_dir().then(|| path.to_owned());
        let foreign = ForeignFile { stamp, is_file, blocked_by, ..ForeignFile::default() };
        self.foreign.insert(path.to_owned(), foreign);
        Ok(LocalFile::Foreign)
    }

    /// What is at a path, as it was when it was looked at.
    pub(super) fn seen(&self, path: &str) -> LocalFile {
        match self.foreign.get(path) {
            _ if self.state.stamps.contains_key(path) => LocalFile::Own,
            Some(foreign) if !self.overwrites || foreign.blocked_by.is_some() => LocalFile::Foreign,
            _ => LocalFile::Absent,
        }
    }

    /// Whether another program's file may be a copy of an object.
    pub(super) fn may_be(&self, path: &str, version: &ObjectVersion) -> bool {
        self.foreign.get(path).is_some_and(|foreign| {
            let is_as_large = foreign.is_file && foreign.stamp.size == version.size;
            is_as_large && foreign.differs_from.as_ref() != Some(version)
        })
    }

    /// Why another program's file, which was looked at, stands in the way.
    pub(super) fn refusal(&self, path: &str) -> FolderError {
        match self.foreign.get(path).and_then(|foreign| foreign.blocked_by.as_ref()) {
            Some(by) if by == path => FolderError::Directory(by.clone()),
            Some(by) => FolderError::Blocked(by.clone()),
            None => FolderError::Foreign(path.to_owned()),
        }
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
        for download in downloads {
            let path = download.object.path.clone();
            let copy = match self.is_copy(&path, &download.received.digest) {
                Ok(copy) => copy,
                Err(error) => {
                    refused.push(error);
                    continue;
                }
            };
            if copy == Some(false) {
                let foreign = self.foreign.entry(path.clone()).or_default();
                foreign.differs_from = Some(download.object.version);
                refused.push(self.refusal(&path));
                continue;
            }
            let known = self.state.objects.entry(path.clone()).or_default();
            known.is_recorded = download.received.is_recorded;
            known.remember(download.object.version.clone(), download.received.digest);
            if copy == Some(true) {
                // It is the mirror's from here on.
                let foreign = self.foreign.remove(&path).expect("it was looked at");
                self.records.extend(parse_record(&path, &text_of(&download)));
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
        let mut parents = BTreeMap::new(); // a file of each directory
        for download in ready {
            let (path, content) = (download.object.path.clone(), download.received.digest);
            match self.put(download) {
                Ok(()) => {
                    parents
                        .insert(path.rsplit_once('/').map(|(parent, _)| parent.to_owned()), path);
                    count += 1;
                }
                Err(error) => {
                    let known = self.state.objects.get_mut(&path).expect("it was remembered");
                    known.forget(&content); // no record may go by it
                    refused.push(error);
                }
            }
        }
        for path in parents.values() {
            self.sync(path)?;
        }
        Ok((count, refused))
    }

    /// Whether another program's file is the same as an object; `None` when none is in the way.
    fn is_copy(&mut self, path: &str, content: &Digest) -> Result<Option<bool>, FolderError> {
        self.look(path)?;
        if self.seen(path) != LocalFile::Foreign {
            return Ok(None);
        }
        if !self.foreign.get(path).is_some_and(|foreign| foreign.is_file) {
            return Ok(Some(false));
        }
        let whole = self.dir.join(path);
        Ok(Some(at(&whole, Digest::of_file(&whole))? == *content))
    }

    /// Puts one file into its place.
    fn put(&mut self, download: Download) -> Result<(), FolderError> {
        let path = download.object.path.clone();
        if let Some(mart) = directory(&path).filter(|_| record_of(&path).is_none()) {
            self.unseal(mart)?;
        }
        let text = text_of(&download);
        let stamp = self.place(download.file, &path)?;
        self.foreign.remove(&path);
        self.records.extend(parse_record(&path, &text));
        self.state.stamps.insert(path, stamp);
        Ok(())
    }

    /// Gives a file its name, and makes the directories that it is in.
    fn place(&self, temporary: TempPath, path: &str) -> Result<Stamp, FolderError> {
        let whole = self.dir.join(path);
        let parent = self.parent(path, true)?;
        let file = at(&temporary, File::open(&temporary))?;
        let renamed = rustix::fs::renameat(CWD, &*temporary, &parent, beneath::name(path));
        at(&whole, renamed.map_err(io::Error::from))?;
        let _ = temporary.keep(); // its name is gone
        Ok(Stamp::of(&at(&whole, file.metadata())?))
    }

    /// Takes a file's name away.
    fn unlink(&self, path: &str) -> Result<(), FolderError> {
        let parent = self.parent(path, false)?;
        let unlinked = rustix::fs::unlinkat(&parent, beneath::name(path), AtFlags::empty());
        at(&self.dir.join(path), unlinked.map_err(io::Error::from))
    }

    fn sync(&self, path: &str) -> Result<(), FolderError> {
        let parent = self.parent(path, false)?;
        at(&self.dir.join(path), rustix::fs::fsync(parent).map_err(io::Error::from))
    }

    fn parent(&self, path: &str, make: bool) -> Result<OwnedFd, FolderError> {
        let whole = self.dir.join(path);
        match at(&whole, beneath::parent(&self.dir, path, make))? {
            FileParent::Dir(dir) => Ok(dir),
            FileParent::Absent => at(&whole, Err(io::ErrorKind::NotFound.into())),
            FileParent::Blocked(by) => Err(FolderError::Blocked(by)),
        }
    }

    /// Removes a file that the mirror wrote, if it still is that one.
    pub(super) fn remove(&mut self, path: &str) -> Result<(), FolderError> {
        let mart = directory(path).filter(|_| record_of(path).is_none());
        if self.look(path)? == LocalFile::Own {
            if let Some(mart) = mart {
                self.unseal(mart)?;
                if kind(path) == Some(ObjectKind::Success) {
                    return Ok(());
                }
            }
            self.unlink(path)?;
            beneath::prune(&self.dir, path);
        }
        self.state.objects.remove(path);
        self.state.stamps.remove(path);
        self.foreign.remove(path);
        self.records.remove(record_of(path).unwrap_or(path));
        Ok(())
    }

    /// Says no more that a directory of parts is complete.
    pub(super) fn unseal(&mut self, mart: &str) -> Result<(), FolderError> {
        let path = format!("{mart}/{SUCCESS}");
        if self.state.objects.contains_key(&path) && self.look(&path)? == LocalFile::Own {
            self.unlink(&path)?;
        }
        self.state.objects.remove(&path);
        self.state.stamps.remove(&path);
        Ok(())
    }

    /// Says that a directory of parts is complete, as its object says.
    pub(super) fn seal(&mut self, mart: &str, version: &ObjectVersion) -> Result<(), FolderError> {
        let path = format!("{mart}/{SUCCESS}");
        self.look(&path)?;
        if self.seen(&path) == LocalFile::Foreign {
            return Err(self.refusal(&path));
        }
        let contents = vec![Hasher::default().finish()];
        let version = Some(version.clone());
        let known = MirroredObject { version, contents, is_recorded: false };
        self.state.objects.insert(path.clone(), known);
        self.save()?;
        let stamp = self.place(at(&self.own, self.temporary())?.into_temp_path(), &path)?;
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
    fn last_told(&self) -> Option<MirrorStatus> {
        serde_json::from_slice(&fs::read(self.dir.join(STATUS_FILE)).ok()?).ok()
    }

    /// The same, unless nothing is known of the directory.
    pub(super) fn told(&self) -> Option<MirrorStatus> {
        self.saved.as_ref().and_then(|_| self.last_told())
    }

    /// Whether files may be here whose records are not, as was told last.
    pub(super) fn awaits_record(&self) -> bool {
        self.records.is_empty() && self.last_told().is_some_and(|told| told.awaits_record)
    }

    fn write(&self, path: &Path, text: &[u8], lasting: bool) -> Result<(), FolderError> {
        let mut file = at(&self.own, self.temporary())?;
        at(path, file.write_all(text))?;
        if lasting {
            at(path, file.as_file().sync_all())?;
        }
        at(path, file.persist(path).map_err(|error| error.error)).map(drop)
    }
}

#[cfg(test)]
mod tests;
