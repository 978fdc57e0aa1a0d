//! The ledger as commands read and write it: beside the marts, without a running martd.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::ledger::{self, FIRST_EDITION, Ledger, RECORDS, Record};
use crate::record_files::{LoadError, is_record, load};
use crate::scan::OpenDir;

/// The records of a mart directory.
#[derive(Debug)]
pub(super) struct Records {
    /// Where they lie.
    dir: PathBuf,
    /// All that are good, the first edition's ledger among them.
    all: Vec<Record>,
    /// Whether there is a ledger of the first edition.
    pub(super) has_first_edition: bool,
}

impl Records {
    /// Reads them. What is not good counts for nothing, as it does for martd.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn read(mart_dir: &Path, open: &OpenDir) -> io::Result<Self> {
        let names = match open.open_dir(RECORDS) {
            Ok(records) => records.names()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let names = names.iter().filter_map(|name| name.to_str()).filter(|name| is_record(name));
        let mut all = Vec::new();
        for path in names.map(|name| format!("{RECORDS}/{name}")) {
            match load(open, &path, None) {
                Ok(record) => all.push(record),
                Err(LoadError::Read(error)) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        let first = load(open, FIRST_EDITION, None).ok();
        let has_first_edition = first.is_some();
        all.extend(first);
        Ok(Self { dir: mart_dir.join(RECORDS), all, has_first_edition })
    }

    /// The record of a build.
    pub(super) fn of_build(&self, build: &str) -> Option<&Record> {
        self.all.iter().find(|record| record.build.id == build)
    }

    /// All that are good.
    pub(super) fn all(&self) -> &[Record] {
        &self.all
    }

    /// What they come to.
    pub(super) fn fold(&self) -> Option<Ledger> {
        ledger::fold(&self.all)
    }

    /// What they and one more come to.
    pub(super) fn fold_with(&self, more: &Record) -> Option<Ledger> {
        ledger::fold(self.all.iter().chain([more]))
    }

    /// The file of a build's record.
    pub(super) fn path(&self, build: &str) -> PathBuf {
        self.dir.join(format!("{build}.json"))
    }

    /// Writes a record, beside its place first: martd sees all of it or nothing.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub(super) fn write(&mut self, record: Record) -> io::Result<PathBuf> {
        let text = serde_json::to_vec(&record)?;
        fs::create_dir_all(&self.dir)?;
        let temporary = self.dir.join(format!(".{}.json", record.build.id));
        let mut file = File::create(&temporary)?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        written.inspect_err(|_| {
            let _ = fs::remove_file(&temporary); // of a full disk, every byte is welcome
        })?;
        let path = self.path(&record.build.id);
        fs::rename(&temporary, &path)?;
        // As martd reads it.
        self.all.extend(Record::parse(&text));
        Ok(path)
    }

    /// Folds all but the newest `keep` builds into one record for each project. Returns how many records
    /// there are fewer.
    ///
    /// # Errors
    /// When something cannot be written or removed. It may be tried again at any time.
    pub(super) fn compact(&mut self, keep: usize, id: &str) -> io::Result<usize> {
        let Some(compaction) = ledger::compact(&self.all, keep, id) else { return Ok(0) };
        let fewer = compaction.remove.len() - compaction.write.len();
        for record in compaction.write {
            self.write(record)?;
        }
        for id in compaction.remove {
            fs::remove_file(self.path(&id))?;
            self.all.retain(|record| record.build.id != id);
        }
        Ok(fewer)
    }
}
