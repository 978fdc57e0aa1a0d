//! Limits hold whatever a statement asks for, and the daemon answers the next one.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Martd, Root, wait_for};
use crate::writers::Writer;

fn martd(settings: &[(&str, &str)]) -> (Root, Martd) {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS x, 'n' || i AS name FROM range(1000) t(i)");
    let martd = Martd::start_with(root.path(), settings);
    martd.wait_ready();
    (root, martd)
}

/// The most memory that the process has ever had resident, in bytes.
fn peak_resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("KiB") << 10
}

#[test]
fn a_statement_that_wants_too_much_memory_gets_507_and_the_next_one_an_answer() {
    let (_root, martd) = martd(&[("MARTD_MEMORY", "256MiB"), ("MARTD_CACHE", "0")]);
    for sql in [
        "SELECT len(range(200000000)) AS n",
        "SELECT len(repeat('x', 2000000000)) AS n",
        "SELECT count(*) FROM (SELECT DISTINCT hash(a.x * 1000000 + b.i) FROM mart.a a, range(200000) b(i))",
        "SELECT list(a.x) FROM mart.a a, range(1000000) b(i)",
    ] {
        let answer = martd.query(sql);
        let (slug, detail) = answer.problem();
        let stopped = ["memory-limit", "query-timeout"].contains(&slug.as_str());
        assert!(stopped, "{sql}: {slug}: {detail}");
        assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 1000, "after {sql}");
    }
    let peak = peak_resident(martd.pid());
    println!("at most {} MiB resident", peak >> 20);
    // MARTD_MEMORY, the headroom of 512 MiB, and stacks.
    assert!(peak < 1 << 30, "{} MiB", peak >> 20);
}

#[test]
fn a_thousand_clients_on_two_slots_get_an_answer_or_are_told_when_to_come_again() {
    let settings = [
        ("MARTD_QUERIES", "2"),
        ("MARTD_QUEUE", "4"),
        ("MARTD_MAX_CONNECTIONS", "1100"),
        ("MARTD_MEMORY", "256MiB"),
        ("MARTD_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let (_root, martd) = martd(&settings);
    let outcomes: Vec<(u16, bool)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..1000)
            .map(|client| {
                let martd = &martd;
                let work = move || {
                    // Each its own statement, so that none is answered by another's.
                    let sql = format!("SELECT sum(x * {client} + random()) FROM mart.a");
                    let answer = martd.query(&sql);
                    (answer.status, answer.header("retry-after") == "1")
                };
                thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, work)
                    .expect("a thread")
            })
            .collect();
        // Probes answer all the while.
        let mut took: Vec<Duration> = (0..40)
            .map(|number| {
                let started = Instant::now();
                let probe = if number % 2 == 0 { "/livez" } else { "/readyz" };
                assert_eq!(martd.get_admin(probe).status, 200);
                started.elapsed()
            })
            .collect();
        took.sort_unstable();
        println!("probes: half within {:?}, all within {:?}", took[20], took[39]);
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    let answered = outcomes.iter().filter(|(status, _)| *status == 200).count();
    let refused = outcomes.iter().filter(|outcome| **outcome == (503, true)).count();
    println!("{answered} answered, {refused} told to come again");
    assert_eq!(answered + refused, 1000, "{outcomes:?}");
    assert!(answered > 0);
    let peak = peak_resident(martd.pid());
    println!("at most {} MiB resident", peak >> 20);
    assert!(peak < 1 << 30, "{} MiB", peak >> 20);
    wait_for("a quiet daemon", || (martd.query("SELECT random()").status == 200).then_some(()));
}

#[test]
fn spilling_goes_nowhere_unless_a_place_is_named() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let sort = json!({
        "sql": "SELECT count(*) FROM (SELECT *, row_number() OVER (ORDER BY hash(a.x, b.i)) AS n
                FROM mart.a a, range(3000) b(i)) WHERE n % 2 = 0",
    });
    let (_root, without) = martd(&[("MARTD_MEMORY", "128MiB")]);
    assert_eq!(without.post(&sort).problem().0, "memory-limit");

    let path = place.path().to_str().expect("UTF-8");
    let settings =
        [("MARTD_MEMORY", "128MiB"), ("MARTD_TEMP_DIR", path), ("MARTD_QUERY_TIMEOUT", "60s")];
    let (_root, with) = martd(&settings);
    assert_eq!(with.post(&sort).value(), 1_500_000);
    wait_for("the spilled files to be gone", || {
        let left = std::fs::read_dir(place.path()).expect("readable").count();
        thread::sleep(Duration::from_millis(10));
        (left == 0).then_some(())
    });
}

/// A search that cannot be interrupted, takes hours, and keeps more than this many bytes meanwhile.
fn hoard(bytes: u64) -> serde_json::Value {
    let half = bytes / 2;
    json!({ "sql": format!("SELECT instr(repeat('a', {half}), repeat('a', {}) || 'b')", half / 2) })
}

/// The bytes that the process has allocated for data, and how many it may.
fn data(pid: u32) -> (u64, u64) {
    let number = |file: &str, key: &str, unit: u64| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the line");
        line.split_whitespace().next().expect("a number").parse::<u64>().expect("a number") * unit
    };
    (number("status", "VmData:", 1 << 10), number("limits", "Max data size", 1))
}

#[test]
fn statements_that_keep_all_memory_there_is_do_not_take_martd_down() {
    let settings = [
        ("MARTD_MEMORY", "64MiB"),
        ("MARTD_QUERIES", "24"),
        ("MARTD_QUERY_TIMEOUT", "500ms"),
        ("MARTD_MAX_BODY", "1MiB"),
    ];
    let (_root, martd) = martd(&settings);
    let known = martd.query("SELECT count(*) FROM mart.a");
    assert_eq!(known.value(), 1000);
    let mut size = 1 << 30;
    let (mut taken, limit) = data(martd.pid());
    while size > 8 << 20 {
        martd.post(&hoard(size));
        let before = std::mem::replace(&mut taken, data(martd.pid()).0);
        if taken < before + size / 4 {
            size /= 2;
        }
    }
    println!("{} of {} MiB are taken", taken >> 20, limit >> 20);
    assert!(taken > limit - (32 << 20), "{taken} of {limit} bytes");

    // What martd needs itself, it has.
    let large = json!({ "sql": format!("SELECT 1 /* {} */", "x".repeat(900_000)) });
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                assert_eq!(martd.post(&large).problem().0, "statement-not-allowed");
                assert_eq!(martd.query("SELECT count(*) FROM mart.a").body, known.body);
                assert_eq!(martd.get("/v1/snapshot").status, 200);
            });
        }
    });
    let (_, limit_now) = data(martd.pid());
    assert_eq!(limit_now, limit, "the limit is as it was");
}

#[test]
fn the_threads_of_all_queries_are_there_before_the_first() {
    let (_root, few) = martd(&[("MARTD_QUERIES", "2")]);
    let (_root, many) = martd(&[("MARTD_QUERIES", "22")]);
    let threads = |martd: &Martd| {
        let tasks = format!("/proc/{}/task", martd.pid());
        std::fs::read_dir(tasks).expect("it runs").count()
    };
    // One that runs, and one that waits for DuckDB to let go, of each.
    assert_eq!(threads(&many) - threads(&few), 2 * 20);
}

#[test]
fn threads_of_all_snapshots_fit_the_memory_limit() {
    let (root, writer) = (Root::new(), Writer::new());
    writer.land(&root, "a", "SELECT 0 AS x");
    let settings = [("MARTD_MEMORY", "64MiB"), ("MARTD_CACHE", "0"), ("MARTD_THREADS", "48")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    for version in 1..=6 {
        writer.land(&root, "a", &format!("SELECT {version} AS x"));
        martd.wait_snapshot("the next", |s| s["generation"] == version + 1);
        assert_eq!(martd.query("SELECT x FROM mart.a").value(), version);
    }
}
