//! What happened, for those who listen: the last events, numbered.
//!
//! Events are read off the difference of two states, so nothing that changes the state has to tell.
//! The log keeps a fixed number of them and knows nothing of its readers: each has a number up to
//! which it has read, and one that is too slow learns how many it missed.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::catalog::{Held, Snapshot, State};
use crate::scan::Fault;

/// The events that can still be read.
const KEPT: usize = 256;
/// The names of changed marts that an event lists.
const NAMED: usize = 50;

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Counts from 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What: `snapshot`, `building`, `held`, `rolled-back`, `released`, `rejected`, `recovered` or
    /// `removed`.
    pub kind: &'static str,
    /// The particulars.
    pub data: Arc<Json>,
}

/// Events after a number.
#[derive(Debug)]
pub struct Batch {
    /// Events that were dropped before they were read.
    pub missed: u64,
    /// The events, the oldest first.
    pub events: Vec<Event>,
}

/// The last events. A clone is a handle on the same.
#[derive(Debug, Clone)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Tells this process's numbers from those of the one before.
    process: String,
    kept: Mutex<VecDeque<Event>>,
    last: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        let random = Uuid::now_v7().simple().to_string();
        Self(Arc::new(Shared {
            process: random[random.len() - 8..].to_owned(),
            kept: Mutex::default(),
            last: watch::Sender::new(0),
        }))
    }
}

impl Events {
    /// The number of the last event; 0 before the first.
    pub fn last(&self) -> u64 {
        *self.0.last.borrow()
    }

    /// Notified of each new event.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.last.subscribe()
    }

    /// The id of an event, which no other process gives out.
    pub fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.0.process)
    }

    /// The number in an id of this process.
    pub fn number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&self.0.process)?.strip_prefix('-')?.parse().ok()?;
        (number <= self.last()).then_some(number)
    }

    /// At most `limit` events after a number.
    pub fn after(&self, number: u64, limit: usize) -> Batch {
        let kept = self.0.kept.lock();
        let first = kept.front().map_or(number + 1, |event| event.number);
        let missed = first.saturating_sub(number + 1);
        let events = kept.iter().filter(|event| event.number > number).take(limit);
        Batch { missed, events: events.cloned().collect() }
    }

    /// The newest events, the newest first.
    pub fn newest(&self, limit: usize) -> Vec<Event> {
        self.0.kept.lock().iter().rev().take(limit).cloned().collect()
    }

    /// Notes what is different in a new state. `is_there` says whether the directory has a file.
    pub(crate) fn note(&self, before: &State, after: &State, is_there: impl Fn(&str) -> bool) {
        let (old, new) = (before.snapshot.as_deref(), after.snapshot.as_deref());
        if let Some(new) = new
            && old.map(|old| old.generation) != Some(new.generation)
        {
            self.push("snapshot", published(old, new));
        }
        match (before.held_back(), after.held_back()) {
            (Some(old), None) => self.push("released", of_hold(old)),
            (old, Some(held)) if old.map(essence) != Some(essence(held)) => {
                let is_rollback = held.hold.rollback.is_some();
                self.push(if is_rollback { "rolled-back" } else { "held" }, of_hold(held));
            }
            _ => {}
        }
        if let (None, Some(files)) = (before.under_way(), after.under_way()) {
            self.push("building", of_hold(files));
        }
        let is_new = |fault: &&Fault| {
            let same = |old: &Fault| old.file == fault.file && old.reason == fault.reason;
            !before.rejected.iter().any(same)
        };
        for fault in after.rejected.iter().filter(is_new) {
            self.push("rejected", json!(fault));
        }
        for old in &before.rejected {
            if !after.rejected.iter().any(|fault| fault.file == old.file) {
                let kind = if is_there(&old.file) { "recovered" } else { "removed" };
                self.push(kind, json!({"file": old.file}));
            }
        }
    }

    fn push(&self, kind: &'static str, data: Json) {
        let mut kept = self.0.kept.lock();
        let number = self.last() + 1;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Event { number, at: Timestamp::now(), kind, data: Arc::new(data) });
        self.0.last.send_replace(number);
    }
}

fn published(before: Option<&Snapshot>, after: &Snapshot) -> Json {
    let hash = |snapshot: &Snapshot, name: &str| {
        snapshot.marts.get(name).map(|mart| mart.version.pin.hash())
    };
    let is_news =
        |name: &&String| before.and_then(|before| hash(before, name)) != hash(after, name);
    let gone = before.iter().flat_map(|before| before.marts.keys());
    let removed: Vec<&String> = gone.filter(|name| !after.marts.contains_key(*name)).collect();
    let changed: Vec<&String> = after.marts.keys().filter(is_news).collect();
    json!({
        "id": after.id,
        "generation": after.generation,
        "source": after.source,
        "published_at": after.published_at,
        "build": after.vouching().map(|ledger| &ledger.invocation_id),
        "verified": after.verified,
        "marts": after.marts.len(),
        "changed_marts": changed.len(),
        "changed": &changed[..changed.len().min(NAMED)],
        "removed_marts": removed.len(),
        "removed": &removed[..removed.len().min(NAMED)],
    })
}

fn of_hold(held: &Held) -> Json {
    let hold = &held.hold;
    // The ledger speaks of the last build; the files tell which one runs.
    let running = hold.pending.iter().find_map(|pending| pending.invocation_id.as_ref());
    let running = running.filter(|_| hold.outstanding.is_empty());
    json!({
        "invocation_id": running.or(hold.invocation_id.as_ref()),
        "reason": hold.reason,
        "outstanding": hold.outstanding.len(),
        "pending": hold.pending.len(),
        "rollback": hold.rollback,
        "since": held.since,
    })
}

/// What makes two holds the same to a listener: files come and go while a build runs.
fn essence(held: &Held) -> (&Option<String>, &Option<String>, Vec<&str>) {
    let outstanding = held.hold.outstanding.iter().map(|node| node.unique_id.as_str());
    (&held.hold.invocation_id, &held.hold.rollback, outstanding.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_learns_how_many_events_it_missed() {
        let events = Events::default();
        assert_eq!((events.after(0, 9).missed, events.after(0, 9).events.len()), (0, 0));
        for number in 0..1_000 {
            events.push("rejected", json!(number));
        }
        assert_eq!(events.0.kept.lock().len(), KEPT);
        let batch = events.after(10, 3);
        assert_eq!(batch.missed, 1_000 - KEPT as u64 - 10);
        let numbers: Vec<u64> = batch.events.iter().map(|event| event.number).collect();
        assert_eq!(numbers, [745, 746, 747]);
        assert_eq!(events.after(999, 9).events.len(), 1);
        assert_eq!((events.after(1_000, 9).missed, events.newest(1)[0].number), (0, 1_000));
    }

    #[test]
    fn an_id_of_another_process_is_none() {
        let (one, other) = (Events::default(), Events::default());
        one.push("rejected", Json::Null);
        assert_eq!(one.number(&one.id(1)), Some(1));
        assert_eq!(one.number(&one.id(2)), None);
        assert_eq!(other.number(&one.id(1)), None);
        assert_eq!(one.number("1"), None);
    }
}
