//! `POST /mcp`: the Model Context Protocol, for agents that ask on somebody's behalf.
//!
//! **Purpose.** JSON-RPC over HTTP, one message to a request, without sessions: the protocol of 2026-07-28,
//! in which each request says what it speaks, and the older ones, which begin with `initialize`. What the
//! [`tools`] do is what `/v1/query`, `/v1/marts` and `/v1/freshness` do, under the same token and scope.
//!
//! **Invariants.** What is wrong with a message is an error of JSON-RPC; what a tool could not do is a
//! result that says so, for the model to read and to mend. Answers are complete: nothing is streamed.
//!
//! **Deliberately absent.** Sessions, resources, prompts, notifications, and anything that writes.

mod tools;

use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::body::{self, BoxBody};
use super::problem::Problem;
use super::routes::{RequestContext, json};
use super::upload::Upload;

/// The protocol in which each request says which version it speaks.
const STATELESS: &str = "2026-07-28";
/// Versions that begin with `initialize`, the newest last. What martd answers is the same in all.
const HANDSHAKE: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// Where a request of [`STATELESS`] says so.
const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// What a model is told of the server before it knows the tools.
const INSTRUCTIONS: &str = "Tables of analytics data that can be read with SQL (DuckDB's dialect, SELECT \
    only). Call list_marts first, describe_mart for the tables that matter, then query. Every answer is \
    read from one consistent snapshot; the data change when their owner publishes a new build.";

/// An error of JSON-RPC.
struct RpcError {
    code: i32,
    message: String,
    data: Option<Json>,
}

impl RpcError {
    const PARSE: i32 = -32_700;
    const INVALID_REQUEST: i32 = -32_600;
    const METHOD_NOT_FOUND: i32 = -32_601;
    const INVALID_PARAMS: i32 = -32_602;
    const HEADER_MISMATCH: i32 = -32_020;
    const UNSUPPORTED_VERSION: i32 = -32_022;

    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }
}

/// A message from the client.
#[derive(Debug, Deserialize)]
struct RpcRequest {
    jsonrpc: String,
    /// Absent when the client only tells something.
    id: Option<Json>,
    method: String,
    #[serde(default)]
    params: Map<String, Json>,
}

/// Answers one message.
pub(super) async fn answer(
    context: &RequestContext<'_>,
    body: Incoming,
) -> Result<Response<BoxBody>, Problem> {
    let headers = &context.head.headers;
    let Upload { text, .. } = Upload::read(context.app, headers, body).await?;
    let message = match read(&text) {
        Ok(message) => message,
        Err(error) => return reply(None, false, Err(error)),
    };
    let RpcRequest { id: Some(id), method, params, .. } = message else {
        return Ok(body::empty(StatusCode::ACCEPTED));
    };
    let stateless = params.get("_meta").is_some_and(|meta| meta.get(PROTOCOL_VERSION).is_some());
    let outcome = match check(headers, &method, &params) {
        Err(error) => Err(error),
        Ok(()) => match method.as_str() {
            "initialize" => Ok(initialize(&params)),
            "server/discover" => Ok(discover()),
            "ping" => Ok(json!({})),
            "tools/list" => Ok(tools::list()),
            "tools/call" => tools::call(context, params).await,
            _ => Err(RpcError::new(
                RpcError::METHOD_NOT_FOUND,
                format!("{method} is not served; there are tools/list and tools/call"),
            )),
        },
    };
    reply(Some(id), stateless, outcome)
}

fn read(text: &str) -> Result<RpcRequest, RpcError> {
    let value: Json = serde_json::from_str(text)
        .map_err(|error| RpcError::new(RpcError::PARSE, format!("this is not JSON: {error}")))?;
    let named = value.get("id").is_none_or(|id| id.is_string() || id.is_i64() || id.is_u64());
    let message = RpcRequest::deserialize(value).map_err(|error| error.to_string());
    message
        .and_then(|message| match message.jsonrpc.as_str() {
            "2.0" if named => Ok(message),
            "2.0" => Err("id is neither a text nor a whole number".to_owned()),
            other => Err(format!("jsonrpc is {other:?}")),
        })
        .map_err(|reason| {
            let message = format!("this is not one message of JSON-RPC 2.0: {reason}");
            RpcError::new(RpcError::INVALID_REQUEST, message)
        })
}

/// Whether the version is one of ours, and the headers by which proxies route say what the message says.
fn check(headers: &HeaderMap, method: &str, params: &Map<String, Json>) -> Result<(), RpcError> {
    let header = |name: &'static str| {
        headers.get(HeaderName::from_static(name)).and_then(|value| value.to_str().ok())
    };
    let version = params.get("_meta").and_then(|meta| meta.get(PROTOCOL_VERSION));
    let Some(version) = version else {
        return match header("mcp-protocol-version") {
            Some(version) if method != "initialize" && !HANDSHAKE.contains(&version) => {
                Err(unsupported(version))
            }
            _ => Ok(()),
        };
    };
    let name = params.get("name").filter(|_| method == "tools/call");
    let said = [
        ("mcp-protocol-version", Some(version)),
        ("mcp-method", Some(&Json::from(method))),
        ("mcp-name", name),
    ];
    for (name, value) in said {
        if value.is_some() && value.and_then(Json::as_str) != header(name) {
            let message = format!("the header {name} does not say what the message says");
            return Err(RpcError::new(RpcError::HEADER_MISMATCH, message));
        }
    }
    match version.as_str() {
        Some(STATELESS) => Ok(()),
        other => Err(unsupported(other.unwrap_or_default())),
    }
}

fn unsupported(requested: &str) -> RpcError {
    let supported: Vec<&str> = HANDSHAKE.into_iter().chain([STATELESS]).collect();
    RpcError {
        code: RpcError::UNSUPPORTED_VERSION,
        message: "Unsupported protocol version".to_owned(),
        data: Some(json!({"supported": supported, "requested": requested})),
    }
}

fn server() -> Json {
    json!({"name": "martd", "title": "martd", "version": env!("CARGO_PKG_VERSION")})
}

/// The older way to begin. A version that is not known is answered with the newest of those.
fn initialize(params: &Map<String, Json>) -> Json {
    let asked = params.get("protocolVersion").and_then(Json::as_str);
    let version = asked.filter(|asked| HANDSHAKE.contains(asked)).unwrap_or(HANDSHAKE[3]);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": server(),
        "instructions": INSTRUCTIONS,
    })
}

fn discover() -> Json {
    json!({
        "supportedVersions": [STATELESS],
        "capabilities": {"tools": {}},
        "instructions": INSTRUCTIONS,
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": server()},
    })
}

/// The answer to a request. Of the status, clients of older versions expect that it says nothing of errors.
fn reply(
    id: Option<Json>,
    stateless: bool,
    outcome: Result<Json, RpcError>,
) -> Result<Response<BoxBody>, Problem> {
    let (status, member) = match outcome {
        Ok(result) => (StatusCode::OK, ("result", result)),
        Err(RpcError { code, message, data }) => {
            let status = match code {
                RpcError::METHOD_NOT_FOUND if stateless => StatusCode::NOT_FOUND,
                RpcError::METHOD_NOT_FOUND => StatusCode::OK,
                _ => StatusCode::BAD_REQUEST,
            };
            let mut error = json!({"code": code, "message": message});
            if let Some(data) = data {
                error["data"] = data;
            }
            (status, ("error", error))
        }
    };
    json(status, &json!({"jsonrpc": "2.0", "id": id, member.0: member.1}))
}
