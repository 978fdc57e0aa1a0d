//! The validator against DuckDB itself: what it knows of functions, system views and scopes of CTEs
//! is what this version of DuckDB does.

use std::collections::{BTreeMap, BTreeSet};

use duckdb::Connection;

use super::functions::{self, Review};
use super::tests::on_a_large_stack;
use super::{Rejection, Validator};

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

/// Functions that the catalog of a snapshot has of its own, as constants.
const OF_THE_SNAPSHOT: [&str; 3] = ["current_catalog", "current_database", "current_schema"];

#[test]
fn every_function_of_this_duckdb_is_reviewed() {
    // DuckDB says consistent, and the clock is in them, or a macro hides it.
    const STRICTER: &[&str] = &["current_localtime", "current_localtimestamp", "ago"];
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
            let constant = OF_THE_SNAPSHOT.contains(&name.as_str());
            let expected = (*duckdb || constant) && !STRICTER.contains(&name.as_str());
            assert_eq!(consistent, expected, "stability of {name}");
        }
    }
}

/// One aggregate is rejected, by `list_aggregate(x, 'name')` too; a new one needs a reason.
#[test]
fn every_aggregate_but_one_is_allowed() {
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
        let allowed = matches!(review, Some(Review::Allowed { .. }));
        assert_eq!(allowed, name != "reservoir_quantile", "{name}: {review:?}");
    }
}

#[test]
fn pragma_functions_are_rejected_in_a_select() {
    let validator = Validator::new().unwrap();
    for function in duckdb_functions().into_iter().filter(|function| function.pragma) {
        let name = &function.name;
        // There is a scalar function of this name, too.
        if name == "version" {
            continue;
        }
        for sql in [format!("select {name}()"), format!("select * from {name}()")] {
            let answer = validator.validate(&sql);
            assert!(
                matches!(answer, Err(Rejection::Function { .. } | Rejection::Syntax { .. })),
                "{sql}"
            );
        }
        let answer = validator.validate(&format!("pragma {name}"));
        assert!(answer.is_err(), "{name}");
    }
}

#[test]
fn duckdbs_own_views_are_rejected() {
    let validator = Validator::new().unwrap();
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
            let answer = validator.validate(&format!("select * from {name}"));
            if ["information_schema.tables", "information_schema.columns"].contains(&name.as_str())
            {
                assert!(answer.is_ok_and(|found| found.redirected.is_some()), "{name}");
                continue;
            }
            assert!(matches!(answer, Err(Rejection::Statement { .. })), "{name}: {answer:?}");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

/// Statements of every shape in which a CTE can hide or fail to hide a table, over three names
/// that are both. The validator must name what DuckDB binds.
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
fn ctes_hide_tables_where_duckdb_says_so() {
    on_a_large_stack(|| {
        let validator = Validator::new().unwrap();
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
            let named: u32 = match validator.validate(&sql) {
                Ok(validated) => validated.tables.iter().fold(0, |named, table| {
                    let name = table.name.to_ascii_lowercase();
                    let bit = Generator::NAMES.iter().position(|known| *known == name).unwrap();
                    named | 1 << bit
                }),
                Err(rejection) => panic!("{sql}: {rejection}"),
            };
            let binds = |present: u32| databases[present as usize].prepare(&sql).is_ok();
            assert!(binds(named), "the validator names {named:03b} only: {sql}");
            // What no one reads need not exist for DuckDB; the validator asks for it all the same.
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
