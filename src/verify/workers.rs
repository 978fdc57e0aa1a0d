//! Deals files out to decoding children, and remembers what they report by content.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use blake3::Hash;

use super::book::{Book, Claim};
use super::children::{Children, FILES_PER_CHILD, Judged, Kept, Stopped};
use super::{Verdict, child};
use crate::engine::{self, LegacyTable};
use crate::legacy::LegacyVersion;
use crate::pin::{Pin, descriptor_limit};

/// A batch is split over several children only when each gets this much to do: starting one costs
/// more than decoding a small mart.
const BYTES_PER_CHILD: u64 = 32 << 20;

/// Decodes files in child processes and remembers the verdicts by content. Several threads may ask,
/// and no content is decoded twice at the same time.
#[derive(Debug)]
pub struct Verifier {
    children: Children,
    parallel: usize,
    book: Book,
}

impl Verifier {
    /// A verifier that starts `program` (martd itself) as its child, up to `parallel` at once for
    /// each caller.
    pub fn new(program: impl Into<PathBuf>, parallel: usize, depth: child::Depth) -> Self {
        Self {
            children: Children::new(program.into(), depth),
            parallel: parallel.max(1),
            book: Book::default(),
        }
    }

    /// The verdicts on these files by content; decodes those that are not known yet, and waits for
    /// those that another caller decodes at the moment.
    ///
    /// A child that crashes or hangs condemns the file that it was at, and the others go on in
    /// another child. There is no verdict on a file that was rewritten in place while it was decoded:
    /// its bytes are gone, and what was found says nothing about the content that its hash stands for.
    ///
    /// # Errors
    /// When no child can be started (no descriptors, no memory). That says nothing about the files:
    /// try again later.
    pub fn verify<'p>(
        &self,
        pins: impl Iterator<Item = &'p Arc<Pin>>,
    ) -> io::Result<HashMap<Hash, Verdict>> {
        self.verify_with(pins, None)
    }

    /// The same, for a caller that will ask again soon. It must be the one that has asked with this
    /// `kept` before, and live on: a child dies with the thread that started it.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_and_keep<'p>(
        &self,
        pins: impl Iterator<Item = &'p Arc<Pin>>,
        kept: &mut Kept,
    ) -> io::Result<HashMap<Hash, Verdict>> {
        self.verify_with(pins, Some(kept))
    }

    fn verify_with<'p>(
        &self,
        pins: impl Iterator<Item = &'p Arc<Pin>>,
        mut kept: Option<&mut Kept>,
    ) -> io::Result<HashMap<Hash, Verdict>> {
        let mut missing: HashMap<Hash, &Pin> = pins.map(|pin| (pin.hash(), &**pin)).collect();
        let mut verdicts = HashMap::with_capacity(missing.len());
        loop {
            let (claim, others) = self.book.claim(&missing, &mut verdicts);
            if !claim.pins.is_empty() {
                verdicts.extend(self.decode(&claim, kept.as_deref_mut())?);
            }
            missing.retain(|hash, _| claim.pins.iter().all(|pin| pin.hash() != *hash));
            drop(claim);
            for (hash, outcome) in &others {
                if let Some(verdict) = self.book.wait(hash, outcome) {
                    verdicts.insert(*hash, verdict);
                }
            }
            missing.retain(|hash, _| !verdicts.contains_key(hash));
            if missing.is_empty() {
                return Ok(verdicts);
            }
        }
    }

    /// Decodes what was claimed. Leaves out what was rewritten meanwhile.
    fn decode(
        &self,
        claim: &Claim<'_, '_>,
        kept: Option<&mut Kept>,
    ) -> io::Result<Vec<(Hash, Verdict)>> {
        let mut verdicts = Vec::with_capacity(claim.pins.len());
        // Each child's files take as many descriptors again: half of what pins leave, for all children
        // of two callers.
        let descriptors = usize::try_from(descriptor_limit() / 8).unwrap_or(usize::MAX);
        let most = (descriptors / self.parallel).clamp(1, FILES_PER_CHILD);
        let batches = batches(claim.pins.clone(), most);
        if let [batch] = &batches[..] {
            let judged = self.children.decode(batch, kept)?;
            return Ok(batch.iter().zip(judged).filter_map(|(pin, j)| self.note(pin, j)).collect());
        }
        for round in batches.chunks(self.parallel) {
            let children = &self.children;
            let outcomes: Vec<io::Result<Vec<Judged>>> = thread::scope(|scope| {
                let decode = |batch: &Vec<&Pin>| children.decode(batch, None);
                let threads: Vec<_> =
                    round.iter().map(|batch| scope.spawn(move || decode(batch))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            for (outcome, batch) in outcomes.into_iter().zip(round) {
                verdicts
                    .extend(batch.iter().zip(outcome?).filter_map(|(pin, j)| self.note(pin, j)));
            }
        }
        Ok(verdicts)
    }

    /// Enters what decoding a file came to, unless the child may have decoded other bytes than those
    /// that the hash stands for.
    fn note(&self, pin: &Pin, judged: Judged) -> Option<(Hash, Verdict)> {
        pin.is_intact().then(|| {
            self.book.enter(pin.hash(), &judged);
            (pin.hash(), judged.verdict)
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::Budget;
    use std::fs;
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::Duration;

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

        fn verify(&self) -> Vec<Verdict> {
            let verdicts = self.verifier.verify(self.pins.iter()).expect("children start");
            self.pins.iter().map(|pin| verdicts[&pin.hash()].clone()).collect()
        }

        /// How many files each child that ran was given.
        fn runs(&self) -> Vec<String> {
            let runs = fs::read_to_string(self.dir.path().join("runs")).unwrap_or_default();
            runs.lines().map(str::to_owned).collect()
        }
    }

    impl Stage {
        /// Waits until this many children have begun.
        fn wait_runs(&self, count: usize) {
            while self.runs().len() < count {
                thread::yield_now();
            }
        }

        /// Waits until somebody waits for what another caller decodes, or does not wait.
        fn wait_waiting(&self) {
            while !self.verifier.book.is_awaited() && self.runs().len() < 2 {
                thread::yield_now();
            }
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
            let stage = Stage::new(&["longest", "a bad", "end"], &unless_bad(crash));
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
        let stage = Stage::new(&["longest", "a bad", "end"], &unless_bad("echo '{\"rep'"));
        let verdicts = stage.verify();
        assert!(verdicts[0].is_ok() && verdicts[2].is_ok(), "{verdicts:?}");
        assert!(reason(&verdicts[1]).contains("answered nonsense"), "{verdicts:?}");
    }

    #[test]
    fn a_child_that_ends_without_an_answer_never_vouches_for_a_file() {
        let stage = Stage::new(&["a", "b"], "exit 0");
        let verdicts = stage.verify();
        assert!(verdicts.iter().all(Verdict::is_err), "{verdicts:?}");
    }

    #[test]
    fn the_same_content_is_decoded_once() {
        let stage = Stage::new(&["a", "a", "b"], &unless_bad("exit 1"));
        assert!(stage.verify().iter().all(Verdict::is_ok));
        assert_eq!(stage.runs(), ["2"], "two contents");
        assert!(stage.verify().iter().all(Verdict::is_ok));
        assert_eq!(stage.runs(), ["2"], "nothing was decoded again");
    }

    #[test]
    fn what_another_caller_decodes_is_waited_for() {
        for (answer, good) in [("echo \"$GOOD\"", true), ("kill -KILL $$", false)] {
            // One says `slow`, and its child takes until it is let go.
            let script = format!(
                "while grep -q slow /proc/self/fd/3 && [ ! -e go ]; do sleep 0.01; done; {answer}"
            );
            let stage = Stage::new(&["slow", "other"], &script);
            let (slow, both) = (&stage.pins[..1], &stage.pins);
            thread::scope(|scope| {
                let first = scope.spawn(|| stage.verifier.verify(slow.iter()).expect("starts"));
                stage.wait_runs(1);
                let second = scope.spawn(|| stage.verifier.verify(both.iter()).expect("starts"));
                stage.wait_runs(2);
                fs::write(stage.dir.path().join("go"), "").expect("write");
                let (first, second) = (first.join().expect("ok"), second.join().expect("ok"));
                assert_eq!((first.len(), second.len()), (1, 2));
                assert!(first.values().chain(second.values()).all(|v| v.is_ok() == good));
            });
            assert_eq!(stage.runs(), ["1", "1"], "each content was decoded once");
        }
    }

    #[test]
    fn what_another_caller_could_not_decode_is_decoded_by_who_waits() {
        // The first child's file is rewritten under it, which says nothing of the second's.
        let script = "echo \"$GOOD\" > answer; while [ ! -e go ]; do sleep 0.01; done; cat answer";
        let mut stage = Stage::new(&["as it was"], script);
        let held = stage.dir.path().join("held");
        fs::write(&held, "as it was").expect("write");
        let file = fs::File::open(&held).expect("open");
        stage.pins.push(Arc::new(Pin::new(file, &Budget::new(0)).expect("pin")));
        let (copied, held_pin) = (&stage.pins[..1], &stage.pins[1..]);
        thread::scope(|scope| {
            let first = scope.spawn(|| stage.verifier.verify(held_pin.iter()).expect("starts"));
            stage.wait_runs(1);
            let second = scope.spawn(|| stage.verifier.verify(copied.iter()).expect("starts"));
            stage.wait_waiting();
            fs::write(&held, "changed, and longer").expect("write");
            fs::write(stage.dir.path().join("go"), "").expect("write");
            assert!(first.join().expect("ok").is_empty());
            let second = second.join().expect("ok");
            assert!(second.len() == 1 && second.values().all(Verdict::is_ok));
        });
        assert_eq!(stage.runs(), ["1", "1"]);
    }

    #[test]
    fn a_rejection_for_the_content_is_remembered_and_a_killed_child_is_not() {
        let refused = unless_bad("echo '{\"rejected\":\"no\"}'; exit");
        let stage = Stage::new(&["bad"], &refused);
        assert_eq!(reason(&stage.verify()[0]), "no");
        assert_eq!(reason(&stage.verify()[0]), "no");
        assert_eq!(stage.runs().len(), 1);

        // Killed once from outside, as for want of memory; then all is well.
        let once = "[ -e killed ] || { touch killed; kill -KILL $$; }; echo \"$GOOD\"";
        let stage = Stage::new(&["a"], once);
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
        assert_eq!(stage.verifier.verify(stage.pins.iter()).expect("starts"), HashMap::new());
    }

    #[test]
    fn a_program_that_cannot_be_started_says_nothing_about_the_files() {
        let mut stage = Stage::new(&["a"], "");
        stage.verifier.children.program = stage.dir.path().join("nowhere");
        assert!(stage.verifier.verify(stage.pins.iter()).is_err());
    }
}
