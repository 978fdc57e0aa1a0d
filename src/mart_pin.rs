//! What holds a version of a mart: the pins of its files, together.
//!
//! A mart is one file, or a directory of parts. Of parts, the paths count as much as the bytes: a hive
//! column is nothing but a name on the way to a part.

use std::sync::Arc;

use jiff::Timestamp;

use crate::digest::{Digest, Hasher};
use crate::pin::{Pin, PinKind};

/// A pinned file of a mart.
#[derive(Debug, Clone)]
pub struct PinnedFile {
    /// Its path in the mart directory.
    pub path: String,
    /// Its bytes.
    pub pin: Arc<Pin>,
}

impl PinnedFile {
    /// Its path in the directory of its mart; `None` for a mart that is one file.
    fn part(&self) -> Option<&str> {
        self.path.split_once('/').map(|(_, part)| part)
    }
}

/// The pinned files of a version of a mart. Shared by all snapshots that serve it.
#[derive(Debug)]
pub struct MartPin {
    files: Vec<PinnedFile>,
    hash: Digest,
}

impl MartPin {
    /// Of at least one file, in whatever order.
    pub fn new(mut files: Vec<PinnedFile>) -> Self {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let hash = match &*files {
            [file] if file.part().is_none() => file.pin.hash(),
            parts => {
                let mut hasher = Hasher::default();
                for file in parts {
                    hasher.update_text(file.part().unwrap_or(&file.path));
                    hasher.update(file.pin.hash().as_bytes());
                }
                hasher.finish()
            }
        };
        Self { files, hash }
    }

    /// The files, in the order of their paths.
    pub fn files(&self) -> &[PinnedFile] {
        &self.files
    }

    /// The one file that it is, unless it is a directory of parts.
    pub fn file(&self) -> Option<&Arc<Pin>> {
        match &*self.files {
            [file] if file.part().is_none() => Some(&file.pin),
            _ => None,
        }
    }

    /// The paths of the parts in their directory, in the order of the files; nothing of one file.
    pub fn parts(&self) -> Vec<String> {
        self.files.iter().filter_map(PinnedFile::part).map(str::to_owned).collect()
    }

    /// Names the content: of one file the hash of its bytes, of parts that of their paths and hashes.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The size of all files in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.pin.size()).sum()
    }

    /// When the last of the files was written.
    pub fn modified(&self) -> Timestamp {
        let times = self.files.iter().map(|file| file.pin.identity().modified());
        times.max().unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// How the bytes are held: in memory when those of all files are.
    pub fn kind(&self) -> PinKind {
        let is_copied = self.files.iter().all(|file| file.pin.kind() == PinKind::Memory);
        if is_copied { PinKind::Memory } else { PinKind::Descriptor }
    }

    /// Whether all bytes are still those that were pinned.
    pub fn is_intact(&self) -> bool {
        self.files.iter().all(|file| file.pin.is_intact())
    }
}
