//! A restart in the middle of a hold goes on with the last good build.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value as Json;

use crate::harness::{Martd, Root, wait_for};
use crate::writers::{Project, Writer};

struct Stage {
    root: Root,
    state: tempfile::TempDir,
    writer: Writer,
    project: Project,
}

impl Stage {
    fn new() -> Self {
        Self {
            root: Root::new(),
            state: tempfile::tempdir().expect("a temporary directory"),
            writer: Writer::new(),
            project: Project::default(),
        }
    }

    fn state(&self) -> PathBuf {
        self.state.path().join("martd")
    }

    fn build(&mut self, invocation: &str) {
        let select = format!("SELECT '{invocation}' AS build");
        self.writer.land_stamped(&self.root, "a", &select, Some(invocation));
        self.project.built("a", invocation);
        self.project.write_ledger(&self.root, invocation);
    }

    fn start(&self) -> Martd {
        let state = self.state();
        let state = state.to_str().expect("UTF-8");
        Martd::start_with(self.root.path(), &[("MARTD_STATE_DIR", state)])
    }

    /// Waits until the published snapshot lies in the state directory.
    fn wait_kept(&self, martd: &Martd) {
        let id = martd.snapshot()["id"].as_str().expect("an id").to_owned();
        wait_for("the snapshot to be kept", || {
            let text = fs::read(self.state().join("snapshot.json")).ok()?;
            let json: Json = serde_json::from_slice(&text).expect("replaced as a whole");
            let snapshots = json["snapshots"].as_array().expect("a list");
            let is_kept = snapshots[0]["id"] == id.as_str();
            (is_kept && files(&self.state()).len() == 2 + snapshots.len()).then_some(())
        });
    }
}

/// What is kept: not the folders of builders.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
    entries.filter(|path| !path.display().to_string().contains("/martd-build-")).collect()
}

fn stop(mut martd: Martd, signal: Signal) {
    martd.signal(signal);
    martd.wait_exit();
}

#[test]
fn a_restart_under_a_hold_serves_the_last_good_build() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut stage = Stage::new();
        stage.build("one");
        let martd = stage.start();
        let before = martd.wait_ready();
        stage.wait_kept(&martd);
        stage.project.failed("test.finance.t");
        stage.build("two");
        martd.wait_snapshot("the hold", |s| s["held"]["invocation_id"] == "two");
        stop(martd, signal);

        let martd = stage.start();
        let after = martd.wait_ready();
        assert_eq!(after["id"], before["id"]);
        assert_eq!(after["verified"], true);
        assert_eq!(after["marts"][0]["mtime"], before["marts"][0]["mtime"]);
        assert_eq!(martd.query("SELECT build FROM mart.a").value(), "one");
        martd.wait_snapshot("the hold", |s| s["held"]["invocation_id"] == "two");

        stage.project.outstanding.clear();
        stage.build("three");
        martd.wait_snapshot("build three", |s| s["build"]["invocation_id"] == "three");
        stage.wait_kept(&martd);
        assert_eq!(files(&stage.state()).len(), 4, "the manifest, the lock, and two builds' files");
    }
}

#[test]
fn a_restart_serves_the_same_snapshot() {
    let mut stage = Stage::new();
    stage.build("one");
    let martd = stage.start();
    let before = martd.wait_ready();
    stage.wait_kept(&martd);
    stop(martd, Signal::TERM);
    let away = stage.root.path().join("away");
    fs::rename(stage.root.mart(""), &away).expect("rename");

    let martd = stage.start();
    let after = martd.wait_ready();
    assert_eq!(after["id"], before["id"]);
    assert!(after["directory"].as_str().expect("a reason").contains("cannot be read"), "{after}");

    fs::rename(&away, stage.root.mart("")).expect("rename");
    let back = martd.wait_snapshot("the directory", |s| s["directory"].is_null());
    assert_eq!((&back["id"], &back["generation"]), (&before["id"], &1.into()));
}

#[test]
fn damaged_state_is_ignored_with_a_message() {
    let mut stage = Stage::new();
    stage.build("one");
    let martd = stage.start();
    martd.wait_ready();
    stage.wait_kept(&martd);
    stop(martd, Signal::TERM);

    let kept = |name: &str| {
        let files = files(&stage.state());
        let found = files.iter().find(|path| path.to_str().is_some_and(|p| p.ends_with(name)));
        found.expect("kept").clone()
    };
    for (file, damage) in [
        (kept(".parquet"), b"not what was kept".as_slice()),
        (kept("snapshot.json"), b"{".as_slice()),
        (kept("snapshot.json"), br#"{"layout": 99}"#.as_slice()),
    ] {
        let good = fs::read(&file).expect("readable");
        fs::write(&file, damage).expect("write");
        let martd = stage.start();
        martd.wait_ready();
        assert_eq!(martd.query("SELECT build FROM mart.a").value(), "one", "from the directory");
        let log = martd.log();
        assert!(log.iter().any(|line| line["message"] == "the kept snapshot is ignored"));
        stop(martd, Signal::KILL);
        fs::write(&file, good).expect("write");
    }
}

#[test]
fn a_state_directory_in_use_is_refused() {
    let stage = Stage::new();
    let _first = stage.start();
    let output = std::process::Command::new(crate::harness::program())
        .env("PARQUET_DIR", stage.root.path())
        .env("MARTD_LISTEN", "127.0.0.1:0")
        .env("MARTD_STATE_DIR", stage.state())
        .output()
        .expect("martd starts");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("cannot be used: another martd has it"), "{message}");
}
