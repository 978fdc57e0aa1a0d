//! Row scoping that SQL cannot get around, and tokens that say who may use which scope.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::harness::{Answer, Martd, Root, run, wait_for};
use crate::pg_raw::Raw;
use crate::writers::Writer;

const ALICE: &str = "user_id=11111111-1111-1111-1111-111111111111";
const BOB: &str = "user_id=22222222-2222-2222-2222-222222222222";
const BOBS: &str = "22222222-2222-2222-2222-222222222222";
/// In Bob's rows alone: whatever Alice is answered, it must not be in it.
const SECRET: &str = "bobs-secret";

fn land(root: &Root) {
    let writer = Writer::new();
    writer.land(
        root,
        "notes",
        "SELECT * FROM (VALUES
            ('11111111-1111-1111-1111-111111111111'::UUID, 1, 'alices own', 10),
            ('22222222-2222-2222-2222-222222222222'::UUID, 2, 'bobs-secret', 4711),
            (NULL, 3, 'nobodys bobs-secret', 4712)) t(user_id, id, note, amount)",
    );
    writer.land(root, "rates", "SELECT 'EUR' AS currency, 1.1 AS rate");
    writer.land(root, "hidden", "SELECT 'bobs-secret' AS note");
}

fn martd(settings: &[(&str, &str)]) -> (Root, Martd) {
    let root = Root::new();
    land(&root);
    let mut all = vec![
        ("MARTD_SCOPE_COLUMN", "user_id"),
        ("MARTD_UNSCOPED", "rates"),
        ("MARTD_REQUIRE", "notes,rates,hidden"),
    ];
    all.extend(settings);
    let martd = Martd::start_with(root.path(), &all);
    wait_for("readiness", || (martd.get("/readyz").status == 200).then_some(()));
    (root, martd)
}

fn ask(martd: &Martd, scope: &str, sql: &str) -> Answer {
    martd.post_with(&json!({ "sql": sql }), &[("martd-scope", scope)])
}

#[test]
fn a_scoped_mart_listed_as_unscoped_is_scoped() {
    let (_root, martd) = martd(&[("MARTD_UNSCOPED", "rates,notes")]);
    let notes = "SELECT note FROM mart.notes";
    assert_eq!(ask(&martd, ALICE, notes).rows(), json!([{"note": "alices own"}]));
    assert_eq!(ask(&martd, ALICE, "SELECT rate FROM mart.rates").value(), 1.1);
}

#[test]
fn a_scope_is_not_ignored_where_rows_are_not_scoped() {
    let root = Root::new();
    land(&root);
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let (slug, detail) = ask(&martd, ALICE, "SELECT note FROM mart.notes").problem();
    assert_eq!(slug, "bad-request");
    assert!(detail.contains("MARTD_SCOPE_COLUMN"), "{detail}");
}

#[test]
fn a_request_sees_the_rows_of_its_scope_alone() {
    let (_root, martd) = martd(&[]);
    let notes = "SELECT note FROM mart.notes ORDER BY note";
    assert_eq!(ask(&martd, ALICE, notes).rows(), json!([{"note": "alices own"}]));
    assert_eq!(ask(&martd, BOB, notes).rows(), json!([{"note": SECRET}]));
    assert_eq!(ask(&martd, "user_id=no uuid", notes).rows(), json!([]));
    assert_eq!(ask(&martd, ALICE, "SELECT rate FROM mart.rates").status, 200);

    let refused = |headers: &[(&str, &str)]| {
        let answer = martd.post_with(&json!({ "sql": notes }), headers);
        (answer.status, answer.problem().0)
    };
    assert_eq!(refused(&[]), (403, "scope-required".to_owned()));
    assert_eq!(refused(&[("martd-scope", "*")]), (403, "scope-required".to_owned()));
    assert_eq!(refused(&[("martd-scope", "account=1")]), (400, "bad-request".to_owned()));
    let (slug, detail) = ask(&martd, ALICE, "SELECT * FROM mart.hidden").problem();
    assert_eq!(slug, "statement-not-allowed");
    assert!(detail.contains("hidden has no column user_id"), "{detail}");
}

/// Ways to see Bob's rows as Alice. `{x}` stands for the mart.
const ATTEMPTS: &[&str] = &[
    "SELECT * FROM {x}",
    "SELECT * FROM main_mart.notes",
    "SELECT * FROM MART.NOTES",
    r#"SELECT * FROM "mart"."notes""#,
    r#"SELECT * FROM memory.mart.notes"#,
    "FROM {x}",
    "TABLE {x}",
    "SELECT * FROM {x} WHERE user_id = '22222222-2222-2222-2222-222222222222'",
    "SELECT * FROM {x} WHERE true OR user_id IS NOT NULL",
    "SELECT * FROM {x} UNION ALL SELECT * FROM {x}",
    "SELECT a.* FROM {x} a RIGHT JOIN {x} b ON true",
    "SELECT * FROM {x} a FULL JOIN {x} b USING (id)",
    "SELECT (SELECT string_agg(note) FROM {x}) AS n",
    "SELECT (SELECT max(b.note) FROM {x} b WHERE b.id > a.id) AS n FROM {x} a",
    "SELECT * FROM {x} WHERE EXISTS (SELECT 1 FROM {x} b WHERE b.id = 2)",
    "WITH notes AS (SELECT * FROM {x}) SELECT * FROM notes",
    "WITH x AS (SELECT * FROM {x}) SELECT * FROM x, x y",
    "WITH RECURSIVE r AS (SELECT * FROM {x} UNION ALL SELECT * FROM r WHERE false) SELECT * FROM r",
    "WITH x AS MATERIALIZED (FROM {x}) FROM x",
    "SUMMARIZE {x}",
    "SUMMARIZE SELECT note, amount FROM {x}",
    "DESCRIBE {x}",
    "SELECT min(note), max(note), count(*), approx_count_distinct(note) FROM {x}",
    "SELECT stats(note) FROM {x}",
    "SELECT histogram(note) FROM {x}",
    "SELECT list(note), mode(note), arg_max(note, amount) FROM {x}",
    "SELECT first(note ORDER BY amount DESC) FROM {x}",
    "SELECT note, lead(note) OVER (ORDER BY id), nth_value(note, 2) OVER () FROM {x}",
    "SELECT * FROM {x} TABLESAMPLE 100%",
    "SELECT * FROM {x} ORDER BY amount DESC LIMIT 1 OFFSET 0",
    "SELECT DISTINCT ON (note) * FROM {x}",
    "SELECT * FROM (SELECT unnest(list(t)) FROM {x} t)",
    "SELECT COLUMNS(*) FROM {x}",
    "SELECT * FROM {x} POSITIONAL JOIN {x} b",
    "SELECT * FROM {x} a ASOF JOIN {x} b ON a.id <= b.id",
    "SELECT * FROM {x}, LATERAL (SELECT note AS n FROM {x} b WHERE b.id >= notes.id)",
    "SELECT getvariable('martd_scope')",
    "SELECT getvariable('martd_all_rows')",
    "SET VARIABLE martd_all_rows = true",
    "RESET VARIABLE martd_scope",
    "SELECT * FROM read_parquet('/proc/self/fd/10')",
    "SELECT * FROM '/proc/self/fd/10'",
    "SELECT * FROM parquet_metadata('/proc/self/fd/10')",
    "SELECT * FROM information_schema.views",
    "SELECT sql FROM duckdb_views()",
    "SELECT * FROM pg_catalog.pg_views",
    "SELECT * FROM query('FROM {x}')",
    "SELECT * FROM query_table('{x}')",
    "SELECT * FROM sqlite_master",
    "EXPLAIN ANALYZE SELECT * FROM {x}",
    // Over PostgreSQL's protocol these are translated.
    "SELECT initcap(note), substring(note FROM '.*'), to_char(amount, '9999') FROM {x}",
    "SELECT note FROM {x} WHERE note ~ '.*' OR note ILIKE ANY (ARRAY['%', 'b%'])",
    "SELECT note ILIKE ANY (string_to_array(getvariable('martd_scope'), ',')) FROM {x}",
    "SELECT to_char(getvariable('martd_scope'), 'YYYY'), martd_like_any(getvariable('martd_scope'))",
    "SELECT substring((SELECT string_agg(note, ',') FROM {x}) FROM 'b[a-z]*-[a-z]*')",
    "SELECT to_date(note, 'YYYY-MM-DD') FROM {x}",
    "SELECT to_char(amount::DOUBLE / (amount - 4711), '9') FROM {x}",
    // Errors must not show what they were raised by.
    "SELECT note::INTEGER FROM {x}",
    "SELECT * FROM {x} WHERE note::INTEGER > 0",
    "SELECT * FROM {x} WHERE CASE WHEN note LIKE 'bobs%' THEN error(note) END IS NULL",
    "SELECT * FROM {x} WHERE (note || amount)::DATE > '2020-01-01'",
    "SELECT count(*) FROM {x} WHERE amount::TINYINT > 0",
    "SELECT strptime(note, '%Y') FROM {x}",
    "SELECT 1 // (amount - 4711) FROM {x}",
    "SELECT * FROM {x} GROUP BY ALL HAVING note::INTEGER = 1",
    "SELECT * FROM {x} a JOIN {x} b ON a.note::INTEGER = b.id",
];

#[test]
fn no_statement_sees_another_users_rows() {
    let (_root, martd) = martd(&[]);
    // Bob asks first, so that whatever is kept (statements, plans, answers) was made for him.
    for attempt in ATTEMPTS {
        ask(&martd, BOB, &attempt.replace("{x}", "mart.notes"));
    }
    for attempt in ATTEMPTS {
        let sql = attempt.replace("{x}", "mart.notes");
        let answer = ask(&martd, ALICE, &sql);
        assert!([200, 400, 403].contains(&answer.status), "{sql}: {answer:?}");
        let mut told = answer.json();
        for of_no_row in ["request_id", "snapshot", "statistics"] {
            told.as_object_mut().expect("an object").remove(of_no_row); // may have any digits
        }
        for leak in [SECRET, "4711", "4712", "22222222"] {
            let body = told.to_string().replace(&sql, "");
            // A message quotes the statement, which may hold what it looked for.
            if !sql.contains(leak) {
                assert!(!body.contains(leak), "{sql} shows {leak}: {answer:?}");
            }
        }
    }
    let count = "SELECT count(*) AS n FROM mart.notes";
    assert_eq!(ask(&martd, ALICE, count).value(), 1);
}

/// The same by the PostgreSQL protocol, where the user's name is the scope.
#[test]
fn no_client_of_postgresql_sees_anothers_rows() {
    let (_root, martd) = martd(&[("MARTD_PG_LISTEN", "127.0.0.1:0")]);
    let line = martd.wait_log("serving");
    let address = line["postgres"].as_str().expect("an address");
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let connect = |scope: &str| {
        let (_, user) = scope.split_once('=').expect("a column and a value");
        Raw::connect_as(port, user, None)
    };
    let (mut bob, mut alice) = (connect(BOB), connect(ALICE));
    for (mart, attempt) in ["mart.notes", "notes"]
        .iter()
        .flat_map(|mart| ATTEMPTS.iter().map(move |attempt| (mart, attempt)))
    {
        let sql = attempt.replace("{x}", mart);
        bob.ask(&sql);
        for (way, answer) in alice.in_each_way(&sql) {
            for leak in [SECRET, "4711", "4712", "22222222"] {
                let shows = answer.iter().any(|(_, text)| text.contains(leak));
                assert!(!shows || sql.contains(leak), "{way} {sql} shows {leak}: {answer:?}");
            }
        }
    }
    // Nor by a value that is bound, be it of the scope's column.
    let bound =
        alice.prepared("SELECT note FROM notes WHERE user_id::VARCHAR = $1 OR $1 = $1", &[BOBS]);
    assert!(!format!("{bound:?}").contains(SECRET), "{bound:?}");
    assert!(alice.value("SELECT count(*) FROM notes").ends_with('1'));
    assert!(bob.value("SELECT string_agg(note, ',') FROM notes").ends_with(SECRET));
}

#[test]
fn hidden_rows_do_not_make_a_statement_fail() {
    let (_root, martd) = martd(&[]);
    // Alice's amount fits a TINYINT, Bob's does not; her rows alone are converted.
    for sql in [
        "SELECT count(*) AS n FROM mart.notes WHERE amount::TINYINT > 0",
        "SELECT count(*) AS n FROM mart.notes WHERE CASE WHEN amount > 100 THEN error('seen') ELSE true END",
        "SELECT count(*) AS n FROM mart.notes WHERE 100 / (amount - 4711) < 1 AND amount::TINYINT = 10",
    ] {
        assert_eq!(ask(&martd, ALICE, sql).value(), 1, "{sql}");
    }
}

#[test]
fn tokens_say_which_rows_to_read_and_are_reloaded() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), format!("alice {ALICE}\nbackend user_id=*\nreport *\n")).expect("write");
    let path = file.path().to_str().expect("UTF-8");
    let (_root, martd) = martd(&[("MARTD_TOKEN_FILE", path)]);
    let with = |token: &str, scope: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("martd-scope", scope)];
        martd.post_with(&json!({"sql": "SELECT count(*) AS n FROM mart.notes"}), &headers)
    };

    assert_eq!(martd.get("/readyz").status, 200, "probes need no token");
    let answer = martd.get("/v1/snapshot");
    assert_eq!((answer.status, answer.problem().0.as_str()), (401, "unauthorized"));
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_eq!(with("wrong", ALICE).status, 401);
    assert_eq!(with("alice", ALICE).value(), 1);
    assert_eq!(with("alice", BOB).problem().0, "scope-required");
    assert_eq!(with("backend", BOB).value(), 1);
    assert_eq!(with("backend", "*").problem().0, "scope-required");
    assert_eq!(with("report", "*").value(), 3);

    fs::write(file.path(), "not a scope\n").expect("write");
    martd.signal(Signal::HUP);
    wait_for("the complaint", || {
        let log = martd.log();
        log.iter()
            .any(|line| line["message"] == "the token file is wrong: the old tokens stay")
            .then_some(())
    });
    assert_eq!(with("alice", ALICE).value(), 1);
    fs::write(file.path(), format!("carol {ALICE}\n")).expect("write");
    martd.signal(Signal::HUP);
    wait_for("the new tokens", || (with("carol", ALICE).status == 200).then_some(()));
    assert_eq!(with("alice", ALICE).status, 401);
}

#[test]
fn a_query_is_cancelled_only_by_its_own_token() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), "one user_id=*\ntwo user_id=*\n").expect("write");
    let path = file.path().to_str().expect("UTF-8");
    let (_root, martd) = martd(&[("MARTD_TOKEN_FILE", path)]);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let slow = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b";
            martd.post_with(
                &json!({ "sql": slow }),
                &[("authorization", "Bearer one"), ("martd-scope", ALICE), ("x-request-id", "q")],
            )
        });
        let delete = |token: &str| {
            let authorization = format!("Bearer {token}");
            martd.delete_with("/v1/queries/q", &[("authorization", &authorization)]).status
        };
        wait_for("the query to be known to its owner", || {
            let (other, owner) = (delete("two"), delete("one"));
            assert_eq!(other, 404, "another token's query is unknown");
            (owner == 204).then_some(())
        });
        assert_eq!(client.join().expect("an answer").status, 504);
    });
}

#[test]
fn an_empty_token_file_is_refused_at_the_start() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let output = std::process::Command::new(crate::harness::program())
        .env("MARTD_TOKEN_FILE", file.path())
        .output()
        .expect("martd starts");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("--token-file (MARTD_TOKEN_FILE): ") && message.contains("has no token"),
        "{message}"
    );
}

#[test]
fn without_scoping_nothing_is_asked_for() {
    let root = Root::new();
    land(&root);
    let martd = Martd::start_with(root.path(), &[("MARTD_REQUIRE", "notes,hidden")]);
    martd.wait_ready();
    assert_eq!(martd.query("SELECT count(*) AS n FROM mart.notes").value(), 3);
    assert_eq!(
        martd.query("SELECT note FROM mart.hidden").rows(),
        json!([{"note": Json::from(SECRET)}])
    );
}

#[test]
fn a_scope_may_have_any_letters() {
    let root = Root::new();
    let names = "SELECT unnest(['Jürgen', '日本 語', 'a%41b', 'aAb']) AS user_id, 1 AS n";
    Writer::new().land(&root, "names", names);
    let martd = Martd::start_with(root.path(), &[("MARTD_SCOPE_COLUMN", "user_id")]);
    martd.wait_ready();
    let sql = "SELECT user_id FROM mart.names";
    for (scope, expected) in [
        ("user_id=Jürgen", "Jürgen"),
        ("user_id*=UTF-8''J%C3%BCrgen", "Jürgen"),
        ("user_id*=UTF-8''%E6%97%A5%E6%9C%AC%20%E8%AA%9E", "日本 語"),
        ("user_id=a%41b", "a%41b"),
        ("user_id*=UTF-8''a%41b", "aAb"),
    ] {
        assert_eq!(ask(&martd, scope, sql).rows(), json!([{"user_id": expected}]), "{scope}");
        let server = [("MARTD_SERVER", martd.address.as_str())];
        let output = run(&["query", sql, "--scope", scope, "--format", "csv"], &server);
        assert_eq!(output.out, format!("user_id\n{expected}\n"), "{output:?}");
    }
    let (slug, detail) = ask(&martd, "user_id*=UTF-8''J%FCrgen", sql).problem();
    assert_eq!(slug, "bad-request");
    assert!(detail.contains("user_id*=UTF-8''<value>"), "{detail}");
}

#[test]
fn how_much_others_have_is_not_told() {
    let tokens = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(tokens.path(), format!("alice {ALICE}\nany user_id=*\nall *\n")).expect("write");
    let settings = [
        ("MARTD_TOKEN_FILE", tokens.path().to_str().expect("UTF-8")),
        ("MARTD_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let (_root, martd) = martd(&settings);
    let get = |path: &str, token: &str| {
        martd.get_with(path, &[("authorization", &format!("Bearer {token}"))])
    };
    let sizes = |token: &str| -> Vec<(String, bool)> {
        let snapshot = get("/v1/snapshot", token).json();
        let freshness = get("/v1/freshness", token).json();
        let metrics = get("/metrics", token).body;
        let marts = snapshot["marts"].as_array().expect("marts").iter();
        let marts = marts.zip(freshness["results"].as_array().expect("results"));
        marts
            .map(|(mart, result)| {
                let name = mart["name"].as_str().expect("a name");
                let told = [&mart["rows"], &mart["bytes"], &mart["table_bytes"]];
                let told = told.into_iter().chain([&result["rows"], &result["bytes"]]);
                let told: Vec<bool> = told.map(Json::is_number).collect();
                let scraped = ["martd_mart_rows", "martd_mart_bytes"]
                    .map(|metric| metrics.contains(&format!("{metric}{{mart=\"{name}\"}}")));
                let all: Vec<bool> = told.into_iter().chain(scraped).collect();
                assert!(all.iter().all(|told| *told == all[0]), "{name}: {all:?}");
                (name.to_owned(), all[0])
            })
            .collect()
    };
    let told = |hidden, notes, rates| {
        vec![
            ("hidden".to_owned(), hidden),
            ("notes".to_owned(), notes),
            ("rates".to_owned(), rates),
        ]
    };
    assert_eq!(sizes("alice"), told(false, false, true));
    assert_eq!(sizes("any"), told(false, false, true));
    assert_eq!(sizes("all"), told(true, true, true));
    assert!(martd.get_admin("/metrics").body.contains("martd_mart_rows{mart=\"notes\"} 3"));
    let page = get("/", "alice").body;
    assert!(page.contains("<td class=\"number\">–</td>"), "{page}");
}
