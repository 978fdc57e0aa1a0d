//! Runs the decoding children and reads what they report.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use blake3::Hash;
use command_fds::{CommandFdExt, FdMapping};
use quick_cache::unsync::Cache;
use rustix::process::{Pid, Signal};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::{Verdict, child};
use crate::engine::{self, LegacyTable};
use crate::legacy::LegacyVersion;
use crate::pin::{Pin, descriptor_limit};

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
    /// How long an empty file may take.
    deadline: Duration,
}

/// What decoding one file came to.
#[derive(Debug)]
struct Judged {
    verdict: Verdict,
    /// Whether the verdict holds for the content. That a child was killed says nothing lasting: it
    /// may have been for want of memory.
    lasting: bool,
}

impl Verifier {
    /// A verifier that starts `program` (martd itself) as its child, up to `parallel` at once.
    pub fn new(program: impl Into<PathBuf>, parallel: usize, depth: child::Depth) -> Self {
        Self {
            children: Children { program: program.into(), depth, deadline: DEADLINE },
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
        // Each child's files take as many descriptors again: half of what pins leave, for all children.
        let descriptors = usize::try_from(descriptor_limit() / 4).unwrap_or(usize::MAX);
        let most = (descriptors / self.parallel).clamp(1, FILES_PER_CHILD);
        for round in batches(wanted.into_values().collect(), most).chunks(self.parallel) {
            let children = &self.children;
            let outcomes: Vec<io::Result<Vec<Judged>>> = thread::scope(|scope| {
                let threads: Vec<_> =
                    round.iter().map(|batch| scope.spawn(|| children.decode(batch))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            for (outcome, batch) in outcomes.into_iter().zip(round) {
                for (Judged { mut verdict, lasting }, pin) in outcome?.into_iter().zip(batch) {
                    if !pin.is_intact() {
                        // The child did not decode the bytes that the hash stands for.
                        verdict = Err("was rewritten in place while it was decoded".to_owned());
                    } else if lasting {
                        self.known.insert(pin.hash(), verdict.clone());
                    }
                    verdicts.insert(pin.hash(), verdict);
                }
            }
        }
        Ok(verdicts)
    }

    /// What is in a legacy file, or the reason why it cannot be served.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_legacy(
        &self,
        version: &LegacyVersion,
        schemas: &[String],
    ) -> io::Result<Result<Vec<LegacyTable>, String>> {
        // A file that is too large to copy is locked while it is read, and writers are turned away.
        let depth = if version.is_copied() { self.children.depth } else { child::Depth::Footer };
        let descriptors: Vec<_> = (child::FIRST_FD..).take(version.pins().count()).collect();
        let place = match version.place(&descriptors) {
            Ok(place) => place,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let catalog = engine::catalog_name(&version.path, schemas);
        let words = child::LegacyArgs::to_words(depth, place.path(), &catalog, schemas);
        let running = self.children.start(words, version.pins().map(|pin| pin.as_fd()))?;
        match running.answer(self.children.deadline(version.file.size())) {
            Ok(found) => running.end(Stopped::Ended).map(|_| found),
            Err(stopped) => running.end(stopped).map(Err),
        }
    }
}

/// Deals the files out to children, the largest first, so that they end at about the same time.
fn batches(mut files: Vec<&Pin>, most: usize) -> Vec<Vec<&Pin>> {
    files.sort_by_key(|pin| std::cmp::Reverse(pin.size()));
    let bytes: u64 = files.iter().map(|pin| pin.size()).sum();
    let count = usize::try_from(bytes.div_ceil(BYTES_PER_CHILD))
        .unwrap_or(usize::MAX)
        .max(files.len().div_ceil(most))
        .min(files.len());
    let mut batches = vec![Vec::new(); count];
    for (index, pin) in files.into_iter().enumerate() {
        batches[index % count].push(pin);
    }
    batches
}

impl Children {
    /// Decodes a batch, in as many children as crashes make necessary. Answers in its order.
    fn decode(&self, batch: &[&Pin]) -> io::Result<Vec<Judged>> {
        let mut judged = Vec::with_capacity(batch.len());
        while judged.len() < batch.len() {
            let reason = self.run(&batch[judged.len()..], &mut judged)?;
            if let Some(pin) = batch.get(judged.len()) {
                warn!(hash = %pin.hash(), reason, "decoding a file stopped its child process");
                judged.push(Judged { verdict: Err(reason), lasting: false });
            }
        }
        Ok(judged)
    }

    /// Runs one child over `pins` and collects its verdicts. Returns how it ended, which is of
    /// interest when verdicts are missing.
    fn run(&self, pins: &[&Pin], judged: &mut Vec<Judged>) -> io::Result<String> {
        let words = [
            child::SUBCOMMAND.to_owned(),
            self.depth.argument().to_owned(),
            pins.len().to_string(),
            std::process::id().to_string(),
        ];
        let running = self.start(words, pins.iter().map(|pin| pin.as_fd()))?;
        for pin in pins {
            match running.answer::<child::Found>(self.deadline(pin.size())) {
                Ok(found) => judged.push(Judged { verdict: found.into(), lasting: true }),
                Err(stopped) => return running.end(stopped),
            }
        }
        running.end(Stopped::Ended)
    }

    fn deadline(&self, bytes: u64) -> Duration {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.deadline + DEADLINE_PER_MIB.saturating_mul(mib)
    }

    /// Starts a child that inherits these descriptors from [`child::FIRST_FD`] on.
    fn start<'d>(
        &self,
        words: impl IntoIterator<Item: AsRef<OsStr>>,
        descriptors: impl Iterator<Item = BorrowedFd<'d>>,
    ) -> io::Result<Running> {
        let mappings = descriptors
            .zip(child::FIRST_FD..)
            .map(|(fd, child_fd)| Ok(FdMapping { parent_fd: fd.try_clone_to_owned()?, child_fd }))
            .collect::<io::Result<Vec<_>>>()?;
        let files = mappings.len();
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .env_clear()
            .stdin(Stdio::null())
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
        Ok(Running { process, lines, files, started: Instant::now() })
    }
}

/// A child at work.
struct Running {
    process: Child,
    lines: Receiver<String>,
    files: usize,
    started: Instant,
}

/// Why a child gives no further answer.
enum Stopped {
    /// It ended by itself.
    Ended,
    /// It is of no use any more, for this reason.
    Useless(String),
}

impl Running {
    /// The child's next line.
    fn answer<T: DeserializeOwned>(&self, deadline: Duration) -> Result<T, Stopped> {
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
    fn end(mut self, stopped: Stopped) -> io::Result<String> {
        if let Stopped::Useless(_) = &stopped {
            // It may have ended by itself this moment.
            let _ = rustix::process::kill_process(Pid::from_child(&self.process), Signal::KILL);
        }
        let status = self.process.wait()?;
        debug!(files = self.files, elapsed = ?self.started.elapsed(), %status, "decoded");
        Ok(match stopped {
            Stopped::Useless(reason) => reason,
            Stopped::Ended => format!("stopped the process that decoded it ({status})"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::Budget;
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    /// A verifier whose children are shell scripts, and the files that it is given.
    struct Stage {
        dir: tempfile::TempDir,
        pins: Vec<Arc<Pin>>,
        verifier: Verifier,
    }

    /// What a child answers for a good file.
    const GOOD: &str = r#"{"report":{"rows":1,"columns":[],"empty_model":false}}"#;

    impl Stage {
        /// Files of this content, and a child that runs `script`. The script has `$GOOD`, appends a
        /// line to `runs` in its directory whenever it starts, and finds its files from descriptor 3
        /// on, `$3` of them.
        fn new(files: &[&str], script: &str) -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let program = dir.path().join("child");
            let head = format!("#!/bin/sh\ncd '{}'\necho \"$3\" >> runs", dir.path().display());
            write_program(&program, &format!("{head}\nGOOD='{GOOD}'\n{script}\n"));
            let budget = Budget::new(1 << 20);
            let pins = files.iter().map(|content| {
                let path = dir.path().join("file");
                fs::write(&path, content).expect("write");
                let file = fs::File::open(&path).expect("open");
                Arc::new(Pin::new(file, &budget).expect("pin"))
            });
            let pins = pins.collect();
            Self { pins, verifier: Verifier::new(program, 1, child::Depth::Full), dir }
        }

        fn verify(&mut self) -> Vec<Verdict> {
            let verdicts = self.verifier.verify(self.pins.iter()).expect("children start");
            self.pins.iter().map(|pin| verdicts[&pin.hash()].clone()).collect()
        }

        /// How many files each child that ran was given.
        fn runs(&self) -> Vec<String> {
            let runs = fs::read_to_string(self.dir.path().join("runs")).unwrap_or_default();
            runs.lines().map(str::to_owned).collect()
        }
    }

    /// Another process writes it: a child that a test beside this one forks meanwhile would inherit
    /// our descriptor, and a program that is open for writing cannot be run.
    fn write_program(path: &Path, text: &str) {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod +x \"$0\""])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        shell.stdin.take().expect("piped").write_all(text.as_bytes()).expect("write");
        assert!(shell.wait().expect("sh").success());
    }

    /// Answers for each file in turn, but runs `$1` in the place of an answer for one that says `bad`.
    fn unless_bad(bad: &str) -> String {
        format!(
            "fd=3; while [ $fd -lt $((3 + $3)) ]; do
               if grep -q bad /proc/self/fd/$fd; then {bad}; fi
               echo \"$GOOD\"; fd=$((fd + 1))
             done"
        )
    }

    fn reason(verdict: &Verdict) -> &str {
        verdict.as_ref().expect_err("rejected")
    }

    #[test]
    fn a_file_that_crashes_its_child_is_rejected_and_the_others_are_verified() {
        for (crash, told) in [("kill -SEGV $$", "SIGSEGV"), ("exit 7", "exit status: 7")] {
            // The largest goes first, so the bad one is in the middle.
            let mut stage = Stage::new(&["longest", "a bad", "end"], &unless_bad(crash));
            let verdicts = stage.verify();
            assert!(verdicts[0].is_ok() && verdicts[2].is_ok(), "{verdicts:?}");
            assert!(reason(&verdicts[1]).contains(told), "{verdicts:?}");
            assert_eq!(stage.runs(), ["3", "1"], "the others go on in another child");
        }
    }

    #[test]
    fn a_file_that_hangs_its_child_is_rejected_at_its_deadline() {
        let mut stage = Stage::new(&["longest", "a bad", "end"], &unless_bad("exec sleep 1000"));
        stage.verifier.children.deadline = Duration::from_millis(300);
        let verdicts = stage.verify();
        assert!(verdicts[0].is_ok() && verdicts[2].is_ok(), "{verdicts:?}");
        assert_eq!(reason(&verdicts[1]), "was not decoded within 300ms");
    }

    #[test]
    fn a_child_that_answers_nonsense_is_not_believed() {
        let mut stage = Stage::new(&["longest", "a bad", "end"], &unless_bad("echo '{\"rep'"));
        let verdicts = stage.verify();
        assert!(verdicts[0].is_ok() && verdicts[2].is_ok(), "{verdicts:?}");
        assert!(reason(&verdicts[1]).contains("answered nonsense"), "{verdicts:?}");
    }

    #[test]
    fn a_child_that_ends_without_an_answer_never_vouches_for_a_file() {
        let mut stage = Stage::new(&["a", "b"], "exit 0");
        let verdicts = stage.verify();
        assert!(verdicts.iter().all(Verdict::is_err), "{verdicts:?}");
    }

    #[test]
    fn the_same_content_is_decoded_once() {
        let mut stage = Stage::new(&["a", "a", "b"], &unless_bad("exit 1"));
        assert!(stage.verify().iter().all(Verdict::is_ok));
        assert_eq!(stage.runs(), ["2"], "two contents");
        assert!(stage.verify().iter().all(Verdict::is_ok));
        assert_eq!(stage.runs(), ["2"], "nothing was decoded again");
    }

    #[test]
    fn a_rejection_for_the_content_is_remembered_and_a_killed_child_is_not() {
        let refused = unless_bad("echo '{\"rejected\":\"no\"}'; exit");
        let mut stage = Stage::new(&["bad"], &refused);
        assert_eq!(reason(&stage.verify()[0]), "no");
        assert_eq!(reason(&stage.verify()[0]), "no");
        assert_eq!(stage.runs().len(), 1);

        // Killed once from outside, as for want of memory; then all is well.
        let once = "[ -e killed ] || { touch killed; kill -KILL $$; }; echo \"$GOOD\"";
        let mut stage = Stage::new(&["a"], once);
        assert!(reason(&stage.verify()[0]).contains("SIGKILL"));
        assert!(stage.verify()[0].is_ok());
    }

    #[test]
    fn a_held_file_that_is_rewritten_while_it_is_decoded_is_not_vouched_for() {
        let mut stage = Stage::new(&[], "echo changed, and longer > held; echo \"$GOOD\"");
        let held = stage.dir.path().join("held");
        fs::write(&held, "as it was").expect("write");
        let file = fs::File::open(&held).expect("open");
        stage.pins = vec![Arc::new(Pin::new(file, &Budget::new(0)).expect("pin"))];
        assert_eq!(reason(&stage.verify()[0]), "was rewritten in place while it was decoded");
    }

    #[test]
    fn a_program_that_cannot_be_started_says_nothing_about_the_files() {
        let mut stage = Stage::new(&["a"], "");
        stage.verifier.children.program = stage.dir.path().join("nowhere");
        assert!(stage.verifier.verify(stage.pins.iter()).is_err());
    }
}
