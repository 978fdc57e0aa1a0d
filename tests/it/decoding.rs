//! Files are decoded once, by a child process that can harm nobody.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::harness::{Martd, Root, names, wait_for};
use crate::writers::{Project, Writer};

/// A file that DuckDB is at for minutes: lists in lists are decoded in exponential time. It is the
/// largest of a directory of small marts, so it is decoded first.
fn land_endless(root: &Root, writer: &Writer, name: &str) {
    let select = format!("SELECT {}i{} AS x FROM range(20) t(i)", "[".repeat(30), "]".repeat(30));
    writer.land(root, name, &select);
}

/// The children of a process that runs `decode`.
fn decoders(martd: &Martd) -> Vec<Pid> {
    fs::read_dir("/proc")
        .expect("procfs")
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let child = status.contains(&format!("\nPPid:\t{}\n", martd.pid()));
            (child && command.contains("\0decode\0")).then(|| Pid::from_raw(pid)).flatten()
        })
        .collect()
}

fn wait_decoder(martd: &Martd) -> Pid {
    wait_for("a child", || decoders(martd).first().copied())
}

#[test]
fn a_killed_child_costs_the_file_that_it_was_at_and_no_other() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    land_endless(&root, &writer, "endless");
    let child = wait_decoder(&martd);
    writer.land(&root, "a", "SELECT 2 AS x");
    writer.land(&root, "b", "SELECT 2 AS x");
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 1, "answered meanwhile");

    rustix::process::kill_process(child, Signal::KILL).expect("it runs");
    let snapshot = martd.wait_snapshot("the others", |s| s["marts"][1]["name"] == "b");
    assert_eq!(names(&snapshot["marts"], "name"), ["a", "b"]);
    assert_eq!(snapshot["rejected"][0]["file"], "endless.parquet");
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("text");
    assert!(reason.contains("SIGKILL"), "{reason}");
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 2);

    writer.land(&root, "endless", "SELECT 3 AS x");
    martd.wait_snapshot("the good file", |s| s["marts"][2]["name"] == "endless");
}

#[test]
fn a_child_dies_with_its_parent() {
    let root = Root::new();
    land_endless(&root, &Writer::new(), "endless");
    let mut martd = Martd::start(root.path());
    let child = wait_decoder(&martd);
    martd.signal(Signal::KILL);
    martd.wait_exit();
    wait_for("the child to be gone", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.as_raw_nonzero()));
        status.map_or(true, |status| status.contains("State:\tZ")).then_some(())
    });
}

#[test]
fn content_that_is_known_is_not_decoded_again() {
    let root = Root::new();
    let writer = Writer::new();
    for name in ["a", "b"] {
        writer.land(&root, name, &format!("SELECT '{name}' AS x"));
    }
    let martd = Martd::start(root.path());
    martd.wait_snapshot("both", |s| s["marts"][1]["name"] == "b");
    let decoded = || -> u64 {
        let log = martd.log();
        let lines = log.iter().filter(|line| line["message"] == "decoded");
        lines.map(|line| line["files"].as_u64().expect("a number")).sum()
    };
    let before = decoded();

    let generation = martd.snapshot()["generation"].as_u64().expect("a number");
    writer.land(&root, "a", "SELECT 'a' AS x"); // the same bytes, a new file
    martd.wait_snapshot("the new file", |s| s["generation"].as_u64() > Some(generation));
    assert_eq!(decoded(), before);
    writer.land(&root, "a", "SELECT 'c' AS x");
    martd.wait_snapshot("the new content", |s| s["generation"].as_u64() > Some(generation + 1));
    assert_eq!(decoded(), before + 1);
}

#[test]
fn a_build_of_eleven_small_marts_is_published_soon() {
    let root = Root::new();
    let writer = Writer::new();
    let mut project = Project::default();
    let models: Vec<String> = (0..11).map(|model| format!("mart_{model}")).collect();
    let mut build = |invocation: &str| {
        for model in &models {
            let select = format!("SELECT i, '{invocation} {model}' AS x FROM range(1000) t(i)");
            writer.land_stamped(&root, model, &select, Some(invocation));
            project.built(model, invocation);
        }
        project.write_ledger(&root, invocation);
        Instant::now()
    };
    build("first");
    let martd = Martd::start(root.path());
    martd.wait_snapshot("the first build", |s| s["build"]["invocation_id"] == "first");
    let mut took: Vec<Duration> = Vec::new();
    for invocation in ["two", "three", "four", "five", "six"] {
        let written = build(invocation);
        martd.wait_snapshot("the build", |s| s["build"]["invocation_id"] == invocation);
        took.push(written.elapsed());
    }
    took.sort_unstable();
    println!("ledger to published: median {:?}, slowest {:?}", took[2], took[4]);
}
