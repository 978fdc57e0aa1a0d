//! DuckDB without a server: what a prepared statement costs on a warm connection, over its own
//! tables. The comparison with servers takes this as its limit.
//!
//! Usage: `in_process DIRECTORY SECONDS`, with `[{"name","sql"}]` on the standard input; each
//! statement has one parameter, a date as text. Prints `{name: {"rows","count","p50_us","p99_us"}}`.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use duckdb::Connection;
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(directory), Some(seconds)) = (arguments.next(), arguments.next()) else {
        return Err("usage: in_process DIRECTORY SECONDS < cases.json".into());
    };
    let seconds = Duration::from_secs_f64(seconds.parse()?);
    let cases: Vec<Case> = serde_json::from_reader(io::stdin())?;

    let connection = Connection::open_in_memory()?;
    connection.execute_batch("CREATE SCHEMA mart")?;
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let file = path.display();
        connection.execute_batch(&format!(
            "CREATE TABLE mart.\"{name}\" AS FROM read_parquet('{file}')"
        ))?;
    }

    let mut figures = BTreeMap::new();
    for case in &cases {
        let mut statement = connection.prepare(&case.sql)?;
        let mut rows = 0;
        let mut times = Vec::new();
        let begun = Instant::now();
        for run in 0.. {
            // Another parameter each time, as the servers get.
            let since = format!("{}-{:02}-01", 1900 + run / 12 % 100, run % 12 + 1);
            let started = Instant::now();
            rows = statement.query_arrow([&since])?.map(|batch| batch.num_rows()).sum();
            if run >= WARM_UP {
                times.push(started.elapsed());
            }
            if times.len() > 2 && begun.elapsed() >= seconds {
                break;
            }
        }
        times.sort_unstable();
        let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6;
        let name = case.name.clone();
        figures
            .insert(name, Figures { rows, count: times.len(), p50_us: at(0.5), p99_us: at(0.99) });
    }
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
