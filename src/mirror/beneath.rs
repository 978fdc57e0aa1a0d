//! Directories below the mart directory, reached without following a link: what another program has put there
//! may lead anywhere.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Where the path of a file leads.
#[derive(Debug)]
pub(super) enum FileParent {
    /// Into this directory.
    Dir(OwnedFd),
    /// Into none that is there.
    Absent,
    /// Past this path, which is a link or a file.
    Blocked(String),
}

/// The directory of the file at `path` below `root`, to which links may lead. With `make`, directories between
/// the two are made.
///
/// # Errors
/// When one of them cannot be opened, or made.
pub(super) fn parent(root: &Path, path: &str, make: bool) -> io::Result<FileParent> {
    const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    let mut dir = match rustix::fs::openat(CWD, root, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(FileParent::Absent),
        opened => opened?,
    };
    for (end, _) in path.match_indices('/') {
        let name = name(&path[..end]);
        if make && let Err(error) = rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o777)) {
            match error {
                Errno::EXIST => {}
                _ => return Err(error.into()),
            }
        }
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        dir = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
            Ok(inner) => inner,
            Err(Errno::NOENT) => return Ok(FileParent::Absent),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Ok(FileParent::Blocked(path[..end].to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(FileParent::Dir(dir))
}

/// The last name of a path.
pub(super) fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Removes the directories of a file below `root` that are empty now.
pub(super) fn prune(root: &Path, path: &str) {
    for (end, _) in path.rmatch_indices('/') {
        let Ok(FileParent::Dir(above)) = parent(root, &path[..end], false) else { return };
        if rustix::fs::unlinkat(&above, name(&path[..end]), AtFlags::REMOVEDIR).is_err() {
            return;
        }
    }
}
