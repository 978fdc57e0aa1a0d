//! What martd's own commands ask a running martd, over HTTP like anyone else.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, TE};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::job::MARTD_TRUNCATED;
use crate::listen::UNIX_PREFIX;

/// The longest that one request waits; the next one goes on.
const WAIT_AT_ONCE: Duration = Duration::from_secs(60);
/// Until a martd that does not answer (it may be restarting) is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// What an answer may take beyond the wait that was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// What connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a running martd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// A host and a port.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for ServerAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
            return Ok(Self::Unix(path.into()));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() || authority.contains('/') {
            return Err("not an address; write HOST:PORT or unix:PATH");
        }
        Ok(Self::Tcp(authority.to_owned()))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => authority.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// A running martd.
#[derive(Debug, Clone)]
pub struct Client {
    server: ServerAddress,
    token: Option<String>,
}

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
#[error("martd at {server} {problem}")]
pub struct ClientError {
    server: ServerAddress,
    problem: String,
}

/// A problem that martd reports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{slug}: {detail}")]
pub struct ServerProblem {
    /// The end of its type.
    pub slug: String,
    /// What it says.
    pub detail: String,
    /// Where in the statement, in characters.
    pub position: Option<usize>,
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
    /// A client of the martd at `server`.
    pub fn new(server: ServerAddress, token: Option<String>) -> Self {
        Self { server, token }
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> Result<Reply, ClientError> {
        timeout(GRACE, self.send(Method::GET, path, None, &[]))
            .await
            .unwrap_or_else(|_| Err(self.error("does not answer")))
    }

    /// Posts JSON. How long that may take is martd's to say.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post(
        &self,
        path: &str,
        body: &Json,
        headers: &[(&str, String)],
    ) -> Result<Reply, ClientError> {
        self.send(Method::POST, path, Some(body), headers).await
    }

    /// Waits until a dbt build is served or held, for `limit` at most. A martd that does not answer
    /// is asked again until then.
    pub async fn wait_for_build(&self, build: &str, limit: Duration) -> BuildOutcome {
        let build: String = form_urlencoded::byte_serialize(build.as_bytes()).collect();
        let ask = async |left: Duration| {
            let wait = left.min(WAIT_AT_ONCE);
            let path = format!("/v1/snapshot?build={build}&wait={}", wait.as_secs());
            let asked = async {
                let reply = self.send(Method::GET, &path, None, &[]).await?;
                Ok::<_, ClientError>((reply.status, reply.json().await?))
            };
            let asked = timeout(wait + GRACE, asked).await;
            match asked.unwrap_or_else(|_| Err(self.error("does not answer"))) {
                Ok((200, json)) => Ok(BuildOutcome::Published(text(&json, "id"))),
                Ok((409, json)) => Ok(BuildOutcome::Held(text(&json, "detail"))),
                // A martd that is starting, draining or overloaded may know later.
                Ok((503 | 504, json)) => Err(text(&json, "detail")),
                Ok((_, json)) => Ok(BuildOutcome::Unknown(text(&json, "detail"))),
                Err(error) => Err(error.to_string()),
            }
        };
        until(limit, ask).await
    }

    /// Looks at what is served until `check` has an outcome, for `limit` at most. A martd that does not answer is
    /// asked again until then.
    pub async fn wait_for_state(
        &self,
        limit: Duration,
        check: impl Fn(&Json) -> Option<BuildOutcome>,
    ) -> BuildOutcome {
        let ask = async |_| {
            let asked = async { self.get("/v1/snapshot").await?.json().await };
            let state = asked.await.map_err(|error: ClientError| error.to_string())?;
            check(&state).ok_or_else(|| text(&state["held"], "reason"))
        };
        until(limit, ask).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
        headers: &[(&str, String)],
    ) -> Result<Reply, ClientError> {
        let host = match &self.server {
            ServerAddress::Tcp(authority) => authority,
            ServerAddress::Unix(_) => "localhost",
        };
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, host).header(TE, "trailers");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |json| json.to_string().into());
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.error(&format!("cannot be asked that: {error}")))?;
        let silent = |reason: &dyn fmt::Display| {
            self.error(&format!(
                "does not answer: {reason}; if it listens elsewhere, say where with --server (MARTD_SERVER)"
            ))
        };
        let mut sender = timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .map_err(|_| silent(&"it took too long to connect"))?
            .map_err(|error| silent(&error))?;
        let response = sender.send_request(request).await.map_err(|error| silent(&error))?;
        Ok(Reply::new(self.server.clone(), response))
    }

    async fn connect(
        &self,
    ) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match &self.server {
            ServerAddress::Tcp(authority) => over(TcpStream::connect(authority).await?).await?,
            ServerAddress::Unix(path) => over(UnixStream::connect(path).await?).await?,
        })
    }

    fn error(&self, problem: &str) -> ClientError {
        ClientError { server: self.server.clone(), problem: problem.to_owned() }
    }
}

/// Asks again and again until there is an outcome, for `limit` at most. `ask` is told how much of that is left,
/// and gives the last word of martd where it has no outcome.
async fn until(
    limit: Duration,
    ask: impl AsyncFn(Duration) -> Result<BuildOutcome, String>,
) -> BuildOutcome {
    let deadline = Instant::now() + limit;
    loop {
        let word = match ask(deadline.saturating_duration_since(Instant::now())).await {
            Ok(outcome) => return outcome,
            Err(word) => word,
        };
        if Instant::now() + ASK_AGAIN >= deadline {
            return BuildOutcome::Unknown(word);
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Speaks HTTP over a stream.
async fn over<S>(stream: S) -> hyper::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// An answer, whose body comes as it is asked for.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Whether rows were left out; known at the end.
    pub truncated: bool,
    server: ServerAddress,
    body: Incoming,
}

impl Reply {
    fn new(server: ServerAddress, response: Response<Incoming>) -> Self {
        let truncated = says_truncated(response.headers());
        Self { status: response.status().as_u16(), truncated, server, body: response.into_body() }
    }

    /// The next part of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off: what came is not the whole answer.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| self.error(&format!(
                    "broke the answer off ({error}): what came is not all of it. Its log has the reason, \
                     for example MARTD_MAX_ROWS, MARTD_MAX_RESULT or the time limit"
                )))?;
            match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(other) => {
                    let trailers = other.into_trailers().unwrap_or_default();
                    self.truncated |= says_truncated(&trailers);
                }
            }
        }
        Ok(None)
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// When it breaks off or is something else: it may not be martd that answers.
    pub async fn json(mut self) -> Result<Json, ClientError> {
        let mut body = Vec::new();
        while let Some(part) = self.next().await? {
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body)
            .map_err(|_| self.error(&format!("answers {} without JSON: is it martd?", self.status)))
    }

    /// The problem that it reports.
    pub async fn problem(self) -> ServerProblem {
        let status = self.status;
        let json = match self.json().await {
            Ok(json) => json,
            Err(error) => {
                return ServerProblem {
                    slug: format!("status {status}"),
                    detail: error.to_string(),
                    position: None,
                };
            }
        };
        let slug = json["type"].as_str().unwrap_or_default();
        let slug = slug.rsplit(':').next().filter(|slug| !slug.is_empty());
        let position = json["position"].as_u64().and_then(|byte| usize::try_from(byte).ok());
        ServerProblem {
            slug: slug.map_or_else(|| format!("status {status}"), str::to_owned),
            detail: text(&json, "detail"),
            position,
        }
    }

    fn error(&self, problem: &str) -> ClientError {
        ClientError { server: self.server.clone(), problem: problem.to_owned() }
    }
}

/// Whether a request through the same routes as any other is answered: for the watchdog, which must
/// not be kept out by a limit of connections.
pub(crate) async fn answers_live(app: super::App) -> bool {
    let (client, server) = tokio::io::duplex(SELF_CHECK_BYTES);
    let service = hyper::service::service_fn(move |request| {
        super::routes::handle(
            app.clone(),
            super::routes::Surface::Admin,
            super::origin::Peer { door: super::origin::Door::UnixSocket, address: None },
            request,
        )
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
    tokio::spawn(connection);
    let asked = async {
        let mut sender = over(client).await.ok()?;
        let request = Request::get("/livez").header(HOST, "localhost").body(Full::default());
        let response = sender.send_request(request.ok()?).await.ok()?;
        Some(response.status().is_success())
    };
    asked.await.unwrap_or(false)
}

/// Room for the request and the answer of a self-check.
const SELF_CHECK_BYTES: usize = 4 << 10;

fn says_truncated(headers: &hyper::HeaderMap) -> bool {
    headers.get(MARTD_TRUNCATED).is_some_and(|value| value == "true")
}

fn text(json: &Json, key: &str) -> String {
    json[key].as_str().unwrap_or("martd gave no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts_with_ports_or_sockets() {
        let of = |text: &str| text.parse::<ServerAddress>().map(|server| server.to_string()).ok();
        assert_eq!(of("127.0.0.1:8321").as_deref(), Some("127.0.0.1:8321"));
        assert_eq!(of("http://martd:8321/").as_deref(), Some("martd:8321"));
        assert_eq!(of("[::1]:80").as_deref(), Some("[::1]:80"));
        assert_eq!(of("unix:/run/martd/martd.sock").as_deref(), Some("unix:/run/martd/martd.sock"));
        for wrong in ["martd", "martd:", "martd:99999", "http://martd:1/x"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
