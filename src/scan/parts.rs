//! A directory that may be a mart: its Parquet files at any depth, and whether its writer says that they are
//! all.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::Dir;

use super::*;

/// The empty file that writers put into a directory when it is complete.
pub(crate) const SUCCESS: &str = "_SUCCESS";
/// The most parts of a mart.
pub const MOST_PARTS: usize = 1_000;
/// More is not looked at, nor deeper: links can lead in circles.
const MOST_ENTRIES: usize = 20_000;
const DEEPEST: usize = 32;
/// A file system stamps a directory when an entry comes or goes. Some writers put another beside `_SUCCESS`
/// within this time; what goes then may be the beginning of a rewrite, so it has to be quiet as long.
const SUCCESS_SLACK: Duration = Duration::from_secs(1);

/// What tells of a directory whether it is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Whether it has a `_SUCCESS` that is as new as all parts, and nothing came or went since.
    pub is_complete: bool,
    /// Why it cannot be a mart.
    pub problem: Option<String>,
}

#[derive(Default)]
struct Walk<'d> {
    bounds: &'d [PathBuf],
    files: Vec<Found>,
    entries: usize,
    success: Option<i128>,
    newest_part: i128,
    newest_directory: i128,
    problem: Option<String>,
}

impl OpenDir {
    /// The parts in a directory of this one, in the order of their paths; `None` when it is gone. `enter` is
    /// called with the directory before anything in it is looked at.
    ///
    /// # Errors
    /// When something in it cannot be looked at.
    pub fn parts(&self, name: &str, enter: impl FnOnce(&Self)) -> io::Result<Option<Candidate>> {
        let dir = match self.open_dir(name) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        enter(&dir);
        let mut walk = Walk { bounds: &self.bounds, ..Walk::default() };
        walk.directory(dir.fd, name, 0)?;
        let Walk { mut files, success, newest_part, newest_directory, problem, .. } = walk;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let after = |time: i128, slack: Duration| time + slack.as_nanos() as i128;
        let is_complete = success.is_some_and(|success| {
            let is_quiet =
                Timestamp::now().as_nanosecond() > after(newest_directory, SUCCESS_SLACK);
            let slack = if is_quiet { SUCCESS_SLACK } else { CLOCK_TICK };
            !files.is_empty() && newest_part <= success && newest_directory <= after(success, slack)
        });
        let directory = Some(Directory { is_complete, problem });
        Ok(Some(Candidate { name: name.to_owned(), files, directory }))
    }
}

impl Walk<'_> {
    fn directory(&mut self, fd: OwnedFd, path: &str, depth: usize) -> io::Result<()> {
        let changed = Identity::of_open(&fd)?.mtime_ns;
        self.newest_directory = self.newest_directory.max(changed);
        let mut dir = Dir::new(fd)?;
        let mut names = Vec::new();
        while let Some(entry) = dir.read() {
            names.push(entry?.file_name().to_bytes().to_owned());
        }
        let fd = dir.fd()?;
        for name in names {
            self.entries += 1;
            if self.entries > MOST_ENTRIES || depth > DEEPEST {
                let limits = format!("{MOST_ENTRIES} files, or folders {DEEPEST} deep");
                self.problem = Some(format!("has more than {limits}"));
                return Ok(());
            }
            match std::str::from_utf8(&name) {
                Ok(name) => self.entry(fd, path, name, depth)?,
                Err(_) if name.ends_with(EXTENSION.as_bytes()) => {
                    let shown = String::from_utf8_lossy(&name);
                    self.problem = Some(format!("has {shown} in it, whose name is not UTF-8"));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &str,
        name: &str,
        depth: usize,
    ) -> io::Result<()> {
        let is_success = depth == 0 && name == SUCCESS;
        let stat = match stat_at(fd, self.bounds, name) {
            Ok(stat) => stat,
            Err(StatError::Directory) => {
                // As other readers do: a key may be called `_year`.
                if name == "." || name == ".." || hidden(name).is_some() && !name.contains('=') {
                    return Ok(());
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let open = |flags| rustix::fs::openat(fd, name, flags, Mode::empty());
                let inner = match open(flags | OFlags::NOFOLLOW) {
                    // Only a link can lead elsewhere.
                    Err(Errno::NOTDIR | Errno::LOOP) => open(flags).map(|inner| (inner, true)),
                    opened => opened.map(|inner| (inner, false)),
                };
                let (inner, is_link) = match inner {
                    Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
                    opened => opened?,
                };
                if is_link && !is_within(self.bounds, &inner)? {
                    return Ok(());
                }
                return self.directory(inner, &format!("{path}/{name}"), depth + 1);
            }
            Err(StatError::Gone | StatError::Ignored(_)) => return Ok(()),
            Err(StatError::Failed(error)) => return Err(error),
        };
        let identity = Identity::of(&stat);
        if is_success {
            self.success = Some(identity.mtime_ns);
        } else if name.ends_with(EXTENSION) && hidden(name).is_none() {
            self.newest_part = self.newest_part.max(identity.mtime_ns);
            self.files.push(Found { path: format!("{path}/{name}"), identity });
        }
        Ok(())
    }
}
