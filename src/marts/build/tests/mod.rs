//! Pools whose builders are real: this program, started again.

mod failures;
mod files;
mod legacy;
mod parts;

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use duckdb::Connection;

use super::*;
use crate::mart_pin::{MartPin, PinnedFile};
use crate::pin::{Budget, Pin};

const SCRATCH: &str = "MARTD_TEST_SCRATCH";

/// Not a test by itself: a builder, in the process that [`Stage`] starts.
#[test]
fn a_builder() {
    if let Some(scratch) = std::env::var_os(SCRATCH) {
        main(Path::new(&scratch));
    }
}

/// A pool, and a folder for its files.
struct Stage {
    dir: tempfile::TempDir,
    settings: BuilderSettings,
    pins: Arc<Budget>,
}

impl Stage {
    fn new() -> Self {
        Self::with_script("")
    }

    /// Builders run `script` first, in the folder, after they have added a line to `runs`.
    fn with_script(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("scratch")).expect("mkdir");
        let program = dir.path().join("martd");
        let text = format!(
            "#!/bin/sh\ncd '{}'\necho run >> runs\n{script}\n\
             export {SCRATCH}=\"$2\" LD_LIBRARY_PATH='{}'\n\
             exec '{}' --exact marts::build::tests::a_builder --nocapture\n",
            dir.path().display(),
            std::env::var("LD_LIBRARY_PATH").unwrap_or_default(),
            std::env::current_exe().expect("this program").display(),
        );
        write_program(&program, &text);
        let budget = TableBudget::new(64 << 20, None);
        let mut settings =
            BuilderSettings::new(program, dir.path().join("scratch"), budget).expect("threads");
        settings.builders = 1;
        Self { dir, settings, pins: Budget::new(64 << 20) }
    }

    /// What `sql` selects, as a Parquet file.
    fn pin(&self, sql: &str) -> Arc<MartPin> {
        let path = self.path("made.parquet");
        let to = path.display();
        connect().execute_batch(&format!("COPY ({sql}) TO '{to}' (FORMAT parquet)")).expect(sql);
        self.pin_file(&path)
    }

    fn pin_bytes(&self, bytes: &[u8]) -> Arc<MartPin> {
        let path = self.path("bytes.parquet");
        fs::write(&path, bytes).expect("write");
        self.pin_file(&path)
    }

    fn pin_file(&self, path: &Path) -> Arc<MartPin> {
        let pin = self.pin_one(path);
        Arc::new(MartPin::new(vec![PinnedFile { path: "made.parquet".to_owned(), pin }]))
    }

    fn pin_one(&self, path: &Path) -> Arc<Pin> {
        let file = fs::File::open(path).expect("open");
        Arc::new(Pin::new(file, &self.pins).expect("pin"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self) -> (Pool, Receiver<Outcome>) {
        let (sender, outcomes) = mpsc::channel();
        let report = move |outcome| drop(sender.send(outcome));
        (Pool::start(self.settings.clone(), report).expect("threads"), outcomes)
    }

    /// Builds one file in a pool of its own.
    fn build(&self, pin: &Arc<MartPin>) -> Verdict {
        let (pool, _outcomes) = self.start();
        let verdict = pool.build_all([pin]).remove(&pin.hash()).expect("a verdict");
        drop(pool);
        assert_eq!(self.left_behind(), 0, "in the scratch folder");
        verdict
    }

    /// How many builders were started.
    fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }

    fn left_behind(&self) -> usize {
        fs::read_dir(self.path("scratch")).expect("readable").count()
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

fn connect() -> Connection {
    Connection::open_in_memory().expect("DuckDB")
}

fn next(outcomes: &Receiver<Outcome>) -> Outcome {
    outcomes.recv_timeout(Duration::from_secs(120)).expect("an outcome")
}

fn table(verdict: &Verdict) -> &Arc<BuiltTable> {
    verdict.as_ref().expect("a table")
}

fn rejection(verdict: &Verdict) -> &FileRejection {
    verdict.as_ref().expect_err("no table")
}

/// What an engine reads of a table.
fn read(table: &BuiltTable, sql: &str) -> String {
    let engine = connect();
    let path = format!("/proc/self/fd/{}", table.as_fd().as_raw_fd());
    engine.execute_batch(&format!("ATTACH '{path}' AS v (READ_ONLY); USE v")).expect("attached");
    engine.query_row(sql, [], |row| row.get(0)).expect(sql)
}
