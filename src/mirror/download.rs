//! An object that was downloaded, before its file is in its place.

use std::fs::File;
use std::io::Read;

use tempfile::TempPath;

use super::bucket::Received;
use super::object::{Object, ObjectKind, kind, record_of};
use crate::ledger::{MAX_BYTES, Record};

/// A downloaded object whose file is not in its place yet.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) object: Object,
    /// Closed, for all files of a build wait here for each other.
    pub(super) file: TempPath,
    pub(super) received: Received,
}

/// The record in a downloaded file, if it is one that counts.
pub(super) fn record_in(download: &Download) -> Option<Record> {
    let id = record_of(&download.object.path)?.to_owned();
    let record = Record::parse(&text_of(download)).ok()?;
    (record.build.id == id).then_some(record)
}

/// The text of a downloaded file of the ledger; nothing of others, nor of what cannot be read, which is no
/// record then.
pub(super) fn text_of(download: &Download) -> Vec<u8> {
    let mut text = Vec::new();
    if kind(&download.object.path) == Some(ObjectKind::Record) {
        let file = File::open(&download.file);
        let _ = file.and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    }
    text
}
