//! An object that was downloaded, before its file is in its place.

use std::io::{Read, Seek};

use tempfile::NamedTempFile;

use super::object::{Object, ObjectKind, kind, record_of};
use crate::digest::Digest;
use crate::ledger::{MAX_BYTES, Record};

/// A downloaded object whose file is not in its place yet.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) object: Object,
    pub(super) file: NamedTempFile,
    pub(super) digest: Digest,
}

/// The record in a downloaded file, if it is one that counts.
pub(super) fn record_in(download: &mut Download) -> Option<Record> {
    let id = record_of(&download.object.path)?.to_owned();
    let record = Record::parse(&text_of(download)).ok()?;
    (record.build.id == id).then_some(record)
}

/// The text of a downloaded file of the ledger; nothing of others, nor of what cannot be read, which is no
/// record then.
pub(super) fn text_of(download: &mut Download) -> Vec<u8> {
    let mut text = Vec::new();
    if kind(&download.object.path) == Some(ObjectKind::Record) {
        let file = download.file.as_file_mut();
        let _ = file.rewind().and_then(|()| file.take(MAX_BYTES).read_to_end(&mut text));
    }
    text
}
