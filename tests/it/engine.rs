//! DuckDB fails, hangs and is killed: who asked for that is told, and nobody else is.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::harness::{Answer, Faults, Martd, Root, Tokens, wait_for};
use crate::metrics::Scrape;
use crate::proc::{builders, engine, engines, is_stopped, members};
use crate::writers::Writer;

/// Backtracks for ever, and DuckDB does not look at interrupts meanwhile.
pub const BACKTRACKS: &str = "SELECT repeat('a', 300) LIKE '%a%a%a%a%a%a%a%a%a%a_b'";
/// Of DuckDB's plans for it the second run of one that is kept fails.
pub const ASOF: &str = "SELECT count(*) AS n FROM mart.n a ASOF JOIN mart.n b \
                        ON a.i % 7 = b.i % 7 AND a.i > b.i";
/// Rows of the mart `n`.
const ROWS: u64 = 20_000;

/// Lands a mart `n` of `i`, from 0 on, `g`, its last digit, and `v`, twice `i`.
pub fn land(root: &Root) {
    let rows = format!("SELECT i, i % 10 AS g, 2 * i AS v FROM range({ROWS}) t(i)");
    Writer::new().land(root, "n", &rows);
}

/// Ends an engine as the kernel does when there is no memory left.
pub fn kill(engine: u32) {
    signal(engine, Signal::KILL);
}

fn signal(engine: u32, signal: Signal) {
    let pid = i32::try_from(engine).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

/// A martd that knows these tokens.
fn start(tokens: &Tokens, settings: &[(&str, &str)]) -> (Root, Martd) {
    let root = Root::new();
    land(&root);
    let mut all = vec![("MARTD_TOKEN_FILE", tokens.file()), ("MARTD_CACHE", "0")];
    all.extend(settings);
    let martd = Martd::start_with(root.path(), &all);
    wait_for("a snapshot", || (martd.get("/readyz").status == 200).then_some(()));
    (root, martd)
}

/// Asks with one of the tokens.
fn ask(martd: &Martd, tokens: &Tokens, client: usize, body: &Json) -> Answer {
    martd.post_with(body, &[("authorization", &tokens.bearer(client))])
}

fn sql(sql: &str) -> Json {
    json!({ "sql": sql })
}

/// What a martd tells of itself to whoever has a token.
fn scraped(martd: &Martd, tokens: &Tokens, series: &str) -> f64 {
    Scrape::with(martd, &[("authorization", &tokens.bearer(0))]).value(series)
}

fn starts(reason: &str) -> String {
    format!("martd_engine_starts_total{{reason=\"{reason}\"}}")
}

#[test]
fn a_client_that_breaks_engines_is_told_so() {
    if !cfg!(debug_assertions) {
        return println!("SKIPPED: a release build has no faults to switch on");
    }
    let (faults, tokens) = (Faults::new(), Tokens::new(3));
    let (_root, martd) = start(&tokens, &[("MARTD_TEST_FAULTS", faults.path())]);
    let fatal = ["max(i)", "max(v)", "max(g)"].map(|max| format!("SELECT {max} AS x FROM mart.n"));
    for statement in &fatal {
        faults.abort_at(statement);
    }
    let ask = |client, statement: &str| ask(&martd, &tokens, client, &sql(statement));

    let answer = ask(0, &fatal[0]);
    assert_eq!((answer.status, answer.problem().0.as_str()), (500, "engine-failed"));
    let answer = ask(0, &fatal[0]);
    assert_eq!((answer.status, answer.problem().0.as_str()), (503, "statement-quarantined"));
    let after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=600).contains(&after), "{after} s");
    assert_eq!(ask(0, "SELECT min(i) FROM mart.n").value(), 0, "it may ask for something else");

    // For somebody else the statement is another.
    for statement in &fatal {
        let answer = ask(1, statement);
        assert_eq!((answer.status, answer.problem().0.as_str()), (500, "engine-failed"));
    }
    let answer = ask(1, "SELECT min(i) FROM mart.n");
    assert_eq!((answer.status, answer.problem().0.as_str()), (429, "too-many-failures"));
    let after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after} s");
    for client in [0, 2] {
        assert_eq!(ask(client, "SELECT max(i) + 0 AS x FROM mart.n").value(), ROWS - 1);
    }
    assert_eq!(scraped(&martd, &tokens, "martd_statements_quarantined"), 4.0);
    assert_eq!(martd.get("/livez").status, 200);
}

#[test]
fn a_client_that_hangs_all_slots_holds_up_nobody() {
    let tokens = Tokens::new(2);
    let (_root, martd) = start(&tokens, &[("MARTD_QUERIES", "2")]);
    // It costs two engines. That it does so by four statements does not make them three.
    for round in 1..=2 {
        let before = engine(martd.pid());
        let hanging = |number: usize| {
            let sql = format!("{BACKTRACKS} AS x{round}{number}");
            ask(&martd, &tokens, 0, &json!({"sql": sql, "timeout_ms": 1_000})).problem()
        };
        thread::scope(|scope| {
            let hanging = [1, 2].map(|number| scope.spawn(move || hanging(number)));
            wait_for("all slots to be taken", || {
                (scraped(&martd, &tokens, "martd_queries_in_flight") == 2.0).then_some(())
            });
            let other = ask(&martd, &tokens, 1, &sql("SELECT max(i) FROM mart.n"));
            assert_eq!(other.value(), ROWS - 1);
            assert_eq!(engines(martd.pid()), [before], "the engine that hangs has answered it");
            for hanging in hanging {
                assert_eq!(hanging.join().expect("an answer").0, "query-timeout");
            }
        });
        assert_eq!(martd.get("/livez").status, 200);
        // It gets its slots back, in another engine.
        assert_eq!(ask(&martd, &tokens, 0, &sql("SELECT min(i) FROM mart.n")).value(), 0);
        wait_for("the end of the engine that hung", || {
            (engine(martd.pid()) != before).then_some(())
        });
        let wedged = scraped(&martd, &tokens, &starts("wedged"));
        assert_eq!(wedged, f64::from(round), "both were in one");
    }
}

/// Starts a martd in which each slot is held by a statement that does not stop. They are answered
/// after `timeout_ms`.
fn wedged(tokens: &Tokens, work: &std::path::Path, timeout_ms: u64) -> (Root, Martd) {
    let root = Root::new();
    land(&root);
    let settings = [
        ("MARTD_TOKEN_FILE", tokens.file()),
        ("MARTD_QUERIES", "2"),
        ("MARTD_QUERY_TIMEOUT", "10m"),
        ("MARTD_DRAIN_DELAY", "0s"),
        ("MARTD_DRAIN", "2s"),
    ];
    let martd = Martd::start_in_group(root.path(), &settings, work);
    wait_for("a snapshot", || (martd.get("/readyz").status == 200).then_some(()));
    // There is one more, for whoever has none.
    for number in 0..3 {
        let client = martd.client_with(&tokens.bearer(number));
        // A statement that another waits for is not run twice.
        let body = json!({"sql": format!("{BACKTRACKS} AS x{number}"), "timeout_ms": timeout_ms});
        thread::spawn(move || client.post(&body));
    }
    wait_for("all slots to be taken", || {
        (scraped(&martd, tokens, "martd_queries_in_flight") == 3.0).then_some(())
    });
    (root, martd)
}

#[test]
fn while_all_slots_hang_martd_ends_when_it_is_told_to() {
    let tokens = Tokens::new(3);
    for timeout_ms in [500, 600_000] {
        let work = tempfile::tempdir().expect("a temporary directory");
        let (_root, mut martd) = wedged(&tokens, work.path(), timeout_ms);
        martd.signal(Signal::TERM);
        assert_eq!(martd.wait_exit().code(), Some(0), "{timeout_ms} ms");
        wait_for("the engine to end", || members(martd.pid()).is_empty().then_some(()));
    }
}

#[test]
fn a_second_signal_ends_a_hanging_martd_at_once() {
    let tokens = Tokens::new(3);
    let work = tempfile::tempdir().expect("a temporary directory");
    let (_root, mut martd) = wedged(&tokens, work.path(), 600_000);
    martd.signal(Signal::TERM);
    wait_for("the listener to close", || std::net::TcpStream::connect(&martd.address).err());
    martd.signal(Signal::TERM);
    assert_eq!(martd.wait_exit().code(), Some(1));
    wait_for("the engine to end", || members(martd.pid()).is_empty().then_some(()));
}

#[test]
fn a_killed_front_leaves_no_process_and_no_file() {
    let dir = || tempfile::tempdir().expect("a temporary directory");
    let (work, state, scratch) = (dir(), dir(), dir());
    let path = |dir: &tempfile::TempDir| dir.path().to_str().expect("UTF-8").to_owned();
    let (state_path, scratch_path) = (path(&state), path(&scratch));
    let root = Root::new();
    land(&root);
    let settings =
        [("MARTD_STATE_DIR", state_path.as_str()), ("MARTD_SCRATCH_DIR", scratch_path.as_str())];
    let mut martd = Martd::start_in_group(root.path(), &settings, work.path());
    martd.wait_ready();
    let files = |dir: &tempfile::TempDir| {
        let entries = std::fs::read_dir(dir.path()).expect("readable");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort_unstable();
        names
    };
    wait_for("the snapshot to be kept", || {
        files(&state).iter().any(|name| name == "snapshot.json").then_some(())
    });
    let kept = files(&state);

    // At the moment of its death the engine runs what does not stop, and a builder is at work.
    let client = martd.client();
    thread::spawn(move || client.query(BACKTRACKS));
    Writer::new().land(
        &root,
        "large",
        "SELECT hash(i) AS x, i::VARCHAR AS y FROM range(2000000) t(i)",
    );
    wait_for("a builder at work and a statement that runs", || {
        let is_building = builders(martd.pid()).iter().any(|builder| builder.busy);
        let running = Scrape::of(&martd).value("martd_queries_in_flight");
        (is_building && running == 1.0).then_some(())
    });
    assert!(!engines(martd.pid()).is_empty() && !files(&scratch).is_empty());
    martd.signal(Signal::KILL);
    martd.wait_exit();
    wait_for("its children to end", || members(martd.pid()).is_empty().then_some(()));
    assert_eq!(files(&scratch), Vec::<std::ffi::OsString>::new());
    assert_eq!(files(&state), kept);
    assert_eq!(files(&work), Vec::<std::ffi::OsString>::new());
}

#[test]
fn an_engine_that_stands_still_is_replaced() {
    let tokens = Tokens::new(2);
    let (root, martd) = start(&tokens, &[]);
    let before = engine(martd.pid());
    signal(before, Signal::STOP);
    wait_for("it to stand still", || is_stopped(before).then_some(()));
    let body = json!({"sql": "SELECT max(i) FROM mart.n", "timeout_ms": 500});
    assert_eq!(ask(&martd, &tokens, 0, &body).problem().0, "query-timeout");
    wait_for("its end", || (engine(martd.pid()) != before).then_some(()));
    for client in [0, 1] {
        let answer = ask(&martd, &tokens, client, &sql("SELECT max(i) FROM mart.n"));
        assert_eq!(answer.value(), ROWS - 1);
    }
    // What comes to be served is served by the next.
    Writer::new().land(&root, "n", "SELECT 7 AS i");
    wait_for("the next version", || {
        (ask(&martd, &tokens, 1, &sql("SELECT max(i) FROM mart.n")).value() == 7).then_some(())
    });
}

#[test]
fn a_join_whose_plan_fails_when_kept_is_answered() {
    let (tokens, right) = (Tokens::new(2), ROWS - 7);
    let (_root, martd) = start(&tokens, &[]);
    let one = "SELECT count(*) AS n FROM mart.n a ASOF JOIN mart.n b ON a.g = b.g AND a.i > b.i";
    for _ in 0..10 {
        assert_eq!(ask(&martd, &tokens, 0, &sql(ASOF)).value(), right);
        assert_eq!(ask(&martd, &tokens, 0, &sql(one)).value(), ROWS - 10);
        assert_eq!(ask(&martd, &tokens, 1, &sql("SELECT max(i) FROM mart.n")).value(), ROWS - 1);
    }
    assert_eq!(engines(martd.pid()).len(), 1);
    assert_eq!(scraped(&martd, &tokens, &starts("failed")), 0.0);
}

#[test]
fn functions_that_duckdb_fails_in_cost_no_engine() {
    let tokens = Tokens::new(2);
    let (_root, martd) = start(&tokens, &[]);
    for statement in [
        "SELECT switch(i, map([i], [1])) FROM mart.n",
        "SELECT switch(g, map([i, v], [1, 2])) FROM mart.n LIMIT 3",
        "SELECT reservoir_quantile(i, 0.5, 100000000) FROM mart.n",
        "SELECT reservoir_quantile(i, 0.5, 2147483647) FROM mart.n",
    ] {
        let answer = ask(&martd, &tokens, 0, &sql(statement));
        let (slug, detail) = answer.problem();
        let told = ["function-not-allowed", "sql-error", "memory-limit"].contains(&slug.as_str());
        assert!(told, "{statement}: {slug}: {detail}");
        assert_eq!(ask(&martd, &tokens, 1, &sql("SELECT max(i) FROM mart.n")).value(), ROWS - 1);
    }
    for reason in ["exited", "wedged", "failed", "suspects"] {
        assert_eq!(scraped(&martd, &tokens, &starts(reason)), 0.0, "{reason}");
    }
}

#[test]
fn a_client_does_not_choose_the_kind_of_its_error() {
    let tokens = Tokens::new(1);
    let (_root, martd) = start(&tokens, &[]);
    let before = engine(martd.pid());
    for words in [
        "Out of Memory Error: hi",
        "INTERNAL Error: hi",
        "FATAL Error: database has been invalidated because of a previous fatal error",
        "INTERRUPT Error: Interrupted!",
        "Too many open files",
        "IO Error: No space left on device",
    ] {
        for statement in [
            format!("SELECT error('{words}')"),
            format!("SELECT \"{words}\" FROM mart.n"),
            format!("SELECT '{words}'::INTEGER FROM mart.n"),
            format!("SELECT CASE WHEN i = 7 THEN error('{words}') END FROM mart.n"),
        ] {
            let answer = ask(&martd, &tokens, 0, &sql(&statement));
            let slug = answer.problem().0;
            let told = ["sql-error", "function-not-allowed"].contains(&slug.as_str());
            assert!(told, "{statement}: {slug}");
        }
    }
    assert_eq!(engines(martd.pid()), [before]);
}

#[test]
fn a_killed_engine_changes_no_answer_and_no_scope() {
    for cache in ["0", "16MiB"] {
        ask_for_scopes_and_kill(cache);
    }
}

fn ask_for_scopes_and_kill(cache: &str) {
    let tokens = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(tokens.path(), "the-only-token g=*\n").expect("write");
    let root = Root::new();
    land(&root);
    let settings = [
        ("MARTD_TOKEN_FILE", tokens.path().to_str().expect("UTF-8")),
        ("MARTD_SCOPE_COLUMN", "g"),
        ("MARTD_CACHE", cache),
        // So that all share its connections and what is prepared on them.
        ("MARTD_QUERIES", "1"),
    ];
    let martd = Martd::start_with(root.path(), &settings);
    wait_for("a snapshot", || (martd.get("/readyz").status == 200).then_some(()));
    let statements = [
        json!({"sql": "SELECT i, g, v FROM mart.n WHERE i < 40 ORDER BY i"}),
        json!({"sql": "SELECT g, count(*) AS n, sum(v) AS v FROM mart.n GROUP BY g ORDER BY g"}),
        json!({"sql": "SELECT min(i) AS i FROM mart.n WHERE i > $1", "params": [1000]}),
    ];
    let ask = |scope: u64| {
        let scope = format!("g={scope}");
        let headers = [("authorization", "Bearer the-only-token"), ("martd-scope", &scope)];
        statements.each_ref().map(|statement| martd.post_with(statement, &headers).rows())
    };
    let rows_of = |scope: u64| {
        let first: Vec<Json> = (0..4)
            .map(|ten| 10 * ten + scope)
            .map(|i| json!({"i": i, "g": scope, "v": 2 * i}))
            .collect();
        let count = ROWS / 10;
        let sum = 2 * (count * scope + 10 * (count * (count - 1) / 2));
        let min = if scope == 0 { 1010 } else { 1000 + scope };
        [json!(first), json!([{"g": scope, "n": count, "v": sum}]), json!([{"i": min}])]
    };
    let mut killed = Vec::new();
    for _ in 0..3 {
        for scope in [3, 7, 3, 0, 7, 7, 3] {
            assert_eq!(ask(scope), rows_of(scope), "scope {scope} after {} kills", killed.len());
        }
        let pid = engine(martd.pid());
        assert!(!killed.contains(&pid));
        kill(pid);
        killed.push(pid);
    }
    assert_eq!(ask(7), rows_of(7));
}

#[test]
fn an_answer_breaks_off_when_its_engine_is_killed() {
    let tokens = Tokens::new(1);
    let (_root, martd) = start(&tokens, &[("MARTD_QUERY_TIMEOUT", "10m")]);
    let sql = "SELECT i, repeat('x', 1000) AS x FROM range(5000000) t(i)";
    let client = martd.client_with(&tokens.bearer(0));
    let body = json!({"sql": sql, "limit": 5_000_000});
    let begun = Instant::now();
    let came = thread::spawn(move || client.post(&body));
    wait_for("the answer to begin", || {
        (scraped(&martd, &tokens, "martd_queries_in_flight") == 1.0
            && begun.elapsed() > Duration::from_millis(300))
        .then_some(())
    });
    kill(engine(martd.pid()));
    assert!(came.join().expect("no panic").is_none(), "it looks like a whole answer");
    let next = martd.post_with(
        &json!({"sql": "SELECT max(i) FROM mart.n"}),
        &[("authorization", &tokens.bearer(0))],
    );
    assert_eq!(next.value(), ROWS - 1);
}
