//! The ledger as commands read and write it: beside the marts, without a running martd.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp, Unit};
use rustix::fs::{FlockOperation, flock};

use super::{unreadable, warn};
use crate::ledger::{self, Build, FIRST_EDITION, Ledger, RECORDS, Record};
use crate::mart_dir::MartDir;
use crate::record_files::{self, LoadError, load};
use crate::scan::OpenDir;

/// What to do when there is no mart directory.
const NAME_IT: &str = "name PARQUET_DIR with --dir";

/// A writer's clock that is further ahead than this is not followed.
const MOST_AHEAD: SignedDuration = SignedDuration::from_mins(10);
/// What a record ends after another, where clocks do not tell: the least that every JSON reader keeps.
const JUST_AFTER: SignedDuration = SignedDuration::from_micros(1);

/// The records of a mart directory.
#[derive(Debug)]
pub(super) struct Records {
    /// Where they lie.
    dir: PathBuf,
    /// All that are good, the first edition's ledger among them.
    all: Vec<Record>,
    /// Those that count for nothing, and why.
    rejected: Vec<String>,
    /// Whether there is a ledger of the first edition.
    pub(super) has_first_edition: bool,
}

impl Records {
    /// Opens a mart directory and reads its records. What is not good counts for nothing, as it does for martd, and
    /// is named on standard error.
    ///
    /// # Errors
    /// What cannot be read, and what to do.
    pub(super) fn open(mart_dir: &MartDir) -> Result<(Self, OpenDir), String> {
        let open = mart_dir.open().map_err(|error| unreadable(mart_dir, &error, NAME_IT))?;
        let dir = mart_dir.path().join(RECORDS);
        let mut records =
            Self { dir, all: Vec::new(), rejected: Vec::new(), has_first_edition: false };
        records
            .read(&open)
            .map_err(|error| format!("{} cannot be read: {error}", records.dir.display()))?;
        for rejected in &records.rejected {
            warn(&format!("{rejected}; it counts for nothing until that is mended"));
        }
        if let Some((build, ahead)) = records.of_the_future() {
            let id = &build.id;
            warn(&format!(
                "the record of build {id} ends {:#} from now; set the clocks of all writers right",
                ahead.round(Unit::Second).unwrap_or(ahead)
            ));
        }
        Ok((records, open))
    }

    /// The newest build, if it has not ended yet by this machine's clock, and how far that is ahead.
    fn of_the_future(&self) -> Option<(&Build, SignedDuration)> {
        let builds = self.all.iter().map(|record| &record.build);
        let newest = builds.max_by_key(|build| build.finished_at)?;
        let ahead = newest.finished_at.duration_since(Timestamp::now());
        ahead.is_positive().then_some((newest, ahead))
    }

    /// When a record that ended at `ended` and is written now has to end, so that it counts after those that are
    /// there: martd goes by nothing else.
    ///
    /// # Errors
    /// When another one ends so far in the future that its clock must be wrong.
    pub(super) fn end_after_all(&self, ended: Timestamp) -> Result<Timestamp, String> {
        match self.of_the_future() {
            None => Ok(ended),
            Some((newest, ahead)) if ahead <= MOST_AHEAD => {
                Ok(newest.finished_at.saturating_add(JUST_AFTER).unwrap_or(ended))
            }
            Some((Build { id, finished_at, .. }, _)) => Err(format!(
                "nothing is recorded: the record of build {id} ends at {finished_at}, so none that is written now \
                 counts after it; set the clock of its writer right, remove {RECORDS}/{id}.json, and publish that \
                 build again under another id"
            )),
        }
    }

    /// Reads all of them, anew when one has gone meanwhile: what stands for it may not have been listed.
    fn read(&mut self, open: &OpenDir) -> io::Result<()> {
        while !self.read_once(open)? {}
        Ok(())
    }

    /// Returns whether all that were listed were there still.
    fn read_once(&mut self, open: &OpenDir) -> io::Result<bool> {
        let listed = match open.open_dir(RECORDS) {
            Ok(records) => record_files::list(&records)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        (self.all, self.rejected) = (Vec::new(), Vec::new());
        for (path, _) in listed {
            match load(open, &path, None) {
                Ok(record) => self.all.push(record),
                Err(LoadError::Gone) => return Ok(false),
                Err(error) => self.rejected.push(format!("{path} {error}")),
            }
        }
        let first = match load(open, FIRST_EDITION, None) {
            Ok(record) => Some(record),
            Err(LoadError::Gone) => None,
            Err(error) => {
                self.rejected.push(format!("{FIRST_EDITION} {error}"));
                None
            }
        };
        self.has_first_edition = first.is_some();
        self.all.extend(first);
        Ok(true)
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
    /// When it cannot be written; then nothing has changed. One that is there already is never replaced:
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists).
    pub(super) fn write(&mut self, record: &Record) -> io::Result<PathBuf> {
        let text = serde_json::to_vec(record)?;
        fs::create_dir_all(&self.dir)?;
        // As readable as any new file, under a name that nobody else writes and nobody reads.
        let mut file = tempfile::Builder::new()
            .prefix(".")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.dir)?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        let path = self.path(&record.build.id);
        match file.persist_noclobber(&path) {
            Ok(_) => {}
            // Bucket mounts know no such rename, and no hard links.
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
                error.file.persist(&path)?;
            }
            Err(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        // As martd reads it.
        self.all.extend(Record::parse(&text));
        Ok(path)
    }

    /// The record of a build that another command has just written.
    ///
    /// # Errors
    /// Why it does not count.
    pub(super) fn load(&mut self, open: &OpenDir, build: &str) -> Result<&Record, LoadError> {
        let record = load(open, &format!("{RECORDS}/{build}.json"), None)?;
        self.all.retain(|known| known.build.id != build);
        self.all.push(record);
        Ok(self.all.last().expect("it was pushed"))
    }

    /// Folds all but the newest `keep` builds into one record for each project, after others that do so now.
    /// Returns how many records there are fewer.
    ///
    /// # Errors
    /// When something cannot be written or removed. It may be tried again at any time.
    pub(super) fn compact(&mut self, open: &OpenDir, keep: usize, id: &str) -> io::Result<usize> {
        let records = match open.open_dir(RECORDS) {
            Ok(records) => records,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let _ = flock(records.as_fd(), FlockOperation::LockExclusive); // not every file system has locks
        self.read(open)?;
        let Some(compaction) = ledger::compact(&self.all, keep, id) else { return Ok(0) };
        let fewer = compaction.remove.len() - compaction.write.len();
        for record in &compaction.write {
            self.write(record)?;
        }
        for id in compaction.remove {
            match fs::remove_file(self.path(&id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.all.retain(|record| record.build.id != id),
            }
        }
        Ok(fewer)
    }
}
