//! The ledger as commands read and write it: beside the marts, without a running martd.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::ledger::{self, FIRST_EDITION, Ledger, RECORDS, Record};

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
    pub(super) fn read(mart_dir: &Path) -> io::Result<Self> {
        let dir = mart_dir.join(RECORDS);
        let names = match fs::read_dir(&dir) {
            Ok(entries) => {
                entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for path in names.iter().filter(|path| path.extension().is_some_and(|end| end == "json")) {
            let record = Record::parse(&fs::read(path)?).ok();
            let is_named =
                |record: &Record| path.file_stem().is_some_and(|n| n == &*record.build.id);
            all.extend(record.filter(is_named));
        }
        let first = fs::read(mart_dir.join(FIRST_EDITION)).ok();
        let first = first.and_then(|text| ledger::of_first_edition(&text, Vec::new()).ok());
        let has_first_edition = first.is_some();
        all.extend(first);
        Ok(Self { dir, all, has_first_edition })
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
