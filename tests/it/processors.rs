//! Idle processors join a statement that takes a while.

use std::fs;

use serde_json::json;

use crate::harness::{Martd, Root};
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
