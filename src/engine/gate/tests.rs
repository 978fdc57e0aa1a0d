//! The gate against DuckDB itself: what it lets through binds to exactly the tables it names, and
//! what it knows of functions is what DuckDB has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use duckdb::Connection;

use super::functions::{self, Review};
use super::{Gate, Refusal, StatementKind};

#[path = "../../../tests/corpus/mod.rs"]
mod corpus;

use corpus::{HOSTILE, LEGITIMATE, expand, lines};

/// As the gate is run: debug frames on a test thread's 2 MiB are not what it is made for.
fn on_a_large_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(test).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn tables(gate: &Gate, sql: &str) -> BTreeSet<String> {
    let checked = gate.check(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
    checked
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
fn legitimate_statements_pass_and_bind_to_the_tables_that_the_gate_names() {
    on_a_large_stack(|| {
        let gate = Gate::new().unwrap();
        let mut databases: HashMap<BTreeSet<String>, Connection> = HashMap::new();
        let mut prepares = |tables: &BTreeSet<String>, sql: &str| {
            let database = databases.entry(tables.clone()).or_insert_with_key(database);
            database.prepare(sql).map(drop)
        };
        let mut count = 0;
        for sql in lines(LEGITIMATE).map(expand) {
            let named = tables(&gate, &sql);
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

fn class(gate: &Gate, sql: &str) -> &'static str {
    match gate.check(sql) {
        Err(Refusal::Empty) => "empty",
        Err(Refusal::Syntax { .. }) => "syntax",
        Err(Refusal::Statement { .. }) => "statement",
        Err(Refusal::Function { .. }) => "function",
        Err(Refusal::OutOfMemory | Refusal::Failed(_)) => "failed",
        Ok(_)
            if tables(gate, sql)
                .iter()
                .all(|table| FIXTURE.iter().any(|(name, _)| name == table)) =>
        {
            "passes"
        }
        Ok(_) => "unknown",
    }
}

#[test]
fn hostile_statements_are_refused_each_for_its_reason() {
    on_a_large_stack(|| {
        let gate = Gate::new().unwrap();
        let mut wrong = Vec::new();
        let mut count = 0;
        for line in lines(HOSTILE) {
            let (expected, sql) = line.split_once('\t').unwrap();
            let expected = match expected {
                "limits" | "safe" => "passes",
                other => other,
            };
            let sql = expand(sql);
            let found = class(&gate, &sql);
            if found != expected {
                let answer = gate.check(&sql);
                wrong.push(format!("{expected}, found {found}: {line}\n    {answer:?}"));
            }
            count += 1;
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(count >= 200, "{count}");
    });
}

/// What was refused in time must also be refused quickly.
#[test]
fn no_statement_is_checked_for_long() {
    on_a_large_stack(|| {
        let gate = Gate::new().unwrap();
        for line in lines(HOSTILE) {
            let sql = expand(line.split_once('\t').unwrap().1);
            let start = std::time::Instant::now();
            let _ = gate.check(&sql);
            assert!(start.elapsed().as_secs() < 5, "{line}: {:?}", start.elapsed());
        }
    });
}

struct Function {
    name: String,
    in_from: bool,
    pragma: bool,
    macro_growth: u64,
    consistent: bool,
}

fn duckdb_functions() -> Vec<Function> {
    let connection = Connection::open_in_memory().unwrap();
    let mut statement = connection
        .prepare(
            "SELECT lower(function_name), function_type, stability, macro_definition, \
                    array_to_string(parameters, ' ') \
             FROM duckdb_functions()",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        let kind: String = row.get(1)?;
        let stability: Option<String> = row.get(2)?;
        let definition: Option<String> = row.get(3)?;
        let parameters: Option<String> = row.get(4)?;
        let words = |text: &str| {
            let word = |char: char| char.is_alphanumeric() || char == '_';
            text.split(|char| !word(char)).map(str::to_owned).collect::<Vec<_>>()
        };
        let body = words(&definition.unwrap_or_default());
        let mut parameters = words(&parameters.unwrap_or_default());
        parameters.retain(|parameter| !parameter.is_empty());
        let copies = |parameter: &String| body.iter().filter(|word| *word == parameter).count();
        let growth = parameters.iter().map(copies).max().unwrap_or(0);
        Ok(Function {
            name: row.get(0)?,
            in_from: kind.starts_with("table"),
            pragma: kind == "pragma",
            macro_growth: if kind == "macro" { growth as u64 } else { 0 },
            consistent: stability.is_none_or(|stability| stability == "CONSISTENT"),
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn every_function_of_this_duckdb_is_reviewed() {
    // DuckDB says consistent, and the clock or a random sample is in them, or a macro hides it.
    const STRICTER: &[&str] =
        &["current_localtime", "current_localtimestamp", "reservoir_quantile", "ago"];
    let mut missing = BTreeSet::new();
    let mut consistent: BTreeMap<String, bool> = BTreeMap::new();
    let (mut expressions, mut tables) = (BTreeSet::new(), BTreeSet::new());
    for function in duckdb_functions() {
        if function.pragma {
            continue;
        }
        let (review, names) = if function.in_from {
            (functions::table(&function.name), &mut tables)
        } else {
            let listed = functions::expressions().any(|name| name == function.name);
            let by_prefix = functions::table(&function.name).is_none();
            let review = functions::expression(&function.name).filter(|_| listed || by_prefix);
            (review, &mut expressions)
        };
        names.insert(function.name.clone());
        if review.is_none() {
            missing.insert(function.name.clone());
        }
        if function.macro_growth > 1 && matches!(review, Some(Review::Allowed { .. })) {
            let (copies, _) = functions::macro_growth(&function.name)
                .unwrap_or_else(|| panic!("{} copies an argument", function.name));
            assert!(copies >= function.macro_growth, "{}", function.name);
        }
        if !function.in_from {
            *consistent.entry(function.name).or_insert(true) &= function.consistent;
        }
    }
    assert!(missing.is_empty(), "not reviewed: {missing:?}");
    let known_to_the_binder_only = ["unnest", "unlist"].map(str::to_owned);
    let gone: Vec<_> = functions::expressions()
        .filter(|name| !expressions.contains(*name))
        .filter(|name| !known_to_the_binder_only.iter().any(|known| known == name))
        .chain(functions::tables().filter(|name| !tables.contains(*name)))
        .collect();
    assert!(gone.is_empty(), "listed and gone: {gone:?}");
    for (name, duckdb) in &consistent {
        if let Some(Review::Allowed { consistent }) = functions::expression(name) {
            let expected = *duckdb && !STRICTER.contains(&name.as_str());
            assert_eq!(consistent, expected, "stability of {name}");
        }
    }
}

/// `list_aggregate(x, 'name')` calls any aggregate there is, by a name that may be computed.
#[test]
fn every_aggregate_is_allowed() {
    let connection = Connection::open_in_memory().unwrap();
    let mut statement = connection
        .prepare(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() \
             WHERE function_type = 'aggregate'",
        )
        .unwrap();
    for name in statement.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        let name = name.unwrap();
        let review = functions::expression(&name);
        assert!(matches!(review, Some(Review::Allowed { .. })), "{name}: {review:?}");
    }
}

#[test]
fn pragma_functions_are_no_functions_of_a_select() {
    let gate = Gate::new().unwrap();
    for function in duckdb_functions().into_iter().filter(|function| function.pragma) {
        let name = &function.name;
        for sql in [format!("select {name}()"), format!("select * from {name}()")] {
            let answer = gate.check(&sql);
            assert!(
                matches!(answer, Err(Refusal::Function { .. } | Refusal::Syntax { .. })),
                "{sql}"
            );
        }
        let answer = gate.check(&format!("pragma {name}"));
        assert!(answer.is_err(), "{name}");
    }
}

#[test]
fn names_of_duckdbs_own_views_are_refused() {
    let gate = Gate::new().unwrap();
    let connection = Connection::open_in_memory().unwrap();
    let mut statement = connection
        .prepare("SELECT DISTINCT schema_name, view_name FROM duckdb_views() WHERE internal")
        .unwrap();
    let views = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .unwrap();
    let mut count = 0;
    for (schema, view) in views.map(Result::unwrap) {
        let mut names = vec![format!("{schema}.{view}"), format!("system.{schema}.{view}")];
        if schema != "information_schema" {
            names.push(view);
        }
        for name in names {
            let answer = gate.check(&format!("select * from {name}"));
            assert!(matches!(answer, Err(Refusal::Statement { .. })), "{name}: {answer:?}");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

/// Statements of every shape in which a CTE can hide or fail to hide a table, over three names
/// that are both. The gate must name what DuckDB binds.
struct Generator {
    state: u64,
}

impl Generator {
    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % bound
    }

    fn name(&mut self) -> &'static str {
        Self::NAMES[self.below(3) as usize]
    }

    fn query(&mut self, depth: u64) -> String {
        let with =
            if depth > 0 && self.below(3) > 0 { self.with(depth - 1) } else { String::new() };
        let body = match self.below(if depth > 0 { 8 } else { 2 }) {
            0 | 1 => format!("select n from {}", self.table(depth)),
            2 => format!("({}) union all ({})", self.query(depth - 1), self.query(depth - 1)),
            3 => format!(
                "select n from {} union select n from {}",
                self.table(depth),
                self.table(depth)
            ),
            4 => format!("select (select max(n) from {}) as n", self.table(depth - 1)),
            5 => format!(
                "select x.n from {} x join {} y on x.n = y.n",
                self.table(depth - 1),
                self.table(depth - 1)
            ),
            6 => format!(
                "select n from {} where n in ({})",
                self.table(depth - 1),
                self.query(depth - 1)
            ),
            _ => format!("select n from {} order by ({})", self.table(0), self.scalar(depth - 1)),
        };
        format!("{with}{body}")
    }

    fn scalar(&mut self, depth: u64) -> String {
        format!("select max(n) from ({})", self.query(depth))
    }

    fn table(&mut self, depth: u64) -> String {
        if depth > 0 && self.below(4) == 0 {
            return match self.below(4) {
                0 => format!("(select 1 as n from (describe {}))", self.name()),
                1 => format!("(select 1 as n from (summarize {}))", self.query(depth - 1)),
                2 => format!(
                    "(from {} pivot (count(*) as k for n in (1)) select 1 as n)",
                    self.name()
                ),
                _ => format!("({})", self.query(depth - 1)),
            };
        }
        match self.below(5) {
            0 => format!("main.{}", self.name()),
            1 => self.name().to_ascii_uppercase(),
            _ => self.name().to_owned(),
        }
    }

    fn with(&mut self, depth: u64) -> String {
        let recursive = self.below(3) == 0;
        let mut names = Self::NAMES.to_vec();
        let count = 1 + self.below(2);
        let ctes: Vec<String> = (0..count)
            .map(|_| {
                let name = names.remove(self.below(names.len() as u64) as usize);
                let keyed = recursive && self.below(4) == 0;
                let materialized =
                    ["", "materialized ", "not materialized "][self.below(3) as usize];
                let body = match self.below(3) {
                    _ if keyed => {
                        let from = ["", "recurring."][self.below(2) as usize];
                        let union = format!(
                            "select n from {} union select n from {from}{name}",
                            self.table(0)
                        );
                        return format!("{name}(n) using key (n) as ({union})");
                    }
                    0 if recursive => {
                        let right =
                            if self.below(2) == 0 { name.to_owned() } else { self.table(0) };
                        format!("{} union select n from {right}", self.query(0))
                    }
                    1 => format!("select n from {}", self.table(0)),
                    _ => self.query(depth),
                };
                format!("{name}(n) as {materialized}({body})")
            })
            .collect();
        format!("with {}{} ", if recursive { "recursive " } else { "" }, ctes.join(", "))
    }
}

#[test]
fn ctes_hide_tables_exactly_where_duckdb_says_so() {
    on_a_large_stack(|| {
        let gate = Gate::new().unwrap();
        let databases: Vec<Connection> = (0..8u32)
            .map(|present| {
                let connection = Connection::open_in_memory().unwrap();
                connection.execute_batch("SET threads = 1").unwrap();
                for (bit, name) in Generator::NAMES.iter().enumerate() {
                    if present & (1 << bit) != 0 {
                        let table = format!("CREATE TABLE {name} AS SELECT 1 AS n");
                        connection.execute_batch(&table).unwrap();
                    }
                }
                connection
            })
            .collect();
        let mut generator = Generator { state: 0x9e37_79b9_7f4a_7c15 };
        let (mut compared, mut unused, mut with_tables, mut unbindable) =
            (0, 0, 0, BTreeMap::new());
        for _ in 0..3_000 {
            let depth = 1 + generator.below(3);
            let sql = generator.query(depth);
            if let Err(error) = databases[7].prepare(&sql) {
                let error = error.to_string();
                let error =
                    error.lines().next().unwrap_or_default().replace(['"', 'a', 'b', 'c'], "");
                *unbindable.entry(error).or_insert(0) += 1;
                continue;
            }
            let named: u32 = match gate.check(&sql) {
                Ok(checked) => checked.tables.iter().fold(0, |named, table| {
                    let name = table.name.to_ascii_lowercase();
                    let bit = Generator::NAMES.iter().position(|known| *known == name).unwrap();
                    named | 1 << bit
                }),
                Err(refusal) => panic!("{sql}: {refusal}"),
            };
            let binds = |present: u32| databases[present as usize].prepare(&sql).is_ok();
            assert!(binds(named), "the gate names {named:03b} only: {sql}");
            // What no one reads need not exist for DuckDB; the gate asks for it all the same.
            let needed = (0..3).map(|bit| 1 << bit).filter(|bit| !binds(7 & !bit)).sum::<u32>();
            assert_eq!(needed & !named, 0, "{sql}");
            unused += u32::from(needed != named);
            with_tables += u32::from(named != 0);
            compared += 1;
        }
        println!("{compared} compared, {unused} with unused CTEs, {unbindable:?}");
        assert!(compared > 2_000, "{compared} {unbindable:?}");
        assert!(with_tables > 1_500, "{with_tables}");
    });
}

/// A view's own tables are looked up where the view was made: no CTE of the query hides them.
#[test]
fn ctes_do_not_reach_into_views() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE SCHEMA mart; CREATE SCHEMA hidden; \
             CREATE TABLE hidden.orders AS SELECT 'real' AS who; \
             CREATE TABLE base AS SELECT 'real' AS who; \
             CREATE VIEW mart.orders AS SELECT * FROM hidden.orders; \
             CREATE VIEW mart.plain AS SELECT * FROM base",
        )
        .unwrap();
    for sql in [
        "with orders as (select 'fake' as who) select who from mart.orders",
        "with base as (select 'fake' as who) select who from mart.plain",
        "with recursive base as (select 'fake' as who union select who from mart.plain) \
         select who from base where who <> 'fake'",
    ] {
        let who: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(who, "real", "{sql}");
    }
}

#[test]
fn only_what_is_the_same_for_the_same_data_is_cacheable() {
    let gate = Gate::new().unwrap();
    let cacheable =
        |sql: &str| gate.check(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}")).cacheable;
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
        "select reservoir_quantile(amount, 0.5) from mart.orders",
        "select list_aggr([1, 2], 'reservoir_quantile', 0.5)",
        "select list_aggr([1, 2], 'reservoir' || '_quantile', 0.5)",
        "select [1, 2].list_aggregate('reservoir_quantile', 0.5)",
        "select error('x')",
        "select time '10:00'::timetz",
        "select * from pg_timezone_names()",
    ] {
        assert!(!cacheable(sql), "{sql}");
    }
}

#[test]
fn kind_parameters_positions_and_messages() {
    let gate = Gate::new().unwrap();
    let checked =
        gate.check("select $b, $a, $b from Mart.Orders, mart.orders as o, other").unwrap();
    assert_eq!(checked.kind, StatementKind::Select);
    assert_eq!(checked.parameters, ["a", "b"]);
    assert_eq!(checked.tables.len(), 2);
    assert_eq!(checked.tables[0].name, "Orders");
    assert_eq!(checked.tables[0].position, Some(23));
    assert_eq!(gate.check("select ?, ?").unwrap().parameters, ["1", "2"]);
    assert_eq!(gate.check("describe mart.x").unwrap().kind, StatementKind::Describe);
    assert_eq!(gate.check("summarize mart.x").unwrap().kind, StatementKind::Summarize);
    assert_eq!(gate.check("from (summarize mart.x)").unwrap().kind, StatementKind::Select);

    let refusal = gate.check("select 'ä' frm x y").unwrap_err();
    assert_eq!(refusal.to_string(), "Parser Error: syntax error at or near \"x\"");
    assert_eq!(refusal.position(), Some(16));
    let refusal = gate.check("select 'ä', Read_Text('x')").unwrap_err();
    assert_eq!(refusal.to_string(), "function read_text reads files");
    assert_eq!(refusal.position(), Some(13));
    let refusal = gate.check("select stats(1)").unwrap_err();
    assert!(refusal.to_string().starts_with("function stats shows statistics"), "{refusal}");
    let refusal = gate.check("select * from 'x.parquet'").unwrap_err();
    assert_eq!(refusal.position(), Some(14));
}

#[test]
fn answers_are_remembered_and_forgotten_by_bytes() {
    let gate = Gate::new().unwrap();
    let first = gate.check("select 1").unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &gate.check("select 1").unwrap()));
    for number in 0..200 {
        let _ = gate.check(&format!("select '{}{number}'", "x".repeat(60_000)));
    }
    let remembered = super::lock(&gate.remembered);
    let bytes: usize =
        remembered.newer.keys().chain(remembered.older.keys()).map(String::len).sum();
    assert!(bytes <= super::REMEMBERED_BYTES, "{bytes}");
}

#[test]
fn a_gate_is_shared_between_threads() {
    let gate = Gate::new().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let gate = &gate;
            scope.spawn(move || {
                for number in 0..20 {
                    gate.check(&format!("select {thread} + {number} from mart.orders")).unwrap();
                }
            });
        }
    });
    assert!(super::lock(&gate.idle).len() <= super::IDLE_CONNECTIONS);
}
