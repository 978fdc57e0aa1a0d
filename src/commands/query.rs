//! `martd query`: SQL for people and scripts.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value as Json, json};

use super::table::{Cell, TextTable, Tone, colours};
use super::{CommandError, ServerArgs, print};
use crate::http::client::ServerProblem;
use crate::settings::time;

/// What `query` needs.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// The statement; `-` reads it from standard input
    sql: String,

    /// A parameter, in the order of the statement's `?`, or by name as NAME=VALUE; a VALUE is JSON, or
    /// else text
    #[arg(short, long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    params: Vec<String>,

    /// How the answer is written [default: table on a terminal, else csv]
    #[arg(short, long, value_enum)]
    format: Option<OutputFormat>,

    /// The most rows [default: 10000 for table and json, else all]
    #[arg(short, long, value_name = "N")]
    limit: Option<u64>,

    /// The time that it may take [default: what martd allows]
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,

    /// Whose rows, COLUMN=VALUE, or * for all
    #[arg(long, env = "MARTD_SCOPE", value_name = "SCOPE")]
    scope: Option<String>,

    /// The snapshot to ask, where it is kept still
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,

    #[command(flatten)]
    server: ServerArgs,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// For people
    Table,
    Json,
    Ndjson,
    Csv,
    Arrow,
}

impl OutputFormat {
    /// martd's name for what is asked for.
    fn asked_for(self) -> &'static str {
        match self {
            Self::Table | Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
        }
    }
}

pub(super) async fn run(args: QueryArgs) -> Result<ExitCode, CommandError> {
    let terminal = std::io::stdout().is_terminal();
    let default = if terminal { OutputFormat::Table } else { OutputFormat::Csv };
    let format = args.format.unwrap_or(default);
    if format == OutputFormat::Arrow && terminal {
        let problem = "--format arrow is not for a terminal; send it to a file or a program";
        return Err(CommandError::usage(problem));
    }
    let sql = sql(args.sql).map_err(|error| {
        CommandError::usage(format!("the statement cannot be read from standard input: {error}"))
    })?;
    let params = params(&args.params).map_err(CommandError::usage)?;
    let mut body = json!({ "sql": sql, "params": params });
    if let Some(limit) = args.limit {
        body["limit"] = limit.into();
    }
    if let Some(timeout) = args.timeout {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        body["timeout_ms"] = ms.into();
    }
    let headers = [("martd-scope", args.scope), ("martd-snapshot", args.snapshot)];
    let headers: Vec<(&str, String)> =
        headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let path = format!("/v1/query?format={}", format.asked_for());
    let mut reply = args.server.client().post(&path, &body, &headers).await?;
    if reply.status != 200 {
        let problem = reply.problem().await;
        return Err(shown(&problem, &sql).into());
    }
    if format == OutputFormat::Table {
        return Ok(show(&reply.json().await?));
    }
    let mut out = std::io::stdout().lock();
    while let Some(part) = reply.next().await? {
        if let Err(error) = out.write_all(&part).and_then(|()| out.flush()) {
            // `| head` has seen enough; a full disk has not.
            return match error.kind() {
                std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
                _ => Err(error.to_string().into()),
            };
        }
    }
    if reply.truncated {
        eprintln!("martd: rows were left out; ask for more with --limit");
    }
    Ok(ExitCode::SUCCESS)
}

fn sql(argument: String) -> std::io::Result<String> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut sql = String::new();
    std::io::stdin().read_to_string(&mut sql)?;
    Ok(sql)
}

/// All by name or none.
fn params(given: &[String]) -> Result<Json, String> {
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Json::from(text));
    let named: Vec<_> = given.iter().filter_map(|text| named(text)).collect();
    if named.is_empty() {
        return Ok(given.iter().map(|text| value(text)).collect());
    }
    if named.len() < given.len() {
        return Err("give all parameters as NAME=VALUE, or none".to_owned());
    }
    let members = named.into_iter().map(|(name, text)| (name.to_owned(), value(text)));
    Ok(Json::Object(members.collect::<Map<_, _>>()))
}

/// `NAME=VALUE`, but not a JSON text that has `=` in it.
fn named(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some((name, value))
}

fn show(answer: &Json) -> ExitCode {
    let empty = Vec::new();
    let meta = answer["meta"].as_array().unwrap_or(&empty);
    let said = |column: &'_ Json, what: &str| column[what].as_str().unwrap_or_default().to_owned();
    let columns: Vec<String> = meta.iter().map(|column| said(column, "name")).collect();
    let numbers = (0..meta.len()).filter(|&column| is_number(&said(&meta[column], "type")));
    let mut table = TextTable::new(&columns, &numbers.collect::<Vec<_>>());
    for row in answer["data"].as_array().unwrap_or(&empty) {
        let cells = columns.iter().map(|name| match &row[name] {
            Json::Null => Cell::new("NULL", Tone::Dim),
            Json::String(text) => text.into(),
            other => other.into(),
        });
        table.row(cells.collect());
    }
    print(&table.render(colours()));
    let rows = answer["rows"].as_u64().unwrap_or_default();
    let truncated = if answer["truncated"] == true { ", more were left out (--limit)" } else { "" };
    print(&format!("({rows} {}{truncated})\n", if rows == 1 { "row" } else { "rows" }));
    ExitCode::SUCCESS
}

fn is_number(ty: &str) -> bool {
    ty.ends_with("INT")
        || ty.ends_with("INTEGER")
        || ty.starts_with("DECIMAL")
        || matches!(ty, "FLOAT" | "DOUBLE" | "BIGNUM")
}

/// The problem, and the place in the statement that it is about.
fn shown(problem: &ServerProblem, sql: &str) -> String {
    let text = problem.to_string();
    // DuckDB's own messages show the place already.
    let Some(position) = problem.position.filter(|_| !text.contains('^')) else { return text };
    let before: String = sql.chars().take(position).collect();
    let line = before.lines().count().max(1);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let Some(shown) = sql.lines().nth(line - 1) else { return text };
    format!(
        "{text}\nLINE {line}: {shown}\n{}^",
        " ".repeat(column + format!("LINE {line}: ").len())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_json_if_they_parse_or_else_text() {
        let of = |given: &[&str]| {
            params(&given.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), Ok(json!([])));
        assert_eq!(
            of(&["1", "a", "\"1\"", "null", "[1,2]"]),
            Ok(json!([1, "a", "1", null, [1, 2]]))
        );
        assert_eq!(of(&["since=2026-01-01", "n=7"]), Ok(json!({"since": "2026-01-01", "n": 7})));
        assert_eq!(of(&["\"a=b\""]), Ok(json!(["a=b"])));
        assert!(of(&["n=7", "8"]).is_err());
    }

    #[test]
    fn a_problem_shows_its_place() {
        let problem = ServerProblem {
            slug: "function-not-allowed".to_owned(),
            detail: "function f reads files".to_owned(),
            position: Some(16),
        };
        let text = shown(&problem, "SELECT *\n  FROM f()");
        assert_eq!(
            text,
            "function-not-allowed: function f reads files\nLINE 2:   FROM f()\n               ^"
        );
    }
}
