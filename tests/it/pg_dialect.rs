//! What PostgreSQL's dialect has and DuckDB's lacks, over marts.

use std::fs;
use std::path::Path;

use crate::harness::{Root, wait_for};
use crate::pg_catalog::in_document;
use crate::pg_raw::Raw;
use crate::postgres::{python, said, start};
use crate::writers::Writer;

const MARK: &str = "<!-- Generated up to the next mark: UPDATE=1 cargo nextest run in_the_postgresql_dialect -->\n";
const END: &str = "<!-- End of what is generated -->\n";

#[test]
fn statements_in_the_postgresql_dialect_are_answered() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/dialect.sql");
    let text = fs::read_to_string(path).expect("it is there");
    let (head, _) = text.split_once("\n-- @ ").expect("it has a mart");
    let (_, sales) = head.split_once("can read it.\n").expect("it has a mart");
    let root = Root::new();
    Writer::new().land(&root, "sales", sales);
    let (_martd, port) = start(&root, &[("MARTD_TIMEZONE", "Europe/Berlin")]);
    let output = python("dialect.py", &[&port.to_string()]);
    if output.status.code() == Some(77) {
        eprintln!("{}", said(&output));
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).expect("UTF-8");
    in_document(MARK, &format!("{list}\n"), END);
}

#[test]
fn the_clock_of_a_transaction_stands_still() {
    let root = Root::new();
    Writer::new().land(&root, "one", "SELECT 1 AS x");
    let (martd, port) = start(&root, &[]);
    let mut client = Raw::connect(port);
    let asks = [
        "SELECT now()",
        "SELECT current_timestamp",
        "SELECT transaction_timestamp() FROM mart.one",
        "SELECT max(now()) FROM mart.one WHERE x = 1",
    ];
    let real = "SELECT clock_timestamp()";
    client.ask("BEGIN");
    let began = client.value(asks[0]);
    let first = client.value(real);
    wait_for("the clock to go on", || (client.value(real) != first).then_some(()));
    for sql in asks {
        assert_eq!(client.value(sql), began, "{sql}");
        let prepared = client.prepared(sql, &[]);
        assert!(prepared.iter().any(|(_, text)| text.ends_with(&began)), "{sql}: {prepared:?}");
    }
    client.ask("DECLARE c CURSOR FOR SELECT now()");
    assert_eq!(client.value("FETCH 1 FROM c"), began);
    client.ask("COMMIT");
    assert_ne!(client.value(asks[0]), began, "another transaction");
    let one = client.value(asks[0]);
    wait_for("the clock to go on", || (client.value(asks[0]) != one).then_some(()));
    // Its parameter is none of the client's.
    let answer =
        client.prepared("SELECT $1::INTEGER + x FROM mart.one WHERE now() > '2020-01-01'", &["41"]);
    assert!(answer.iter().any(|(kind, text)| *kind == b'D' && text.ends_with("42")), "{answer:?}");
    let described = answer.iter().find(|(kind, _)| *kind == b't').expect("a description");
    assert_eq!(described.1.as_bytes()[..2], [0, 1], "one parameter");
    let surplus = client.prepared("SELECT now()", &["1"]);
    assert!(surplus.iter().any(|(kind, _)| *kind == b'E'), "{surplus:?}");
    // Over HTTP everything means what it means to DuckDB.
    assert_eq!(martd.query("SELECT to_char(DATE '2026-01-04', 'YYYY')").status, 403);
    assert_eq!(martd.query("SELECT 'abc' ~ 'b' AS x").value(), false);
}

#[test]
fn what_grows_in_translation_is_bounded() {
    let root = Root::new();
    Writer::new().land(&root, "one", "SELECT 'x' AS x");
    let (_martd, port) = start(&root, &[("MARTD_MEMORY", "512MiB")]);
    let mut client = Raw::connect(port);
    let nested = |open: &str, close: &str, depth: usize| {
        format!("SELECT {}x{} AS x FROM mart.one", open.repeat(depth), close.repeat(depth))
    };
    assert_eq!(client.value(&nested("initcap(", ")", 4)), "X");
    for (sql, depth) in [
        nested("to_char(", ", 'FM990.00')", 24),
        nested("substring(", " FROM 'x+')", 24),
        nested("date_trunc('day', ", ", 'UTC')", 60),
        format!("SELECT x LIKE ANY (ARRAY[{}]) AS x FROM mart.one", vec!["'a'"; 20_000].join(",")),
    ]
    .iter()
    .zip(0..)
    {
        let answer = client.ask(sql);
        let is_refused = |(kind, text): &(u8, String)| *kind == b'E' && text.contains("C0A000");
        assert!(answer.iter().any(is_refused), "{depth}: {answer:?}");
    }
    assert_eq!(client.value("SELECT x FROM mart.one"), "x");
}

/// What node-postgres and lib/pq send.
#[test]
fn an_array_of_no_type_is_that_of_its_cast() {
    let root = Root::new();
    Writer::new().land(&root, "one", "SELECT 7 AS id, 'Ada' AS x, '{1}' AS doc");
    let (_martd, port) = start(&root, &[]);
    let mut client = Raw::connect(port);
    for (sql, value, expected) in [
        ("SELECT id = ANY($1::INTEGER[]) FROM mart.one", "{7,8}", "t"),
        ("SELECT id = ANY($1::INTEGER[]) FROM mart.one", "{}", "f"),
        ("SELECT x ILIKE ANY($1) FROM mart.one", "{\"a%\",b}", "t"),
        ("SELECT x NOT ILIKE ALL($1) FROM mart.one", "{\"a%\",b}", "f"),
        ("SELECT doc = $1 FROM mart.one", "{1}", "t"),
    ] {
        let answer = client.bound(sql, &[value]);
        let row = answer.iter().find(|(kind, _)| *kind == b'D');
        assert!(row.is_some_and(|(_, text)| text.ends_with(expected)), "{sql}: {answer:?}");
    }
}
