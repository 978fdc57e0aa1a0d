//! The mart directory as it is now: which files could be marts, and what tells two versions of one
//! apart.
//!
//! A scan is the truth and events are only hints, so a scan is cheap: one `statx` a file, nothing
//! opened but symbolic links and directories. What is never a mart is sorted out here by name and type; whether a
//! candidate's bytes are whole is [`crate::marts::build`]'s question.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;
use serde::Serialize;

use crate::ledger::{FIRST_EDITION, RECORDS};

pub(crate) use parts::SUCCESS;
pub use parts::{Directory, MOST_PARTS};
use stat::{StatError, is_within, real_path, stat_at};

/// Of the files that may be marts.
pub(crate) const EXTENSION: &str = ".parquet";
/// What a mirror says of itself ([`crate::mirror`]); no mart.
pub(crate) const MIRROR_STATUS: &str = "_mirror.json";
/// Clocks of local file systems tick every 4 to 10 ms: two writes that are further apart differ in their
/// times.
pub const CLOCK_TICK: Duration = Duration::from_millis(20);

/// A directory entry that is not served at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The entry's name.
    pub file: String,
    /// Why it is not served.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// What makes two looks at a path the same file with the same content, as far as `stat` can tell.
/// Compared for equality alone: clocks go backwards, and `cp -p` brings old times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        let nanos =
            |seconds: i64, nanos: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime_ns: nanos(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: nanos(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// The identity of an open file.
    pub fn of_open(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::fstat(file)?))
    }

    /// The identity of what a path means, symbolic links followed.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::stat(path)?))
    }

    /// Whether both are the same file, with whatever content.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When the content was last written, as the file's writer claims.
    pub fn modified(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.mtime_ns).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Whether the file was written within `window` of `now`. File systems stamp files with a
    /// coarse clock, so a second rewrite within a tick can leave the identity as it was.
    pub fn is_young(&self, now: Timestamp, window: std::time::Duration) -> bool {
        let window = window.as_nanos() as i128;
        [self.mtime_ns, self.ctime_ns]
            .iter()
            .any(|time| (now.as_nanosecond() - time).abs() < window)
    }
}

/// A file that may be of a mart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path in the mart directory.
    pub path: String,
    /// What it was when the scan saw it.
    pub identity: Identity,
}

/// What may be a mart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The mart's name.
    pub name: String,
    /// The one file, or the Parquet files in a directory, in the order of their paths.
    pub files: Vec<Found>,
    /// What there is to know of a directory; `None` of a file.
    pub directory: Option<Directory>,
}

impl Candidate {
    /// The entry of the mart directory that it is.
    pub fn file_name(&self) -> String {
        file_name(&self.name, self.directory.is_some())
    }

    /// The size of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.identity.size()).sum()
    }
}

/// How a mart is shown as an entry of the mart directory.
pub fn file_name(mart: &str, is_directory: bool) -> String {
    if is_directory { format!("{mart}/") } else { format!("{mart}{EXTENSION}") }
}

/// A directory entry that is not served, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The entry's name.
    pub file: String,
    /// Why it is not served, and where it helps, what to do.
    pub reason: String,
}

/// What one look at the directory found, in the order of names.
#[derive(Debug, Default)]
pub struct Scan {
    /// What may be marts.
    pub candidates: Vec<Candidate>,
    /// Names and types that are never served.
    pub ignored: Vec<Remark>,
    /// Files whose names keep them from being served, and those that cannot be looked at.
    pub rejected: Vec<Remark>,
    /// The marts whose names differ in case alone from a candidate's, and that one's.
    pub same_names: BTreeMap<String, String>,
    /// The marts that are there and of which nothing can be known, and why.
    pub unseen: BTreeMap<String, String>,
}

/// The mart directory, opened: names in it are looked up in this very directory, even when the
/// path has come to mean another one.
#[derive(Debug)]
pub struct OpenDir {
    fd: OwnedFd,
    /// Symbolic links may lead here and nowhere else.
    bounds: Vec<PathBuf>,
    id: DirId,
}

/// Tells two directories that had the same path apart. An inode's number is given out again as soon
/// as it is free, so the time of birth belongs to it (where the file system knows it); and a file
/// system that was mounted again is the same directory, but nobody watches it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirId {
    dev: (u32, u32),
    ino: u64,
    born: (i64, u32),
    mount: u64,
}

impl DirId {
    /// Which directory this is, or a path that begins there.
    pub(crate) fn of(dir: impl AsFd, path: &Path, flags: AtFlags) -> io::Result<Self> {
        // Since Linux 6.8: an id of the mount that is never given out again.
        let unique_mount_id = StatxFlags::from_bits_retain(0x4000);
        let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::MNT_ID | unique_mount_id;
        let stat = rustix::fs::statx(dir, path, flags, wanted)?;
        Ok(Self {
            dev: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            born: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
            mount: stat.stx_mnt_id,
        })
    }
}

impl OpenDir {
    /// Opens a directory. Symbolic links may lead to it and below `root`, and nowhere else.
    ///
    /// # Errors
    /// When it is not there, is no directory, or may not be read.
    pub(crate) fn open(path: &Path, root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let id = DirId::of(&fd, Path::new(""), AtFlags::EMPTY_PATH)?;
        let bounds = vec![root.canonicalize()?, real_path(&fd)?];
        Ok(Self { fd, bounds, id })
    }

    /// Which directory this is.
    pub fn id(&self) -> DirId {
        self.id
    }

    /// The directory's descriptor.
    pub fn as_fd(&self) -> impl AsFd {
        self.fd.as_fd()
    }

    /// What a regular file of the directory is now, if there is one of this name.
    pub fn identity(&self, file_name: &str) -> Option<Identity> {
        self.stat(file_name).ok().map(|stat| Identity::of(&stat))
    }

    /// What an entry of the directory is now, whatever it is: of a link to a regular file, that file.
    pub fn entry(&self, name: &str) -> Option<Identity> {
        let own = || rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        self.identity(name).or_else(|| own().map(|stat| Identity::of(&stat)))
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// When it is not there, is no directory, may not be read, or leads out of `PARQUET_DIR`.
    pub fn open_dir(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        if !self.contains(&fd)? {
            return Err(io::Error::other("leads out of PARQUET_DIR"));
        }
        let id = DirId::of(&fd, Path::new(""), AtFlags::EMPTY_PATH)?;
        Ok(Self { fd, bounds: self.bounds.clone(), id })
    }

    /// The names in the directory, in no order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let name = entry?.file_name().to_bytes().to_owned();
            names.push(OsString::from_vec(name));
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    /// Lists the directory once. Of two marts whose names differ in case alone, the one that `is_known`
    /// is the candidate, or else the first; the other is rejected. `enter` is called with each directory that
    /// may be a mart, before it is listed.
    ///
    /// # Errors
    /// When the directory cannot be read. A single entry that cannot be is remarked on instead.
    pub fn scan(
        &self,
        is_known: impl Fn(&str) -> bool,
        mut enter: impl FnMut(&str, &Self),
    ) -> io::Result<Scan> {
        let mut names = self.names()?;
        names.sort();
        // A bind mount leads to its directory also when that was deleted, and then nothing is ever in
        // it again. That says nothing about marts.
        if names.is_empty() && rustix::fs::fstat(&self.fd)?.st_nlink == 0 {
            let reason = "it was deleted; if it is a mount, mount it again";
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }

        let mut scan = Scan::default();
        // DuckDB folds ASCII letters alone when it compares identifiers.
        let mut folded: HashMap<String, String> = HashMap::new();
        let mut claim = |stem: &str| {
            let first = folded.entry(stem.to_ascii_lowercase()).or_insert_with(|| stem.to_owned());
            if first != stem && is_known(stem) && !is_known(first) {
                stem.clone_into(first);
            }
        };
        for name in names {
            let Some(name) = name.to_str() else {
                scan.ignored.push(remark(&name.to_string_lossy(), "its name is not UTF-8"));
                continue;
            };
            match classify(name) {
                Name::Unlisted => {}
                Name::Ignored(reason) => scan.ignored.push(remark(name, reason)),
                Name::Other => self.scan_other(name, &is_known, &mut enter, &mut scan),
                Name::Mart(stem) => match self.stat(name) {
                    Ok(stat) => {
                        claim(stem);
                        let files =
                            vec![Found { path: name.to_owned(), identity: Identity::of(&stat) }];
                        let name = stem.to_owned();
                        scan.candidates.push(Candidate { name, files, directory: None });
                    }
                    Err(StatError::Gone) => {}
                    Err(StatError::Ignored(reason)) => scan.ignored.push(remark(name, reason)),
                    Err(StatError::Directory) => {
                        let reason =
                            "is a directory; the name of a mart of parts does not end in .parquet";
                        scan.ignored.push(remark(name, reason));
                    }
                    Err(StatError::Failed(error)) => {
                        scan.cannot_see(stem, name, format!("cannot be looked at: {error}"));
                        claim(stem);
                    }
                },
            }
        }
        scan.candidates.iter().for_each(|candidate| claim(&candidate.name));
        scan.reject_doubles();
        scan.candidates.retain(|candidate| {
            let first = &folded[&candidate.name.to_ascii_lowercase()];
            if *first != candidate.name {
                let reason = differs_in_case(first);
                scan.rejected.push(Remark { file: candidate.file_name(), reason });
                scan.same_names.insert(candidate.name.clone(), first.clone());
            }
            *first == candidate.name
        });
        Ok(scan)
    }

    /// Looks at an entry that is a mart if it is a directory with parts.
    fn scan_other(
        &self,
        name: &str,
        is_known: impl Fn(&str) -> bool,
        mut enter: impl FnMut(&str, &Self),
        scan: &mut Scan,
    ) {
        if !matches!(self.stat(name), Err(StatError::Directory)) {
            return scan.ignored.push(remark(name, "does not end in .parquet"));
        }
        if let Some(reason) = hidden(name) {
            return scan.ignored.push(remark(name, reason));
        }
        match self.parts(name, |dir| enter(name, dir)) {
            Ok(None) => {}
            Ok(Some(candidate)) if candidate.files.is_empty() && !is_known(name) => {
                scan.ignored.push(remark(name, "is a directory without Parquet files"));
            }
            Ok(Some(candidate)) => scan.candidates.push(candidate),
            Err(error) => {
                let reason = format!("cannot be looked at: {error}");
                scan.cannot_see(name, &file_name(name, true), reason);
            }
        }
    }

    /// Opens a regular file of the directory for reading.
    ///
    /// # Errors
    /// When it is gone, may not be read, is no regular file any more, or leads out of
    /// `PARQUET_DIR`.
    pub fn open_file(&self, file_name: &str) -> io::Result<File> {
        // O_NONBLOCK: opening a FIFO that took the name meanwhile must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, file_name, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("is no regular file"));
        }
        if !self.contains(&fd)? {
            return Err(io::Error::other("leads out of PARQUET_DIR"));
        }
        Ok(File::from(fd))
    }

    fn stat(&self, name: &str) -> Result<Stat, StatError> {
        stat_at(self.fd.as_fd(), &self.bounds, name)
    }

    fn contains(&self, fd: impl AsFd) -> io::Result<bool> {
        is_within(&self.bounds, fd)
    }
}

impl Scan {
    /// Takes out what is there both as a file and as a directory.
    fn reject_doubles(&mut self) {
        let of = |scan: &Self, is_directory: bool| -> HashSet<String> {
            let candidates = scan.candidates.iter();
            let those =
                candidates.filter(|candidate| candidate.directory.is_some() == is_directory);
            those.map(|candidate| candidate.name.clone()).collect()
        };
        let files = of(self, false);
        self.candidates
            .retain(|candidate| !(candidate.files.is_empty() && files.contains(&candidate.name)));
        for name in files.intersection(&of(self, true)) {
            self.cannot_see(name, &file_name(name, true), both_are_there(name));
            self.candidates.retain(|candidate| candidate.name != *name);
        }
    }

    fn cannot_see(&mut self, mart: &str, file: &str, reason: String) {
        self.rejected.push(remark(file, &reason));
        self.unseen.insert(mart.to_owned(), reason);
    }
}

/// What is wrong with a mart that is there both as a file and as a directory.
pub fn both_are_there(mart: &str) -> String {
    let (file, directory) = (file_name(mart, false), file_name(mart, true));
    format!("{file} and {directory} are both there: remove the one that is not written any more")
}

/// What is wrong with a mart whose name is another's but for the case of letters.
pub fn differs_in_case(other: &str) -> String {
    format!("its name differs from {other} in case alone; rename one of the two")
}

enum Name<'n> {
    Mart(&'n str),
    Ignored(&'static str),
    /// Not worth a line: the ledger, what a mirror says, and hidden files that do not look like marts.
    Unlisted,
    /// A mart if it is a directory.
    Other,
}

fn classify(name: &str) -> Name<'_> {
    let Some(stem) = name.strip_suffix(EXTENSION) else {
        let of_ledger = [FIRST_EDITION, RECORDS].contains(&name.trim_start_matches("tmp_"));
        return if of_ledger || name == MIRROR_STATUS || name.starts_with('.') {
            Name::Unlisted
        } else {
            Name::Other
        };
    };
    hidden(name).map_or(Name::Mart(stem), Name::Ignored)
}

/// Why an entry of this name is never served.
pub(crate) fn hidden(name: &str) -> Option<&'static str> {
    if name.starts_with('.') {
        Some("is hidden (its name starts with a dot)")
    } else if name.starts_with("tmp_") {
        Some("has DuckDB's name for a file that is being written (tmp_)")
    } else if name.starts_with('_') {
        Some("is private to its writer (its name starts with an underscore)")
    } else {
        None
    }
}

fn remark(file: &str, reason: &str) -> Remark {
    Remark { file: file.to_owned(), reason: reason.to_owned() }
}

mod parts;
mod stat;
#[cfg(test)]
mod tests;
