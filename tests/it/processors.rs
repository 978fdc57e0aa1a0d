//! Idle processors join a statement that takes a while; what is made in the background gives
//! way to requests.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity};
use serde_json::json;

use crate::harness::{Martd, Root, wait_for};
use crate::writers::Writer;

/// The time that threads of this name have had a processor, in the kernel's ticks; `None` without such a
/// thread.
fn ticks_of_threads(pid: u32, name: &str) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let ticks = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (head, fields) = stat.rsplit_once(')')?;
        let fields: Vec<u64> =
            fields.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
        (head.split_once('(')?.1 == name).then(|| fields[11] + fields[12])
    });
    ticks.reduce(|all, one| all + one)
}

fn martd(threads: &str, rows: u64) -> (Root, Martd) {
    let (root, writer) = (Root::new(), Writer::new());
    writer.land(&root, "a", &format!("SELECT i AS x FROM range({rows}) t(i)"));
    let martd = Martd::start_with(root.path(), &[("MARTD_THREADS", threads)]);
    martd.wait_ready();
    (root, martd)
}

fn ask(martd: &Martd, rows: u64) {
    let sql = "SELECT count(DISTINCT md5(md5(md5(x::VARCHAR) || ?))) AS n FROM mart.a";
    let answer = martd.post(&json!({ "sql": sql, "params": ["salt"] }));
    assert_eq!(answer.value(), rows);
}

#[test]
fn another_thread_joins_a_long_statement() {
    let (_root, martd) = martd("2", 1_000_000);
    ask(&martd, 1_000_000);
    assert!(ticks_of_threads(martd.pid(), "help").expect("a helper") > 10);
}

#[test]
fn with_one_processor_there_is_nobody_to_join() {
    let (_root, martd) = martd("1", 1_000_000);
    ask(&martd, 1_000_000);
    assert_eq!(ticks_of_threads(martd.pid(), "help"), None);
}

#[test]
fn a_statement_over_few_rows_is_left_to_its_own_thread() {
    let (_root, martd) = martd("2", 400_000);
    ask(&martd, 400_000);
    assert!(ticks_of_threads(martd.pid(), "help").expect("a helper") <= 1);
}

/// Where each async thread may run, as the kernel lists processors.
fn places_of_async_threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let statuses =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let async_threads = statuses.filter(|status| status.starts_with("Name:\ttokio"));
    let mut places: Vec<_> = async_threads
        .map(|status| {
            let mut lines = status.lines();
            let place = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
            place.expect("in every status").to_owned()
        })
        .collect();
    places.sort();
    places
}

/// A mart lands, and the thread that does this with it stands still.
fn async_threads_keep_apart_during(what: &str) {
    let all = sched_getaffinity(None).expect("known");
    let mut processors = (0..CpuSet::MAX_CPU).filter(|one| all.is_set(*one));
    let (Some(first), Some(second)) = (processors.next(), processors.next()) else { return };
    let (root, writer, faults) = (Root::new(), Writer::new(), Root::new());
    writer.land(&root, "a", "SELECT 1 AS x");
    let two = format!("{first},{second}");
    let settings = [("MARTD_TEST_FAULTS", faults.path().to_str().expect("UTF-8"))];
    let martd = Martd::start_under(&["taskset", "--cpu-list", &two], root.path(), &settings);
    martd.wait_ready();
    let wait_places = |when, places: [&str; 2]| {
        wait_for(when, || {
            let there = places_of_async_threads(martd.pid());
            (there.iter().map(|place| place.replace('-', ",")).eq(places)).then_some(())
        });
    };
    wait_places("nothing to do", [&two, &two]);
    let fault = faults.path().join(format!("stuck-{what}"));
    fs::write(&fault, "").expect("written");
    writer.land(&root, "b", "SELECT 1 AS x");
    if what == "decode" {
        martd.wait_snapshot("it to be published meanwhile", |s| s["marts"][1]["name"] == "b");
    }
    let mut apart = [first.to_string(), second.to_string()];
    apart.sort();
    wait_places("a processor each", [&apart[0], &apart[1]]);
    fs::remove_file(fault).expect("removed");
    wait_places("the end of it", [&two, &two]);
}

#[test]
fn async_threads_keep_apart_while_files_are_decoded() {
    async_threads_keep_apart_during("decode");
}

#[test]
fn async_threads_keep_apart_while_a_snapshot_is_made() {
    async_threads_keep_apart_during("publish");
}
