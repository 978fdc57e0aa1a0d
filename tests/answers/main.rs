//! Runs the sqllogictest files in `sql/` against a running martd, over HTTP. A test per file.
//!
//! README.md says what a file looks like. What is expected was written by `expect.py` from DuckDB's
//! tables, and never by martd.

#[path = "../it/harness.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the harness of the other tests, which use more of it"
)]
mod harness;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use duckdb::Connection;
use harness::{Martd, Root};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value as Json, json};
use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};

/// How often a record is asked in each format, so that martd meets it new, prepared and cached.
const TIMES_ASKED: usize = 3;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/answers/sql");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of this test")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .collect();
    files.sort();
    let trial = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        Trial::test(name, move || run(&path))
    };
    libtest_mimic::run(&Arguments::from_args(), files.into_iter().map(trial).collect()).exit();
}

/// Runs a file twice without martd's cache of answers, and once with it.
fn run(path: &Path) -> Result<(), Failed> {
    let script = std::fs::read_to_string(path)?;
    let setup = Setup::parse(&script);
    let root = Root::new();
    setup.write_marts(&root);
    let records = sqllogictest::parse_file(path)?;
    let differences = Arc::new(Mutex::new(BTreeSet::new()));
    for (cache, times) in [("0", 2), ("64MiB", 1)] {
        let martd = setup.start(&root, cache);
        for _ in 0..times {
            let scope = setup.scope.clone();
            let mut runner = Runner::new(|| {
                let client = Client {
                    martd: Arc::clone(&martd),
                    scope: scope.clone(),
                    differences: Arc::clone(&differences),
                };
                async { Ok(client) }
            });
            runner.with_validator(|_, actual, expected| {
                actual.iter().map(|row| row.join("\t")).eq(expected.iter().cloned())
            });
            runner.with_column_validator(sqllogictest::strict_column_validator);
            for record in records.clone() {
                if let Err(error) = runner.run(record) {
                    note(&differences, error.display(false).to_string());
                }
            }
        }
    }
    let differences = differences.lock().expect("no panic");
    let text: Vec<&str> = differences.iter().map(String::as_str).collect();
    if text.is_empty() { Ok(()) } else { Err(text.join("\n\n").into()) }
}

/// What was answered otherwise than expected, each once.
type Differences = Arc<Mutex<BTreeSet<String>>>;

fn note(differences: &Differences, text: String) {
    differences.lock().expect("no panic").insert(text);
}

/// What a file asks for in comments before its first record.
#[derive(Default)]
struct Setup {
    /// Names of marts, and the statements that make their rows.
    marts: Vec<(String, String)>,
    /// The column and the value of a scope.
    scope: Option<(String, String)>,
    /// Marts without the scope's column, separated by commas.
    unscoped: String,
}

impl Setup {
    /// Reads `# mart name: SELECT …`, which further lines that begin with `#  ` go on,
    /// `# scope: column=value` and `# unscoped: name,name`.
    fn parse(script: &str) -> Self {
        let mut setup = Self::default();
        let mut in_mart = false;
        for line in script.lines() {
            if let Some(more) = line.strip_prefix("#  ").filter(|_| in_mart) {
                let (_, select) = setup.marts.last_mut().expect("a mart before it");
                select.push('\n');
                select.push_str(more.trim());
                continue;
            }
            let directive = line.strip_prefix("# ").and_then(|line| line.split_once(": "));
            let mart =
                directive.and_then(|(key, select)| Some((key.strip_prefix("mart ")?, select)));
            in_mart = mart.is_some();
            match directive {
                _ if in_mart => {
                    setup.marts.extend(mart.map(|(name, select)| (name.into(), select.into())));
                }
                Some(("scope", scope)) => {
                    let (column, value) = scope.split_once('=').expect("column=value");
                    setup.scope = Some((column.into(), value.into()));
                }
                Some(("unscoped", names)) => setup.unscoped = names.into(),
                _ => {}
            }
        }
        setup
    }

    /// Row groups are small, so that there are several.
    fn write_marts(&self, root: &Root) {
        let duckdb = Connection::open_in_memory().expect("DuckDB opens");
        duckdb.execute_batch("SET TimeZone = 'UTC'").expect("set");
        for (name, select) in &self.marts {
            let path = root.mart(&format!("{name}.parquet"));
            let sql = format!(
                "COPY ({select}) TO '{}' (FORMAT parquet, ROW_GROUP_SIZE 2048)",
                path.display()
            );
            duckdb.execute_batch(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    fn start(&self, root: &Root, cache: &str) -> Arc<Martd> {
        let mut settings = vec![("MARTD_CACHE", cache), ("MARTD_UNSCOPED", &self.unscoped)];
        settings.extend(self.scope.iter().map(|(column, _)| ("MARTD_SCOPE_COLUMN", &**column)));
        settings.retain(|(_, value)| !value.is_empty());
        let martd = Martd::start_with(root.path(), &settings);
        martd.wait_snapshot("all marts", |snapshot| {
            snapshot["marts"].as_array().is_some_and(|marts| marts.len() == self.marts.len())
        });
        Arc::new(martd)
    }
}

/// Asks martd as sqllogictest wants it.
struct Client {
    martd: Arc<Martd>,
    scope: Option<(String, String)>,
    differences: Differences,
}

/// Why martd did not answer: the detail of its problem.
#[derive(Debug, PartialEq)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A result's types, by a letter each, and its rows as texts.
type Rows = (Vec<DefaultColumnType>, Vec<Vec<String>>);

impl Client {
    fn ask(&self, sql: &str, format: &str) -> Result<String, Refused> {
        let scope = self.scope.iter().map(|(column, value)| format!("{column}={value}"));
        let scope: Vec<String> = scope.collect();
        let mut headers = vec![("accept", format)];
        headers.extend(scope.iter().map(|scope| ("martd-scope", &**scope)));
        let answer = self.martd.post_with(&json!({ "sql": sql, "limit": 1_000_000 }), &headers);
        if answer.status == 200 { Ok(answer.body) } else { Err(Refused(answer.problem().1)) }
    }

    /// Notes that one statement has two answers.
    fn must_equal<T: PartialEq + fmt::Debug>(&self, when: &str, sql: &str, one: T, other: T) {
        if one != other {
            note(
                &self.differences,
                format!("{when} it is another:\n[SQL] {sql}\n{one:?}\n{other:?}"),
            );
        }
    }

    /// The values come from CSV, which tells NaN from NULL; the types from JSON, which must have as
    /// many rows.
    fn rows(&self, sql: &str) -> Result<Rows, Refused> {
        let json = self.ask(sql, "application/json");
        let csv = self.ask(sql, "text/csv");
        self.must_equal("in CSV", sql, json.as_ref().err(), csv.as_ref().err());
        let (json, csv) = (json?, csv?);
        let json: Json = serde_json::from_str(&json).expect("JSON");
        let types = json["meta"].as_array().expect("columns").iter();
        let types: Vec<_> = types.map(|column| column["type"].as_str().expect("a type")).collect();
        let mut records = parse_csv(&csv).into_iter();
        records.next().expect("a header");
        let rows: Vec<Vec<String>> = records
            .map(|record| types.iter().zip(record).map(|(ty, cell)| show(ty, cell)).collect())
            .collect();
        self.must_equal("in CSV", sql, json["data"].as_array().map(Vec::len), Some(rows.len()));
        Ok((types.into_iter().map(letter).collect(), rows))
    }
}

impl DB for Client {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refused> {
        let sorted = |rows: &Result<Rows, Refused>| {
            let mut rows = rows.as_ref().map_or_else(|_| Vec::new(), |(_, rows)| rows.clone());
            rows.sort();
            rows
        };
        let first = self.rows(sql);
        for _ in 1..TIMES_ASKED {
            let again = self.rows(sql);
            self.must_equal("asked again", sql, first.as_ref().err(), again.as_ref().err());
            self.must_equal("asked again", sql, sorted(&first), sorted(&again));
        }
        let (types, rows) = first?;
        Ok(DBOutput::Rows { types, rows })
    }
}

fn letter(ty: &str) -> DefaultColumnType {
    match ty {
        "FLOAT" | "DOUBLE" => DefaultColumnType::FloatingPoint,
        ty if ty.starts_with("DECIMAL(") && ty.ends_with(')') => DefaultColumnType::FloatingPoint,
        "INTEGER" | "UINTEGER" => DefaultColumnType::Integer,
        ty if ty.ends_with("INT") => DefaultColumnType::Integer,
        _ => DefaultColumnType::Text,
    }
}

/// A value as the files have it. Floats are rounded to twelve digits: their sums depend on the order.
fn show(ty: &str, cell: Option<String>) -> String {
    match cell {
        None => "NULL".into(),
        Some(text) if text.is_empty() => "(empty)".into(),
        Some(text) if matches!(ty, "FLOAT" | "DOUBLE") => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                let rounded = format!("{number:.11e}").parse::<f64>().expect("a number");
                format!("{rounded:?}")
            }
            _ => text,
        },
        Some(text) => ["\\", "\n", "\t", "\r", "\0"]
            .iter()
            .zip(["\\\\", "\\n", "\\t", "\\r", "\\0"])
            .fold(text, |text, (from, to)| text.replace(from, to)),
    }
}

/// Records of cells; an empty cell without quotes is NULL.
fn parse_csv(text: &str) -> Vec<Vec<Option<String>>> {
    let mut records = vec![];
    let (mut record, mut cell, mut quoted) = (vec![], String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = true;
                while let Some(inner) = characters.next() {
                    if inner == '"' && characters.next_if_eq(&'"').is_none() {
                        break;
                    }
                    cell.push(inner);
                }
            }
            ',' | '\n' => {
                let text = std::mem::take(&mut cell);
                let is_null = !std::mem::take(&mut quoted) && text.is_empty();
                record.push((!is_null).then_some(text));
                if character == '\n' {
                    records.push(std::mem::take(&mut record));
                }
            }
            _ => cell.push(character),
        }
    }
    records
}
