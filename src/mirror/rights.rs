//! The rights that a mirror keeps. They are bound to directories, not to their names: where `PARQUET_DIR` is another
//! directory than before, nothing in it may be written, until a thread that has not given up its rights takes over.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use landlock::RulesetStatus;
use tracing::warn;

use crate::sandbox;

/// What the thread of a mirror may write in.
#[derive(Debug)]
pub(super) struct MirrorRights {
    above: PathBuf,
    /// The directory's device and inode when rights were given up; `None` when it was not there.
    kept: Option<(u64, u64)>,
}

impl MirrorRights {
    /// Takes the right to write anywhere but below `above`, and where the mart directory `dir` is a link, below that,
    /// from this thread and all that it starts.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn give_up_others(above: &Path, dir: &Path) -> Result<Self, String> {
        let rights = Self { above: above.to_owned(), kept: identity(above) };
        match sandbox::confine_mirror([above, dir]) {
            Ok(RulesetStatus::NotEnforced) => {
                warn!("this kernel has no Landlock: the right to write elsewhere is not given up");
            }
            Ok(_) => {}
            Err(error) => return Err(format!("rights cannot be given up: {error}")),
        }
        Ok(rights)
    }

    /// Whether they are still of use.
    pub(super) fn suffice(&self) -> bool {
        let found = identity(&self.above);
        found.is_none() || found == self.kept
    }
}

fn identity(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
