//! DuckDB without a server: what a prepared statement costs on a warm connection. The comparison
//! with servers takes this as its limit.
//!
//! `in_process DIRECTORY SECONDS` asks statements over views on the files for so long. The standard input
//! is `[{"name","sql"}]`; each statement has one parameter, a date as text. Prints
//! `{name: {"rows","count","p50_us","p99_us"}}`.
//!
//! `in_process DIRECTORY views|tables` asks once for each line of the standard input, which is a
//! statement as JSON text. Prints `{"rows","us"}` for each. The tables are in memory and compressed.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use duckdb::{Connection, Params, Statement};
use serde::{Deserialize, Serialize};

/// Runs before those that count.
const WARM_UP: usize = 5;

#[derive(Deserialize)]
struct Case {
    name: String,
    sql: String,
}

#[derive(Serialize)]
struct Figures {
    rows: usize,
    count: usize,
    p50_us: f64,
    p99_us: f64,
}

#[derive(Serialize)]
struct Turn {
    rows: usize,
    us: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(directory), Some(what)) = (arguments.next(), arguments.next()) else {
        return Err("usage: in_process DIRECTORY SECONDS|views|tables".into());
    };
    let marts = marts(Path::new(&directory))?;
    let connection = Connection::open_in_memory()?;
    match &*what {
        "tables" => {
            create_tables(&connection, &marts)?;
            in_turns(&connection)
        }
        "views" => {
            create_views(&connection, &marts)?;
            in_turns(&connection)
        }
        seconds => {
            let seconds = Duration::from_secs_f64(seconds.parse()?);
            create_views(&connection, &marts)?;
            for_so_long(&connection, seconds)
        }
    }
}

/// The names and the files.
fn marts(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut marts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "parquet")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            marts.push((name.to_owned(), path));
        }
    }
    Ok(marts)
}

fn create_views(connection: &Connection, marts: &[(String, PathBuf)]) -> duckdb::Result<()> {
    connection.execute_batch("CREATE SCHEMA mart")?;
    for (name, path) in marts {
        connection.execute_batch(&format!(
            "CREATE VIEW mart.\"{name}\" AS FROM read_parquet('{}')",
            path.display()
        ))?;
    }
    Ok(())
}

fn create_tables(connection: &Connection, marts: &[(String, PathBuf)]) -> duckdb::Result<()> {
    connection.execute_batch("ATTACH ':memory:' AS m (COMPRESS); USE m; CREATE SCHEMA mart")?;
    for (name, path) in marts {
        connection.execute_batch(&format!(
            "CREATE TABLE mart.\"{name}\" AS FROM read_parquet('{}')",
            path.display()
        ))?;
    }
    // Tables are compressed by a checkpoint.
    connection.execute_batch("CHECKPOINT m")
}

/// How many rows, and how long to have all of them.
fn ask(statement: &mut Statement<'_>, params: impl Params) -> duckdb::Result<(usize, Duration)> {
    let started = Instant::now();
    let rows = statement.query_arrow(params)?.map(|batch| batch.num_rows()).sum();
    Ok((rows, started.elapsed()))
}

fn for_so_long(connection: &Connection, seconds: Duration) -> Result<(), Box<dyn Error>> {
    let cases: Vec<Case> = serde_json::from_reader(io::stdin())?;
    let mut figures = BTreeMap::new();
    for case in &cases {
        let mut statement = connection.prepare(&case.sql)?;
        let mut last_rows = 0;
        let mut times = Vec::new();
        let begun = Instant::now();
        for run in 0.. {
            // Another parameter each time, as the servers get.
            let since = format!("{}-{:02}-01", 1900 + run / 12 % 100, run % 12 + 1);
            let (rows, took) = ask(&mut statement, [&since])?;
            last_rows = rows;
            if run >= WARM_UP {
                times.push(took);
            }
            if times.len() > 2 && begun.elapsed() >= seconds {
                break;
            }
        }
        times.sort_unstable();
        let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6;
        let (name, rows) = (case.name.clone(), last_rows);
        figures
            .insert(name, Figures { rows, count: times.len(), p50_us: at(0.5), p99_us: at(0.99) });
    }
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn in_turns(connection: &Connection) -> Result<(), Box<dyn Error>> {
    let mut last: Option<(String, Statement<'_>)> = None;
    for line in io::stdin().lock().lines() {
        let sql: String = serde_json::from_str(&line?)?;
        let mut statement = match last.take() {
            Some((prepared, statement)) if prepared == sql => statement,
            _ => connection.prepare(&sql)?,
        };
        let (rows, took) = ask(&mut statement, [])?;
        println!("{}", serde_json::to_string(&Turn { rows, us: took.as_secs_f64() * 1e6 })?);
        io::stdout().flush()?;
        last = Some((sql, statement));
    }
    Ok(())
}
