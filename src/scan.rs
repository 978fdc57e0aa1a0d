//! The mart directory as it is now: which files could be marts, and what tells two versions of one
//! apart.
//!
//! A scan is the truth and events are only hints, so a scan is cheap: one `statx` a file, nothing
//! opened but symbolic links. What is never a mart is sorted out here by name and type; whether a
//! candidate's bytes are whole is [`crate::marts::build`]'s question.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;
use serde::Serialize;

use crate::ledger::{FIRST_EDITION, RECORDS};

/// Of the files that may be marts.
pub(crate) const EXTENSION: &str = ".parquet";
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

/// A file that may be a mart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file's stem: the mart's name.
    pub name: String,
    /// What the file was when the scan saw it.
    pub identity: Identity,
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
    /// The files that may be marts.
    pub candidates: Vec<Candidate>,
    /// Names and types that are never served.
    pub ignored: Vec<Remark>,
    /// Files whose names keep them from being served, and those that cannot be looked at.
    pub rejected: Vec<Remark>,
    /// The stems of files that are there but cannot be looked at: nothing is known of them.
    pub unseen: Vec<String>,
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

    /// Lists the directory once. Of two files whose names differ in case alone, the one that `is_known`
    /// is the candidate, or else the first; the other is rejected.
    ///
    /// # Errors
    /// When the directory cannot be read. A single entry that cannot be is remarked on instead.
    pub fn scan(&self, is_known: impl Fn(&str) -> bool) -> io::Result<Scan> {
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
            let stem = match classify(name) {
                Name::Mart(stem) => stem,
                Name::Ignored(reason) => {
                    scan.ignored.push(remark(name, reason));
                    continue;
                }
                Name::Unlisted => continue,
            };
            let stat = match self.stat(name) {
                Ok(stat) => stat,
                Err(StatError::Gone) => continue,
                Err(StatError::Ignored(reason)) => {
                    scan.ignored.push(remark(name, reason));
                    continue;
                }
                Err(StatError::Failed(error)) => {
                    scan.rejected.push(remark(name, &format!("cannot be looked at: {error}")));
                    scan.unseen.push(stem.to_owned());
                    claim(stem);
                    continue;
                }
            };
            claim(stem);
            scan.candidates
                .push(Candidate { name: stem.to_owned(), identity: Identity::of(&stat) });
        }
        scan.candidates.retain(|Candidate { name, .. }| {
            let first = &folded[&name.to_ascii_lowercase()];
            if first != name {
                let reason = format!(
                    "its name differs from {first}{EXTENSION} in case alone; rename one of the two"
                );
                scan.rejected.push(Remark { file: format!("{name}{EXTENSION}"), reason });
            }
            first == name
        });
        Ok(scan)
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
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(stat),
            FileType::Symlink => self.stat_link(name),
            other => Err(StatError::Ignored(type_reason(other))),
        }
    }

    fn stat_link(&self, name: &str) -> Result<Stat, StatError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(StatError::Ignored("is a link to nothing")),
            Err(error) => return Err(error.into()),
        };
        if !self.contains(&fd).map_err(StatError::Failed)? {
            return Err(StatError::Ignored("is a link that leads out of PARQUET_DIR"));
        }
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(stat),
            other => Err(StatError::Ignored(type_reason(other))),
        }
    }

    /// Whether an open file lies in `PARQUET_DIR` (or in the real mart directory, where `mart` is
    /// itself a link). Asked of the descriptor, so no rename between check and use matters.
    fn contains(&self, fd: impl AsFd) -> io::Result<bool> {
        let path = real_path(fd)?;
        Ok(self.bounds.iter().any(|bound| path.starts_with(bound)))
    }
}

fn real_path(fd: impl AsFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

enum StatError {
    Gone,
    Ignored(&'static str),
    Failed(io::Error),
}

impl From<Errno> for StatError {
    fn from(error: Errno) -> Self {
        if error == Errno::NOENT { Self::Gone } else { Self::Failed(error.into()) }
    }
}

enum Name<'n> {
    Mart(&'n str),
    Ignored(&'static str),
    /// Not worth a line: the ledger, and hidden files that do not look like marts.
    Unlisted,
}

fn classify(name: &str) -> Name<'_> {
    let Some(stem) = name.strip_suffix(EXTENSION) else {
        let of_ledger = [FIRST_EDITION, RECORDS].contains(&name.trim_start_matches("tmp_"));
        return if of_ledger || name.starts_with('.') {
            Name::Unlisted
        } else {
            Name::Ignored("does not end in .parquet")
        };
    };
    if name.starts_with('.') {
        Name::Ignored("is hidden (its name starts with a dot)")
    } else if stem.starts_with("tmp_") {
        Name::Ignored("has DuckDB's name for a file that is being written (tmp_)")
    } else if stem.starts_with('_') {
        Name::Ignored("is private to its writer (its name starts with an underscore)")
    } else {
        Name::Mart(stem)
    }
}

fn type_reason(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Directory => "is a directory",
        FileType::Fifo => "is a FIFO",
        FileType::Socket => "is a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "is a device",
        _ => "is no regular file",
    }
}

fn remark(file: &str, reason: &str) -> Remark {
    Remark { file: file.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
