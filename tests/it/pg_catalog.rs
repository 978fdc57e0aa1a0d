//! What clients of PostgreSQL ask of a catalog.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Martd, Root};
use crate::pg_raw::Raw;
use crate::postgres::{BIG, psql, python, said, start};
use crate::writers::Writer;

const ORDERS: &str = "SELECT i::INTEGER AS id, 'c' || i AS customer, i::DECIMAL(12, 2) AS amount,
    DATE '2026-01-01' AS day FROM range(10) t(i)";

const KINDS: &str = "SELECT true AS b, (-300)::SMALLINT AS s, (-70000)::INTEGER AS i, (-9000000000)::BIGINT AS l,
    1.5::FLOAT AS f, -1e300::DOUBLE AS d, -0.05::DECIMAL(4, 2) AS n, 'größe' AS t, DATE '1999-12-31' AS day,
    TIMESTAMP '2026-01-31 12:00:00.5' AS wall, TIMESTAMPTZ '2026-01-31 12:00:00+02' AS moment,
    '1b671a64-40d5-491e-99b0-da01ff1f3341'::UUID AS u, [1, NULL, 3]::INTEGER[] AS list, {'a': 1} AS nested,
    'x'::BLOB AS raw, INTERVAL 3 DAY AS span";
/// Debian has it as libpostgresql-jdbc-java.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// Everything behind this line of the document is generated.
const MARK: &str = "<!-- Generated from here on: UPDATE=1 cargo nextest run what_clients_ask -->\n";

/// What one client asks.
struct Recorded {
    client: String,
    purpose: String,
    /// How many rows come of it, or the SQLSTATE and why the client bears that.
    expected: String,
    sql: String,
}

fn recorded() -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/recorded.sql");
    let text = fs::read_to_string(path).expect("it is there");
    let entries = text.split("\n-- @ ").skip(1).map(|entry| {
        let (head, sql) = entry.split_once('\n').expect("a head and a statement");
        let mut head = head.split(" | ").map(str::to_owned);
        let mut next = || head.next().expect("client | what for | rows");
        let (client, purpose, expected) = (next(), next(), next());
        Recorded { client, purpose, expected, sql: sql.trim().to_owned() }
    });
    entries.collect()
}

fn error_of(answer: &[(u8, String)]) -> Option<&str> {
    answer.iter().find_map(|(kind, text)| (*kind == b'E').then_some(text.as_str()))
}

#[test]
fn what_clients_ask_of_a_catalog_is_answered() {
    let root = Root::new();
    Writer::new().land(&root, "orders", ORDERS);
    let (_martd, port) = start(&root, &[]);
    let mut client = Raw::connect(port);
    let orders = client.value("SELECT 'mart.orders'::regclass::oid");
    let mut failed = String::new();
    let mut table = String::from("\n| client | asks for | gets |\n|---|---|---|\n");
    for Recorded { client: who, purpose, expected, sql } in recorded() {
        let answer = client.ask(&sql.replace("{orders}", &orders));
        let rows = answer.iter().filter(|(kind, _)| *kind == b'D').count();
        let came = match error_of(&answer) {
            Some(error) => error.to_owned(),
            None => rows.to_string(),
        };
        let state = expected.split(' ').next().expect("a word");
        let gets = match expected.parse::<usize>() {
            Ok(1) => "a row".to_owned(),
            Ok(0) => "no rows".to_owned(),
            Ok(rows) => format!("{rows} rows"),
            Err(_) => expected.replacen(' ', ": ", 1),
        };
        let row = format!("| {who} | {purpose} | {gets} |\n");
        if !table.ends_with(&row) {
            table.push_str(&row);
        }
        if came != expected && !(state.len() == 5 && came.contains(&format!("C{state}"))) {
            let _ = writeln!(failed, "{who}, {purpose}: {came}\n  {sql}");
        }
    }
    assert!(failed.is_empty(), "{failed}");

    in_document(MARK, &table, "");
}

/// Compares what stands between two marks of the document, or writes it there with `UPDATE=1`.
pub(crate) fn in_document(mark: &str, table: &str, end: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/postgres.md");
    let document = fs::read_to_string(&path).expect("it is there");
    let (own, rest) = document.split_once(mark).expect("it has the mark");
    let at = if end.is_empty() { rest.len() } else { rest.find(end).expect("it has the end") };
    let (generated, rest) = rest.split_at(at);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{own}{mark}{table}{rest}")).expect("it can be written");
    } else {
        assert_eq!(generated, table, "{mark}");
    }
}

/// A martd with marts of many rows and of many types.
fn with_kinds() -> (Root, Martd, u16) {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "big", BIG);
    writer.land(&root, "kinds", KINDS);
    let (martd, port) = start(&root, &[("MARTD_REQUIRE", "big,kinds")]);
    (root, martd, port)
}

#[test]
fn sqlalchemy_pandas_and_asyncpg_find_the_marts() {
    let (_root, martd, port) = with_kinds();
    let output = python("reflect.py", &[&port.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    let unknown: Vec<_> =
        martd.log().into_iter().filter(|line| line["unknown"].is_string()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_value_is_what_postgresql_sends_of_it() {
    let root = Root::new();
    Writer::new().land(&root, "orders", ORDERS);
    let (_martd, port) = start(&root, &[("MARTD_TIMEZONE", "UTC")]);
    let output = python("values.py", &[&port.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn pgjdbc_finds_the_marts_and_reads_them() {
    let has_java = Command::new("java").arg("-version").output().is_ok();
    if !has_java || !Path::new(JDBC).exists() {
        eprintln!("skipped: no java, or no {JDBC} (Debian has it as libpostgresql-jdbc-java)");
        return;
    }
    let (_root, _martd, port) = with_kinds();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/Jdbc.java");
    let mut java = Command::new("java");
    java.args(["-cp", JDBC]).arg(program).arg(port.to_string());
    let output = java.output().expect("java is there");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn odbc_finds_the_marts_and_reads_them() {
    reads_the_marts("odbc.py");
}

#[test]
fn a_duckdb_elsewhere_attaches_the_marts() {
    reads_the_marts("attach.py");
}

fn reads_the_marts(script: &str) {
    let (_root, martd, port) = with_kinds();
    let output = python(script, &[&port.to_string()]);
    if output.status.code() == Some(77) {
        eprintln!("{}", said(&output));
        return;
    }
    assert!(output.status.success(), "{}", said(&output));
    let unknown: Vec<_> =
        martd.log().into_iter().filter(|line| line["unknown"].is_string()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn psql_describes_the_marts() {
    let (_root, _martd, port) = with_kinds();
    for (command, expected) in [
        (r"\d", "mart|big|table|martd\nmart|kinds|table|martd\n"),
        (r"\dt mart.b*", "mart|big|table|martd\n"),
        (r"\d big", "id|integer|||\nname|text|||\namount|numeric(12,2)|||\nday|date|||\n"),
        (r"\dn", "mart|martd\n"),
        (r"\dv", "Did not find any relations.\n"),
        (r"\df", ""),
        (r"\du", "martd||{}\n"),
    ] {
        let Some(told) = psql(port, "anyone", "", command) else { return };
        assert_eq!(told, expected, "{command}");
    }
    let databases = psql(port, "anyone", "", r"\l").expect("psql is there");
    assert!(databases.starts_with("martd|martd|UTF8|C|C|"), "{databases}");
    let kinds = psql(port, "anyone", "", r"\d+ mart.kinds").expect("psql is there");
    for line in
        ["list|integer[]|", "nested|json|", "moment|timestamp with time zone|", "raw|bytea|"]
    {
        assert!(kinds.contains(line), "{kinds}");
    }
}

#[test]
fn what_the_catalog_has_not_is_named_and_counted() {
    let root = Root::new();
    Writer::new().land(&root, "orders", ORDERS);
    let (martd, port) = start(&root, &[]);
    let mut client = Raw::connect(port);
    for (sql, named) in [
        ("SELECT pg_reload_conf()", "pg_reload_conf"),
        ("SELECT * FROM pg_catalog.pg_hba_file_rules", "pg_hba_file_rules"),
        (
            "SELECT * FROM information_schema.role_table_grants",
            "information_schema.role_table_grants",
        ),
        ("SELECT relacl_of_none FROM pg_class", "relacl_of_none"),
        ("SELECT 'x'::regdictionary FROM pg_class", "regdictionary"),
        ("SELECT relname FROM pg_class JOIN mart.orders ON true", "orders"),
        ("SELECT * FROM pg_class, duckdb_settings()", "duckdb_settings"),
        ("SELECT * FROM pg_class, read_csv('/etc/passwd')", "read_csv"),
    ] {
        let answer = client.ask(sql);
        let error = error_of(&answer).unwrap_or_else(|| panic!("{sql}: {answer:?}"));
        assert!(error.contains("C0A000") && error.contains(named), "{sql}: {error}");
    }
    let metrics = martd.get("/metrics").body;
    let counted = "martd_problems_total{type=\"catalog-unknown\"} 8";
    assert!(metrics.lines().any(|line| line.starts_with(counted)), "{metrics}");
    let is_told = |line: &serde_json::Value| {
        line["unknown"].as_str().is_some_and(|text| text.contains("pg_reload_conf"))
    };
    assert!(martd.log().iter().any(is_told));
    // Over HTTP there is no such catalog.
    assert_eq!(martd.query("SELECT relname FROM pg_class").status, 403);
}

#[test]
fn the_catalog_shows_what_its_reader_may_read() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "notes", "SELECT 1 AS user_id, 'own' AS note");
    writer.land(&root, "public_tags", "SELECT 'x' AS tag");
    writer.land(&root, "secret_plans", "SELECT 'y' AS secret_column");
    let tokens = root.path().join("tokens");
    fs::write(&tokens, "alice user_id=1\nall *\n").expect("write");
    let settings = [
        ("MARTD_SCOPE_COLUMN", "user_id"),
        ("MARTD_UNSCOPED", "public_tags"),
        ("MARTD_TOKEN_FILE", tokens.to_str().expect("UTF-8")),
    ];
    let (_martd, port) = start(&root, &settings);
    let path = root.path().to_str().expect("UTF-8").to_owned();
    let names =
        "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 2200";
    let mut all = Raw::connect_as(port, "*", Some("all"));
    assert!(all.value(names).ends_with("notes,public_tags,secret_plans"));
    let mut one = Raw::connect_as(port, "1", Some("alice"));
    assert!(one.value(names).ends_with("notes,public_tags"));
    for sql in [
        "SELECT * FROM pg_class",
        "SELECT * FROM pg_attribute",
        "SELECT * FROM pg_tables",
        "SELECT * FROM pg_description",
        "SELECT * FROM pg_settings",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.table_privileges",
        "SELECT 'secret_plans'::regclass::oid",
        "SELECT to_regclass('mart.secret_plans')",
        "SELECT * FROM main.marts",
        "SELECT * FROM marts, pg_class",
        "SELECT * FROM pg_catalog.marts",
        "SELECT * FROM pg_catalog.mart_columns",
        "SELECT * FROM martd_s0.main.pg_class",
        "SELECT * FROM pg_class, martd_s0.main.marts",
        "SELECT * FROM system.main.duckdb_tables, pg_class",
        "SELECT current_setting('data_directory')",
        "SELECT current_setting('temp_directory')",
        "SELECT current_setting('secret_directory')",
        "SELECT sql FROM sqlite_master, pg_class",
        "SELECT * FROM pg_views",
        "SELECT pg_get_viewdef(oid) FROM pg_class",
        "SELECT getvariable('martd_scope') FROM pg_class",
        "SELECT * FROM pg_class, duckdb_views()",
        "SELECT * FROM pg_class, pragma_database_list",
        "SELECT * FROM pg_class, query('SELECT 1')",
        "SELECT json_serialize_sql('SELECT 1') FROM pg_class",
        "SELECT * FROM pg_class, '/etc/passwd'",
        "WITH pg_class AS (SELECT 1 AS secret) SELECT * FROM pg_catalog.pg_class",
    ] {
        let shown = format!("{:?}", one.ask(sql));
        for leak in ["secret_plans", "secret_column", &path, "/proc/", "root:x:0"] {
            assert!(!shown.contains(leak) || sql.contains(leak), "{sql} shows {leak}: {shown}");
        }
        assert!(!shown.contains("XX000"), "{sql}: {shown}");
    }
    for name in ["'secret_plans'::regclass::oid", "to_regclass('mart.secret_plans')"] {
        let is_unknown = format!("SELECT ({name}) IS NULL");
        assert_eq!(one.value(&is_unknown), "t", "{name}");
        assert_ne!(all.value(&is_unknown), "t", "{name}");
    }
}

#[test]
fn a_mart_keeps_its_number() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "orders", ORDERS);
    let (martd, port) = start(&root, &[]);
    let mut client = Raw::connect(port);
    let number = client.value("SELECT 'orders'::regclass::oid");
    writer.land(&root, "another", "SELECT 1 AS x");
    let sql = "SELECT count(*) FROM mart.another";
    crate::harness::wait_for("another mart", || (martd.query(sql).status == 200).then_some(()));
    assert_eq!(client.value("SELECT 'orders'::regclass::oid"), number);
    assert!(client.value("SELECT count(*) FROM pg_class WHERE relnamespace = 2200").ends_with('2'));
}
