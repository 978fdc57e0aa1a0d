//! Where the marts are: `PARQUET_DIR/mart`, or the directory that somebody named.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, CWD};

use crate::ledger::{FIRST_EDITION, RECORDS};
use crate::scan::{DirId, EXTENSION, OpenDir};

/// Of `PARQUET_DIR`.
const SUBDIRECTORY: &str = "mart";

/// Where marts come from: `PARQUET_DIR` and the directory `mart` in it. A clone is the same one.
#[derive(Debug, Clone)]
pub struct MartDir {
    root: PathBuf,
    /// Decided once: a `mart` that is unmounted while it is served is missed, and not replaced by `root`.
    path: Arc<OnceLock<PathBuf>>,
}

impl MartDir {
    /// The directory `mart` under `root` (`PARQUET_DIR`).
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { path: Arc::new(OnceLock::from(root.join(SUBDIRECTORY))), root }
    }

    /// The directory `mart` under `root`, or `root` itself where there is none. In an empty one that
    /// depends on what comes first, a directory `mart` or a Parquet file.
    pub fn either(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        if root.is_dir() { Self { path: Arc::default(), root } } else { Self::new(root) }
    }

    /// The path of the mart directory.
    pub fn path(&self) -> &Path {
        if self.path.get().is_none() {
            let mart = self.root.join(SUBDIRECTORY);
            let path = Some(mart).filter(|mart| mart.is_dir());
            if let Some(path) = path.or_else(|| holds_marts(&self.root).then(|| self.root.clone()))
            {
                let _ = self.path.set(path); // another thread found the same
            }
        }
        self.path.get().unwrap_or(&self.root)
    }

    /// What to do when the mart directory is not there because `PARQUET_DIR` names it, and not the
    /// directory above.
    pub fn advice(&self) -> Option<String> {
        if self.path().exists() {
            return None;
        }
        let root = self.root.display();
        if self.root.ends_with(SUBDIRECTORY) && self.root.is_dir() {
            let above = self.root.parent().filter(|above| !above.as_os_str().is_empty());
            let above = above.unwrap_or(Path::new(".")).display();
            return Some(format!(
                "PARQUET_DIR is the directory above `mart`: set it to {above}, or run `martd serve {root}`"
            ));
        }
        holds_marts(&self.root)
            .then(|| format!("Parquet files are in {root} itself: run `martd serve {root}`"))
    }

    /// Says that the directory cannot be read, and what to do where that is known.
    pub fn unreadable(&self, error: &io::Error) -> String {
        let advice = self.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{} cannot be read: {error}{advice}", self.path().display())
    }

    /// Opens the directory.
    ///
    /// # Errors
    /// When it is not there, is no directory, or may not be read.
    pub fn open(&self) -> io::Result<OpenDir> {
        OpenDir::open(self.path(), &self.root)
    }

    /// Which directory the path means now.
    ///
    /// # Errors
    /// When it means none.
    pub fn id(&self) -> io::Result<DirId> {
        DirId::of(CWD, self.path(), AtFlags::empty())
    }
}

/// Whether a writer of marts was here: there is a Parquet file or a ledger.
fn holds_marts(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            name == RECORDS
                || name == FIRST_EDITION
                || name.as_bytes().ends_with(EXTENSION.as_bytes())
        })
    })
}
