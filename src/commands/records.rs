//! The ledger as commands read and write it: beside the marts, without a running martd.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp, Unit};
use rustix::fs::{FlockOperation, flock};

use super::{unreadable, warn};
use crate::ledger::{self, FIRST_EDITION, Ledger, MOST_AHEAD, RECORDS, Record};
use crate::mart_dir::MartDir;
use crate::record_files::{self, LoadError, load};
use crate::scan::OpenDir;

/// What to do when there is no mart directory.
const NAME_IT: &str = "name PARQUET_DIR with --dir";

/// What a record ends after another, where clocks do not tell: the least that every JSON reader keeps.
const JUST_AFTER: SignedDuration = SignedDuration::from_micros(1);

/// The records of a mart directory.
#[derive(Debug)]
pub(super) struct Records {
    /// Where they lie.
    dir: PathBuf,
    /// All that are good, the first edition's ledger among them.
    all: Vec<Record>,
    /// What an object store has beside them, and its URL.
    elsewhere: (Vec<Record>, String),
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
        let mut records = Self {
            dir,
            all: Vec::new(),
            elsewhere: Default::default(),
            rejected: Vec::new(),
            has_first_edition: false,
        };
        records
            .read(&open)
            .map_err(|error| format!("{} cannot be read: {error}", records.dir.display()))?;
        for rejected in &records.rejected {
            warn(&format!("{rejected}; it counts for nothing until that is mended"));
        }
        warn_of_the_future(&records.all);
        Ok((records, open))
    }

    /// Takes note of what an object store has beside them: what is written from here on comes after that, too.
    pub(super) fn know_of(&mut self, records: Vec<Record>, url: &str) {
        warn_of_the_future(&records);
        self.elsewhere = (records, url.to_owned());
    }

    /// The record of a build that is in the object store alone.
    pub(super) fn of_build_elsewhere(&self, build: &str) -> Option<&Record> {
        self.elsewhere.0.iter().find(|record| record.build.id == build)
    }

    /// When a record that ended at `ended` and is written now has to end, so that it counts after those that are
    /// there: martd goes by nothing else.
    ///
    /// # Errors
    /// When another one ends so far in the future that its clock must be wrong.
    pub(super) fn end_after_all(&self, ended: Timestamp) -> Result<Timestamp, String> {
        let (elsewhere, url) = &self.elsewhere;
        let here = self.dir.parent().unwrap_or(&self.dir).display().to_string();
        let now = Timestamp::now();
        let mut end = ended;
        for (records, place) in [(&self.all, &here), (elsewhere, url)] {
            match ledger::newest_ahead(records, now) {
                None => {}
                Some((newest, ahead)) if ahead <= MOST_AHEAD => {
                    let after = newest.finished_at.saturating_add(JUST_AFTER);
                    end = end.max(after.unwrap_or(ended));
                }
                Some((newest, _)) => {
                    let reason = ledger::too_far_ahead(newest, place);
                    return Err(format!("nothing is recorded: {reason}"));
                }
            }
        }
        Ok(end)
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

/// Names a record that has not ended by this machine's clock.
fn warn_of_the_future(records: &[Record]) {
    if let Some((build, ahead)) = ledger::newest_ahead(records, Timestamp::now()) {
        let id = &build.id;
        warn(&format!(
            "the record of build {id} ends {:#} from now; set the clocks of all writers right",
            ahead.round(Unit::Second).unwrap_or(ahead)
        ));
    }
}
