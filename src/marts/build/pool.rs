//! Builders at work: threads that each run one, and what they are given.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::{debug, warn};

use super::child::{Builder, BuilderSettings};
use super::footer::{Footer, FooterError};
use super::messages::{Allowance, BuildRequest, BuildResponse, Cause};
use super::queue::{Asker, Queue, Step};
use super::source::{LARGE_BLOCK, SMALL_BLOCK};
use super::table::{TableDraft, TableKind};
use super::{FileRejection, Outcome, Verdict};
use crate::digest::Digest;
use crate::mart_pin::{MartPin, PinnedFile};
use crate::pin::PinKind;

/// How long a builder is kept that has nothing to do: files come in bursts, or minutes apart.
const IDLE: Duration = Duration::from_secs(5);
/// A mart whose values take more has a table of large blocks: with small ones 100,000 rows × 13 columns
/// take 8.2 MB and 240 ms instead of 5.5 MB and 105 ms, and 20 rows 45 KB instead of 537 KB.
const SMALL_MART_BYTES: u64 = 1 << 20;
/// Without a footer that says more: what a file's values take, by its size.
const USUAL_COMPRESSION: u64 = 4;
/// How many builders a file may stop before that is said of the file.
const BUILDERS_PER_FILE: usize = 2;

/// Builds tables in builder processes. Contents are built once while their tables are alive, and of
/// each mart only the newest version that waits.
pub struct Pool {
    shared: Arc<PoolShared>,
    threads: Vec<JoinHandle<()>>,
}

pub(super) struct PoolShared {
    pub(super) settings: BuilderSettings,
    state: Mutex<PoolState>,
    changed: Condvar,
    report: Box<dyn Fn(Outcome) + Send + Sync>,
}

struct PoolState {
    queue: Queue,
    is_ending: bool,
    /// Those of the builders that are alive, by number, to end them with the pool.
    sockets: HashMap<u64, UnixStream>,
    builders: u64,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the threads; builders are started when there is something to build. `report` is called
    /// on these threads, one call at a time on each, and should not take long.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(
        settings: BuilderSettings,
        report: impl Fn(Outcome) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let queue = Queue::new();
        let state = PoolState { queue, is_ending: false, sockets: HashMap::new(), builders: 0 };
        let shared = Arc::new(PoolShared {
            settings,
            state: Mutex::new(state),
            changed: Condvar::new(),
            report: Box::new(report),
        });
        let mut pool = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        for number in 0..shared.settings.builders.max(1) {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("build-{number}"));
            pool.threads.push(thread.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// Has a version of a mart built. Returns at once; what becomes of it is reported, also when it is
    /// known already. Another version of the same mart that waits is given up.
    pub fn submit(&self, pin: Arc<MartPin>, name: impl Into<String>) {
        self.ask(pin, name.into(), false);
    }

    /// The same for a version that a snapshot waits for: it gives up no other, and is not given up.
    pub fn want(&self, pin: Arc<MartPin>, name: impl Into<String>) {
        self.ask(pin, name.into(), true);
    }

    fn ask(&self, pin: Arc<MartPin>, name: String, is_wanted: bool) {
        self.shared.state().queue.ask(pin, Asker::Report { name, is_wanted });
        self.shared.changed.notify_all();
    }

    /// What is known of a content. A rejection that is not lasting is known until it is tried again.
    pub fn verdict(&self, hash: &Digest) -> Option<Verdict> {
        self.shared.state().queue.verdict(hash)
    }

    /// Tries everything again now that was rejected for no lasting reason.
    pub fn retry_now(&self) {
        self.shared.state().queue.retry_now(Instant::now());
        self.shared.changed.notify_all();
    }

    /// Builds all of these and waits. There is no verdict on a file that was rewritten meanwhile.
    pub fn build_all<'p>(
        &self,
        pins: impl IntoIterator<Item = &'p Arc<MartPin>>,
    ) -> HashMap<Digest, Verdict> {
        let (caller, verdicts) = mpsc::channel();
        let mut state = self.shared.state();
        for pin in pins {
            state.queue.ask(Arc::clone(pin), Asker::Caller(caller.clone()));
        }
        drop((state, caller));
        self.shared.changed.notify_all();
        verdicts.iter().filter_map(|(hash, verdict)| Some((hash, verdict?))).collect()
    }

    pub(super) fn shared(&self) -> &PoolShared {
        &self.shared
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_ending = true;
        for socket in state.sockets.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A builder whose socket the pool knows.
pub(super) struct PooledBuilder<'s> {
    pub(super) builder: Builder,
    shared: &'s PoolShared,
    number: u64,
}

impl Drop for PooledBuilder<'_> {
    fn drop(&mut self) {
        self.shared.state().sockets.remove(&self.number);
    }
}

impl PoolShared {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock()
    }

    /// Starts a builder.
    pub(super) fn start(&self) -> io::Result<PooledBuilder<'_>> {
        let builder = Builder::start(&self.settings)?;
        let socket = builder.socket()?;
        let mut state = self.state();
        if state.is_ending {
            return Err(io::Error::other("martd is ending"));
        }
        state.builders += 1;
        let number = state.builders;
        state.sockets.insert(number, socket);
        Ok(PooledBuilder { builder, shared: self, number })
    }

    fn work(&self) {
        let mut kept: Option<(PooledBuilder<'_>, Instant)> = None;
        let mut state = self.state();
        while !state.is_ending {
            let now = Instant::now();
            match state.queue.next(now) {
                Step::Report(outcome) => {
                    drop(state);
                    (self.report)(outcome);
                }
                Step::Build(pin) => {
                    drop(state);
                    let mut builder = kept.take().map(|(builder, _)| builder);
                    let verdict = self.build(&pin, &mut builder);
                    let verdict = pin.is_intact().then_some(verdict);
                    kept = builder.map(|builder| (builder, Instant::now()));
                    let mut state = self.state();
                    state.queue.finish(&pin, verdict, Instant::now());
                    self.changed.notify_all();
                }
                Step::Wait(until) => {
                    let idle = kept.as_ref().map(|(_, since)| *since + IDLE);
                    if idle.is_some_and(|idle| idle <= now) {
                        drop(state);
                        kept = None;
                    } else {
                        let until = [idle, until].into_iter().flatten().min();
                        match until {
                            Some(until) => {
                                self.changed.wait_until(&mut state, until);
                            }
                            None => self.changed.wait(&mut state),
                        }
                        drop(state);
                    }
                }
            }
            state = self.state();
        }
        drop(state);
    }

    /// Builds one mart. `kept` is a builder that may be used again, before and after.
    fn build<'s>(&'s self, pin: &MartPin, kept: &mut Option<PooledBuilder<'s>>) -> Verdict {
        let began = Instant::now();
        let mut estimate: u64 = 0;
        for PinnedFile { pin, .. } in pin.files() {
            let uncompressed = match Footer::read(pin) {
                Ok(footer) => footer.uncompressed,
                Err(FooterError::Broken(reason)) => {
                    return Err(FileRejection::lasting(reason));
                }
                Err(FooterError::Incomplete(_)) => pin.size().saturating_mul(USUAL_COMPRESSION),
            };
            estimate = estimate.saturating_add(uncompressed.max(pin.size()));
        }
        let deadline = self.settings.deadline(estimate);
        let (mut stopped, mut on_disk) = (0, false);
        let rejected = |reason| Err(FileRejection::passing(reason));
        loop {
            let draft = self.settings.budget.draft(estimate, on_disk);
            let draft = draft.map_err(FileRejection::passing)?;
            on_disk = draft.kind() == TableKind::Disk;
            let alone = on_disk || pin.kind() == PinKind::Descriptor;
            if alone || stopped > 0 || !kept.as_mut().is_some_and(|k| k.builder.is_fresh_enough()) {
                *kept = None;
            }
            let mut known = match kept.take().map_or_else(|| self.start(), Ok) {
                Ok(known) => known,
                Err(error) => return rejected(format!("has no builder: {error}")),
            };
            let (block, allowance) = (block(estimate), allowance(&draft, deadline));
            let request = BuildRequest::Parquet { parts: pin.parts(), block, allowance };
            let files = pin.files().iter().map(|file| file.pin.as_fd());
            let descriptors: Vec<_> = files.chain([draft.as_fd()]).collect();
            let asked = known.builder.ask(&request, &descriptors, deadline);
            let reason = match asked {
                Ok(BuildResponse::Built(report)) => {
                    if alone {
                        drop(known); // which ends whoever could still write a file on disk
                    } else {
                        *kept = Some(known);
                    }
                    match draft.finish(report) {
                        Ok(Some(table)) => {
                            debug!(bytes = table.bytes(), elapsed = ?began.elapsed(), "built");
                            return Ok(Arc::new(table));
                        }
                        Ok(None) => {
                            on_disk = true;
                            continue;
                        }
                        Err(error) => format!("its table cannot be sealed: {error}"),
                    }
                }
                Ok(BuildResponse::Failed(failure)) => match failure.cause {
                    Cause::Content => return Err(FileRejection::lasting(failure.reason)),
                    Cause::TooLarge if !on_disk => {
                        on_disk = true;
                        continue;
                    }
                    Cause::TooLarge | Cause::Resources => return rejected(failure.reason),
                    Cause::Internal => failure.reason,
                },
                Ok(BuildResponse::Listed(_)) => "its builder answered nonsense".to_owned(),
                Err(reason) => reason,
            };
            stopped += 1;
            warn!(hash = %pin.hash(), reason, "a file stopped its builder");
            if stopped == BUILDERS_PER_FILE {
                return rejected(reason);
            }
        }
    }
}

/// The size of the blocks of a table of about so many bytes.
pub(super) fn block(bytes: u64) -> u32 {
    if bytes < SMALL_MART_BYTES { SMALL_BLOCK } else { LARGE_BLOCK }
}

/// What a builder may take for this draft within this deadline.
pub(super) fn allowance(draft: &TableDraft, deadline: Duration) -> Allowance {
    Allowance { cpu_seconds: 2 * deadline.as_secs() + 2, table_bytes: draft.most_bytes() }
}
