//! What keeps the mirror from its directory.

use std::io;
use std::path::{Path, PathBuf};

use crate::mirror::OWN_DIRECTORY;

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
    /// A file is to be written where a directory is.
    #[error("{0} is a directory where the mirror needs a file; remove it")]
    Directory(String),
    /// A directory is to be made or written into where something else is.
    #[error("{0} is a link or a file where the mirror needs a directory; remove it")]
    Blocked(String),
    /// The directory above it is gone.
    #[error("{dir} is not there; mirroring goes on when it is back", dir = .0.display())]
    Gone(PathBuf),
}

/// Names the path of what failed.
pub(super) fn at<T>(path: &Path, outcome: io::Result<T>) -> Result<T, FolderError> {
    outcome.map_err(|error| FolderError::File { path: path.to_owned(), error })
}
