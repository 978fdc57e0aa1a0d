//! The corpora through the whole daemon: hostile statements are refused or stopped inside their
//! limits, nothing is written, and the next query is answered; legitimate ones are answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::corpus::{HOSTILE, LEGITIMATE, expand, lines};
use crate::harness::{Martd, Root, Tokens, wait_for};
use crate::writers::Writer;

fn land(root: &Root) {
    let writer = Writer::new();
    writer.land(
        root,
        "orders",
        "SELECT i::INTEGER AS id, (i % 7)::INTEGER AS customer_id, (i * 1.5)::DECIMAL(12, 2) AS amount,
            ['open', 'paid'][1 + i % 2] AS status, TIMESTAMP '2026-01-01' + INTERVAL (i) HOUR AS created_at,
            DATE '2026-01-01' + (i % 90)::INTEGER AS day, ['a', 'b'] AS tags, i::VARCHAR AS note,
            '{\"k\": ' || i || '}' AS doc, {'city': 'Berlin', 'zip': '10115'} AS address
         FROM range(500) t(i)",
    );
    writer.land(
        root,
        "customers",
        "SELECT i::INTEGER AS id, 'c' || i AS name, 'DE' AS country FROM range(7) t(i)",
    );
    writer.land(
        root,
        "payments",
        "SELECT i::INTEGER AS order_id, 1.5::DECIMAL(12, 2) AS amount, TIMESTAMP '2026-01-02' AS paid_at
         FROM range(500) t(i)",
    );
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// What the class of a hostile statement allows as its answer.
fn allows(class: &str, status: u16, slug: &str) -> bool {
    match class {
        "syntax" => (status, slug) == (400, "sql-error"),
        // A name of a file or an address is refused by the gate.
        "unknown" => [(400, "sql-error"), (403, "statement-not-allowed")].contains(&(status, slug)),
        "statement" => (status, slug) == (403, "statement-not-allowed"),
        "function" => (status, slug) == (403, "function-not-allowed"),
        "empty" => (status, slug) == (400, "bad-request"),
        // An answer of bounded size, or a limit; a shape that DuckDB itself refuses is fine, too.
        // One that made DuckDB fail cost an engine, and others nothing.
        "limits" => [
            (200, ""),
            (504, "query-timeout"),
            (507, "memory-limit"),
            (400, "sql-error"),
            (500, "engine-failed"),
        ]
        .contains(&(status, slug)),
        "safe" => status == 200,
        other => panic!("the corpus has no class {other}"),
    }
}

#[test]
fn hostile_statements_are_refused_or_stopped() {
    let root = Root::new();
    land(&root);
    // Each statement is sent by a client of its own: one whose statements cost engines is not answered
    // for a while, and the corpus would not be tried.
    let statements: Vec<&str> = lines(HOSTILE).collect();
    let tokens = Tokens::new(1 + statements.len());
    let settings = [
        ("MARTD_QUERY_TIMEOUT", "30s"),
        ("MARTD_MEMORY", "512MiB"),
        ("MARTD_MAX_RESULT", "10MiB"),
        ("MARTD_QUERIES", "2"),
        ("MARTD_MAX_BODY", "16MiB"),
        ("MARTD_TOKEN_FILE", tokens.file()),
    ];
    let martd = Martd::start_with(root.path(), &settings);
    let asker = tokens.bearer(0);
    let asker = [("authorization", asker.as_str())];
    wait_for("all marts", || {
        let snapshot = martd.get_with("/v1/snapshot", &asker).json();
        snapshot["marts"].as_array().is_some_and(|marts| marts.len() == 3).then_some(())
    });
    let before = files(root.path());

    let mut outcomes: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(statements) {
        let (class, sql) = line.split_once('\t').expect("a class, a tab, a statement");
        let body = json!({"sql": expand(sql), "timeout_ms": 1_000});
        let sender = tokens.bearer(number);
        // The statement before it may have cost an engine, and a busy machine may need more than this
        // one's second to start another: martd says so, and to ask again.
        let answer = (0..10)
            .map(|_| martd.post_with(&body, &[("authorization", &sender)]))
            .find(|answer| answer.header("retry-after").is_empty())
            .expect("an engine could be had");
        let slug = if answer.status == 200 { String::new() } else { answer.problem().0 };
        if !allows(class, answer.status, &slug) {
            wrong.push(format!("{class}: {sql}: {} {}", answer.status, answer.body));
        }
        for leak in ["/proc/self", "root:x:0", root.path().to_str().expect("UTF-8")] {
            if !sql.contains(leak) && answer.body.contains(leak) {
                wrong.push(format!("{sql} shows {leak}: {}", answer.body));
            }
        }
        let outcome = if slug.is_empty() { "an answer within its limits".to_owned() } else { slug };
        *outcomes.entry((class.to_owned(), outcome)).or_default() += 1;
        let next =
            json!({"sql": "SELECT (count(*) + 0 * random())::INTEGER AS n FROM mart.orders"});
        assert_eq!(martd.post_with(&next, &asker).value(), 500, "the next query after {sql}");
    }
    for ((class, outcome), count) in &outcomes {
        println!("{count:4} {class}: {outcome}");
    }
    let all: usize = outcomes.values().sum();
    assert!(all >= 200, "only {all} statements");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(files(root.path()), before, "something was written");
    assert_eq!(martd.get("/livez").status, 200);
}

#[test]
fn legitimate_statements_are_answered() {
    let root = Root::new();
    land(&root);
    let martd = Martd::start(root.path());
    martd.wait_snapshot("all marts", |s| s["marts"].as_array().is_some_and(|m| m.len() == 3));
    let mut wrong = Vec::new();
    for line in lines(LEGITIMATE) {
        let sql = expand(line);
        let answer = martd.query(&sql);
        let lacks_parameters = sql.contains('$') || sql.contains('?');
        if answer.status != 200 && !lacks_parameters {
            wrong.push(format!("{sql}: {}", answer.body));
        } else if answer.status == 200 {
            assert!(answer.json()["data"] != Json::Null);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
