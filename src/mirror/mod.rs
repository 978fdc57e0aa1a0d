//! `martd mirror` keeps the mart directory equal to a prefix of an object store, which `martd publish --to` fills.
//!
//! It is a process of its own beside `serve`, which has no network and may not write. What the two share is
//! the mart directory, and in it the [`MirrorStatus`], which `serve` shows.
//!
//! - [`object`] says which objects are marts, parts and records; [`plan`] compares what is listed with what is there, and
//!   decides what is written and removed, in which order, and what is not;
//! - `bucket` talks to the store, `keys` leaves out what no file can be called, `folder` writes in the mart
//!   directory, `run` goes round;
//! - `upload` is for `publish`, and `remote` says what the bucket has of the ledger.
//!
//! Invariants: a file appears under its name whole, or not at all. A record appears when the files that it
//! names have been there. What another program wrote is neither replaced nor removed. None but `bucket`,
//! `credentials` and `keys` name `object_store`.

mod settings;
mod status;

pub mod object;
pub mod plan;

#[cfg(feature = "object-store")]
mod beneath;
#[cfg(feature = "object-store")]
mod bucket;
#[cfg(feature = "object-store")]
mod credentials;
#[cfg(feature = "object-store")]
mod download;
#[cfg(feature = "object-store")]
mod folder;
#[cfg(feature = "object-store")]
mod keys;
#[cfg(feature = "object-store")]
mod remote;
#[cfg(feature = "object-store")]
mod rights;
#[cfg(feature = "object-store")]
mod run;
#[cfg(feature = "object-store")]
mod setbacks;
#[cfg(feature = "object-store")]
mod state;
#[cfg(feature = "object-store")]
mod upload;

pub use settings::{Addressing, StoreArgs};
pub(crate) use status::STATUS_FILE;
pub use status::{Behind, MirrorFailure, MirrorStatus};

#[cfg(feature = "object-store")]
pub use bucket::{Bucket, BucketError, Received};
#[cfg(feature = "object-store")]
pub use folder::FolderError;
#[cfg(feature = "object-store")]
pub use remote::RemoteLedger;
#[cfg(feature = "object-store")]
pub use run::{Mirror, MirrorSettings, Round};
#[cfg(feature = "object-store")]
pub use upload::{BucketUpload, UploadError};

/// The mirror's own directory in the mart directory: its lock, what it knows, and what it is writing.
pub const OWN_DIRECTORY: &str = ".mirror";

/// What `publish --to` has sent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Files.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Records.
    pub records: usize,
    /// What is wrong in the bucket, and what was done about it.
    pub warnings: Vec<String>,
}
