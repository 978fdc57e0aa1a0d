//! A child process that decodes: how it is started, what it answers, and how it is seen off.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, Signal};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::{Verdict, child};
use crate::pin::Pin;

/// How long one file may take: the base, and what every MiB adds.
const DEADLINE: Duration = Duration::from_secs(20);
const DEADLINE_PER_MIB: Duration = Duration::from_millis(250);
/// Files that one child is given at most.
pub(super) const FILES_PER_CHILD: usize = 128;
/// How long one child is given files.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// How to start a child.
#[derive(Debug)]
pub(super) struct Children {
    pub(super) program: PathBuf,
    pub(super) depth: child::Depth,
    /// How long an empty file may take.
    pub(super) deadline: Duration,
}

/// What decoding one file came to.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// Whether the verdict holds for the content. That a child was killed says nothing lasting: it
    /// may have been for want of memory.
    pub(super) lasting: bool,
}

impl Children {
    pub(super) fn new(program: PathBuf, depth: child::Depth) -> Self {
        Self { program, depth, deadline: DEADLINE }
    }

    /// Decodes a batch, in as many children as crashes make necessary. Answers in its order.
    /// `kept` has the first of it, if that can take it, and is there for the next batch.
    pub(super) fn decode(
        &self,
        batch: &[&Pin],
        mut kept: Option<&mut Kept>,
    ) -> io::Result<Vec<Judged>> {
        let began = Instant::now();
        let mut judged = Vec::with_capacity(batch.len());
        while judged.len() < batch.len() {
            let left = &batch[judged.len()..];
            let reason = match &mut kept {
                Some(kept) => self.run_kept(left, &mut judged, kept)?,
                None => Some(self.run(left, &mut judged)?),
            };
            if let (Some(pin), Some(reason)) = (batch.get(judged.len()), reason) {
                warn!(hash = %pin.hash(), reason, "decoding a file stopped its child process");
                judged.push(Judged { verdict: Err(reason), lasting: false });
            }
        }
        debug!(files = batch.len(), elapsed = ?began.elapsed(), "decoded");
        Ok(judged)
    }

    /// Runs one child over `pins` and collects its verdicts. Returns how it ended, which is of
    /// interest when verdicts are missing.
    fn run(&self, pins: &[&Pin], judged: &mut Vec<Judged>) -> io::Result<String> {
        let mut running = self.start(self.words(pins.len()), pins.iter().map(|pin| pin.as_fd()))?;
        for pin in pins {
            match running.verdict(self.deadline(pin.size())) {
                Ok(verdict) => judged.push(verdict),
                Err(stopped) => return running.end(stopped),
            }
        }
        running.end(Stopped::Ended)
    }

    /// The same with a child that lives on. `None` when it has ended, but not by a file.
    fn run_kept(
        &self,
        pins: &[&Pin],
        judged: &mut Vec<Judged>,
        kept: &mut Kept,
    ) -> io::Result<Option<String>> {
        let fresh = || self.start(self.words(0), std::iter::empty());
        let mut running = kept.0.take().map_or_else(fresh, Ok)?;
        for pin in pins {
            if running.is_done() {
                running.end(Stopped::Ended)?;
                return Ok(None);
            }
            let deadline = self.deadline(pin.size());
            let first = running.files == 0;
            match running.hand_over(pin, deadline) {
                Ok(()) => {}
                // Somebody ended it while it had nothing to do.
                Err(Stopped::Ended) if !first => {
                    running.end(Stopped::Ended)?;
                    return Ok(None);
                }
                Err(stopped) => return running.end(stopped).map(Some),
            }
            match running.verdict(deadline) {
                Ok(verdict) => judged.push(verdict),
                Err(stopped) => return running.end(stopped).map(Some),
            }
        }
        kept.0 = Some(running);
        Ok(None)
    }

    fn words(&self, count: usize) -> [String; 4] {
        [
            child::SUBCOMMAND.to_owned(),
            self.depth.argument().to_owned(),
            count.to_string(),
            std::process::id().to_string(),
        ]
    }

    /// How long a file of this size may take.
    pub(super) fn deadline(&self, bytes: u64) -> Duration {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.deadline + DEADLINE_PER_MIB.saturating_mul(mib)
    }

    /// Starts a child that inherits these descriptors from [`child::FIRST_FD`] on.
    pub(super) fn start<'d>(
        &self,
        words: impl IntoIterator<Item: AsRef<OsStr>>,
        descriptors: impl Iterator<Item = BorrowedFd<'d>>,
    ) -> io::Result<Running> {
        let mappings = descriptors
            .zip(child::FIRST_FD..)
            .map(|(fd, child_fd)| Ok(FdMapping { parent_fd: fd.try_clone_to_owned()?, child_fd }))
            .collect::<io::Result<Vec<_>>>()?;
        let files = mappings.len();
        let (more, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .fd_mappings(mappings)
            .map_err(io::Error::other)?;
        let mut process = command.spawn()?;
        drop(command); // its copies of the descriptors
        let stdout = process.stdout.take().expect("piped above");
        let (sender, lines) = mpsc::channel();
        // A thread, for a pipe has no read with a deadline. It ends with the child's end of the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Running { process, more, lines, files, started: Instant::now() })
    }
}

/// A child at work.
#[derive(Debug)]
pub(super) struct Running {
    process: Child,
    /// Where it gets more files from.
    more: UnixStream,
    lines: Receiver<String>,
    /// How many files it was given.
    files: usize,
    started: Instant,
}

/// A child that lives on for the next batch, which spares starting another. It vouches for no more
/// files than one that is started for a batch, and dies with the thread that had it started.
#[derive(Debug, Default)]
pub struct Kept(Option<Running>);

impl Kept {
    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Sees it off.
    pub fn end(&mut self) {
        if let Some(running) = self.0.take()
            && let Err(error) = running.end(Stopped::Ended)
        {
            warn!(%error, "a child process cannot be waited for");
        }
    }
}

/// Why a child gives no further answer.
pub(super) enum Stopped {
    /// It ended by itself.
    Ended,
    /// It is of no use any more, for this reason.
    Useless(String),
}

impl Running {
    /// Whether it has done enough. Its processor time is limited, and must not end in a file.
    fn is_done(&self) -> bool {
        self.files >= FILES_PER_CHILD || self.started.elapsed() >= KEPT_FOR
    }

    /// Gives it one more file.
    fn hand_over(&mut self, pin: &Pin, deadline: Duration) -> Result<(), Stopped> {
        if let Ok(line) = self.lines.try_recv() {
            return Err(Stopped::Useless(format!("its verifier said {line} unasked")));
        }
        self.files += 1;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let file = [pin.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&file));
        let byte = [IoSlice::new(b"f")];
        rustix::net::sendmsg(&self.more, &byte, &mut control, SendFlags::NOSIGNAL)
            .map_err(|_| Stopped::Ended)?;
        match self.answer::<String>(deadline)? {
            taken if taken == child::TAKEN => Ok(()),
            other => Err(Stopped::Useless(format!("its verifier answered nonsense: {other}"))),
        }
    }

    fn verdict(&mut self, deadline: Duration) -> Result<Judged, Stopped> {
        let found = self.answer::<child::Found>(deadline)?;
        Ok(Judged { verdict: found.into(), lasting: true })
    }

    /// The child's next line.
    pub(super) fn answer<T: DeserializeOwned>(&self, deadline: Duration) -> Result<T, Stopped> {
        match self.lines.recv_timeout(deadline) {
            Ok(line) => serde_json::from_str(&line).map_err(|error| {
                Stopped::Useless(format!("its verifier answered nonsense: {error}"))
            }),
            Err(RecvTimeoutError::Disconnected) => Err(Stopped::Ended),
            Err(RecvTimeoutError::Timeout) => {
                Err(Stopped::Useless(format!("was not decoded within {deadline:?}")))
            }
        }
    }

    /// Sees the child off. Returns what is to be said of a file that it did not answer for.
    pub(super) fn end(mut self, stopped: Stopped) -> io::Result<String> {
        if let Stopped::Useless(_) = &stopped {
            // It may have ended by itself this moment.
            let _ = rustix::process::kill_process(Pid::from_child(&self.process), Signal::KILL);
        }
        let _ = self.more.shutdown(Shutdown::Both); // there are no more
        let status = self.process.wait()?;
        debug!(files = self.files, elapsed = ?self.started.elapsed(), %status, "a child ended");
        Ok(match stopped {
            Stopped::Useless(reason) => reason,
            Stopped::Ended => format!("stopped the process that decoded it ({status})"),
        })
    }
}
