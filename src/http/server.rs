//! Accepts connections and serves them until told to stop.

use std::collections::VecDeque;
use std::fs::File;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::origin::{Door, Peer};
use super::routes::{self, Surface};
use super::{App, Timeouts};
use crate::listen::Socket;
use crate::pin::descriptor_limit;

/// The largest request head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long to wait after an accept failed, for example for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Connections for probes and metrics that are open at once.
const ADMIN_CONNECTIONS: usize = 32;
/// Descriptors that are kept for them, so that they can be accepted when there are no others.
const ADMIN_DESCRIPTORS: usize = 4;
/// Connections take one of this many descriptors at most; marts take half, queries have the rest.
const CONNECTIONS_SHARE: u64 = 4;
/// A connection that has asked for nothing for this long gives way when connections are short.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// After the end was announced, how long a connection may take to send a request.
const LAST_REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// A connection that has asked for nothing yet gives way to a new one when all connections are taken.
#[derive(Debug)]
struct Newcomer {
    came: Instant,
    has_asked: AtomicBool,
    leave: CancellationToken,
}

/// Sockets that are served alike, and share one limit of connections.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    /// The one that is asked first, so that none starves another.
    next: usize,
    app: App,
    surface: Surface,
    permits: Arc<Semaphore>,
    /// The oldest first; also some that have asked since, or are gone.
    newcomers: VecDeque<Weak<Newcomer>>,
    spare: Vec<File>,
}

impl Server {
    /// A server of everything.
    ///
    /// # Errors
    /// When a socket cannot be used, or this is no runtime.
    pub fn new(sockets: Vec<Socket>, app: App) -> io::Result<Self> {
        let wanted = app.settings.max_connections;
        let room = usize::try_from(descriptor_limit() / CONNECTIONS_SHARE).unwrap_or(wanted);
        if room < wanted {
            warn!("the limit of descriptors has room for {room} connections, not for {wanted}");
        }
        Self::of(sockets, app, Surface::Everything, wanted.min(room.max(1)))
    }

    /// A server of probes and metrics, which answers when the other is saturated or descriptors have
    /// run out.
    ///
    /// # Errors
    /// When a socket cannot be used, or this is no runtime.
    pub fn admin(sockets: Vec<Socket>, app: App) -> io::Result<Self> {
        let mut server = Self::of(sockets, app, Surface::Admin, ADMIN_CONNECTIONS)?;
        server.refill();
        Ok(server)
    }

    fn of(
        sockets: Vec<Socket>,
        app: App,
        surface: Surface,
        connections: usize,
    ) -> io::Result<Self> {
        crate::listen::set_nonblocking(&sockets)?;
        Ok(Self {
            listeners: sockets.into_iter().map(Listener::new).collect::<io::Result<_>>()?,
            next: 0,
            app,
            surface,
            permits: Arc::new(Semaphore::new(connections)),
            newcomers: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    /// Serves until `shutdown` resolves; then stops accepting and returns once every request in flight
    /// is answered. The caller bounds that wait.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let graceful = GracefulShutdown::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, permit)) => self.serve(stream, permit, &graceful),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.app.metrics.accept_errors.inc();
                    warn!(%error, "no connection can be accepted");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
        self.empty_backlog(&graceful);
        self.listeners.clear(); // the port is free from here on
        if matches!(self.surface, Surface::Everything) {
            info!("finishing {} connections", graceful.count());
        }
        let app = self.app.clone();
        tokio::select! {
            () = graceful.shutdown() => {}
            () = async {
                // A client that never sends a request keeps nobody waiting.
                loop {
                    sleep(LAST_REQUEST_WITHIN).await;
                    if app.in_flight.load(Ordering::Acquire) == 0 {
                        return;
                    }
                }
            } => {}
        }
    }

    /// Takes a permit before it accepts: clients beyond the limit wait in the kernel's backlog.
    async fn accept(&mut self) -> io::Result<(Stream, OwnedSemaphorePermit)> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_place().await,
        };
        let mut accepted = poll_fn(|context| self.poll_accept(context)).await;
        if accepted.as_ref().is_err_and(is_out_of_descriptors) && self.spare.pop().is_some() {
            accepted = poll_fn(|context| self.poll_accept(context)).await;
        } else {
            self.refill();
        }
        Ok((accepted?, permit))
    }

    /// All are taken: the oldest connection that has asked for nothing for a while gives up its own.
    async fn wait_for_place(&mut self) -> OwnedSemaphorePermit {
        loop {
            self.make_room();
            let permit = Arc::clone(&self.permits).acquire_owned();
            if let Ok(permit) = timeout(SILENT_FOR, permit).await {
                return permit.expect("never closed");
            }
        }
    }

    fn make_room(&mut self) {
        let oldest = oldest_silent(&mut self.newcomers);
        if let Some(oldest) = oldest.filter(|oldest| oldest.came.elapsed() >= SILENT_FOR) {
            oldest.leave.cancel();
            self.newcomers.pop_front();
        }
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let count = self.listeners.len();
        for index in (self.next..count).chain(0..self.next) {
            if let Poll::Ready(accepted) = self.listeners[index].poll_accept(context) {
                self.next = (index + 1) % count;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    /// Whoever connected before the listener closes is answered still.
    fn empty_backlog(&mut self, graceful: &GracefulShutdown) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
            && let Poll::Ready(Ok(stream)) = self.poll_accept(&mut context)
        {
            self.serve(stream, permit, graceful);
        }
    }

    fn serve(&mut self, stream: Stream, permit: OwnedSemaphorePermit, graceful: &GracefulShutdown) {
        match stream {
            Stream::Tcp(stream) => {
                let loopback =
                    stream.local_addr().is_ok_and(|local| local.ip().to_canonical().is_loopback());
                let door = if loopback { Door::Loopback } else { Door::Network };
                let address = stream.peer_addr().ok().map(|peer| peer.ip().to_canonical());
                self.serve_on(stream, Peer { door, address }, permit, graceful);
            }
            Stream::Unix(stream) => {
                let peer = Peer { door: Door::UnixSocket, address: None };
                self.serve_on(stream, peer, permit, graceful);
            }
        }
    }

    fn serve_on<S>(
        &mut self,
        stream: S,
        peer: Peer,
        permit: OwnedSemaphorePermit,
        graceful: &GracefulShutdown,
    ) where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Timeouts { header, stall, .. } = self.app.settings.timeouts;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(stall));
        let open = self.app.metrics.connection();
        let (app, surface) = (self.app.clone(), self.surface);
        let newcomer = Arc::new(Newcomer {
            came: Instant::now(),
            has_asked: AtomicBool::new(false),
            leave: CancellationToken::new(),
        });
        // One that has asked may stay for days: behind it, those that are gone must not pile up.
        let _ = oldest_silent(&mut self.newcomers);
        self.newcomers.push_back(Arc::downgrade(&newcomer));
        let asking = Arc::clone(&newcomer);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(
                TokioIo::new(Box::pin(stream)),
                service_fn(move |request| {
                    asking.has_asked.store(true, Ordering::Release);
                    routes::handle(app.clone(), surface, peer, request)
                }),
            );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let left = async {
                newcomer.leave.cancelled().await;
                if newcomer.has_asked.load(Ordering::Acquire) {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                outcome = connection => if let Err(error) = outcome {
                    debug!(%error, "a connection ended early");
                },
                () = left => debug!("a connection that had asked for nothing made room for another"),
            }
            drop((permit, open));
        });
    }

    /// Opens what was spent of the spare descriptors.
    fn refill(&mut self) {
        let wanted = match self.surface {
            Surface::Admin if !self.listeners.is_empty() => ADMIN_DESCRIPTORS,
            _ => 0,
        };
        while self.spare.len() < wanted {
            let Ok(file) = File::open("/") else { return };
            self.spare.push(file);
        }
    }
}

/// The oldest connection that has asked for nothing; forgets those before it, which are gone or have asked.
fn oldest_silent(newcomers: &mut VecDeque<Weak<Newcomer>>) -> Option<Arc<Newcomer>> {
    while let Some(oldest) = newcomers.front() {
        let oldest = oldest.upgrade().filter(|oldest| !oldest.has_asked.load(Ordering::Acquire));
        if oldest.is_some() {
            return oldest;
        }
        newcomers.pop_front();
    }
    None
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    fn new(socket: Socket) -> io::Result<Self> {
        match socket {
            Socket::Tcp(socket) => TcpListener::from_std(socket).map(Self::Tcp),
            Socket::Unix(socket) => UnixListener::from_std(socket).map(Self::Unix),
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(context).map(|accepted| {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }),
            Self::Unix(listener) => {
                listener.poll_accept(context).map(|accepted| Ok(Stream::Unix(accepted?.0)))
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomer(has_asked: bool) -> Arc<Newcomer> {
        Arc::new(Newcomer {
            came: Instant::now(),
            has_asked: AtomicBool::new(has_asked),
            leave: CancellationToken::new(),
        })
    }

    #[test]
    fn closed_connections_do_not_pile_up() {
        let (stays, silent) = (newcomer(true), newcomer(false));
        let mut newcomers = VecDeque::from([Arc::downgrade(&stays)]);
        newcomers.extend((0..1_000).map(|_| Arc::downgrade(&newcomer(true))));
        newcomers.push_back(Arc::downgrade(&silent));
        let oldest = oldest_silent(&mut newcomers).expect("one is silent");
        assert!(Arc::ptr_eq(&oldest, &silent));
        assert_eq!(newcomers.len(), 1);
    }
}
