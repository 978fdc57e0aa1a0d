//! Limits hold whatever a statement asks for, and the daemon answers the next one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Martd, Root, Tokens, wait_for};
use crate::proc::{self, engine};
use crate::writers::{Writer, serving};

fn martd(settings: &[(&str, &str)]) -> (Root, Martd) {
    serving("a", "SELECT i AS x, 'n' || i AS name FROM range(1000) t(i)", settings)
}

/// The most memory that the process has ever had resident, in bytes.
fn peak_resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("KiB") << 10
}

#[test]
fn a_statement_over_its_memory_gets_507_alone() {
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
    let peak = peak_resident(engine(martd.pid()));
    println!("at most {} MiB resident", peak >> 20);
    // MARTD_MEMORY, the overhead of an engine, and what an answer takes.
    assert!(peak < 1 << 30, "{} MiB", peak >> 20);
}

#[test]
fn a_thousand_clients_get_an_answer_or_a_retry_time() {
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
    let peak = peak_resident(martd.pid()) + peak_resident(engine(martd.pid()));
    println!("at most {} MiB resident", peak >> 20);
    assert!(peak < 1 << 30, "{} MiB", peak >> 20);
    wait_for("a quiet daemon", || (martd.query("SELECT random()").status == 200).then_some(()));
}

#[test]
fn a_sort_without_memory_gets_507_and_does_not_spill() {
    let (root, martd) = martd(&[("MARTD_MEMORY", "128MiB")]);
    let sort = json!({
        "sql": "SELECT count(*) FROM (SELECT *, row_number() OVER (ORDER BY hash(a.x, b.i)) AS n
                FROM mart.a a, range(3000) b(i)) WHERE n % 2 = 0",
    });
    assert_eq!(martd.post(&sort).problem().0, "memory-limit");
    // Where relative paths lead.
    let left: Vec<_> = std::fs::read_dir(root.path()).expect("readable").collect();
    assert_eq!(left.len(), 1, "the directory of the marts: {left:?}");
}

/// What a process has allocated for data, and how much it may, in bytes.
fn data(pid: u32) -> (u64, u64) {
    let number = |file: &str, key: &str, unit: u64| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the line");
        let number = line.split_whitespace().next().expect("a number");
        number.parse::<u64>().unwrap_or(u64::MAX / unit) * unit
    };
    (number("status", "VmData:", 1 << 10), number("limits", "Max data size", 1))
}

/// Counts so many million different numbers: ten take about 300 MiB of DuckDB's memory, thirty 1,150.
fn distinct(millions: u64) -> String {
    format!("SELECT count(DISTINCT i) AS n FROM range({}) t(i)", millions * 1_000_000)
}

#[test]
fn duckdb_has_the_memory_that_martd_memory_says() {
    let settings =
        [("MARTD_MEMORY", "512MiB"), ("MARTD_THREADS", "1"), ("MARTD_QUERY_TIMEOUT", "60s")];
    let (_root, martd) = martd(&settings);
    // DuckDB itself, with half of that, has too little for what is answered here.
    let half = duckdb::Config::default()
        .max_memory("256MiB")
        .and_then(|config| config.threads(1)?.with("temp_directory", ""))
        .and_then(duckdb::Connection::open_in_memory_with_flags)
        .expect("DuckDB opens");
    let counted = half.query_row(&distinct(10), [], |row| row.get::<_, i64>(0));
    assert!(counted.is_err_and(|error| error.to_string().contains("Out of Memory")));
    assert_eq!(martd.query(&distinct(10)).value(), 10_000_000);
    assert_eq!(martd.query(&distinct(30)).problem().0, "memory-limit");
}

#[test]
fn more_queries_run_than_a_message_has_descriptors() {
    let (_root, martd) = martd(&[("MARTD_QUERIES", "300")]);
    assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 1000);
}

#[test]
fn what_statements_held_is_there_for_others() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i FROM range(100000) t(i)");
    let settings = [("MARTD_MEMORY", "512MiB"), ("MARTD_QUERIES", "2"), ("MARTD_CACHE", "0")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let engine = engine(martd.pid());
    let hold = |number: i64, rows: i64| {
        let answer = martd.query(&format!(
            "WITH r AS MATERIALIZED (SELECT i, repeat('x', 800) || i AS s FROM range({rows}) t(i))
             SELECT count(*) + {number} FROM r WHERE length(s) > 0"
        ));
        assert_eq!(answer.value(), rows + number, "{number}");
    };
    for number in 0..60 {
        // Each holds 80 MB in the plan that is kept of it, and leaves as much with the allocator, whose addresses
        // count, too.
        hold(number, 100_000);
        if number % 10 == 9 {
            hold(number, 400_000); // most of what there may be
        }
    }
    let (taken, limit) = data(engine);
    println!("{} of {} MiB are taken", taken >> 20, limit >> 20);
}

#[test]
fn fifty_memory_bombs_leave_no_memory_behind() {
    let settings = [
        ("MARTD_MEMORY", "512MiB"),
        ("MARTD_THREADS", "1"),
        ("MARTD_QUERIES", "2"),
        ("MARTD_CACHE", "0"),
        ("MARTD_QUERY_TIMEOUT", "60s"),
    ];
    let (_root, martd) = martd(&settings);
    let pid = engine(martd.pid());
    for number in 0..50 {
        let bomb = match number % 2 {
            0 => format!("SELECT len(range({}))", 2_000_000_000_u64 + number),
            _ => format!("SELECT len(repeat('x', {}))", 4_000_000_000_u64 + number),
        };
        let answer = martd.query(&bomb);
        assert_eq!(answer.problem().0, "memory-limit", "{bomb}: {answer:?}");
    }
    let (taken, limit) = data(pid);
    println!("{} of {} MiB are taken", taken >> 20, limit >> 20);
    assert_eq!(martd.query(&distinct(10)).value(), 10_000_000);
    assert_eq!(engine(martd.pid()), pid, "it is the same engine");
}

#[test]
fn statements_that_take_all_memory_do_not_end_martd() {
    let tokens = Tokens::new(9);
    let settings = [
        ("MARTD_MEMORY", "64MiB"),
        ("MARTD_QUERIES", "8"),
        ("MARTD_MAX_BODY", "1MiB"),
        ("MARTD_TOKEN_FILE", tokens.file()),
    ];
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS x FROM range(1000) t(i)");
    let martd = Martd::start_with(root.path(), &settings);
    wait_for("a snapshot", || (martd.get("/readyz").status == 200).then_some(()));
    let (_, limit) = data(engine(martd.pid()));
    let (_, limit_of_front) = data(martd.pid());
    assert!(limit < limit_of_front, "{limit} bytes for the engine");
    let count = json!({"sql": "SELECT (count(*) + 0 * random())::INTEGER AS n FROM mart.a"});
    let large = json!({ "sql": format!("SELECT 1 /* {} */", "x".repeat(900_000)) });
    thread::scope(|scope| {
        // Searches that cannot be interrupted, take hours, and keep an eighth of the memory each.
        for number in 1..9 {
            let (martd, token) = (&martd, tokens.bearer(number));
            let half = limit / 16;
            let sql =
                format!("SELECT instr(repeat('a', {half}), repeat('a', {}) || 'b')", half / 2);
            scope.spawn(move || {
                let body = json!({"sql": sql, "timeout_ms": 1_000});
                let (slug, detail) = martd.post_with(&body, &[("authorization", &token)]).problem();
                let stopped = ["query-timeout", "memory-limit"].contains(&slug.as_str());
                assert!(stopped, "{slug}: {detail}");
            });
        }
        // What others ask is answered meanwhile, and what martd needs itself it has.
        for _ in 0..20 {
            let token = tokens.bearer(0);
            let asker = [("authorization", token.as_str())];
            assert_eq!(martd.post_with(&count, &asker).value(), 1000);
            assert_eq!(martd.post_with(&large, &asker).problem().0, "statement-not-allowed");
            assert_eq!(martd.get_with("/v1/snapshot", &asker).status, 200);
        }
    });
    let token = tokens.bearer(0);
    let asker = [("authorization", token.as_str())];
    assert_eq!(martd.post_with(&count, &asker).value(), 1000);
    assert_eq!(martd.get("/livez").status, 200);
}

#[test]
fn all_query_threads_exist_before_the_first_query() {
    let (_root, few) = martd(&[("MARTD_QUERIES", "2")]);
    let (_root, many) = martd(&[("MARTD_QUERIES", "22")]);
    let threads = |martd: &Martd| {
        let tasks = format!("/proc/{}/task", engine(martd.pid()));
        std::fs::read_dir(tasks).expect("it runs").count()
    };
    assert_eq!(threads(&many) - threads(&few), 20);
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

/// What these processes have that is theirs, in bytes: no files, and what they share once.
fn taken(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let own = |line: &&str| line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:");
        let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
        Some(rollup.lines().filter(own).filter_map(kib).sum::<u64>() << 10)
    };
    pids.iter().filter_map(of).sum()
}

#[test]
fn all_processes_take_no_more_than_is_told_at_start() {
    let settings = [
        ("MARTD_MEMORY", "256MiB"),
        ("MARTD_PIN_MEMORY", "32MiB"),
        ("MARTD_TABLE_MEMORY", "64MiB"),
        ("MARTD_CACHE", "16MiB"),
        ("MARTD_THREADS", "2"),
        ("MARTD_QUERIES", "4"),
        ("MARTD_QUERY_TIMEOUT", "4s"),
    ];
    let root = Root::new();
    Writer::new().land(
        &root,
        "a",
        "SELECT i AS x, 'n' || hash(i) AS name FROM range(1000000) t(i)",
    );
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let told =
        martd.log().into_iter().find(|line| line.get("at_most").is_some()).expect("it is told");
    let size = |field: &str| -> u64 {
        let text = told[field].as_str().unwrap_or_else(|| panic!("{field}: {told}"));
        text.parse::<bytesize::ByteSize>().expect("a size").as_u64()
    };
    let mib = |count: u64| count << 20;
    assert_eq!(size("at_most"), mib(64 + 32 + 64 + 16 + 2 * (256 + 128)), "{told}");
    assert!(size("builders") >= mib(256), "{told}");

    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let (mut most, mut engines) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let mut pids = proc::engines(martd.pid());
                engines = engines.max(pids.len());
                pids.push(martd.pid());
                most = most.max(taken(&pids));
                thread::yield_now();
            }
            (most, engines)
        });
        let asks = [
            "SELECT count(DISTINCT i) FROM range(6000000) t(i)".to_owned(),
            "SELECT name, count(*), list(x) FROM mart.a GROUP BY ALL ORDER BY ALL LIMIT 9"
                .to_owned(),
            "SELECT * FROM mart.a a, range(20) b(i)".to_owned(),
            "SELECT max(a.name || b.name) FROM mart.a a JOIN mart.a b USING (x)".to_owned(),
            // It cannot be interrupted, so that its engine is replaced beside this one.
            format!("SELECT instr(repeat('a', {}), repeat('a', {}) || 'b')", 40 << 20, 20 << 20),
        ];
        let clients: Vec<_> = asks
            .into_iter()
            .map(|sql| {
                let martd = &martd;
                scope.spawn(move || {
                    for _ in 0..3 {
                        let body = json!({"sql": sql, "limit": 1_000_000});
                        martd.client().post(&body);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("the client ends"));
        done.store(true, Ordering::Relaxed);
        sampler.join().expect("the sampler ends")
    });
    println!("{} of {} MiB, with {} engines", most.0 >> 20, size("at_most") >> 20, most.1);
    assert!(most.1 > 1, "no engine was replaced");
    assert!(most.0 > mib(256), "nothing was done");
    assert!(most.0 <= size("at_most"), "{} MiB", most.0 >> 20);
}
