//! One consistent snapshot: whatever writers do, no answer mixes builds.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::harness::{Martd, Root};
use crate::writers::{Project, Writer};

const MARTS: usize = 8;
const CLIENTS: usize = 4;
const DURATION: Duration = Duration::from_secs(30);
const LEAST_BUILDS: usize = 50;

fn build(writer: &Writer, root: &Root, project: &mut Project, number: u64) {
    let invocation = format!("build-{number}");
    for mart in 0..MARTS {
        let select = format!("SELECT {number} AS build, i AS id FROM range(100) t(i)");
        writer.land_stamped(root, &format!("m{mart}"), &select, Some(&invocation));
        project.built(&format!("m{mart}"), &invocation);
    }
    project.write_ledger(root, &invocation);
}

/// What one client saw, in order: the snapshot's generation is not in a query's answer, but builds
/// are numbered, so their order is the same.
fn ask_until(martd: &Martd, sql: &str, done: &AtomicBool) -> Vec<u64> {
    let mut seen = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let answer = martd.query(sql);
        assert_eq!(answer.status, 200, "no query may fail: {answer:?}");
        let rows = answer.rows();
        let row = rows[0].as_object().expect("a row");
        let builds: BTreeSet<u64> =
            row.values().map(|value| value.as_u64().expect("a build")).collect();
        assert_eq!(builds.len(), 1, "an answer mixes builds: {row:?}");
        seen.extend(builds);
    }
    seen
}

#[test]
fn builds_without_a_pause_are_whole_and_in_order() {
    let root = Root::new();
    let writer = Writer::new();
    let mut project = Project::default();
    build(&writer, &root, &mut project, 1);
    let martd = Martd::start(root.path());
    martd.wait_ready();

    // min and max of every mart: a torn scan inside one mart would show as well.
    let columns: Vec<String> =
        (0..MARTS).map(|m| format!("min(m{m}.build), max(m{m}.build)")).collect();
    let joins: Vec<String> = (1..MARTS).map(|m| format!("JOIN mart.m{m} USING (id)")).collect();
    let sql = format!("SELECT {} FROM mart.m0 {}", columns.join(", "), joins.join(" "));

    let done = AtomicBool::new(false);
    let (seen, generations, last) = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| ask_until(&martd, &sql, &done))).collect();
        let watcher = scope.spawn(|| {
            let mut generations = Vec::new();
            while !done.load(Ordering::Relaxed) {
                generations.push(martd.snapshot()["generation"].as_u64().expect("a snapshot"));
            }
            generations
        });
        let started = Instant::now();
        let mut number = 1;
        while started.elapsed() < DURATION {
            number += 1;
            build(&writer, &root, &mut project, number);
        }
        done.store(true, Ordering::Relaxed);
        let seen: Vec<Vec<u64>> =
            clients.into_iter().map(|client| client.join().expect("no failed query")).collect();
        (seen, watcher.join().expect("no failure"), number)
    });

    for client in &seen {
        assert!(client.is_sorted(), "builds went back: {client:?}");
    }
    assert!(generations.is_sorted(), "generations went back: {generations:?}");
    let builds: BTreeSet<u64> = seen.iter().flatten().copied().collect();
    let answers: usize = seen.iter().map(Vec::len).sum();
    println!("{last} builds written, {} of them seen in {answers} answers", builds.len());
    assert!(builds.len() >= LEAST_BUILDS, "only {} of {last} builds were seen", builds.len());

    martd.wait_snapshot("the last build", |snapshot| {
        snapshot["build"]["invocation_id"] == format!("build-{last}").as_str()
            && snapshot["held"] == Json::Null
    });
}
