//! The PostgreSQL protocol: the same questions as over HTTP, for the clients that speak it.
//!
//! [`PgServer`] accepts connections, learns who comes and lets them cancel; [`connections`] says who gives way
//! when there are too many. [`session`] is the life of one, with [`extended`]; [`portal`] is what is prepared,
//! [`command`] the statements about the session itself, [`error`] how it is told what went wrong. [`shape`] is
//! what is a message, [`wire`] its bytes, [`types`] what it sends, [`rows`] what it is sent. Rows are encoded by
//! the engine ([`crate::encode::postgres`]); who may ask what is decided by [`crate::http::PgClient`].
//! [`PgSettings`] says where it is served.
//!
//! **Invariants.** Passwords are tokens and come in clear text, so they come over TLS ([`tls`]), loopback or a
//! Unix socket alone. A transaction reads one snapshot. A portal that waits for its client holds no slot.

mod command;
mod connections;
mod error;
mod extended;
mod portal;
mod rows;
mod session;
mod settings;
mod shape;
mod tls;
mod types;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey, Startup,
};
use pgwire::messages::{
    PgWireBackendMessage as Out, PgWireFrontendMessage as In, SslNegotiationMetaMessage as Ssl,
};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::http::{App, PgClient};
use crate::listen::{self, Socket};
use connections::{OpenConnection, OpenConnections};
use error::{PgError, PgFailure};
use session::PgSession;
pub use settings::{PgArgs, PgSettings};
pub use tls::Tls;
use wire::{Io, Wire};

/// The version that clients are told, whose catalog they then ask for.
const SERVER_VERSION: &str = concat!("13.0 (martd ", env!("CARGO_PKG_VERSION"), ")");
/// How long to wait after an accept failed, for example for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Connections beyond the limit, of clients that are about to say who they are, or whom they cancel.
const NEWCOMERS: usize = 16;
/// How often one of them gives way while others wait.
const MAKE_ROOM_EVERY: Duration = Duration::from_millis(20);

/// What all connections share. A clone is a pointer.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    app: App,
    connections: Arc<Semaphore>,
    open: OpenConnections,
    room: Arc<Semaphore>,
    next: AtomicI32,
    /// The clients that can cancel, by their number and secret.
    clients: Mutex<HashMap<(i32, i32), PgClient>>,
    ending: CancellationToken,
    tls: Option<Tls>,
}

/// Sockets on which the protocol is spoken.
pub struct PgServer {
    sockets: Vec<Socket>,
    shared: Shared,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl PgServer {
    /// A server over these sockets.
    ///
    /// # Errors
    /// When a socket cannot be used.
    pub fn new(sockets: Vec<Socket>, app: App, settings: PgSettings) -> io::Result<Self> {
        listen::set_nonblocking(&sockets)?;
        let shared = Shared(Arc::new(Inner {
            connections: Arc::new(Semaphore::new(app.settings.max_connections + NEWCOMERS)),
            open: OpenConnections::new(app.settings.max_connections),
            room: Arc::new(Semaphore::new(
                usize::try_from(settings.waiting_bytes)
                    .unwrap_or(usize::MAX)
                    .min(Semaphore::MAX_PERMITS),
            )),
            next: AtomicI32::new(1),
            clients: Mutex::default(),
            ending: CancellationToken::new(),
            tls: settings.tls,
            app,
        }));
        Ok(Self { sockets, shared })
    }

    /// Serves until `shutdown` resolves; then tells idle connections to go, and returns once none is left.
    /// The caller bounds that wait.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { sockets, shared } = self;
        let accepting: Vec<_> =
            sockets.into_iter().map(|socket| tokio::spawn(shared.clone().accept(socket))).collect();
        shutdown.await;
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        shared.0.ending.cancel();
        let all =
            u32::try_from(shared.0.app.settings.max_connections + NEWCOMERS).unwrap_or(u32::MAX);
        let _ = shared.0.connections.acquire_many(all).await; // never closed
    }
}

impl Shared {
    async fn accept(self, socket: Socket) {
        let failed = |error: &io::Error| warn!(%error, "no PostgreSQL connection can be accepted");
        let listener = match socket {
            Socket::Tcp(socket) => TcpListener::from_std(socket).map(Listener::Tcp),
            Socket::Unix(socket) => UnixListener::from_std(socket).map(Listener::Unix),
        };
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => return failed(&error),
        };
        loop {
            let permit = self.room_for_one().await;
            let accepted = match &listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                    let _ = stream.set_nodelay(true); // only slower without
                    let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
                    self.serve(stream, Some(peer.ip().to_canonical()), permit);
                }),
                Listener::Unix(listener) => {
                    listener.accept().await.map(|(stream, _)| self.serve(stream, None, permit))
                }
            };
            if let Err(error) = accepted {
                failed(&error);
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }

    /// Taken before a connection is accepted: those beyond the limit wait in the kernel's backlog.
    async fn room_for_one(&self) -> OwnedSemaphorePermit {
        loop {
            let permit = Arc::clone(&self.0.connections).acquire_owned();
            if let Ok(permit) = timeout(MAKE_ROOM_EVERY, permit).await {
                return permit.expect("never closed");
            }
            self.0.open.make_room();
        }
    }

    fn serve(
        &self,
        stream: impl Io + 'static,
        address: Option<IpAddr>,
        permit: OwnedSemaphorePermit,
    ) {
        let shared = self.clone();
        let connection = shared.0.open.newcomer();
        tokio::spawn(async move {
            let _permit = permit;
            let timeouts = shared.0.app.settings.timeouts;
            let most = usize::try_from(shared.0.app.settings.max_body_bytes).unwrap_or(usize::MAX);
            let mut wire = Wire::new(stream, most, timeouts.stall);
            let started = timeout(timeouts.header, shared.start(&mut wire, address, &connection));
            let started = tokio::select! {
                started = started => started,
                () = connection.leave.cancelled() => {
                    debug!("a client that had not said who it is made room for another");
                    return;
                }
            };
            match started {
                Ok(Ok(Some((client, settings, key)))) => {
                    let (room, ending) = (Arc::clone(&shared.0.room), shared.0.ending.clone());
                    PgSession::new(wire, client, room, ending, settings, connection).run().await;
                    shared.0.clients.lock().remove(&key);
                }
                Ok(Err(PgFailure::Error(error))) => {
                    debug!(?error, "a PostgreSQL client was refused");
                    wire.push(error.response());
                    let _ = wire.flush().await; // it may be gone
                }
                Ok(Ok(None) | Err(PgFailure::Gone)) | Err(_) => {}
            }
        });
    }

    /// Learns who comes. `None` for one that only wanted to cancel another's query.
    #[allow(clippy::type_complexity, reason = "what a session is made of")]
    async fn start(
        &self,
        wire: &mut Wire,
        address: Option<IpAddr>,
        connection: &OpenConnection,
    ) -> Result<Option<(PgClient, BTreeMap<String, String>, (i32, i32))>, PgFailure> {
        let is_local = address.is_none_or(|address| address.is_loopback());
        let mut is_encrypted = false;
        let startup = loop {
            match readable(wire).await? {
                In::SslNegotiation(Ssl::PostgresSsl(_)) => match &self.0.tls {
                    Some(tls) if !is_encrypted => {
                        wire.push(Out::SslResponse(SslResponse::Accept));
                        wire.encrypt(tls).await?;
                        is_encrypted = true;
                    }
                    _ => wire.push(Out::SslResponse(SslResponse::Refuse)),
                },
                In::SslNegotiation(_) => wire.push(Out::GssEncResponse(GssEncResponse::Refuse)),
                In::CancelRequest(request) => {
                    let key = (request.pid, request.secret_key.as_i32().unwrap_or_default());
                    if let Some(client) = self.0.clients.lock().get(&key) {
                        client.cancel();
                    }
                    return Ok(None);
                }
                In::Startup(startup) => break startup,
                _ => return Err(PgError::fatal("08P01", "a start-up was expected").into()),
            }
        };
        wire.started();
        if self.0.tls.is_some() && !is_encrypted && !is_local {
            let message = "passwords come in clear text without TLS: set sslmode=require or more";
            return Err(PgError::fatal("28000", message).into());
        }
        let parameters = startup.parameters;
        let unknown = parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned();
        let unknown: Vec<String> = unknown.collect();
        if startup.protocol_number_minor > 0 || !unknown.is_empty() {
            let answer = NegotiateProtocolVersion::new(Startup::PROTOCOL_VERSION_3_0, unknown);
            wire.push(Out::NegotiateProtocolVersion(answer));
        }
        let user = parameters.get("user").cloned().unwrap_or_default();
        let app = &self.0.app;
        let token = match app.tokens.is_some() {
            true => {
                wire.push(Out::Authentication(Authentication::CleartextPassword));
                let password = match readable(wire).await? {
                    In::PasswordMessageFamily(message) => message.into_password().ok(),
                    _ => None,
                };
                let expected = || PgError::fatal("08P01", "a password was expected");
                Some(password.ok_or_else(expected)?.password)
            }
            false => None,
        };
        let client = PgClient::new(app, token, user, address);
        let admitted = client.admitted();
        let principal = admitted.map_err(|failure| PgError::from(failure).into_fatal())?;
        if !self.0.open.enter(connection, principal) {
            let message =
                "too many connections (MARTD_MAX_CONNECTIONS), and none is idle of who has more";
            return Err(PgError::fatal("53300", message).into());
        }
        wire.push(Out::Authentication(Authentication::Ok));
        let settings = settings(app, parameters);
        const REPORTED: [&str; 9] = [
            "server_version",
            "server_encoding",
            "client_encoding",
            "application_name",
            "DateStyle",
            "IntervalStyle",
            "TimeZone",
            "integer_datetimes",
            "standard_conforming_strings",
        ];
        for name in REPORTED {
            let value = settings.get(&name.to_ascii_lowercase()).cloned().unwrap_or_default();
            wire.push(Out::ParameterStatus(ParameterStatus::new(name.to_owned(), value)));
        }
        let mut secret = [0; 4];
        let drawn = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
        if drawn != Ok(secret.len()) {
            return Err(PgError::fatal("58000", "no random numbers can be had").into());
        }
        let secret = i32::from_be_bytes(secret);
        let key = (self.0.next.fetch_add(1, Ordering::Relaxed), secret);
        self.0.clients.lock().insert(key, client.clone());
        wire.push(Out::BackendKeyData(BackendKeyData::new(key.0, SecretKey::I32(key.1))));
        Ok(Some((client, settings, key)))
    }
}

/// The next message of a client that is not known yet.
async fn readable(wire: &mut Wire) -> Result<In, PgFailure> {
    match wire.receive().await? {
        (message, None) => Ok(message),
        (_, Some(wrong)) => Err(wrong.into_fatal().into()),
    }
}

/// What SHOW answers.
fn settings(app: &App, given: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut settings: BTreeMap<String, String> = [
        ("server_version", SERVER_VERSION),
        ("server_version_num", "130000"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("datestyle", "ISO, YMD"),
        ("intervalstyle", "postgres"),
        ("timezone", app.settings.time_zone.as_str()),
        ("statement_timeout", format!("{}ms", app.settings.query_timeout.as_millis()).as_str()),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("transaction_isolation", "repeatable read"),
        ("transaction_read_only", "on"),
        ("default_transaction_read_only", "on"),
        ("search_path", "mart"),
        ("is_superuser", "off"),
        ("max_identifier_length", "63"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let name = given.get("application_name").cloned().unwrap_or_default();
    settings.insert("application_name".to_owned(), name);
    settings
}
