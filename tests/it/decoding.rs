//! Files are decoded once, by a child process that can harm nobody.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::harness::{Martd, Root, names, wait_for};
use crate::proc::{Decoder, cpu_ticks, decoders};
use crate::writers::{Project, Writer, put};

/// A file that DuckDB is at for minutes: lists in lists are decoded in exponential time. It is the
/// largest of a directory of small marts, so it is decoded first.
fn land_endless(root: &Root, writer: &Writer, name: &str) {
    let select = format!("SELECT {}i{} AS x FROM range(20) t(i)", "[".repeat(30), "]".repeat(30));
    writer.land(root, name, &select);
}

/// The child that is at the endless file: no other takes as much time.
fn wait_decoder(martd: &Martd) -> Pid {
    let endless =
        |child: &Decoder| child.busy && cpu_ticks(child.pid.as_raw_nonzero().get() as u32) > 50;
    wait_for("a child at work", || {
        decoders(martd.pid()).iter().find(|child| endless(child)).map(|child| child.pid)
    })
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
fn a_child_waits_for_the_next_file_and_not_for_ever() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let idle = || {
        let children = decoders(martd.pid());
        (children.len() == 1 && !children[0].busy).then(|| children[0].pid)
    };
    let first = wait_for("a child that waits", idle);
    writer.land(&root, "b", "SELECT 1 AS y");
    martd.wait_snapshot("another mart", |s| s["marts"][1]["name"] == "b");
    assert_eq!(wait_for("a child that waits", idle), first, "it has decoded both");

    rustix::process::kill_process(first, Signal::KILL).expect("it runs");
    writer.land(&root, "c", "SELECT 1 AS z");
    let snapshot = martd.wait_snapshot("a third", |s| s["marts"][2]["name"] == "c");
    assert_eq!(names(&snapshot["rejected"], "file"), [""; 0], "it was killed with no file");

    wait_for("its end", || decoders(martd.pid()).is_empty().then_some(()));
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
    // The log comes through a pipe, and may be behind.
    wait_for("both files in the log", || (decoded() == 2).then_some(()));

    let generation = martd.snapshot()["generation"].as_u64().expect("a number");
    writer.land(&root, "a", "SELECT 'a' AS x"); // the same bytes, a new file
    martd.wait_snapshot("the new file", |s| s["generation"].as_u64() > Some(generation));
    writer.land(&root, "a", "SELECT 'c' AS x");
    martd.wait_snapshot("the new content", |s| s["generation"].as_u64() > Some(generation + 1));
    // Had the same bytes been decoded again, they would be in the log before this.
    wait_for("the new content in the log", || (decoded() >= 3).then_some(()));
    assert_eq!(decoded(), 3);
}

#[test]
fn files_are_decoded_as_they_land_and_not_when_their_build_ends() {
    let root = Root::new();
    let writer = Writer::new();
    let mut project = Project::default();
    let land = |project: &mut Project, invocation: &str| {
        let select = format!("SELECT '{invocation}' AS x");
        writer.land_stamped(&root, "a", &select, Some(invocation));
        project.built("a", invocation);
    };
    land(&mut project, "first");
    project.write_ledger(&root, "first");
    let martd = Martd::start(root.path());
    martd.wait_snapshot("the first build", |s| s["build"]["invocation_id"] == "first");
    let decoded = || martd.log().iter().filter(|line| line["message"] == "decoded").count();
    let before = decoded();

    land(&mut project, "second");
    wait_for("the decoding of a file that is held", || (decoded() > before).then_some(()));
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), "first");
    project.write_ledger(&root, "second");
    martd.wait_snapshot("the second build", |s| s["build"]["invocation_id"] == "second");
    assert_eq!(decoded(), before + 1);

    // So what does not decode is known before anybody asks to serve it.
    let mut damaged = writer.parquet("SELECT i, hash(i) AS h FROM range(5000) t(i)", Some("third"));
    damaged[100..2_000].fill(0xff);
    put(root.mart("b.parquet"), &damaged);
    let snapshot = martd.wait_snapshot("the verdict", |s| s["rejected"][0]["file"] == "b.parquet");
    assert_eq!(names(&snapshot["marts"], "name"), ["a"]);
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
