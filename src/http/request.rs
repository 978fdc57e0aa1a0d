//! What a query request says: `POST` with JSON or text, or `GET` with everything in the URL.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::HttpSettings;
use super::accept::Negotiated;
use super::arguments::Arguments;
use super::problem::Problem;
use super::routes::RequestContext;
use super::upload::{Upload, UploadKind};
use crate::duck::{TypeName, Value};
use crate::engine::{Parameters, QueryJob, Scope};

/// Rows of an answer that can say that there are more, when the request does not say.
const DEFAULT_LIMIT: u64 = 10_000;

/// A query as its client writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryBody {
    sql: String,
    #[serde(default)]
    params: Json,
    #[serde(default)]
    types: BTreeMap<String, String>,
    limit: Option<u64>,
    timeout_ms: Option<u64>,
}

impl QueryBody {
    /// A statement alone.
    pub(super) fn of(sql: String) -> Self {
        Self { sql, ..Self::default() }
    }
}

/// A request that is well-formed.
#[derive(Debug, Clone)]
pub(super) struct QueryRequest {
    /// What is to be answered.
    pub(super) job: QueryJob,
    /// The time that it may take.
    pub(super) timeout: Duration,
}

impl QueryRequest {
    /// Reads a request to its end.
    pub(super) async fn read(
        RequestContext { app, head, arguments, .. }: &RequestContext<'_>,
        negotiated: Negotiated,
        scope: Scope,
        body: Incoming,
    ) -> Result<Self, Problem> {
        let body = if head.method == Method::POST {
            in_body(Upload::read(app, &head.headers, body).await?)?
        } else {
            in_url(arguments)?
        };
        check(&app.settings, negotiated, scope, body)
    }
}

/// `GET /v1/query?sql=…&params=…&limit=…&timeout_ms=…`
fn in_url(arguments: &Arguments) -> Result<QueryBody, Problem> {
    let mut body = QueryBody::default();
    let number = |name: &str, text: &str| {
        text.parse()
            .map(Some)
            .map_err(|_| Problem::bad_request(format!("{name} must be a whole number")))
    };
    for (name, value) in arguments.iter() {
        match name {
            "sql" => body.sql = value.to_owned(),
            "params" => body.params = parsed(name, value)?,
            "limit" => body.limit = number("limit", value)?,
            "timeout_ms" => body.timeout_ms = number("timeout_ms", value)?,
            "types" => body.types = parsed(name, value)?,
            "format" | "build" => {} // of the answer and the snapshot, not of the query
            other => {
                let detail = format!(
                    "{other} is not known; use sql, params, types, limit, timeout_ms, format, build"
                );
                return Err(Problem::bad_request(detail));
            }
        }
    }
    Ok(body)
}

fn parsed<T: DeserializeOwned>(name: &str, json: &str) -> Result<T, Problem> {
    serde_json::from_str(json)
        .map_err(|error| Problem::bad_request(format!("{name} do not parse as JSON: {error}")))
}

fn in_body(Upload { kind, text }: Upload) -> Result<QueryBody, Problem> {
    if kind == UploadKind::Text {
        return Ok(QueryBody::of(text));
    }
    // serde would take a list for a struct, its items for the fields in order.
    if text.trim_ascii_start().starts_with(|first| first != '{') {
        return Err(Problem::bad_request("the body must be a JSON object"));
    }
    serde_json::from_str(&text)
        .map_err(|error| Problem::bad_request(format!("the body does not parse: {error}")))
}

/// What a client wrote, checked against the limits.
pub(super) fn check(
    settings: &HttpSettings,
    Negotiated { format, codings }: Negotiated,
    scope: Scope,
    body: QueryBody,
) -> Result<QueryRequest, Problem> {
    if body.sql.trim().is_empty() {
        return Err(Problem::bad_request("the statement is empty; say it in sql"));
    }
    if body.limit.is_some_and(|limit| limit > settings.max_rows) {
        let detail = format!("limit may be {} at most (MARTD_MAX_ROWS)", settings.max_rows);
        return Err(Problem::bad_request(detail));
    }
    let most = settings.query_timeout;
    let timeout = match body.timeout_ms.map(Duration::from_millis) {
        Some(asked) if asked > most || asked.is_zero() => {
            let detail =
                format!("timeout_ms may be 1 to {} (MARTD_QUERY_TIMEOUT)", most.as_millis());
            return Err(Problem::bad_request(detail));
        }
        Some(asked) => asked,
        None => most,
    };
    let default = format.tells_truncation().then_some(DEFAULT_LIMIT.min(settings.max_rows));
    let limit = body.limit.or(default);
    let parameters = parameters(&body.params, &body.types)?;
    let job = QueryJob {
        sql: body.sql,
        parameters,
        moment: None,
        scope,
        format,
        binary: Vec::new(),
        codings,
        limit,
        max_rows: settings.max_rows,
        max_bytes: settings.max_result_bytes,
        elapsed: Duration::ZERO,
    };
    Ok(QueryRequest { job, timeout })
}

/// Values typed from their JSON, or as `types` says: by name, or by number from 1.
fn parameters(json: &Json, types: &BTreeMap<String, String>) -> Result<Parameters, Problem> {
    let value = |name: &str, json: &Json| {
        let value = Value::from_json(json).and_then(|value| match types.get(name) {
            Some(ty) => Ok(value.typed(ty.parse::<TypeName>()?)),
            None => Ok(value),
        });
        value.map_err(|error| Problem::bad_request(format!("parameter ${name} {error}")))
    };
    let names: Vec<String> = match json {
        Json::Array(items) => (1..=items.len()).map(|index| index.to_string()).collect(),
        Json::Object(members) => members.keys().cloned().collect(),
        _ => Vec::new(),
    };
    if let Some(name) = types.keys().find(|name| !names.contains(name)) {
        let detail = format!("types has ${name}, but params has no such parameter");
        return Err(Problem::bad_request(detail));
    }
    match json {
        Json::Null => Ok(Parameters::default()),
        Json::Array(items) => items
            .iter()
            .zip(1..)
            .map(|(item, index): (&Json, usize)| value(&index.to_string(), item))
            .collect::<Result<_, _>>()
            .map(Parameters::Positional),
        Json::Object(members) => members
            .iter()
            .map(|(name, item)| Ok((name.clone(), value(name, item)?)))
            .collect::<Result<BTreeMap<_, _>, _>>()
            .map(Parameters::Named),
        _ => Err(Problem::bad_request("params must be a list or an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            ".{0,20}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                prop::collection::btree_map(".{0,8}", inner, 0..6)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn any_json_is_a_body_or_a_problem(json in json()) {
            let text = json.to_string();
            let whole = json.get("sql").is_some_and(Json::is_string);
            let body = in_body(Upload { kind: UploadKind::Json, text });
            prop_assert!(whole || body.is_err());
        }

        #[test]
        fn any_json_gives_parameters_or_a_problem(json in json(), ty in "[A-Z]{0,9}(\\[\\])?") {
            let untyped = parameters(&json, &BTreeMap::new());
            match (&json, untyped) {
                (Json::Null, Ok(given)) => prop_assert_eq!(given, Parameters::default()),
                (Json::Array(items), Ok(Parameters::Positional(values))) => {
                    prop_assert_eq!(items.len(), values.len());
                }
                (Json::Object(members), Ok(Parameters::Named(values))) => {
                    prop_assert!(members.keys().eq(values.keys()));
                }
                (_, Ok(other)) => prop_assert!(false, "{:?} from {}", other, json),
                (_, Err(_)) => {}
            }
            let types = BTreeMap::from([("1".to_owned(), ty)]);
            let _ = parameters(&json, &types);
        }

        #[test]
        fn any_url_is_a_query_or_a_problem(query in "[ -~]{0,200}", sql in ".{0,50}") {
            let in_url = |query: &str| Arguments::parse(query).and_then(|all| in_url(&all));
            let _ = in_url(&query);
            let encoded: String = form_urlencoded::byte_serialize(sql.as_bytes()).collect();
            let body = in_url(&format!("sql={encoded}&limit=7"));
            prop_assert!(body.is_ok_and(|body| body.sql == sql && body.limit == Some(7)));
        }
    }
}
