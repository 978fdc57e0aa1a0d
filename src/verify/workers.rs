//! Runs the decoding children and reads what they report.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use blake3::Hash;
use command_fds::{CommandFdExt, FdMapping};
use quick_cache::unsync::Cache;
use rustix::process::{Pid, Signal};
use tracing::{debug, warn};

use super::{Verdict, child};
use crate::pin::Pin;

/// How long one file may take: the base, and what every MiB adds.
const DEADLINE: Duration = Duration::from_secs(20);
const DEADLINE_PER_MIB: Duration = Duration::from_millis(250);
/// A batch is split over several children only when each gets this much to do: starting one costs
/// more than decoding a small mart.
const BYTES_PER_CHILD: u64 = 32 << 20;
/// Descriptors that one child inherits at most.
const FILES_PER_CHILD: usize = 128;
/// Verdicts that are remembered.
const REMEMBERED: usize = 8_192;

/// Decodes files in child processes and remembers the verdicts by content.
#[derive(Debug)]
pub struct Verifier {
    children: Children,
    parallel: usize,
    known: Cache<Hash, Verdict>,
}

/// How to start a child.
#[derive(Debug)]
struct Children {
    program: PathBuf,
    depth: child::Depth,
}

impl Verifier {
    /// A verifier that starts `program` (martd itself) as its child, up to `parallel` at once.
    pub fn new(program: impl Into<PathBuf>, parallel: usize, depth: child::Depth) -> Self {
        Self {
            children: Children { program: program.into(), depth },
            parallel: parallel.max(1),
            known: Cache::new(REMEMBERED),
        }
    }

    /// The verdicts on these files by content; decodes those that are not known yet.
    ///
    /// A child that crashes or hangs condemns the file that it was at, and the others go on in
    /// another child.
    ///
    /// # Errors
    /// When no child can be started (no descriptors, no memory). That says nothing about the files:
    /// try again later.
    pub fn verify<'p>(
        &mut self,
        pins: impl Iterator<Item = &'p Arc<Pin>>,
    ) -> io::Result<HashMap<Hash, Verdict>> {
        let mut verdicts = HashMap::new();
        let mut wanted: HashMap<Hash, &Pin> = HashMap::new();
        for pin in pins {
            if let Some(verdict) = self.known.get(&pin.hash()) {
                verdicts.insert(pin.hash(), verdict.clone());
            } else {
                wanted.insert(pin.hash(), pin);
            }
        }
        for round in batches(wanted.into_values().collect()).chunks(self.parallel) {
            let children = &self.children;
            let outcomes: Vec<io::Result<Vec<(Hash, Verdict)>>> = thread::scope(|scope| {
                let threads: Vec<_> =
                    round.iter().map(|batch| scope.spawn(|| children.decode(batch))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            for outcome in outcomes {
                for (hash, verdict) in outcome? {
                    self.known.insert(hash, verdict.clone());
                    verdicts.insert(hash, verdict);
                }
            }
        }
        Ok(verdicts)
    }
}

/// Deals the files out to children, the largest first, so that they end at about the same time.
fn batches(mut files: Vec<&Pin>) -> Vec<Vec<&Pin>> {
    files.sort_by_key(|pin| std::cmp::Reverse(pin.size()));
    let bytes: u64 = files.iter().map(|pin| pin.size()).sum();
    let count = usize::try_from(bytes.div_ceil(BYTES_PER_CHILD))
        .unwrap_or(usize::MAX)
        .max(files.len().div_ceil(FILES_PER_CHILD))
        .min(files.len());
    let mut batches = vec![Vec::new(); count];
    for (index, pin) in files.into_iter().enumerate() {
        batches[index % count].push(pin);
    }
    batches
}

impl Children {
    /// Decodes a batch, in as many children as crashes make necessary.
    fn decode(&self, batch: &[&Pin]) -> io::Result<Vec<(Hash, Verdict)>> {
        let mut verdicts = Vec::with_capacity(batch.len());
        while verdicts.len() < batch.len() {
            let reason = self.run(&batch[verdicts.len()..], &mut verdicts)?;
            if let Some(pin) = batch.get(verdicts.len()) {
                warn!(hash = %pin.hash(), reason, "decoding a file stopped its child process");
                verdicts.push((pin.hash(), Err(reason)));
            }
        }
        Ok(verdicts)
    }

    /// Runs one child over `pins` and collects its verdicts. Returns how it ended, which is of
    /// interest when verdicts are missing.
    fn run(&self, pins: &[&Pin], verdicts: &mut Vec<(Hash, Verdict)>) -> io::Result<String> {
        let started = Instant::now();
        let mappings = pins
            .iter()
            .zip(child::FIRST_FD..)
            .map(|(pin, child_fd)| {
                let parent_fd = pin.as_fd().try_clone_to_owned()?;
                Ok(FdMapping { parent_fd, child_fd })
            })
            .collect::<io::Result<Vec<_>>>()?;
        let mut command = Command::new(&self.program);
        command
            .arg(child::SUBCOMMAND)
            .arg(self.depth.argument())
            .arg(pins.len().to_string())
            .arg(std::process::id().to_string())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .fd_mappings(mappings)
            .map_err(io::Error::other)?;
        let mut process = command.spawn()?;
        drop(command); // its copies of the descriptors
        let stdout = process.stdout.take().expect("piped above");
        let killed_for = read_lines(&process, stdout, pins, verdicts);
        let status = process.wait()?;
        debug!(files = pins.len(), elapsed = ?started.elapsed(), %status, "decoded");
        Ok(killed_for.unwrap_or_else(|| format!("stopped the process that decoded it ({status})")))
    }
}

/// Takes the child's lines until it has ended. Kills one that is too slow and says so.
fn read_lines(
    process: &Child,
    stdout: ChildStdout,
    pins: &[&Pin],
    verdicts: &mut Vec<(Hash, Verdict)>,
) -> Option<String> {
    let (sender, lines) = mpsc::channel();
    // A thread, for a pipe has no read with a deadline. It ends with the child's end of the pipe.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    for pin in pins {
        let mib = u32::try_from(pin.size() >> 20).unwrap_or(u32::MAX);
        let deadline = DEADLINE + DEADLINE_PER_MIB.saturating_mul(mib);
        match lines.recv_timeout(deadline) {
            Ok(line) => match serde_json::from_str::<child::Found>(&line) {
                Ok(found) => verdicts.push((pin.hash(), found.into())),
                Err(error) => {
                    kill(process);
                    return Some(format!("its verifier answered nonsense: {error}"));
                }
            },
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                kill(process);
                return Some(format!("was not decoded within {} s", deadline.as_secs()));
            }
        }
    }
    None
}

fn kill(process: &Child) {
    // It may have ended by itself this moment.
    let _ = rustix::process::kill_process(Pid::from_child(process), Signal::KILL);
}
