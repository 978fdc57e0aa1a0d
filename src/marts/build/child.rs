//! A builder seen from the front: how it is started, asked, and ended.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tracing::debug;
use uuid::Uuid;

use super::builder::SUBCOMMAND;
use super::messages::{BuildRequest, BuildResponse};
use super::table::TableBudget;
use crate::flag;
use crate::ipc;
use crate::limits;
use crate::spawner::Spawner;

/// Processor time that an empty file may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// See [`BuilderSettings::patience`].
const PATIENCE: u32 = 15;
/// How often at most the processor time is looked at.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
/// A builder that was given so many descriptors is given no more: each takes a number of its own.
const MOST_DESCRIPTORS: usize = 256;
/// What the names of builders' scratch folders begin with.
pub(crate) const SCRATCH_PREFIX: &str = "martd-build-";

/// How builders are started, and where tables go.
#[derive(Debug, Clone)]
pub struct BuilderSettings {
    /// martd itself; builders are `program build SCRATCH`.
    pub program: PathBuf,
    /// Builders at once, besides one for a legacy file.
    pub builders: usize,
    /// Starts them.
    pub spawner: Spawner,
    /// Where each builder gets a folder (`MARTD_SCRATCH_DIR`); see [`choose_scratch`].
    pub scratch: PathBuf,
    /// What tables may take.
    pub budget: Arc<TableBudget>,
    /// The processor time that an empty file may take. Each MiB adds 250 ms.
    pub deadline: Duration,
    /// How many times its deadline of processor time a builder may take by the clock: for one that
    /// does not run at all because it is stopped, or waits for a disk.
    pub patience: u32,
}

impl BuilderSettings {
    /// As many builders as there are processors, at most two, and the usual deadline. Starts a spawner, so
    /// ask before rights are given up.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn new(program: PathBuf, scratch: PathBuf, budget: Arc<TableBudget>) -> io::Result<Self> {
        let builders = if limits::processors().value > 1 { 2 } else { 1 };
        let (spawner, deadline, patience) = (Spawner::start()?, DEADLINE, PATIENCE);
        Ok(Self { program, spawner, builders, scratch, budget, deadline, patience })
    }

    /// The processor time that a file of this size may take.
    pub(super) fn deadline(&self, bytes: u64) -> Duration {
        const PER_MIB: Duration = Duration::from_millis(250);
        self.deadline + PER_MIB.saturating_mul(u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
    }
}

/// The folder for builders' scratch folders: what was configured, else the first of the state
/// directory, `$TMPDIR` (or `/tmp`) and `/dev/shm` that can be written.
///
/// # Errors
/// When what was configured cannot be written, or nothing can.
pub fn choose_scratch(configured: Option<&Path>, state: Option<&Path>) -> io::Result<PathBuf> {
    let writable = |dir: &Path| TempDir::with_prefix_in(SCRATCH_PREFIX, dir).map(drop);
    if let Some(dir) = configured {
        return match writable(dir) {
            Ok(()) => Ok(dir.to_owned()),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("{}: {error}", flag::of("MARTD_SCRATCH_DIR")),
            )),
        };
    }
    let candidates =
        [state.map(Path::to_owned), Some(std::env::temp_dir()), Some("/dev/shm".into())];
    candidates.into_iter().flatten().find(|dir| writable(dir).is_ok()).ok_or_else(|| {
        io::Error::other(
            "no folder can be written, and a table is not built without one: name one with \
             --scratch-dir (MARTD_SCRATCH_DIR)",
        )
    })
}

/// A builder process. It ends when this is dropped, and its scratch folder is gone then.
#[derive(Debug)]
pub(super) struct Builder {
    process: Child,
    socket: UnixStream,
    started: Instant,
    asked: usize,
    given: usize,
    patience: u32,
    /// Dropped after the process has ended.
    _scratch: Scratch,
}

/// A builder's folder. The builder makes it, so that there is none of one that never was, and removes it when
/// it ends by itself.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // it is gone as a rule
    }
}

impl Builder {
    pub(super) fn start(settings: &BuilderSettings) -> io::Result<Self> {
        let name = format!("{SCRATCH_PREFIX}{}", Uuid::now_v7().simple());
        let scratch = Scratch(settings.scratch.join(name));
        let (socket, theirs) = UnixStream::pair()?;
        let words: [OsString; 2] = [SUBCOMMAND.into(), scratch.0.as_os_str().to_owned()];
        let mut command = Command::new(&settings.program);
        command.args(words).env_clear().stdin(OwnedFd::from(theirs));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = settings.spawner.spawn(command)?;
        let (started, patience) = (Instant::now(), settings.patience);
        Ok(Self { process, socket, started, asked: 0, given: 0, patience, _scratch: scratch })
    }

    /// Its socket: who shuts it down ends the builder, and whoever waits for its answer.
    pub(super) fn socket(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    /// Whether it can be asked again.
    pub(super) fn is_fresh_enough(&mut self) -> bool {
        self.given < MOST_DESCRIPTORS && matches!(self.process.try_wait(), Ok(None))
    }

    /// Asks, and waits for the answer for at most `deadline` of the builder's own processor time.
    ///
    /// # Errors
    /// For people: why there is no answer. The builder is of no use any more.
    pub(super) fn ask(
        &mut self,
        request: &BuildRequest,
        descriptors: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<BuildResponse, String> {
        self.asked += 1;
        self.given += descriptors.len();
        let (began, cpu_began) = (Instant::now(), self.cpu_time());
        let by_the_clock = deadline.saturating_mul(self.patience);
        if ipc::send(&self.socket, request, descriptors).is_err() {
            return Err(self.how_it_ended());
        }
        loop {
            let cpu = self.cpu_time().saturating_sub(cpu_began);
            let left = deadline.saturating_sub(cpu);
            let patience = by_the_clock.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(format!("was not read within {deadline:?} of processor time"));
            }
            if patience.is_zero() {
                return Err(format!("was not read within {by_the_clock:?}"));
            }
            let wait = left.min(patience).max(SHORTEST_WAIT);
            let answer = self
                .socket
                .set_read_timeout(Some(wait))
                .and_then(|()| ipc::receive::<BuildResponse>(&self.socket));
            match answer {
                Ok(Some((response, _))) => return Ok(response),
                Ok(None) => return Err(self.how_it_ended()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(self.how_it_ended());
                }
                Err(error) => return Err(format!("its builder answered nonsense: {error}")),
            }
        }
    }

    /// What to say of a builder whose socket is closed.
    fn how_it_ended(&mut self) -> String {
        let _ = self.process.kill(); // it has closed its socket, and ends or is of no use
        match self.process.wait() {
            Ok(status) => format!("stopped the process that read it ({status})"),
            Err(error) => format!("stopped the process that read it ({error})"),
        }
    }

    fn cpu_time(&self) -> Duration {
        cpu_time(self.process.id()).unwrap_or_default()
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let status = self.process.wait();
        debug!(asked = self.asked, elapsed = ?self.started.elapsed(), ?status, "a builder ended");
    }
}

/// The processor time of a process, user and system; `None` when there is none.
fn cpu_time(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may have spaces and parentheses; utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0)).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks * 1_000 / per_second))
}
