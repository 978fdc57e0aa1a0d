//! Snapshots that were replaced: those that can still be read, and the ids of others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::{Retained, Snapshot};

/// Ids that are remembered: a request for one of them need not wait for what will not come.
const REMEMBERED: usize = 256;

/// What was replaced.
#[derive(Debug)]
pub(super) struct Retention {
    time: Duration,
    count: usize,
    kept: Vec<Retained>,
    gone: Arc<VecDeque<String>>,
}

impl Retention {
    /// Keeps so many snapshots for so long.
    pub(super) fn new(time: Duration, count: usize) -> Self {
        Self { time, count, kept: Vec::new(), gone: Arc::default() }
    }

    /// Keeps a snapshot that was replaced.
    pub(super) fn keep(&mut self, snapshot: Arc<Snapshot>, now: Instant) {
        self.kept.insert(0, Retained { snapshot, replaced: now });
        self.expire(now);
    }

    /// Lets go of what was kept long enough, and of the oldest of too many.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_kept = |retained: &Retained| now.duration_since(retained.replaced) < self.time;
        // They were replaced one after the other.
        let count = self.kept.iter().take(self.count).take_while(|known| is_kept(known)).count();
        for Retained { snapshot, .. } in self.kept.drain(count..) {
            let gone = Arc::make_mut(&mut self.gone);
            gone.push_front(snapshot.id.clone());
            gone.truncate(REMEMBERED);
        }
    }

    /// When the next one goes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.kept.last().map(|oldest| oldest.replaced + self.time)
    }

    /// The snapshots that can be read, the newest first.
    pub(super) fn kept(&self) -> &[Retained] {
        &self.kept
    }

    /// The ids of those that cannot, the newest first.
    pub(super) fn gone(&self) -> &Arc<VecDeque<String>> {
        &self.gone
    }
}
