//! The tools: what an agent can ask, written for a model that has never seen the data.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use super::RpcError;
use crate::duck::quote_identifier;
use crate::encode::Format;
use crate::http::accept::Negotiated;
use crate::http::access::Sizes;
use crate::http::metrics_guard::MetricsGuard;
use crate::http::problem::{self, Problem};
use crate::http::request;
use crate::http::routes::RequestContext;
use crate::http::{freshness, marts, query, request_id};

/// The tools as `tools/list` describes them.
const TOOLS: &str = include_str!("tools.json");
/// Rows of an answer are left out when their text is longer than this, in bytes: a model reads all of it.
const MAX_TEXT: usize = 50_000;
/// Rows that show what a mart's values look like.
const EXAMPLES: u64 = 3;

#[derive(Deserialize)]
struct Call {
    name: String,
    #[serde(default)]
    arguments: Map<String, Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

/// What `describe_mart` gives.
#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    description: &'a str,
    /// Rows that the caller may see.
    rows: &'a RawValue,
    columns: &'a [marts::ColumnDocument<'a>],
    freshness: &'a marts::Freshness,
    examples: &'a [Box<RawValue>],
}

/// What `query` gives.
#[derive(Serialize)]
struct Answered<'a> {
    snapshot: &'a str,
    columns: &'a RawValue,
    rows: &'a [Box<RawValue>],
    row_count: usize,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// All tools.
pub(super) fn list() -> Json {
    let tools: Json = serde_json::from_str(TOOLS).expect("the file is JSON");
    json!({"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
}

/// Calls one. What went wrong in it is a result, too: the model is to read it and to do better.
pub(super) async fn call(
    asked: &RequestContext<'_>,
    params: Map<String, Json>,
) -> Result<Json, RpcError> {
    let call: Call = arguments(params)
        .map_err(|problem| RpcError::new(RpcError::INVALID_PARAMS, problem.detail()))?;
    let outcome = match call.name.as_str() {
        "list_marts" => asked.list_marts(call.arguments),
        "describe_mart" => asked.describe_mart(call.arguments).await,
        "query" => asked.query(call.arguments).await,
        "freshness" => asked.freshness(call.arguments),
        other => {
            let message = format!("there is no tool {other:?}; tools/list has all of them");
            return Err(RpcError::new(RpcError::INVALID_PARAMS, message));
        }
    };
    let (text, failed) = match outcome {
        Ok(text) => (text, false),
        Err(problem) => (advice(&problem), true),
    };
    Ok(json!({
        "content": [{"type": "text", "text": text}],
        "isError": failed,
        "resultType": "complete",
    }))
}

impl RequestContext<'_> {
    fn sizes(&self) -> Sizes<'_> {
        self.caller.sizes(self.app.settings.scoping.as_ref())
    }

    fn list_marts(&self, given: Map<String, Json>) -> Result<String, Problem> {
        let Nothing {} = arguments(given)?;
        text(&marts::MartsDocument::of(self.app, self.state, self.sizes()))
    }

    fn freshness(&self, given: Map<String, Json>) -> Result<String, Problem> {
        let Nothing {} = arguments(given)?;
        let now = jiff::Timestamp::now();
        let max_age = self.app.settings.max_age;
        text(&freshness::FreshnessDocument::of(self.state, max_age, self.sizes(), now))
    }

    async fn describe_mart(&self, given: Map<String, Json>) -> Result<String, Problem> {
        let Named { name } = arguments(given)?;
        let bare = name.strip_prefix("mart.").unwrap_or(&name);
        let document = marts::MartsDocument::of(self.app, self.state, self.sizes());
        let mart = document.marts.iter().find(|mart| mart.name == name || mart.name == bare);
        let mart = mart.ok_or_else(|| {
            let detail = format!("there is no mart {name:?}; list_marts has all of them");
            Problem::new(problem::NOT_FOUND, detail)
        })?;
        let table = format!("mart.{}", quote_identifier(mart.name));
        let ask = async |sql: String| self.run(request::QueryBody::of(sql)).await;
        let counted = ask(format!("SELECT count(*) AS n FROM {table}")).await?;
        let examples = ask(format!("SELECT * FROM {table} LIMIT {EXAMPLES}")).await?;
        let [row] = counted.data.as_slice() else {
            return Err(Problem::internal("a count is not one row"));
        };
        let Count { n } = serde_json::from_str(row.get()).map_err(Problem::internal)?;
        text(&Described {
            name: mart.name,
            description: mart.description,
            rows: &n,
            columns: &mart.columns,
            freshness: &mart.freshness,
            examples: examples.rows(),
        })
    }

    async fn query(&self, given: Map<String, Json>) -> Result<String, Problem> {
        let answer = self.run(arguments(given)?).await?;
        let rows = answer.rows();
        let truncated = answer.truncated || rows.len() < answer.data.len();
        text(&Answered {
            snapshot: &answer.snapshot,
            columns: &answer.meta,
            rows,
            row_count: rows.len(),
            truncated,
            note: truncated.then_some(
                "Rows were left out. Let SQL do the work: aggregate, filter, name fewer columns, or page \
                 with ORDER BY, LIMIT and OFFSET.",
            ),
        })
    }

    async fn run(&self, body: request::QueryBody) -> Result<Answer, Problem> {
        let mut guard = MetricsGuard::start(self.app.metrics.clone(), self.record.clone());
        let outcome = self.ask(body, &mut guard).await;
        match &outcome {
            Ok(_) => guard.ended(),
            Err(problem) => guard.failed(problem),
        }
        serde_json::from_slice(&outcome?).map_err(Problem::internal)
    }

    async fn ask(
        &self,
        body: request::QueryBody,
        guard: &mut MetricsGuard,
    ) -> Result<Bytes, Problem> {
        let negotiated = Negotiated::plain(Format::Json);
        guard.in_format(negotiated.format);
        let scope = self.caller.scope(self.app.settings.scope_column(), &self.head.headers)?;
        let mut query = request::check(&self.app.settings, negotiated, scope, body)?;
        query.job.max_bytes = MAX_TEXT as u64;
        let handle = self.app.queries.register(request_id::fresh(), self.caller);
        query::json(self, query, handle, guard).await
    }
}

#[derive(Deserialize)]
struct Count {
    n: Box<RawValue>,
}

/// The parts of an answer as JSON that are passed on.
#[derive(Deserialize)]
struct Answer {
    meta: Box<RawValue>,
    data: Vec<Box<RawValue>>,
    truncated: bool,
    snapshot: String,
}

impl Answer {
    /// The rows that a model is shown.
    fn rows(&self) -> &[Box<RawValue>] {
        let mut length = 0;
        let fit = self.data.iter().take_while(|row| {
            length += row.get().len();
            length <= MAX_TEXT
        });
        &self.data[..fit.count()]
    }
}

fn arguments<T: DeserializeOwned>(given: Map<String, Json>) -> Result<T, Problem> {
    T::deserialize(Json::Object(given))
        .map_err(|error| Problem::bad_request(format!("the arguments are wrong: {error}")))
}

fn text(document: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(document).map_err(Problem::internal)
}

/// What went wrong, and what to try next.
fn advice(problem: &Problem) -> String {
    let next = match problem.slug() {
        "sql-error" => "Look at the columns with describe_mart. The dialect is DuckDB's.",
        "statement-not-allowed" => {
            "Only one SELECT is served, over the marts that list_marts has, named mart.<name>."
        }
        "function-not-allowed" => "Say it with another function.",
        "query-timeout" | "memory-limit" => {
            "Ask for less: filter early, aggregate, name fewer columns."
        }
        "overloaded" | "not-ready" | "legacy-locked" => "Wait a few seconds and ask again.",
        "scope-required" => {
            "Ask whoever set this connection up to send the header Martd-Scope, or a token that may."
        }
        "engine-failed" | "statement-quarantined" | "too-many-failures" => {
            "Do not send this statement again; write it in another way."
        }
        _ => "",
    };
    format!("{problem}{}{next}", if next.is_empty() { "" } else { "\n" })
}
