//! What martd's own commands ask a running martd, over HTTP like anyone else.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// The longest that one request waits; the next one goes on.
const WAIT_AT_ONCE: Duration = Duration::from_secs(60);
/// Until a martd that does not answer (it may be restarting) is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// What an answer may take beyond the wait that was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// A running martd.
#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    token: Option<String>,
}

/// What became of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildOutcome {
    /// It is served, in the snapshot of this id.
    Published(String),
    /// It is held, for this reason.
    Held(String),
    /// Neither happened in time; the last word of martd, or why there was none.
    Unknown(String),
}

impl Client {
    /// A client of the martd at `server` (host and port).
    pub fn new(server: String, token: Option<String>) -> Self {
        Self { server, token }
    }

    /// Waits until a dbt build is served or held, for `limit` at most. A martd that does not answer
    /// is asked again until then.
    pub async fn wait_for_build(&self, build: &str, limit: Duration) -> BuildOutcome {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = left.min(WAIT_AT_ONCE);
            let build: String = form_urlencoded::byte_serialize(build.as_bytes()).collect();
            let path = format!("/v1/snapshot?build={build}&wait={}", wait.as_secs());
            let word = match timeout(wait + GRACE, self.get(&path)).await {
                Ok(Ok((StatusCode::OK, json))) => {
                    return BuildOutcome::Published(text(&json, "id"));
                }
                Ok(Ok((StatusCode::CONFLICT, json))) => {
                    return BuildOutcome::Held(text(&json, "detail"));
                }
                Ok(Ok((StatusCode::GATEWAY_TIMEOUT, json))) => text(&json, "detail"),
                Ok(Ok((_, json))) => return BuildOutcome::Unknown(text(&json, "detail")),
                Ok(Err(error)) => format!("martd at {} does not answer: {error}", self.server),
                Err(_) => format!("martd at {} does not answer", self.server),
            };
            if Instant::now() + ASK_AGAIN >= deadline {
                return BuildOutcome::Unknown(word);
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Json), Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(&self.server).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::get(path).header(HOST, &self.server);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body)?))
    }
}

fn text(json: &Json, key: &str) -> String {
    json[key].as_str().unwrap_or("martd gave no reason").to_owned()
}
