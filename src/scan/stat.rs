//! One entry of a directory: what it is, and whether it lies where marts may lie.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// What a regular file is, also one behind a link that leads nowhere else than below `bounds`.
pub(super) fn stat_at(
    dir: BorrowedFd<'_>,
    bounds: &[PathBuf],
    name: &str,
) -> Result<Stat, StatError> {
    let mut stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        stat = stat_link(dir, bounds, name)?;
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat),
        FileType::Directory => Err(StatError::Directory),
        FileType::Fifo => Err(StatError::Ignored("is a FIFO")),
        FileType::Socket => Err(StatError::Ignored("is a socket")),
        FileType::CharacterDevice | FileType::BlockDevice => Err(StatError::Ignored("is a device")),
        _ => Err(StatError::Ignored("is no regular file")),
    }
}

/// What a link leads to.
fn stat_link(dir: BorrowedFd<'_>, bounds: &[PathBuf], name: &str) -> Result<Stat, StatError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Err(StatError::Ignored("is a link to nothing")),
        Err(error) => return Err(error.into()),
    };
    if !is_within(bounds, &fd).map_err(StatError::Failed)? {
        return Err(StatError::Ignored("is a link that leads out of PARQUET_DIR"));
    }
    Ok(rustix::fs::fstat(&fd)?)
}

/// Whether an open file lies in `PARQUET_DIR` (or in the real mart directory, where `mart` is
/// itself a link). Asked of the descriptor, so no rename between check and use matters.
pub(super) fn is_within(bounds: &[PathBuf], fd: impl AsFd) -> io::Result<bool> {
    let path = real_path(fd)?;
    Ok(bounds.iter().any(|bound| path.starts_with(bound)))
}

pub(super) fn real_path(fd: impl AsFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

pub(super) enum StatError {
    Gone,
    Directory,
    Ignored(&'static str),
    Failed(io::Error),
}

impl From<Errno> for StatError {
    fn from(error: Errno) -> Self {
        if error == Errno::NOENT { Self::Gone } else { Self::Failed(error.into()) }
    }
}
