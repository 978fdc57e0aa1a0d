//! `GET /v1/marts`: the marts with what their columns mean; and `/v1/attach.sql`: views over their files,
//! for a DuckDB elsewhere.

use std::fmt::Write;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::App;
use super::access::Sizes;
use super::body::{self, BoxBody};
use super::freshness;
use super::mart_file;
use super::problem::Problem;
use crate::catalog::{Source, State};
use crate::duck::{quote_identifier, quote_literal};

/// What is escaped in the name of a file: all but what never means something in a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct MartsDocument<'s> {
    snapshot: Option<&'s str>,
    pub(super) marts: Vec<MartDocument<'s>>,
}

/// One mart.
#[derive(Debug, Serialize)]
pub(super) struct MartDocument<'s> {
    pub(super) name: &'s str,
    pub(super) description: &'s str,
    /// For those who may know it.
    rows: Option<u64>,
    pub(super) columns: Vec<ColumnDocument<'s>>,
    pub(super) freshness: Freshness,
}

/// A column as the mart's table has it, and what the project says that it means.
#[derive(Debug, Serialize)]
pub(super) struct ColumnDocument<'s> {
    name: &'s str,
    r#type: &'s str,
    description: &'s str,
}

/// How current a mart is; `/v1/freshness` says why.
#[derive(Debug, Serialize)]
pub(super) struct Freshness {
    status: freshness::FreshnessStatus,
    max_loaded_at: Option<Timestamp>,
}

impl<'s> MartsDocument<'s> {
    pub(super) fn of(app: &App, state: &'s State, sizes: Sizes<'_>) -> Self {
        let snapshot = state.snapshot.as_deref();
        let now = Timestamp::now();
        let fresh = freshness::FreshnessDocument::of(state, app.settings.max_age, sizes, now);
        let marts = snapshot.into_iter().flat_map(|snapshot| &snapshot.marts);
        let marts = marts.zip(fresh.results()).map(|((name, mart), fresh)| {
            let ledger = snapshot.and_then(|snapshot| snapshot.ledger.as_deref());
            let model = ledger.and_then(|ledger| ledger.model(name));
            let columns = mart.columns().iter().map(|column| ColumnDocument {
                name: &column.name,
                r#type: &column.ty,
                description: model
                    .and_then(|model| model.meaning(&column.name))
                    .unwrap_or_default(),
            });
            MartDocument {
                name,
                description: model
                    .and_then(|model| model.description.as_deref())
                    .unwrap_or_default(),
                rows: fresh.rows,
                columns: columns.collect(),
                freshness: Freshness { status: fresh.status, max_loaded_at: fresh.max_loaded_at },
            }
        });
        Self { snapshot: snapshot.map(|snapshot| snapshot.id.as_str()), marts: marts.collect() }
    }
}

/// Statements that make a view for each mart, over the file as this martd serves it.
pub(super) fn attach(
    app: &App,
    state: &State,
    headers: &HeaderMap,
) -> Result<Response<BoxBody>, Problem> {
    mart_file::refuse_where_scoped(app)?;
    let snapshot = state.snapshot.as_ref().filter(|snapshot| snapshot.source == Source::Parquet);
    let Some(snapshot) = snapshot else { return Err(super::probes::not_ready(app, state)) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let mut sql = String::from(
        "-- Views over the marts of a martd. Each reads the file that is current when it is asked;\n\
         -- two views may see two builds. Ask POST /v1/query where one consistent snapshot matters.\n",
    );
    if headers.contains_key(AUTHORIZATION) {
        let _ = writeln!(
            sql,
            "CREATE OR REPLACE SECRET martd (TYPE http, BEARER_TOKEN 'put the token here', \
             SCOPE {});",
            quote_literal(&format!("http://{host}"))
        );
    }
    sql.push_str("CREATE SCHEMA IF NOT EXISTS mart;\n");
    for (name, mart) in &snapshot.marts {
        if mart.version.pin.file().is_none() {
            let count = mart.version.pin.files().len();
            let name = quote_identifier(name).replace(['\n', '\r'], " ");
            let _ = writeln!(
                sql,
                "-- mart.{name} is a directory of {count} files: ask POST /v1/query."
            );
            continue;
        }
        let url = format!("http://{host}/v1/marts/{}.parquet", utf8_percent_encode(name, ESCAPED));
        let _ = writeln!(
            sql,
            "CREATE OR REPLACE VIEW mart.{} AS FROM read_parquet({});",
            quote_identifier(name),
            quote_literal(&url)
        );
    }
    Ok(body::response(StatusCode::OK, "application/sql; charset=utf-8", sql))
}
