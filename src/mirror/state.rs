//! What a mirror knows of its directory, as it is kept over a restart.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::object::kind;
use super::plan::Mirrored;

const STATE_VERSION: u32 = 1;

/// What tells whether a file is as it was left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    ino: u64,
    pub(super) size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000) + nanos;
        Self {
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is known of the directory, as it is kept over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MirrorState {
    version: u32,
    pub(super) source: String,
    pub(super) objects: Mirrored,
    /// Each file when it was last looked at.
    pub(super) stamps: BTreeMap<String, Stamp>,
}

impl MirrorState {
    /// Nothing is known yet.
    pub(super) fn new(source: &str) -> Self {
        let (objects, stamps) = (Mirrored::new(), BTreeMap::new());
        Self { version: STATE_VERSION, source: source.to_owned(), objects, stamps }
    }
    /// What is kept in a file; nothing where there is none, or what this martd cannot go by, which it warns of.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn load(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let reason = match serde_json::from_slice::<Self>(&text) {
            Err(error) => error.to_string(),
            Ok(state) if state.version != STATE_VERSION => {
                format!("it is of version {}, and this martd knows {STATE_VERSION}", state.version)
            }
            Ok(state) if state.objects.keys().any(|path| kind(path).is_none()) => {
                "it names what no object is".to_owned()
            }
            Ok(state) => return Ok(Some(state)),
        };
        warn!(
            file = %path.display(), reason,
            "what the mirror knew is lost, and it begins anew: copies of objects are taken for its own, other \
             files are left alone"
        );
        Ok(None)
    }
}
