//! Files of the ledger: which of them are records, and what is in one. martd follows them while it runs,
//! and its commands read them once.

use std::io::{self, Read};

use crate::ledger::{self, FIRST_EDITION, RECORDS, Record, RecordError};
use crate::scan::{Identity, OpenDir};

/// What is in the directory of records under names of records, by its path in the mart directory. Writers use names
/// that begin with a dot or `tmp_` until they are done.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn list(records: &OpenDir) -> io::Result<Vec<(String, Identity)>> {
    let names = records.names()?;
    let is_record = |name: &&str| {
        name.ends_with(".json") && !name.starts_with('.') && !name.starts_with("tmp_")
    };
    let names = names.iter().filter_map(|name| name.to_str()).filter(is_record);
    let found = |name| Some((format!("{RECORDS}/{name}"), records.entry(name)?));
    Ok(names.filter_map(found).collect())
}

/// Why a file of the ledger is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// It was there a moment ago, if at all.
    #[error("is gone")]
    Gone,
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("is larger than {} MiB", ledger::MAX_BYTES >> 20)]
    TooLarge,
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("is the record of build {0}, and must be named {0}.json")]
    Misnamed(String),
}

/// Reads a file of the ledger, by its path in the mart directory. `last` is what the first edition's said before:
/// it names no earlier builds itself.
///
/// # Errors
/// Why what it says does not count.
pub(crate) fn load(dir: &OpenDir, path: &str, last: Option<&Record>) -> Result<Record, LoadError> {
    let is_gone =
        |error: &io::Error| error.kind() == io::ErrorKind::NotFound && dir.entry(path).is_none();
    let file = dir.open_file(path).map_err(|error| match is_gone(&error) {
        true => LoadError::Gone,
        false => LoadError::Read(error),
    })?;
    let mut text = Vec::new();
    file.take(ledger::MAX_BYTES + 1).read_to_end(&mut text)?;
    parse(path, &text, last)
}

/// What a file of the ledger says, as [`load`] reads it.
///
/// # Errors
/// Why it does not count.
pub(crate) fn parse(path: &str, text: &[u8], last: Option<&Record>) -> Result<Record, LoadError> {
    if text.len() as u64 > ledger::MAX_BYTES {
        return Err(LoadError::TooLarge);
    }
    if path == FIRST_EDITION {
        let before = last.map(|last| last.replaces.iter().chain([&last.build.id]).cloned());
        let before: Vec<String> = before.into_iter().flatten().collect();
        let first = before.len().saturating_sub(ledger::REMEMBERED);
        let mut record =
            ledger::of_first_edition(text, before[first..].to_vec()).map_err(RecordError::Parse)?;
        record.replaces.retain(|id| *id != record.build.id);
        return Ok(record);
    }
    let record = Record::parse(text)?;
    if path != format!("{RECORDS}/{}.json", record.build.id) {
        return Err(LoadError::Misnamed(record.build.id));
    }
    Ok(record)
}
