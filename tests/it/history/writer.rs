//! A writer as a process of its own, so that it can be killed for real at any moment.
//!
//! The test binary starts itself again with [`PROCESS`] as the only test to run. Jobs go to its
//! standard input and acknowledgements come back on its standard error, a line each: standard output
//! belongs to the test runner.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::record::Version;
use super::stamp;
use crate::harness::PATIENCE;
use crate::writers::{Writer as Parquet, put};

/// The name of the "test" below.
const PROCESS: &str = "history::writer::process";
const ACKNOWLEDGED: &str = "acknowledged";

/// Something to write.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Job {
    Mart { path: PathBuf, name: String, version: Version, invocation: Option<String>, way: Way },
    Ledger { path: PathBuf, text: String },
}

/// How a file gets into its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// DuckDB's COPY as it comes: through `tmp_x.parquet` and a rename when `x.parquet` is there,
    /// straight to the name when not.
    Copy,
    /// DuckDB's COPY straight to the name: the file is truncated and written anew.
    CopyStraight,
    /// A temporary file and a rename.
    Rename,
    /// Unlinked first, as DuckDB up to 1.4 does.
    UnlinkThenRename,
    /// The same inode, truncated and written in as many parts as there are pauses here, which are in
    /// microseconds: pandas and pyarrow.
    InPlace(Vec<u64>),
    /// A rename of a file with a whole footer over pages that do not decode.
    Damaged,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    Killed,
}

/// A writer process. Ends when dropped.
pub struct Writer {
    process: Child,
    jobs: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Its temporary files, which a killed process leaves behind.
    scratch: Arc<TempDir>,
}

impl Writer {
    pub fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().expect("a temporary directory")))
    }

    fn start_in(scratch: Arc<TempDir>) -> Self {
        let program = std::env::current_exe().expect("this test binary");
        let mut process = Command::new(program)
            .args([PROCESS, "--exact", "--ignored", "--nocapture"])
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the test binary starts");
        let stderr = BufReader::new(process.stderr.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let jobs = process.stdin.take();
        Self { process, jobs, lines, scratch }
    }

    /// Has a job done.
    pub fn run(&mut self, job: &Job) {
        assert_eq!(self.run_or_kill(job, PATIENCE), Ended::Done, "not done in time: {job:?}");
    }

    /// Has a job done, or kills the process if it has not ended in time. A killed process is
    /// followed by a new one.
    pub fn run_or_kill(&mut self, job: &Job, time: Duration) -> Ended {
        let mut line = serde_json::to_string(job).expect("JSON");
        line.push('\n');
        let jobs = self.jobs.as_mut().expect("open until the drop");
        jobs.write_all(line.as_bytes()).expect("the writer reads");
        match self.lines.recv_timeout(time) {
            Ok(line) if line == ACKNOWLEDGED => Ended::Done,
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                *self = Self::start_in(Arc::clone(&self.scratch));
                Ended::Killed
            }
            Ok(line) => {
                let rest: Vec<String> = self.lines.iter().collect();
                panic!("the writer failed: {line}\n{}", rest.join("\n"))
            }
            Err(RecvTimeoutError::Disconnected) => panic!("the writer has gone"),
        }
    }

    /// Kills the process. Once this returns, it writes no more.
    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        self.end();
    }
}

#[test]
#[ignore = "it is the writer's process, which the tests of the history start themselves"]
fn process() {
    let parquet = Parquet::new();
    for line in std::io::stdin().lines() {
        let job: Job = serde_json::from_str(&line.expect("a line")).expect("a job");
        match job {
            Job::Ledger { path, text } => put(path, text.as_bytes()),
            Job::Mart { path, name, version, invocation, way } => {
                let rows = stamp::rows(&name, version);
                write(&parquet, &rows, &path, invocation.as_deref(), &way);
            }
        }
        eprintln!("{ACKNOWLEDGED}");
    }
}

fn write(parquet: &Parquet, rows: &str, path: &Path, invocation: Option<&str>, way: &Way) {
    let mut options = stamp::LAYOUT.to_owned();
    if invocation.is_some() {
        options = format!("{options}, {}", crate::writers::stamp(invocation));
    }
    match way {
        Way::Copy => parquet.copy(rows, path, &options),
        Way::CopyStraight => parquet.copy(rows, path, &format!("{options}, USE_TMP_FILE false")),
        Way::Rename => put(path.to_owned(), &parquet.bytes(rows, &options)),
        Way::UnlinkThenRename => {
            let bytes = parquet.bytes(rows, &options);
            let _ = fs::remove_file(path); // the first time there is none
            put(path.to_owned(), &bytes);
        }
        Way::InPlace(pauses) => {
            let bytes = parquet.bytes(rows, &options);
            let mut file = File::create(path).expect("create");
            for (part, pause) in bytes.chunks(bytes.len().div_ceil(pauses.len())).zip(pauses) {
                thread::sleep(Duration::from_micros(*pause));
                file.write_all(part).expect("write");
            }
        }
        Way::Damaged => {
            let mut bytes = parquet.bytes(rows, &options);
            // Beyond the first pages, which are read before anything is decoded; and wide enough for
            // the header of a page, without which not even uncompressed values can be read.
            let (from, to) = (bytes.len() / 2, bytes.len() * 3 / 4);
            bytes[from..to].fill(0xff);
            put(path.to_owned(), &bytes);
        }
    }
}
