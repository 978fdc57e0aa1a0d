//! Eight clients ask without a pause and notice at most a delay, whatever others send, and whoever kills
//! the process that has DuckDB.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::engine::{ASOF, BACKTRACKS, kill, land};
use crate::harness::{Answer, Faults, Martd, PATIENCE, Root, Tokens, wait_for};
use crate::metrics::Scrape;
use crate::proc::{Usage, children, engine};

const CLIENTS: usize = 8;
/// Tokens of who sends hostile statements: one that costs three engines is not answered for a minute,
/// so each statement has a token of its own.
const SENDERS: usize = 100;

/// A number from the environment, for the full run.
fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

struct Stage {
    tokens: Tokens,
    faults: Faults,
    martd: Martd,
    _root: Root,
}

/// What was true before the load, and must be again.
#[derive(Debug, PartialEq)]
struct Level {
    processes: usize,
    /// Without those of connections.
    descriptors: i64,
    pinned_bytes: f64,
    in_flight: f64,
    waiting: f64,
}

impl Stage {
    fn new() -> Self {
        let (root, tokens) = (Root::new(), Tokens::new(1 + CLIENTS + SENDERS));
        land(&root);
        let faults = Faults::new();
        let settings = [
            ("MARTD_TOKEN_FILE", tokens.file()),
            ("MARTD_TEST_FAULTS", faults.path()),
            ("MARTD_QUERIES", "2"),
            ("MARTD_MEMORY", "512MiB"),
            // Each is asked of the engine.
            ("MARTD_CACHE", "0"),
            // Longer than all that can come together on a busy machine: clients see delays alone.
            ("MARTD_QUERY_TIMEOUT", "30s"),
        ];
        let martd = Martd::start_with(root.path(), &settings);
        wait_for("a snapshot", || (martd.get("/readyz").status == 200).then_some(()));
        wait_for("the builder to end", || (children(martd.pid()).len() == 1).then_some(()));
        Self { tokens, faults, martd, _root: root }
    }

    fn ask(&self, client: usize, body: &Json) -> Answer {
        self.martd.post_with(body, &[("authorization", &self.tokens.bearer(client))])
    }

    fn scrape(&self) -> Scrape {
        Scrape::with(&self.martd, &[("authorization", &self.tokens.bearer(0))])
    }

    fn starts(&self, reason: &str) -> f64 {
        self.scrape().value(&format!("martd_engine_starts_total{{reason=\"{reason}\"}}"))
    }

    fn level(&self) -> Level {
        let scrape = self.scrape();
        let connections = scrape.value("martd_connections") as i64;
        let descriptors = Usage::of(self.martd.pid()).descriptors;
        Level {
            processes: children(self.martd.pid()).len(),
            descriptors: i64::try_from(descriptors).expect("few") - connections,
            pinned_bytes: scrape.value("martd_pinned_bytes"),
            in_flight: scrape.value("martd_queries_in_flight"),
            waiting: scrape.value("martd_queries_waiting"),
        }
    }

    fn assert_back_at(&self, before: &Level) {
        let mut level = self.level();
        let begun = Instant::now();
        while level != *before {
            assert!(begun.elapsed() < PATIENCE, "{level:?}, and before {before:?}");
            thread::sleep(Duration::from_millis(20));
            level = self.level();
        }
    }

    /// One of the clients, until it is told to stop: what it asks has one right answer.
    fn client(&self, client: usize, stop: &AtomicBool, answered: &AtomicUsize) -> Vec<Duration> {
        let mut took = Vec::new();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let (body, right) = ordinary(client, number);
            let asked = Instant::now();
            let answer = self.ask(client, &body);
            took.push(asked.elapsed());
            assert_eq!(answer.rows(), right, "client {client}: {body}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
        took
    }

    /// Runs the eight clients, and probes, until `meanwhile` is done. Prints their times.
    fn under_load(&self, meanwhile: impl FnOnce(&AtomicUsize)) {
        let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (mut took, probes) = thread::scope(|scope| {
            let clients: Vec<_> = (1..=CLIENTS)
                .map(|client| {
                    scope.spawn({
                        let (stop, answered) = (&stop, &answered);
                        move || self.client(client, stop, answered)
                    })
                })
                .collect();
            let probes = scope.spawn(|| {
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    for probe in ["/livez", "/readyz"] {
                        let asked = Instant::now();
                        let answer = self.martd.get(probe);
                        assert_eq!(answer.status, 200, "{probe}: {answer:?}");
                        took.push(asked.elapsed());
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                took
            });
            let stopping = StopOnDrop(&stop);
            meanwhile(&answered);
            drop(stopping);
            let took = clients.into_iter().flat_map(|client| client.join().expect("right answers"));
            (took.collect::<Vec<_>>(), probes.join().expect("probes answer"))
        });
        println!("the eight: {}", percentiles(&mut took));
        println!("probes: {}", percentiles(&mut probes.clone()));
    }
}

/// Ends the clients also when what is done meanwhile panics.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn percentiles(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    let (median, most) = (at(50), took[took.len() - 1]);
    format!("{} answers, p50 {median:?}, p99 {:?}, at most {most:?}", took.len(), at(99))
}

/// A statement of an ordinary client, and its rows.
fn ordinary(client: usize, number: u64) -> (Json, Json) {
    let some = number * 8 + client as u64;
    let digit = some % 10;
    match number % 5 {
        0 => {
            let sql = format!("SELECT count(*) AS n, sum(v) AS s FROM mart.n WHERE g = {digit}");
            (json!({ "sql": sql }), json!([{"n": 2000, "s": 4000 * digit + 39_980_000}]))
        }
        1 => {
            let sql = "SELECT i, v FROM mart.n WHERE i >= $1 ORDER BY i LIMIT 20";
            let first = some % 19_000;
            let rows = (first..first + 20).map(|i| json!({"i": i, "v": 2 * i}));
            (json!({"sql": sql, "params": [first]}), rows.collect())
        }
        2 => {
            let sql = "SELECT a.g, count(*) AS n FROM mart.n a JOIN mart.n b ON a.i = b.v \
                       GROUP BY a.g ORDER BY a.g";
            let rows = [0, 2, 4, 6, 8].map(|g| json!({"g": g, "n": 2000}));
            (json!({ "sql": sql }), json!(rows))
        }
        3 => {
            let sql = "SELECT i, row_number() OVER (ORDER BY i DESC) AS n FROM mart.n ORDER BY i LIMIT 3000";
            let rows = (0..3000).map(|i| json!({"i": i, "n": 20_000 - i}));
            (json!({ "sql": sql }), rows.collect())
        }
        _ => {
            let sql = format!(
                "WITH t AS (SELECT max(i) AS m FROM mart.n WHERE g = {digit}) SELECT m + 1 AS m FROM t"
            );
            (json!({ "sql": sql }), json!([{"m": 19_991 + digit}]))
        }
    }
}

/// The hostile kinds, each with what it may be answered beside a right answer where it has one.
fn hostile(kind: usize, number: usize) -> (&'static str, Json, Option<u64>) {
    let asof = 20_000 - 7;
    let (name, sql, timeout_ms, right) = match kind {
        0 => ("LIKE", format!("{BACKTRACKS} AS x{number}"), 500, None),
        1 => ("ASOF", ASOF.to_owned(), 10_000, Some(asof)),
        2 => ("switch", "SELECT switch(i, map([i], [1])) FROM mart.n".to_owned(), 2_000, None),
        3 => (
            "quantile",
            "SELECT reservoir_quantile(i, 0.5, 100000000) FROM mart.n".to_owned(),
            2_000,
            None,
        ),
        4 => ("scalar", format!("SELECT len(range({}))", 2_000_000_000 + number), 2_000, None),
        5 => {
            let (open, close) = ("(".repeat(5_000), ")".repeat(5_000));
            ("nest", format!("SELECT {open}{number}{close}"), 2_000, None)
        }
        6 => (
            "aggregate",
            format!("SELECT len(list(i + {number})) FROM range(20000000000) t(i)"),
            2_000,
            None,
        ),
        _ => ("abort", fatal(number), 5_000, None),
    };
    (name, json!({"sql": sql, "timeout_ms": timeout_ms}), right)
}

const KINDS: usize = 8;

fn fatal(number: usize) -> String {
    format!("SELECT max(i) + {number} AS fatal FROM mart.n")
}

#[test]
fn one_hostile_client_leaves_eight_others_answered() {
    if !cfg!(debug_assertions) {
        return println!("SKIPPED: a release build has no faults to switch on");
    }
    let stage = Stage::new();
    let before = stage.level();
    let seconds = setting("MARTD_TEST_ENGINE_SECONDS", 10);
    // Each kind at least once.
    let statements = seconds.max(KINDS);
    let outcomes = std::sync::Mutex::new(Vec::new());
    stage.under_load(|_| {
        thread::scope(|scope| {
            for number in 0..statements {
                let begun = Instant::now();
                let (name, body, right) = hostile(number % KINDS, number);
                if name == "abort" {
                    stage.faults.abort_at(&fatal(number));
                }
                let (stage, outcomes) = (&stage, &outcomes);
                // It does not wait for the answer before it sends the next.
                scope.spawn(move || {
                    for _ in 0..if right.is_some() { 3 } else { 1 } {
                        let answer = stage.ask(1 + CLIENTS + number % SENDERS, &body);
                        let outcome = match right {
                            Some(right) if answer.status == 200 => {
                                assert_eq!(answer.value(), right, "{name}");
                                "right".to_owned()
                            }
                            _ => answer.problem().0,
                        };
                        outcomes.lock().expect("no panic").push((name, outcome));
                    }
                });
                thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
            }
        });
    });
    let mut outcomes = outcomes.into_inner().expect("no panic");
    outcomes.sort();
    for (name, outcome) in &outcomes {
        let allowed: &[&str] = match *name {
            "LIKE" => &["query-timeout"],
            "ASOF" => &["right"],
            "switch" | "quantile" => &["function-not-allowed", "sql-error", "memory-limit"],
            "scalar" => &["memory-limit"],
            "nest" => &["sql-error", "statement-not-allowed", "bad-request", "query-timeout"],
            "aggregate" => &["memory-limit", "query-timeout"],
            _ => &["engine-failed"],
        };
        assert!(allowed.contains(&outcome.as_str()), "{name}: {outcome}");
    }
    outcomes.dedup();
    println!("{outcomes:?}");
    // Otherwise nothing was shown.
    assert!(stage.starts("wedged") >= 1.0 && stage.starts("suspects") >= 1.0);
    println!(
        "engines: {}",
        ["exited", "wedged", "failed", "suspects"]
            .map(|reason| format!("{reason} {}", stage.starts(reason)))
            .join(", ")
    );
    let quarantined = outcomes.iter().filter(|(name, _)| *name == "abort").count();
    assert!(stage.scrape().value("martd_statements_quarantined") >= quarantined as f64);
    stage.assert_back_at(&before);
}

#[test]
fn eight_clients_are_answered_while_engines_die() {
    let stage = Stage::new();
    let before = stage.level();
    let kills = setting("MARTD_TEST_ENGINE_KILLS", 5);
    stage.under_load(|answered| {
        for _ in 0..kills {
            let before = answered.load(Ordering::Relaxed);
            wait_for("more answers", || {
                (answered.load(Ordering::Relaxed) > before + 50).then_some(())
            });
            kill(engine(stage.martd.pid()));
        }
        let before = answered.load(Ordering::Relaxed);
        wait_for("more answers", || (answered.load(Ordering::Relaxed) > before + 50).then_some(()));
    });
    assert!(stage.starts("exited") >= kills as f64, "an engine for each that was killed");
    assert_eq!(stage.scrape().value("martd_statements_quarantined"), 0.0);
    stage.assert_back_at(&before);
}
