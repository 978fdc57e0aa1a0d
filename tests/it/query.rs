//! `POST /v1/query`: statements, parameters, answers, errors.

use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root};
use crate::writers::{Writer, serving};

fn martd() -> (Root, Martd) {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(
        &root,
        "sales",
        "SELECT i AS id, DATE '2026-01-01' + i::INTEGER AS day, 'shop ' || i % 3 AS shop,
                (i * 1.25)::DECIMAL(18, 2) AS amount FROM range(12) t(i)",
    );
    let martd = Martd::start(root.path());
    martd.wait_ready();
    (root, martd)
}

#[test]
fn an_answer_has_the_shape_that_the_manual_shows() {
    let (_root, martd) = martd();
    let answer =
        martd.query("SELECT shop, sum(amount) AS total FROM mart.sales GROUP BY ALL ORDER BY ALL");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("martd-source"), "parquet");
    let mut json = answer.json();
    assert_eq!(json["snapshot"], answer.header("martd-snapshot"));
    assert!(json["statistics"]["elapsed"].as_f64().expect("seconds") > 0.0);
    json["snapshot"].take();
    json["statistics"].take();
    assert_eq!(
        json,
        json!({
            "meta": [
                {"name": "shop", "type": "VARCHAR"},
                {"name": "total", "type": "DECIMAL(38,2)"},
            ],
            "data": [
                {"shop": "shop 0", "total": serde_json::from_str::<Json>("22.50").expect("JSON")},
                {"shop": "shop 1", "total": serde_json::from_str::<Json>("27.50").expect("JSON")},
                {"shop": "shop 2", "total": serde_json::from_str::<Json>("32.50").expect("JSON")},
            ],
            "rows": 3,
            "truncated": false,
            "snapshot": null,
            "statistics": null,
        })
    );
}

#[test]
fn parameters_are_typed_from_json() {
    let (_root, martd) = martd();
    let types = "SELECT typeof($1) AS a, typeof($2) AS b, typeof($3) AS c, typeof($4) AS d,
                        typeof($5) AS e, typeof($6) AS f, typeof($7) AS g";
    let params = json!([1, 1.5, "x", true, null, [1, 2], 9_223_372_036_854_775_808_u64]);
    let rows = martd.post(&json!({"sql": types, "params": params})).rows();
    let expected = ["BIGINT", "DOUBLE", "VARCHAR", "BOOLEAN", "\"NULL\"", "BIGINT[]", "HUGEINT"];
    let found: Vec<&str> =
        rows[0].as_object().expect("a row").values().filter_map(Json::as_str).collect();
    assert_eq!(found, expected);

    let count = |body: Json| martd.post(&body).value();
    assert_eq!(
        count(json!({
            "sql": "SELECT count(*) FROM mart.sales WHERE day BETWEEN $from AND $to
                    AND shop IN (SELECT unnest($shops))",
            "params": {"from": "2026-01-02", "to": "2026-01-07", "shops": ["shop 0", "shop 1"]},
        })),
        4
    );
    let ids = json!({"sql": "SELECT count(*) FROM mart.sales WHERE id = ANY(?)", "params": [[]]});
    assert_eq!(count(ids), 0);
}

#[test]
fn parameters_can_be_given_types() {
    let (_root, martd) = martd();
    for (value, ty, printed) in [
        (json!("2026-01-31"), "DATE", "2026-01-31"),
        (json!("12:30:00.5"), "TIME", "12:30:00.5"),
        (json!("2026-01-31 12:00:00"), "TIMESTAMP", "2026-01-31 12:00:00"),
        (json!("2026-01-31 12:00:00+02"), "TIMESTAMP WITH TIME ZONE", "2026-01-31 10:00:00+00"),
        (json!("2026-01-31 12:00:00.123456789"), "TIMESTAMP_NS", "2026-01-31 12:00:00.123456789"),
        (
            json!("0e3c9c7e-0000-4000-8000-000000000001"),
            "UUID",
            "0e3c9c7e-0000-4000-8000-000000000001",
        ),
        (
            json!("ffffffff-ffff-ffff-ffff-ffffffffffff"),
            "UUID",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ),
        (json!("-0.05"), "DECIMAL(18,2)", "-0.05"),
        (
            json!("-12345678901234567890123456.789"),
            "DECIMAL(38,3)",
            "-12345678901234567890123456.789",
        ),
        (
            json!("-170141183460469231731687303715884105728"),
            "HUGEINT",
            "-170141183460469231731687303715884105728",
        ),
        (
            json!("340282366920938463463374607431768211455"),
            "UHUGEINT",
            "340282366920938463463374607431768211455",
        ),
        (json!(7), "UTINYINT", "7"),
        (json!("1 year 2 days"), "INTERVAL", "1 year 2 days"),
        (json!("x"), "BLOB", "x"),
        (json!(["2026-01-31", null]), "DATE[]", "[2026-01-31, NULL]"),
        (json!([]), "UUID[]", "[]"),
    ] {
        let body = json!({
            "sql": "SELECT typeof($v) AS t, $v::VARCHAR AS v", "params": {"v": value}, "types": {"v": ty},
        });
        let rows = martd.post(&body).rows();
        assert_eq!(rows[0]["t"], ty, "{value} as {ty}");
        assert_eq!(rows[0]["v"], printed, "{value} as {ty}");
    }
    let ids = json!({
        "sql": "SELECT count(*) FROM mart.sales WHERE day IN (SELECT unnest(?))",
        "params": [["2026-01-02", "2026-01-03"]], "types": {"1": "DATE[]"},
    });
    assert_eq!(martd.post(&ids).value(), 2);
    for (types, expected) in [
        (json!({"v": "MOOD"}), "parameter $v has the type MOOD, which parameters cannot have"),
        (json!({"w": "DATE"}), "types has $w, but params has no such parameter"),
        (json!({"v": "DATE"}), "parameter $v cannot be bound: Conversion Error"),
    ] {
        let body = json!({"sql": "SELECT $v", "params": {"v": "x"}, "types": types});
        let (slug, detail) = martd.post(&body).problem();
        assert_eq!(slug, "bad-request");
        assert!(detail.contains(expected), "{detail}");
    }
}

#[test]
fn a_wrong_parameter_is_named() {
    let (_root, martd) = martd();
    for (sql, params, expected) in [
        ("SELECT $a + $b", json!({"a": 1}), "parameter $b (number 2) is missing from params"),
        ("SELECT $a", json!({"a": 1, "z": 2}), "parameter $z was given, but"),
        ("SELECT ? + ?", json!([1]), "the statement has parameter $2, but 1 were given"),
        ("SELECT ?", json!([1, 2]), "parameter number 2 was given, but"),
        ("SELECT $a", json!([1]), "parameter $a is named; give params as an object"),
        ("SELECT ?", json!([{"x": 1}]), "parameter $1 is an object"),
        ("SELECT $a", json!({"a": [1, "x"]}), "parameter $a is a list of different types"),
        ("SELECT 1", json!("x"), "params must be a list or an object"),
    ] {
        let answer = martd.post(&json!({"sql": sql, "params": params}));
        let (slug, detail) = answer.problem();
        assert_eq!((answer.status, slug.as_str()), (400, "bad-request"), "{sql}: {detail}");
        assert!(detail.contains(expected), "{sql}: {detail}");
    }
}

#[test]
fn only_one_select_is_allowed() {
    let (_root, martd) = martd();
    for sql in [
        "DROP TABLE mart.sales",
        "CREATE TABLE x AS SELECT 1",
        "INSERT INTO mart.sales SELECT * FROM mart.sales",
        "COPY mart.sales TO '/tmp/x.parquet'",
        "ATTACH '/tmp/x.db'",
        "SET threads = 1",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "EXPLAIN ANALYZE SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW mart.sales",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM information_schema.schemata",
    ] {
        let answer = martd.query(sql);
        assert_eq!(answer.status, 403, "{sql}: {answer:?}");
        assert_eq!(answer.problem().0, "statement-not-allowed", "{sql}");
    }
    let settings = martd.query("SELECT * FROM duckdb_settings");
    assert_eq!(
        (settings.status, settings.problem().0.as_str()),
        (400, "sql-error"),
        "no such table"
    );
    for sql in [
        "SELECT * FROM read_parquet('/proc/self/fd/10')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT current_setting('memory_limit')",
        "SELECT * FROM duckdb_views()",
        "SELECT * FROM query('SELECT 1')",
    ] {
        let answer = martd.query(sql);
        assert_eq!(answer.status, 403, "{sql}: {answer:?}");
        assert_eq!(answer.problem().0, "function-not-allowed", "{sql}");
    }
    assert_eq!(martd.query("SELECT count(*) FROM mart.sales").value(), 12);
}

#[test]
fn a_mistake_gets_duckdbs_message_and_position() {
    let (_root, martd) = martd();
    let answer = martd.query("SELECT idd FROM mart.sales");
    let (slug, detail) = answer.problem();
    assert_eq!((answer.status, slug.as_str()), (400, "sql-error"));
    assert!(detail.contains(r#"Referenced column "idd" not found"#), "{detail}");
    assert!(detail.contains("LINE 1: SELECT idd FROM mart.sales\n               ^"), "{detail}");
    assert_eq!(answer.json()["position"], 7);
    assert_eq!(martd.query("SELECT 1 FROM mart.nothing").json()["position"], 14);

    let answer = martd.query("SELECT 1 FROM FROM x");
    assert_eq!(
        answer.problem(),
        ("sql-error".to_owned(), "Parser Error: syntax error at or near \"FROM\"".to_owned())
    );
    assert_eq!(answer.json()["position"], 14);

    for (sql, expected) in [
        ("SELECT * FROM mart.nothing", "Table with name nothing does not exist"),
        ("SELECT * FROM duckdb_settings", "Table with name duckdb_settings does not exist"),
        ("SELECT * FROM sales", "Did you mean \"mart.sales\"?"),
        ("SELECT 'x'::INTEGER", "Conversion Error: Could not convert string 'x' to INT32"),
    ] {
        let (slug, detail) = martd.query(sql).problem();
        assert_eq!(slug, "sql-error");
        assert!(detail.contains(expected), "{sql}: {detail}");
    }
}

#[test]
fn a_request_that_is_malformed_says_how() {
    let (_root, martd) = martd();
    for (body, expected) in [
        ("{", "the body does not parse"),
        (r#"{"sq": "SELECT 1"}"#, "unknown field `sq`"),
        (r#"{"sql": "SELECT 1", "limit": 10000001}"#, "limit may be 10000000 at most"),
        (r#"{"sql": "SELECT 1", "limit": -1}"#, "invalid value"),
        (r#"{"sql": "SELECT 1", "timeout_ms": 10001}"#, "timeout_ms may be 1 to 10000"),
        (r#"{"sql": "  -- nothing"}"#, "empty"),
    ] {
        let answer = martd.post_text(body, "application/json");
        let (slug, detail) = answer.problem();
        assert_eq!((answer.status, slug.as_str()), (400, "bad-request"), "{body}: {detail}");
        assert!(detail.contains(expected), "{body}: {detail}");
    }
    assert_eq!(martd.post_text("SELECT 42 AS x", "text/plain; charset=utf-8").value(), 42);
    let answer = martd.post_text("<sql/>", "application/xml");
    assert_eq!(answer.problem().0, "unsupported-media-type");
    let answer = martd.post_text(&format!("SELECT '{}'", "x".repeat(300_000)), "text/plain");
    assert_eq!(answer.problem().0, "payload-too-large");
    assert_eq!(martd.get("/v1/nothing").problem().0, "not-found");
    let answer = martd.delete_with("/v1/query", &[("x-request-id", "mine-1")]);
    assert_eq!(answer.problem().0, "method-not-allowed");
    assert_eq!((answer.header("allow"), answer.header("x-request-id")), ("GET, POST", "mine-1"));
}

#[test]
fn rows_are_limited_and_the_cut_is_told() {
    let (_root, martd) = martd();
    let all = "SELECT i FROM range(25000) t(i)";
    let shape = |body: Json| {
        let json = martd.post(&body).json();
        (json["rows"].clone(), json["truncated"].clone())
    };
    assert_eq!(shape(json!({"sql": all})), (json!(10_000), json!(true)));
    assert_eq!(shape(json!({"sql": all, "limit": 25_000})), (json!(25_000), json!(false)));
    assert_eq!(shape(json!({"sql": all, "limit": 24_999})), (json!(24_999), json!(true)));
    assert_eq!(shape(json!({"sql": all, "limit": 0})), (json!(0), json!(true)));
    let large =
        json!({"sql": "SELECT i, repeat('x', 100) AS x FROM range(200000) t(i)", "limit": 200_000});
    let rows = martd.post(&large).rows();
    assert_eq!(rows.as_array().map(Vec::len), Some(200_000));
    assert_eq!(rows[199_999]["i"], 199_999);
}

#[test]
fn a_query_over_its_time_limit_frees_its_slot() {
    let (_root, martd) =
        serving("a", "SELECT 1 AS x", &[("MARTD_QUERIES", "1"), ("MARTD_QUEUE", "0")]);
    let endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b";
    let answer = martd.post(&json!({"sql": endless, "timeout_ms": 100}));
    assert_eq!((answer.status, answer.problem().0.as_str()), (504, "query-timeout"));
    crate::harness::wait_for("the slot", || {
        (martd.query("SELECT random()").status == 200).then_some(())
    });
}

#[test]
fn an_earlier_snapshot_can_be_asked_by_its_id() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let settings = [("MARTD_RETAIN_COUNT", "1")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let select = json!({"sql": "SELECT x FROM mart.a"});
    let first = martd.post(&select).header("martd-snapshot").to_owned();

    writer.land(&root, "a", "SELECT 2 AS x");
    let snapshot = martd.wait_snapshot("the second", |s| s["generation"] == 2);
    assert_eq!(snapshot["retained"], json!([first]));
    let of_first = [("martd-snapshot", first.as_str())];
    let answer = martd.post_with(&select, &of_first);
    assert_eq!((answer.value(), answer.header("martd-snapshot")), (json!(1), first.as_str()));
    assert_eq!(martd.post(&select).value(), 2);

    writer.land(&root, "a", "SELECT 3 AS x");
    martd.wait_snapshot("the third", |s| s["generation"] == 3);
    let answer = martd.post_with(&select, &of_first);
    assert_eq!((answer.status, answer.problem().0.as_str()), (410, "snapshot-gone"));
}

#[test]
fn an_asof_join_is_answered_each_time_it_is_asked() {
    let root = Root::new();
    let select = "SELECT i AS id, i % 5 AS d FROM range(300) t(i)";
    Writer::new().land(&root, "a", select);
    let martd = Martd::start_with(root.path(), &[("MARTD_CACHE", "0")]);
    martd.wait_ready();
    for condition in ["a.id % 7 = b.id % 7 AND a.id > b.id", "a.d = b.d AND a.id > b.id"] {
        let sql = format!("SELECT count(*) FROM mart.a AS a ASOF JOIN mart.a AS b ON {condition}");
        let first = martd.query(&sql).value();
        for _ in 0..6 {
            assert_eq!(martd.query(&sql).value(), first, "{sql}");
        }
    }
}

#[test]
fn values_that_do_not_fit_a_column_are_no_values() {
    let root = Root::new();
    let select = "SELECT i::TINYINT AS ti, i::UINTEGER AS ui,
        TIMESTAMP '2024-01-01' + INTERVAL (i) SECOND AS ts FROM range(120) t(i)";
    Writer::new().land(&root, "a", select);
    let martd = Martd::start_with(root.path(), &[("MARTD_CACHE", "0")]);
    martd.wait_ready();
    for _ in 0..3 {
        for (condition, params) in [
            ("ti <= try_cast(300 AS TINYINT)", json!([])),
            ("ti <= try_cast($1 AS TINYINT)", json!([300])),
            ("ti >= try_cast(-300 AS TINYINT)", json!([])),
            ("ui >= try_cast(-1 AS UINTEGER)", json!([])),
            ("ts = try_cast('2024-01-01 00:00:60' AS TIMESTAMP)", json!([])),
        ] {
            let sql = format!("SELECT count(*) FROM mart.a WHERE {condition}");
            assert_eq!(martd.post(&json!({"sql": sql, "params": params})).value(), 0, "{sql}");
        }
        for condition in
            ["ti <= 300::TINYINT", "ti = 300::TINYINT", "ts = '2024-01-01 00:00:60'::TIMESTAMP"]
        {
            let answer = martd.query(&format!("SELECT * FROM mart.a WHERE {condition}"));
            let (slug, detail) = answer.problem();
            assert_eq!(slug, "sql-error", "{condition}");
            assert!(detail.starts_with("Conversion Error"), "{detail}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_url_is_told_and_not_repaired() {
    let (_root, martd) = martd();
    for (path, word) in [
        ("/v1/query?sql=select+'caf%E9'", "UTF-8"),
        ("/v1/query?sql=select+1&sql=select+2", "more than once"),
        ("/v1/query?sql=select+1&limit=1&limit=2", "more than once"),
        ("/v1/freshness?strict=no", "true or false"),
        ("/readyz?verbose=2", "true or false"),
        ("/v1/query", "empty"),
    ] {
        let answer = martd.get(path);
        assert_eq!((answer.status, answer.problem().0.as_str()), (400, "bad-request"), "{path}");
        assert!(answer.problem().1.contains(word), "{answer:?}");
    }
    let unknown = [("martd-snapshot", "00")];
    assert_eq!(martd.get_with("/v1/query", &unknown).status, 400, "its form comes first");
    assert!(!martd.get("/readyz?verbose=false").body.contains("[+]"));
}

#[test]
fn no_statement_is_unchanged_that_was_never_answered() {
    let (_root, martd) = martd();
    let any = [("if-none-match", "*")];
    assert_eq!(martd.get_with("/v1/query?sql=select+1", &any).status, 200);
    assert_eq!(martd.get_with("/v1/query?sql=from+mart.unknown", &any).status, 400);
}

#[test]
fn a_media_type_is_taken_in_any_case() {
    let (_root, martd) = martd();
    for name in ["APPLICATION/JSON", "Application/Json; charset=utf-8"] {
        assert_eq!(martd.post_text(r#"{"sql": "select 1 as x"}"#, name).value(), 1, "{name}");
    }
    assert_eq!(martd.post_text("select 1 as x", "Text/Plain").value(), 1);
}

#[test]
fn an_answer_is_not_for_other_sites_pages() {
    let (_root, martd) = martd();
    for path in ["/v1/query?sql=select+1", "/v1/snapshot", "/livez", "/nowhere"] {
        let answer = martd.get(path);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin", "{path}");
    }
}
