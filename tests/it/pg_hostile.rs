//! The hostile corpus over the PostgreSQL protocol, in each way in which a statement can be asked.

use crate::corpus::{HOSTILE, expand, lines};
use crate::harness::Root;
use crate::pg_raw::Raw;
use crate::postgres::start;
use crate::writers::Writer;

/// Whether a statement names what martd's own catalog has, where there are no data and no settings.
fn asks_catalog(sql: &str) -> bool {
    let catalog = include_str!("../../src/sql_gate/pg_catalog.sql");
    let named = |line: &str| {
        let (_, rest) = line.strip_prefix("CREATE ")?.split_once(' ')?;
        let name = rest.split(['(', ' ']).next()?.trim_matches('"').to_owned();
        match line.starts_with("CREATE MACRO") {
            true => Some(name + "("),
            false => name.starts_with("pg_").then_some(name),
        }
    };
    let sql = sql.to_ascii_lowercase();
    catalog.lines().filter_map(named).any(|name| sql.contains(&name))
}

#[test]
fn nothing_hostile_gets_through() {
    let root = Root::new();
    Writer::new().land(&root, "orders", "SELECT i AS id FROM range(500) t(i)");
    let (_martd, port) = start(&root, &[]);
    let path = root.path().to_str().expect("UTF-8");
    let mut client = Raw::connect(port);
    let mut asked = 0;
    let by_value = "SELECT count(*) FROM mart.orders WHERE id::VARCHAR = $1";
    for line in lines(HOSTILE) {
        let (class, sql) = line.split_once('\t').expect("a class, a tab, a statement");
        if !["statement", "function"].contains(&class) {
            continue;
        }
        let sql = expand(sql);
        if sql.contains('\0') {
            continue; // ends the text here
        }
        asked += 1;
        for (way, answer) in client.in_each_way(&sql) {
            let has = |kind: u8| answer.iter().any(|(is, _)| *is == kind);
            // Several statements are several here, and what is about the session is answered without DuckDB.
            let is_refused = has(b'E') || !has(b'D');
            // The query of a cursor begins at its first word: what is too long with the blanks before is not.
            let is_refused = is_refused || way.contains("cursor") && sql.starts_with(' ');
            assert!(
                is_refused || sql.contains(';') || asks_catalog(&sql),
                "{way} {sql}: {answer:?}"
            );
            for leak in ["/proc/self", "root:x:0", path] {
                let shows = answer.iter().any(|(_, text)| text.contains(leak));
                assert!(!shows || sql.contains(leak), "{way} {sql} shows {leak}: {answer:?}");
            }
        }
        // As a value it is a text, whatever it says.
        let answer = client.prepared(by_value, &[&sql]);
        let rows: Vec<_> = answer.iter().filter(|(kind, _)| *kind == b'D').collect();
        assert!(rows.len() == 1 && rows[0].1.ends_with('0'), "{sql}: {answer:?}");
    }
    assert!(asked >= 100, "only {asked} statements");
    client.ask("ROLLBACK");
    assert!(client.value("SELECT count(*) FROM mart.orders").ends_with("500"));
}
