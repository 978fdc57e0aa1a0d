//! What the service manager is told, over the socket in `NOTIFY_SOCKET`: that martd listens, what it
//! serves or waits for, and that it is alive. Without that socket all of this is nothing.
//!
//! `READY=1` says that martd listens, not that there is a snapshot: the first build may be hours
//! away, and a start that times out until then would be tried again for ever. What waits for data
//! asks `/readyz`, and `STATUS=` tells people.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tracing::{error, warn};

use crate::catalog::{Catalog, State};
use crate::http::{self, App};
use crate::refresh::Pulse;

/// The watchdog is fed this often in its time; one lost beat is not the end.
const BEATS: u32 = 3;
/// File names and reasons in a status are cut after this many characters.
const REASON_CHARACTERS: usize = 160;

/// Says that martd listens.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that martd reads its files again.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "the clock cannot be read"),
    }
}

/// Says that martd finishes what is in flight.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing requests in flight")]);
}

/// Keeps the status up to date, for as long as the runtime lives.
pub async fn report(catalog: Catalog) {
    let mut changes = catalog.subscribe();
    let mut told = String::new();
    loop {
        let status = status(&catalog.load());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Feeds the watchdog, if there is one, as long as the refresh thread goes on and a request is
/// answered. What stops doing either is stopped and started again by the service manager.
///
/// # Errors
/// When a thread cannot be had.
pub fn watch_over(app: App, pulse: Pulse, runtime: Handle) -> io::Result<()> {
    let Some(limit) = sd_notify::watchdog_enabled() else { return Ok(()) };
    // Not a task: a runtime that is stuck must not keep its own watchdog from noticing.
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let beat = limit / BEATS;
        let mut last = pulse.count();
        loop {
            thread::sleep(beat);
            let count = pulse.count();
            match (count != last, answers(&app, &runtime, beat)) {
                (true, true) => tell(&[NotifyState::Watchdog]),
                (false, _) => error!("the refresh thread has stood still for {beat:?}"),
                (_, false) => error!("a request to martd itself was not answered in {beat:?}"),
            }
            last = count;
        }
    })?;
    Ok(())
}

fn answers(app: &App, runtime: &Handle, limit: Duration) -> bool {
    let (sender, answer) = mpsc::channel();
    let asked = http::client::answers_live(app.clone());
    runtime.spawn(async move {
        let _ = sender.send(asked.await); // it may have come too late
    });
    answer.recv_timeout(limit).unwrap_or(false)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager cannot be told");
    }
}

/// What is served or waited for, in a line.
fn status(state: &State) -> String {
    let mut parts = Vec::new();
    match &state.snapshot {
        Some(snapshot) => {
            let marts = snapshot.marts.len();
            let verified = if snapshot.verified { "" } else { ", unverified" };
            parts.push(format!("serving snapshot {} ({marts} marts{verified})", &snapshot.id));
            parts.extend(state.directory.clone());
            parts.extend(state.held_back().map(|held| format!("held: {}", held.hold.reason)));
            parts.extend(state.rejected.first().map(|fault| {
                let count = state.rejected.len();
                format!("{count} rejected: {} {}", fault.file, fault.reason)
            }));
        }
        None => parts.push(format!("waiting: {}", http::why_nothing(state))),
    }
    // A status is a line, and a file's name may hold anything.
    let line = |part: &String| -> String {
        let clean = part.chars().map(|c| if c.is_control() { ' ' } else { c });
        clean.take(REASON_CHARACTERS).collect()
    };
    parts.iter().map(line).collect::<Vec<_>>().join("; ")
}
