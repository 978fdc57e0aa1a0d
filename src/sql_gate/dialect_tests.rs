//! What becomes of PostgreSQL's dialect, without marts.

use super::tests::corpus::{LEGITIMATE, expand, lines};
use super::tests::on_a_large_stack;
use super::{Dialect, Rejection, Validator, dialect};

/// The translation writes a statement anew from its parse, and refuses it where that reads otherwise.
#[test]
fn what_is_written_anew_reads_as_it_was_meant() {
    on_a_large_stack(|| {
        let validator = Validator::new().unwrap();
        let mut lost = Vec::new();
        let mut count = 0;
        for sql in lines(LEGITIMATE).map(expand) {
            let Ok(tree) = validator.parse(&sql) else { continue };
            count += 1;
            let text = validator.unparse(&tree).unwrap();
            match validator.parse(&text) {
                Ok(read) if dialect::same(&tree, &read) => {}
                // A chain of 256 operators becomes as many brackets, which are refused.
                Err(Rejection::Statement { .. }) if text.contains("((((((((") => {}
                other => lost.push(format!("{sql}\n  {text}\n  {:?}", other.err())),
            }
        }
        assert!(count > 100 && lost.is_empty(), "{count}\n{}", lost.join("\n"));
        let different = [validator.parse("SELECT 1 + x"), validator.parse("SELECT 2 + x")];
        let [one, other] = different.map(Result::unwrap);
        assert!(!dialect::same(&one, &other));
    });
}

#[test]
fn only_what_is_postgresqls_is_written_anew() {
    let validator = Validator::new().unwrap();
    let of = |sql: &str| validator.validate_as(Dialect::Postgres, sql).unwrap();
    for sql in [
        "SELECT 1 FROM mart.a WHERE regexp_full_match(x, 'b') AND x = ' ~ ' AND ~y = 1",
        "SELECT \"now\", a.\"current_date\", substring(x, 2), x LIKE 'a', to_timestamp(1) FROM mart.a",
        "SELECT CAST(x AS double), y AS float, {'float': 1} FROM mart.a",
        "SELECT lower(x), date_trunc('day', y), age(y, z) FROM mart.a, mart.b",
    ] {
        assert_eq!(of(sql).redirected, None, "{sql}");
    }
    for (sql, expected) in [
        ("SELECT x ~ 'b' AS y FROM mart.a", "SELECT regexp_matches(x, 'b', 's') AS y FROM mart.a"),
        ("SELECT x::float AS y FROM mart.a", "SELECT x::double AS y FROM mart.a"),
        (
            "SELECT x NOT LIKE ALL (ARRAY['a', 'b']) FROM mart.a",
            "SELECT ((x !~~ 'a') AND (x !~~ 'b')) AS \"?column?\" FROM mart.a",
        ),
        ("SELECT every(x) FROM mart.a", "SELECT bool_and(x) AS every FROM mart.a"),
    ] {
        assert_eq!(of(sql).redirected.as_deref(), Some(expected), "{sql}");
        assert!(of(sql).cacheable, "{sql}");
    }
    assert!(of("SELECT to_char(x, 'FM990.00') FROM mart.a").cacheable);
    let clock = of("SELECT $1, now(), x FROM mart.a WHERE y = $2");
    assert_eq!((clock.moment, clock.cacheable), (Some(3), false));
    assert_eq!(clock.parameters, ["1", "2"]);
    assert!(validator.validate("SELECT to_char(x, 'YYYY') FROM mart.a").is_err(), "over HTTP");
    let of_catalog = "SELECT 1 FROM pg_class WHERE relname LIKE ANY (ARRAY['a'])";
    let refused = validator.validate_as(Dialect::Postgres, of_catalog);
    assert!(matches!(refused, Err(Rejection::Syntax { .. })), "{refused:?}");
}

#[test]
fn what_is_not_served_is_named_where_it_stands() {
    let validator = Validator::new().unwrap();
    for (sql, at, named) in [
        ("SELECT 1, to_char(x, 'RM') FROM mart.a", 10, "\"RM\""),
        ("SELECT x ~ '\\by' FROM mart.a", 9, "\\b"),
    ] {
        let refused = validator.validate_as(Dialect::Postgres, sql);
        let Err(Rejection::Statement { message, position }) = refused else {
            panic!("{sql}: {refused:?}")
        };
        assert!(message.contains(named), "{message}");
        assert_eq!(position, Some(at), "{sql}");
    }
}
