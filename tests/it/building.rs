//! Tables are built once, by a process that can harm nobody.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root, names, wait_for};
use crate::proc::{Builder, builders, cpu_ticks, engine};
use crate::writers::{Project, Writer, put, serving};

/// A file that DuckDB is at for minutes: lists in lists are read in exponential time.
fn land_endless(root: &Root, writer: &Writer, name: &str) {
    let select = format!("SELECT {}i{} AS x FROM range(20) t(i)", "[".repeat(30), "]".repeat(30));
    writer.land(root, name, &select);
}

/// The builder that is at the endless file: no other takes as much time.
fn wait_builder(martd: &Martd) -> Pid {
    let endless =
        |child: &Builder| child.busy && cpu_ticks(child.pid.as_raw_nonzero().get() as u32) > 50;
    wait_for("a builder at work", || {
        builders(martd.pid()).iter().find(|child| endless(child)).map(|child| child.pid)
    })
}

fn kill(builder: Pid) {
    let _ = rustix::process::kill_process(builder, Signal::KILL); // it may be done
}

#[test]
fn a_killed_builder_costs_the_file_that_it_was_at() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    land_endless(&root, &writer, "endless");
    let first = wait_builder(&martd);
    writer.land(&root, "a", "SELECT 2 AS x");
    writer.land(&root, "b", "SELECT 2 AS x");
    // It holds up no other.
    let snapshot = martd.wait_snapshot("the others", |s| s["marts"][1]["name"] == "b");
    assert_eq!(names(&snapshot["marts"], "name"), ["a", "b"]);
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 2);
    assert!(builders(martd.pid()).iter().any(|child| child.pid == first), "it is at work still");

    // Another tries once more.
    kill(first);
    wait_for("its end", || {
        builders(martd.pid()).iter().all(|child| child.pid != first).then_some(())
    });
    kill(wait_builder(&martd));
    let snapshot = martd.wait_snapshot("the rejection", |s| !s["rejected"][0].is_null());
    assert_eq!(snapshot["rejected"][0]["file"], "endless.parquet");
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("text");
    assert!(reason.contains("SIGKILL"), "{reason}");
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 2);

    writer.land(&root, "endless", "SELECT 3 AS x");
    martd.wait_snapshot("the good file", |s| s["marts"][2]["name"] == "endless");
}

#[test]
fn a_killed_builder_is_not_remembered() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "small", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    writer.land(&root, "large", "SELECT hash(i) AS x FROM range(4_000_000) t(i)");
    // Until it is given up, kill whoever is at it; nobody writes it again.
    let rejected = |s: &Json| s["rejected"][0]["file"] == "large.parquet";
    wait_for("the rejection", || {
        let busy = builders(martd.pid()).into_iter().filter(|child| child.busy);
        busy.for_each(|child| kill(child.pid));
        rejected(&martd.snapshot()).then_some(())
    });
    assert_eq!(martd.query("SELECT x FROM mart.small").value(), 1);
    martd.signal(Signal::HUP);
    let served = martd.wait_snapshot("the good file", |s| s["marts"][0]["name"] == "large");
    assert_eq!((&served["marts"][0]["rows"], &served["rejected"]), (&4_000_000.into(), &json!([])));
}

#[test]
fn a_builder_dies_with_martd() {
    let root = Root::new();
    land_endless(&root, &Writer::new(), "endless");
    let mut martd = Martd::start(root.path());
    let child = wait_builder(&martd);
    martd.signal(Signal::KILL);
    martd.wait_exit();
    wait_for("the builder to be gone", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.as_raw_nonzero()));
        status.map_or(true, |status| status.contains("State:\tZ")).then_some(())
    });
}

#[test]
fn a_builder_waits_for_the_next_file_and_not_for_ever() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let idle = || {
        let children = builders(martd.pid());
        let is_idle = !children.is_empty() && children.iter().all(|child| !child.busy);
        is_idle.then_some(children)
    };
    wait_for("a builder that waits", idle);
    for name in ["b", "c", "d", "e"] {
        writer.land(&root, name, &format!("SELECT '{name}' AS y"));
        martd.wait_snapshot("another mart", |s| names(&s["marts"], "name").contains(&name.into()));
    }
    let waiting = wait_for("builders that wait", idle);
    assert!(waiting.len() <= 2, "{} for five files", waiting.len());

    waiting.iter().for_each(|child| kill(child.pid));
    writer.land(&root, "f", "SELECT 1 AS z");
    let snapshot = martd.wait_snapshot("a sixth", |s| s["marts"][5]["name"] == "f");
    assert_eq!(names(&snapshot["rejected"], "file"), [""; 0], "they were killed with no file");

    wait_for("its end", || builders(martd.pid()).is_empty().then_some(()));
}

/// How many tables were built. The log comes through a pipe, and may be behind.
fn built(martd: &Martd) -> usize {
    martd.log().iter().filter(|line| line["message"] == "built").count()
}

#[test]
fn content_that_is_known_is_not_built_again() {
    let root = Root::new();
    let writer = Writer::new();
    for name in ["a", "b"] {
        writer.land(&root, name, &format!("SELECT '{name}' AS x"));
    }
    let martd = Martd::start(root.path());
    martd.wait_snapshot("both", |s| s["marts"][1]["name"] == "b");
    wait_for("both files in the log", || (built(&martd) == 2).then_some(()));

    let generation = martd.snapshot()["generation"].as_u64().expect("a number");
    writer.land(&root, "a", "SELECT 'a' AS x"); // the same bytes, a new file
    martd.wait_snapshot("the new file", |s| s["generation"].as_u64() > Some(generation));
    writer.land(&root, "a", "SELECT 'c' AS x");
    martd.wait_snapshot("the new content", |s| s["generation"].as_u64() > Some(generation + 1));
    // Had the same bytes been built again, they would be in the log before this.
    wait_for("the new content in the log", || (built(&martd) >= 3).then_some(()));
    assert_eq!(built(&martd), 3);
}

#[test]
fn tables_are_built_before_their_build_ends() {
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
    wait_for("the first in the log", || (built(&martd) == 1).then_some(()));

    land(&mut project, "second");
    wait_for("the table of a file that is held", || (built(&martd) == 2).then_some(()));
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), "first");
    project.write_ledger(&root, "second");
    martd.wait_snapshot("the second build", |s| s["build"]["invocation_id"] == "second");
    assert_eq!(built(&martd), 2);

    // So what has no table is known before anybody asks to serve it.
    let mut damaged = writer.parquet("SELECT i, hash(i) AS h FROM range(5000) t(i)", Some("third"));
    damaged[100..2_000].fill(0xff);
    put(root.mart("b.parquet"), &damaged);
    let snapshot = martd.wait_snapshot("the verdict", |s| s["rejected"][0]["file"] == "b.parquet");
    assert_eq!(names(&snapshot["marts"], "name"), ["a"]);
}

#[test]
fn an_overwritten_build_is_served_from_its_tables() {
    let root = Root::new();
    let writer = Writer::new();
    let mut project = Project::default();
    writer.land_stamped(&root, "a", "SELECT 'first' AS x", Some("first"));
    project.built("a", "first");
    project.write_ledger(&root, "first");
    let martd = Martd::start(root.path());
    martd.wait_snapshot("the first build", |s| s["build"]["invocation_id"] == "first");
    // The second build's file is overwritten by the third's before its ledger is there.
    for build in ["second", "third"] {
        writer.land_stamped(&root, "a", &format!("SELECT '{build}' AS x"), Some(build));
        martd.wait_snapshot("the file", |s| s["building"]["pending"][0]["invocation_id"] == build);
    }
    project.built("a", "second");
    project.write_ledger(&root, "second");
    martd.wait_snapshot("the second build", |s| s["build"]["invocation_id"] == "second");
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), "second");
}

#[test]
fn tables_that_memory_has_no_room_for_lie_on_disk() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    writer.land(&root, "b", "SELECT hash(i) AS x FROM range(100_000) t(i)");
    let tables = tempfile::tempdir().expect("a temporary directory");
    let dir = tables.path().to_str().expect("UTF-8");
    let small = [("MARTD_TABLE_MEMORY", "300KiB"), ("MARTD_TABLE_DIR", dir)];
    let martd = Martd::start_with(root.path(), &small);
    let snapshot = martd.wait_snapshot("both", |s| s["marts"][1]["name"] == "b");
    let kind = |mart: usize| snapshot["marts"][mart]["table"].clone();
    assert_eq!((kind(0), kind(1)), ("memory".into(), "disk".into()));
    let bytes = snapshot["marts"][1]["table_bytes"].as_u64().expect("a number");
    assert_eq!(martd.query("SELECT count(DISTINCT x) FROM mart.b").value(), 100_000);
    let metrics = martd.get("/metrics").body;
    assert!(metrics.contains(&format!("martd_table_bytes{{kind=\"disk\"}} {bytes}")), "{metrics}");
    assert_eq!(std::fs::read_dir(tables.path()).expect("readable").count(), 0, "without a name");

    // Without a folder it has no room, and says how much it needs.
    let martd = Martd::start_with(root.path(), &small[..1]);
    let snapshot =
        martd.wait_snapshot("the rejection", |s| s["rejected"][0]["file"] == "b.parquet");
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("text");
    assert!(reason.contains("MARTD_TABLE_DIR"), "{reason}");
    martd.wait_snapshot("the other", |s| s["marts"][0]["name"] == "a");
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

#[test]
fn the_kernel_ends_builders_first_and_then_engines() {
    let (_root, martd) = serving("a", "SELECT 1 AS x", &[]);
    let badness = |pid: i32| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it runs");
        text.trim().parse().expect("a number")
    };
    let builder = builders(martd.pid()).pop().expect("one is kept for a while").pid;
    let [front, engine] = [martd.pid(), engine(martd.pid())].map(|pid| badness(pid as i32));
    let builder = badness(builder.as_raw_nonzero().get());
    assert!(front < engine && engine < builder, "{front}, {engine}, {builder}");
}
