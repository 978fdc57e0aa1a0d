//! What a client sees of the validator: which statements pass, with which tables, and what is said
//! of the others.

use std::collections::{BTreeSet, HashMap};

use duckdb::Connection;

use super::{Rejection, TableName, ValidatedStatement, Validator, looks_like_a_file};

#[path = "../../tests/corpus/mod.rs"]
pub(super) mod corpus;

use corpus::{HOSTILE, LEGITIMATE, expand, lines};

/// The validator's recursion is bounded for a stack of 16 MiB; a test's thread has 2.
pub(super) fn on_a_large_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(test).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn tables(validator: &Validator, sql: &str) -> BTreeSet<String> {
    let validated =
        validator.validate(sql).unwrap_or_else(|rejection| panic!("{sql}: {rejection}"));
    validated
        .tables
        .iter()
        .map(|table| {
            let schema = table.schema.as_deref().map(|schema| format!("{schema}."));
            let dots = table.name.contains('.');
            let name = if dots { format!("\"{}\"", table.name) } else { table.name.clone() };
            format!("{}{name}", schema.unwrap_or_default()).to_ascii_lowercase()
        })
        .collect()
}

const FIXTURE: &[(&str, &str)] = &[
    (
        "mart.orders",
        "id int, customer_id int, amount decimal(12, 2), status varchar, created_at timestamp, \
         day date, tags varchar[], note varchar, doc json, address struct(city varchar, zip varchar)",
    ),
    ("mart.customers", "id int, name varchar, country varchar"),
    ("mart.payments", "order_id int, amount decimal(12, 2), paid_at timestamp"),
];

/// A database with exactly these of the fixture's tables.
fn database(tables: &BTreeSet<String>) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("SET threads = 1; CREATE SCHEMA mart").unwrap();
    for (name, columns) in FIXTURE.iter().filter(|(name, _)| tables.contains(*name)) {
        connection.execute_batch(&format!("CREATE TABLE {name} ({columns})")).unwrap();
    }
    connection
}

#[test]
fn legitimate_statements_bind_to_their_tables() {
    on_a_large_stack(|| {
        let validator = Validator::new().unwrap();
        let mut databases: HashMap<BTreeSet<String>, Connection> = HashMap::new();
        let mut prepares = |tables: &BTreeSet<String>, sql: &str| {
            let database = databases.entry(tables.clone()).or_insert_with_key(database);
            database.prepare(sql).map(drop)
        };
        let mut count = 0;
        for sql in lines(LEGITIMATE).map(expand) {
            let named = tables(&validator, &sql);
            prepares(&named, &sql).unwrap_or_else(|error| {
                panic!("with {named:?} alone, {sql}: {error}");
            });
            for table in &named {
                let mut others = named.clone();
                others.remove(table);
                let error = prepares(&others, &sql).expect_err(&sql).to_string();
                assert!(error.contains("does not exist"), "without {table}, {sql}: {error}");
            }
            count += 1;
        }
        assert!(count >= 100, "{count}");
    });
}

fn class(validator: &Validator, sql: &str) -> &'static str {
    match validator.validate(sql) {
        Err(Rejection::Empty) => "empty",
        Err(Rejection::Syntax { .. }) => "syntax",
        Err(Rejection::Statement { .. }) => "statement",
        Err(Rejection::Function { .. }) => "function",
        Err(Rejection::Catalog(_)) => "catalog",
        Err(Rejection::OutOfMemory | Rejection::Failed(_)) => "failed",
        Ok(_)
            if tables(validator, sql)
                .iter()
                .all(|table| FIXTURE.iter().any(|(name, _)| name == table)) =>
        {
            "passes"
        }
        Ok(_) => "unknown",
    }
}

#[test]
fn hostile_statements_are_rejected_for_their_reason() {
    on_a_large_stack(|| {
        let validator = Validator::new().unwrap();
        let mut wrong = Vec::new();
        let mut count = 0;
        for line in lines(HOSTILE) {
            let (expected, sql) = line.split_once('\t').unwrap();
            let expected = match expected {
                "limits" | "safe" => "passes",
                other => other,
            };
            let sql = expand(sql);
            let found = class(&validator, &sql);
            if found != expected {
                let answer = validator.validate(&sql);
                wrong.push(format!("{expected}, found {found}: {line}\n    {answer:?}"));
            }
            count += 1;
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(count >= 200, "{count}");
    });
}

/// What DuckDB cannot be interrupted in must be rejected before it.
#[test]
fn no_statement_is_validated_for_long() {
    on_a_large_stack(|| {
        let validator = Validator::new().unwrap();
        for line in lines(HOSTILE) {
            let sql = expand(line.split_once('\t').unwrap().1);
            let start = std::time::Instant::now();
            let _ = validator.validate(&sql);
            assert!(start.elapsed().as_secs() < 5, "{line}: {:?}", start.elapsed());
        }
    });
}

#[test]
fn only_consistent_statements_are_cacheable() {
    let validator = Validator::new().unwrap();
    let cacheable = |sql: &str| {
        validator.validate(sql).unwrap_or_else(|rejection| panic!("{sql}: {rejection}")).cacheable
    };
    for sql in [
        "select * from mart.orders",
        "select age(created_at, timestamp '2024-01-01') from mart.orders",
        "select created_at.age(timestamp '2024-01-01') from mart.orders",
        "select list_aggr([1], 'sum'), [1].list_aggr('sum')",
        "select o.current_date from mart.orders o",
        "select t.now from (select 1 as now) t",
        "select 'now()', \"random\" from (select 1 as random)",
        "summarize mart.orders",
        "select $1",
    ] {
        assert!(cacheable(sql), "{sql}");
    }
    for sql in [
        "select random()",
        "select main.random()",
        "select * from mart.orders where id < random()",
        "select * from (select uuid()) x",
        "with x as (select gen_random_uuid()) select 1 from x",
        "select uuidv7()",
        "select now()",
        "select NOW()",
        "select get_current_timestamp()",
        "select transaction_timestamp()",
        "select today()",
        "select current_date",
        "select CURRENT_DATE",
        "select \"current_date\"",
        "select current_date()",
        "select current_time",
        "select current_timestamp",
        "select current_timestamp.year()",
        "select localtime",
        "select localtimestamp",
        "select current_localtimestamp()",
        "select * from mart.orders where day > current_date - 7",
        "select * from mart.orders order by current_timestamp",
        "select sum(amount) over (order by day range between (current_date - day) preceding and current row) from mart.orders",
        "select age(created_at) from mart.orders",
        "select created_at.age() from mart.orders",
        "select ago(interval 1 day)",
        "select * from mart.orders tablesample 10%",
        "select * from mart.orders using sample 10",
        "select * from (select * from mart.orders using sample 10 rows) x",
        "select * from mart.orders using sample reservoir(10 rows) repeatable (1)",
        "select error('x')",
        "select time '10:00'::timetz",
        "select * from pg_timezone_names()",
    ] {
        assert!(!cacheable(sql), "{sql}");
    }
}

#[test]
fn parameters_positions_and_messages() {
    let validator = Validator::new().unwrap();
    let validated =
        validator.validate("select $b, $a, $b from Mart.Orders, mart.orders as o, other").unwrap();
    assert_eq!(validated.parameters, ["a", "b"]);
    assert_eq!(validated.tables.len(), 2);
    assert_eq!(validated.tables[0].name, "Orders");
    assert_eq!(validated.tables[0].position, Some(23));
    assert_eq!(validator.validate("select ?, ?").unwrap().parameters, ["1", "2"]);

    let rejection = validator.validate("select 'ä' frm x y").unwrap_err();
    assert_eq!(rejection.to_string(), "Parser Error: syntax error at or near \"x\"");
    assert_eq!(rejection.position(), Some(16));
    let rejection = validator.validate("select 'ä', Read_Text('x')").unwrap_err();
    assert_eq!(rejection.to_string(), "function read_text reads files");
    assert_eq!(rejection.position(), Some(13));
    let rejection = validator.validate("select stats(1)").unwrap_err();
    assert!(rejection.to_string().starts_with("function stats shows statistics"), "{rejection}");
    let rejection = validator.validate("select * from pg_class").unwrap_err();
    assert_eq!(rejection.position(), Some(14));
}

#[test]
fn results_are_remembered_up_to_a_number_of_bytes() {
    let validator = Validator::new().unwrap();
    let first = validator.validate("select 1").unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &validator.validate("select 1").unwrap()));
    for number in 0..200 {
        let _ = validator.validate(&format!("select '{}{number}'", "x".repeat(60_000)));
    }
    let bytes = validator.remembered.bytes();
    assert!((1..=super::remembered::REMEMBERED_BYTES).contains(&bytes), "{bytes}");
}

#[test]
fn a_validator_is_shared_between_threads() {
    let validator = Validator::new().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let validator = &validator;
            scope.spawn(move || {
                for number in 0..20 {
                    validator
                        .validate(&format!("select {thread} + {number} from mart.orders"))
                        .unwrap();
                }
            });
        }
    });
    assert!(validator.idle.lock().len() <= super::IDLE_CONNECTIONS);
}

#[test]
fn a_mart_may_be_named_like_a_file() {
    let validator = Validator::new().unwrap();
    for name in ["sales.csv", "x.parquet", "a*b", "back\\slash", "a/b", "s3://x/y", "what?"] {
        for (schema, sql) in [
            (Some("mart"), format!("select * from mart.\"{name}\"")),
            (None, format!("select * from \"{name}\"")),
            (None, format!("select * from '{name}'")),
            (Some("mart"), format!("describe mart.\"{name}\"")),
        ] {
            let validated = validator.validate(&sql).unwrap();
            let [table] = &validated.tables[..] else { panic!("{sql}: {:?}", validated.tables) };
            assert_eq!((table.schema.as_deref(), table.name.as_str()), (schema, name), "{sql}");
            assert!(looks_like_a_file(table).is_some(), "{sql}");
        }
    }
    let named = |name: &str| TableName { schema: None, name: name.to_owned(), position: None };
    assert_eq!(looks_like_a_file(&named("X.CSV")), Some("files are not read by name"));
    assert_eq!(looks_like_a_file(&named("orders")), None);
}

#[test]
fn a_mart_may_be_named_like_a_system_view() {
    let validator = Validator::new().unwrap();
    for sql in ["from mart.pg_class", "from pg_orders", "from duckdb_users", "from main.pg_sales"] {
        assert_eq!(validator.validate(sql).unwrap().tables.len(), 1, "{sql}");
    }
    for sql in ["from pg_class", "from main.PG_CLASS", "from sqlite_master"] {
        let message = validator.validate(sql).unwrap_err().to_string();
        assert!(message.contains("is not a mart: the system catalog is not served"), "{message}");
    }
}

#[test]
fn tables_of_other_catalogs_are_rejected() {
    let validator = Validator::new().unwrap();
    for sql in [
        "from memory.mart.orders",
        "from \"Memory\".main.x",
        "from other.mart.orders",
        "from system.main.x",
        "with orders as (select 1) from memory.main.orders",
    ] {
        let message = validator.validate(sql).unwrap_err().to_string();
        assert!(message.contains("tables of other databases are not served"), "{message}");
    }
}

#[test]
fn calls_that_break_duckdb_say_what_to_write() {
    let validator = Validator::new().unwrap();
    let message = |sql: &str| validator.validate(sql).unwrap_err().to_string();
    let switch = message("select switch(x, map([x], [1])) from mart.t");
    assert!(switch.ends_with("for anything else write CASE"), "{switch}");
    let sample = message("select reservoir_quantile(x, 0.5) from mart.t");
    assert!(
        sample.ends_with("breaks DuckDB when memory is short; use approx_quantile"),
        "{sample}"
    );
    assert_eq!(
        message("select list_aggr(l, 'Reservoir_Quantile', 0.5) from mart.t"),
        sample.replace("reservoir_quantile", "Reservoir_Quantile")
    );
    let name = message("select list_aggregate(l, $1) from mart.t");
    assert!(name.ends_with("takes the name of its aggregate as a literal"), "{name}");
    for sql in [
        "select switch(x, map([1], ['a'])) from mart.t",
        "select Switch(x, MAP {1: 'a'}) from mart.t",
    ] {
        validator.validate(sql).unwrap_or_else(|rejection| panic!("{sql}: {rejection}"));
    }
}

#[test]
fn results_survive_serialization() {
    let validator = Validator::new().unwrap();
    for sql in ["select $a from mart.t, u", "selec 1", "drop table x", "select getenv('x')", ";"] {
        let result = validator.validate(sql).map(|validated| (*validated).clone());
        let json = serde_json::to_string(&result).unwrap();
        let read: Result<ValidatedStatement, Rejection> = serde_json::from_str(&json).unwrap();
        assert_eq!(read, result, "{sql}");
    }
}

#[test]
fn catalog_queries_see_the_catalog_of_their_snapshot() {
    let validator = Validator::new().unwrap();
    let found = validator
        .validate(
            "from information_schema.columns join mart.a on column_name = 'information_schema.x'",
        )
        .unwrap();
    assert_eq!(
        found.redirected.as_deref(),
        Some("from martd_introspected.columns join mart.a on column_name = 'information_schema.x'")
    );
    assert_eq!(found.tables.len(), 1);
    assert!(!found.cacheable, "comments change");
    assert_eq!(validator.validate("show tables").unwrap().redirected, None);
    // By its own name it is a table that no snapshot has.
    let named = validator.validate("from martd_introspected.columns").unwrap();
    assert_eq!((named.tables.len(), &named.redirected), (1, &None));
    for sql in [
        "from information_schema.schemata",
        "from information_schema.\"TABLES\".x",
        "from memory.information_schema.tables",
        "show all tables",
        "show tables from mart",
        "show databases",
        "describe",
    ] {
        assert!(validator.validate(sql).is_err(), "{sql}");
    }
}
