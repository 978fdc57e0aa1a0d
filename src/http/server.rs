//! Accepts connections and serves them until told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{App, routes};

/// How long a client may take to send its request's head, also on an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest request head.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long to wait after an accept failed, for example for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves until `shutdown` resolves; then stops accepting and returns once every request in flight
/// is answered. The caller bounds that wait.
pub async fn serve(listener: TcpListener, app: App, shutdown: impl Future<Output = ()>) {
    let connections = Arc::new(Semaphore::new(app.settings().max_connections));
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = &mut shutdown => break,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                app.metrics().accept_failed();
                warn!(%error, "no connection can be accepted");
                sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let open = app.metrics().connection();
        let app = app.clone();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| routes::handle(app.clone(), request)),
            );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
            drop((permit, open));
        });
    }
    drop(listener); // the port is free from here on
    info!("finishing {} connections", graceful.count());
    graceful.shutdown().await;
}

/// Takes a place before it accepts: clients beyond the limit wait in the kernel's backlog.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.expect("never closed");
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
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
