//! What waits to be built, what is being built, what is known, and what is tried again.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use quick_cache::unsync::Cache;

use super::{BuildResult, BuiltTable, FileRejection, Outcome, Verdict};
use crate::digest::Digest;
use crate::mart_pin::MartPin;
use crate::pin::PinKind;

/// Lasting rejections that are remembered.
const REMEMBERED: usize = 8_192;
/// Pauses before a content is tried again: the first, which doubles each time, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Who wants to know what a content came to.
#[derive(Debug)]
pub(super) enum Asker {
    /// Whoever listens to the pool.
    Report {
        /// The mart's name.
        name: String,
        /// Whether a snapshot waits for this version, so that no newer one takes its place.
        is_wanted: bool,
    },
    /// A caller that waits. `None` when its file was rewritten.
    Caller(Sender<(Digest, Option<Verdict>)>),
}

#[derive(Debug)]
struct Waiter {
    pin: Arc<MartPin>,
    asker: Asker,
}

/// A content that waits, or is being built.
#[derive(Debug, Default)]
struct QueuedContent {
    waiters: Vec<Waiter>,
    is_under_way: bool,
}

/// A content that was rejected for no lasting reason.
#[derive(Debug)]
struct Again {
    rejection: FileRejection,
    attempts: u32,
    due: Instant,
    /// Whoever holds none of these pins any more does not care.
    pins: Vec<(String, Weak<MartPin>)>,
}

/// What a worker is to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Say this to whoever listens.
    Report(Outcome),
    /// Build this, and call [`Queue::finish`].
    Build(Arc<MartPin>),
    /// Wait for a change, until this moment if there is one.
    Wait(Option<Instant>),
}

#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Digest>,
    entries: HashMap<Digest, QueuedContent>,
    outcomes: VecDeque<Outcome>,
    tables: HashMap<Digest, Weak<BuiltTable>>,
    rejected: Cache<Digest, FileRejection>,
    again: HashMap<Digest, Again>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            entries: HashMap::new(),
            outcomes: VecDeque::new(),
            tables: HashMap::new(),
            rejected: Cache::new(REMEMBERED),
            again: HashMap::new(),
        }
    }

    /// What is known of a content. A rejection that is not lasting is known until it is tried again.
    pub(super) fn verdict(&self, hash: &Digest) -> Option<Verdict> {
        if let Some(table) = self.tables.get(hash).and_then(Weak::upgrade) {
            return Some(Ok(table));
        }
        let rejection = self.rejected.peek(hash);
        let rejection = rejection.or_else(|| self.again.get(hash).map(|again| &again.rejection));
        rejection.cloned().map(Err)
    }

    /// Enters that somebody wants to know of a pin.
    pub(super) fn ask(&mut self, pin: Arc<MartPin>, asker: Asker) {
        let hash = pin.hash();
        if let Asker::Report { name, is_wanted: false } = &asker {
            self.supersede(name, hash);
        }
        // What is being tried again is waited for.
        if !self.entries.contains_key(&hash)
            && let Some(verdict) = self.verdict(&hash)
        {
            if let (Some(again), Asker::Report { name, .. }) = (self.again.get_mut(&hash), &asker) {
                again.pins.push((name.clone(), Arc::downgrade(&pin)));
            }
            return self.answer(Waiter { pin, asker }, Some(verdict));
        }
        self.enter(Waiter { pin, asker });
    }

    fn enter(&mut self, waiter: Waiter) {
        let hash = waiter.pin.hash();
        let entry = self.entries.entry(hash).or_default();
        if entry.waiters.is_empty() && !entry.is_under_way {
            self.waiting.push_back(hash);
        }
        entry.waiters.push(waiter);
    }

    /// Drops older versions of a mart that have not been begun with.
    fn supersede(&mut self, name: &str, hash: Digest) {
        let is_of = |waiter: &mut Waiter| matches!(&waiter.asker, Asker::Report { name: known, is_wanted: false } if known == name);
        for (_, entry) in
            self.entries.iter_mut().filter(|(known, entry)| **known != hash && !entry.is_under_way)
        {
            for waiter in entry.waiters.extract_if(.., is_of) {
                let result = BuildResult::Superseded;
                self.outcomes.push_back(Outcome { name: name.to_owned(), pin: waiter.pin, result });
            }
        }
        self.entries.retain(|_, entry| entry.is_under_way || !entry.waiters.is_empty());
        self.waiting.retain(|hash| self.entries.contains_key(hash));
        for again in self.again.values_mut() {
            again.pins.retain(|(known, _)| known != name);
        }
        self.again.retain(|known, again| *known == hash || !again.pins.is_empty());
    }

    /// The next thing to do at this moment.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        self.enter_due(now);
        if let Some(outcome) = self.outcomes.pop_front() {
            return Step::Report(outcome);
        }
        if let Some(hash) = self.waiting.pop_front()
            && let Some(entry) = self.entries.get_mut(&hash)
        {
            entry.is_under_way = true;
            // A copy in memory cannot be rewritten.
            let copied = entry.waiters.iter().find(|waiter| waiter.pin.kind() == PinKind::Memory);
            if let Some(waiter) = copied.or(entry.waiters.first()) {
                return Step::Build(Arc::clone(&waiter.pin));
            }
        }
        Step::Wait(self.again.values().map(|again| again.due).filter(|due| *due > now).min())
    }

    fn enter_due(&mut self, now: Instant) {
        let mut waiters = Vec::new();
        self.again.retain(|hash, again| {
            let is_due = again.due <= now && !self.entries.contains_key(hash);
            if !is_due {
                return true;
            }
            let alive = again.pins.drain(..).filter_map(|(name, pin)| Some((name, pin.upgrade()?)));
            let before = waiters.len();
            waiters.extend(alive.map(|(name, pin)| {
                let asker = Asker::Report { name, is_wanted: false };
                Waiter { pin, asker }
            }));
            waiters.len() > before // nobody cares any more
        });
        for waiter in waiters {
            self.enter(waiter);
        }
    }

    /// Makes everything that is to be tried again due.
    pub(super) fn retry_now(&mut self, now: Instant) {
        for again in self.again.values_mut() {
            again.due = now;
        }
    }

    /// Enters what building a pin came to; `None` when it was rewritten meanwhile.
    pub(super) fn finish(&mut self, pin: &Arc<MartPin>, verdict: Option<Verdict>, now: Instant) {
        let hash = pin.hash();
        let mut waiters = self.entries.remove(&hash).unwrap_or_default().waiters;
        match &verdict {
            Some(Ok(table)) => {
                self.tables.retain(|_, table| table.strong_count() > 0);
                self.tables.insert(hash, Arc::downgrade(table));
                self.again.remove(&hash);
            }
            Some(Err(rejection)) if rejection.lasting => {
                self.rejected.insert(hash, rejection.clone());
                self.again.remove(&hash);
            }
            Some(Err(rejection)) => self.note_again(hash, rejection, &waiters, now),
            None => {
                // What others hold of the same content may be as it was.
                let intact =
                    |waiter: &mut Waiter| !Arc::ptr_eq(&waiter.pin, pin) && waiter.pin.is_intact();
                let intact: Vec<_> = waiters.extract_if(.., intact).collect();
                for waiter in intact {
                    self.enter(waiter);
                }
            }
        }
        for waiter in waiters {
            self.answer(waiter, verdict.clone());
        }
    }

    fn note_again(
        &mut self,
        hash: Digest,
        rejection: &FileRejection,
        waiters: &[Waiter],
        now: Instant,
    ) {
        let attempts = self.again.get(&hash).map_or(0, |again| again.attempts);
        let mut pins = Vec::new();
        for waiter in waiters {
            if let Asker::Report { name, .. } = &waiter.asker {
                pins.push((name.clone(), Arc::downgrade(&waiter.pin)));
            }
        }
        if pins.is_empty() {
            self.again.remove(&hash);
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << attempts.min(16)).min(LONGEST_PAUSE);
        let rejection = rejection.clone();
        let again = Again { rejection, attempts: attempts + 1, due: now + pause, pins };
        self.again.insert(hash, again);
    }

    fn answer(&mut self, waiter: Waiter, verdict: Option<Verdict>) {
        match waiter.asker {
            Asker::Report { name, .. } => {
                let result = BuildResult::from(verdict);
                self.outcomes.push_back(Outcome { name, pin: waiter.pin, result });
            }
            Asker::Caller(caller) => drop(caller.send((waiter.pin.hash(), verdict))),
        }
    }
}
