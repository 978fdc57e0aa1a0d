//! Signals as a stream of what they ask for.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// SIGTERM or SIGINT: finish what is in flight and stop; the second time, stop at once.
    Stop,
    /// SIGHUP: look at the directory, the token file and the certificate again.
    Reload,
}

/// Starts listening for SIGTERM, SIGINT and SIGHUP. From here on SIGXFSZ does not kill the process: a
/// write over RLIMIT_FSIZE fails like any other.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn listen() -> io::Result<mpsc::UnboundedReceiver<Ask>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGXFSZ])?;
    let (sender, asks) = mpsc::unbounded_channel();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let ask = match signal {
                SIGXFSZ => continue,
                SIGHUP => Ask::Reload,
                _ => Ask::Stop,
            };
            if sender.send(ask).is_err() {
                return;
            }
        }
    })?;
    Ok(asks)
}
