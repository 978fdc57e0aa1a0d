//! The one writer: turns hints into scans, scans into pins, and pins into snapshots.
//!
//! One thread, the [`Writer`], owns all state here and sleeps in its mailbox. Pinning happens on it, at
//! once, so that no version of a file is missed while an earlier one is being published. Each version
//! goes to the [`Pool`] as it lands, and what was chosen to be served waits for its tables. Opening a
//! database takes milliseconds, so a second thread ([`Publisher`]) does that: one target in flight;
//! what changed meanwhile is decided anew when it is done.

mod burst;
mod changes;
mod entry;
mod files;
mod inspect;
mod kept;
mod ledger_files;
mod publisher;
mod reading;
mod retention;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::error;

use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::events::Events;
use crate::legacy::LegacyFile;
use crate::marts::build::{self, Outcome, Pool};
use crate::metrics::Metrics;
use crate::pin::Budget;
use crate::state::StateDir;
use crate::watch::WatchSetting;

pub use inspect::{Inspected, Inspection, Intake, inspect};

use kept::Kept;
use publisher::{Opener, PreparedSnapshot, Publisher};
use writer::Writer;

/// What the refresh thread needs to know.
#[derive(Debug, Clone)]
pub struct RefreshSettings {
    /// Where marts come from, and what decides about them.
    pub intake: Intake,
    /// `MARTD_WATCH`
    pub watch: WatchSetting,
    /// How long a replaced snapshot can still be read…
    pub retain_for: Duration,
    /// …and how many of them.
    pub retain_count: usize,
    /// How many builds the state directory keeps.
    pub keep_builds: usize,
    /// The schemas under which every mart can be named.
    pub schemas: Vec<String>,
}

/// What there may be to serve before the directory has something better.
#[derive(Debug)]
pub struct BeginWith {
    /// `MARTD_STATE_DIR`: what was published last.
    pub state: Option<Arc<StateDir>>,
    /// `DUCKDB_PATH`, until there is a mart.
    pub legacy: Option<LegacyFile>,
}

/// Posts messages to the refresh thread. A clone posts to the same thread.
#[derive(Debug, Clone)]
pub struct Mailbox {
    sender: Sender<RefreshMessage>,
    /// Whether a hint lies there unread: a second one would say nothing more.
    hinted: Arc<AtomicBool>,
}

#[derive(Debug)]
enum RefreshMessage {
    Hint,
    Built(Outcome),
    Prepared(Box<PreparedSnapshot>),
    Stop,
}

impl Mailbox {
    /// Asks for a scan.
    pub fn hint(&self) {
        if !self.hinted.swap(true, Ordering::AcqRel) {
            self.post(RefreshMessage::Hint);
        }
    }

    fn post(&self, message: RefreshMessage) {
        let _ = self.sender.send(message); // the thread may have stopped
    }
}

/// Counts what the refresh thread does, so that one that stands still can be told. A clone counts
/// the same.
#[derive(Debug, Clone)]
pub struct Pulse {
    loops: Arc<AtomicU64>,
    /// Reading a large file takes its time, and is no standstill.
    budget: Arc<Budget>,
}

impl Pulse {
    /// A number that grows at least once a second while the thread goes on.
    pub fn count(&self) -> u64 {
        self.loops.load(Ordering::Relaxed).wrapping_add(self.budget.bytes_read())
    }
}

/// The running refresh thread. Stops when dropped.
#[derive(Debug)]
pub struct Refresh {
    mailbox: Mailbox,
    pulse: Pulse,
    pool: Arc<Pool>,
    thread: Option<JoinHandle<()>>,
}

impl Refresh {
    /// Starts watching and publishing into `catalog`. `builders` is how tables are built, and `engine`
    /// what answers over them.
    ///
    /// # Errors
    /// When a thread cannot be had.
    pub fn start(
        settings: RefreshSettings,
        builders: build::BuilderSettings,
        engine: Engine,
        catalog: Catalog,
        events: Events,
        begin_with: BeginWith,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let BeginWith { state, legacy } = begin_with;
        let (sender, inbox) = mpsc::channel();
        let mailbox = Mailbox { sender, hinted: Arc::new(AtomicBool::new(false)) };
        let restored = state.as_ref().and_then(|state| state.restore(&metrics.pins));
        let reports = mailbox.clone();
        let report = move |outcome| reports.post(RefreshMessage::Built(outcome));
        let pool = Arc::new(Pool::start(builders, report)?);
        let opener =
            Opener::new(Arc::clone(&pool), engine, settings.schemas.clone(), metrics.clone());
        let publisher = Publisher::start(opener, mailbox.clone(), state.clone())?;
        let pulse = Pulse { loops: Arc::default(), budget: Arc::clone(&metrics.pins) };
        let mut writer = Writer::new(
            settings,
            (catalog, events),
            Arc::clone(&pool),
            publisher,
            mailbox.clone(),
            metrics,
            pulse.clone(),
        );
        writer.begin(restored, Kept::new(state), legacy);
        let thread =
            thread::Builder::new().name("refresh".to_owned()).spawn(move || writer.run(&inbox))?;
        Ok(Self { mailbox, pulse, pool, thread: Some(thread) })
    }

    /// What tells that the thread goes on.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Scans at once, and has everything built again that was rejected for no lasting reason.
    pub fn reload(&self) {
        self.mailbox.hint();
        self.pool.retry_now();
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.mailbox.post(RefreshMessage::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the refresh thread had panicked");
        }
    }
}
