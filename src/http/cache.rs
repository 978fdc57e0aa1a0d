//! Answers kept as long as they are true.
//!
//! An answer is kept under everything that it depends on, the snapshot included: a new snapshot makes
//! old entries unreachable, and nothing is ever invalidated by time. Identical queries that are under
//! way at once run once ([`SharedCall`]), and stop when the last of them is gone.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use blake3::{Hash, Hasher};
use bytes::Bytes;
use headers::ETag;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;

use super::problem::Problem;
use crate::encode::Coding;

/// An answer takes at most this part of the cache, so that one cannot push out all others.
const LARGEST_PART: u64 = 8;
/// What an entry takes beside its bytes.
const ENTRY_BYTES: u64 = 256;
/// The mean answer, to size the cache's tables by.
const TYPICAL_BYTES: u64 = 8 << 10;

/// Everything that an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(Hash);

impl Key {
    /// The key of these parts, in this order.
    pub(super) fn of<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut hasher = Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize())
    }

    /// The tag of the answer. Weak: the bytes tell how long the query took, which may differ.
    pub(super) fn etag(&self) -> ETag {
        let text = format!("W/\"{}\"", &self.0.to_hex()[..32]);
        text.parse().expect("an entity tag")
    }
}

/// A whole answer. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    /// How the bytes are compressed.
    pub(super) coding: Coding,
    /// Whether rows were left out, for the formats that cannot say so inside.
    pub(super) truncated: bool,
    /// How many it has, for metrics and the log.
    pub(super) rows: u64,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Stored> for ByBytes {
    fn weight(&self, _: &Key, stored: &Stored) -> u64 {
        stored.bytes.len() as u64 + ENTRY_BYTES
    }
}

/// The answers that are kept, and those under way.
#[derive(Debug)]
pub(super) struct Answers {
    kept: Option<Cache<Key, Stored, ByBytes>>,
    largest: u64,
    calls: Mutex<HashMap<Key, Weak<SharedCall>>>,
}

impl Answers {
    /// Keeps answers of this many bytes in all; none with 0.
    pub(super) fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes / TYPICAL_BYTES).unwrap_or(usize::MAX).max(16);
        Self {
            kept: (bytes > 0).then(|| Cache::with_weighter(entries, bytes, ByBytes)),
            largest: bytes / LARGEST_PART,
            calls: Mutex::default(),
        }
    }

    /// The bytes that kept answers take, and how many they may.
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.kept.as_ref().map_or((0, 0), |kept| (kept.weight(), kept.capacity()))
    }

    /// The answer that is kept under a key.
    pub(super) fn get(&self, key: &Key) -> Option<Stored> {
        self.kept.as_ref()?.get(key)
    }

    /// Keeps an answer.
    pub(super) fn put(&self, key: Key, stored: Stored) {
        if let Some(kept) = self.kept.as_ref().filter(|_| stored.bytes.len() as u64 <= self.largest)
        {
            kept.insert(key, stored);
        }
    }

    /// The call of a query that is under way, or a new one that `start` begins.
    pub(super) fn join(
        &self,
        key: Key,
        start: impl FnOnce() -> SharedCall,
    ) -> (Arc<SharedCall>, bool) {
        let mut calls = self.calls.lock();
        if let Some(call) = calls.get(&key).and_then(Weak::upgrade)
            && !call.has_ended()
        {
            return (call, true);
        }
        calls.retain(|_, call| call.strong_count() > 0);
        let call = Arc::new(start());
        calls.insert(key, Arc::downgrade(&call));
        (call, false)
    }
}

/// How a query that several wait for ended.
#[derive(Debug, Clone)]
pub(super) enum CallOutcome {
    /// A whole answer, which all of them get.
    Whole(Stored),
    /// The same problem for all.
    Problem(Arc<Problem>),
    /// A stream, which only the one who started it can have; the others ask for themselves.
    Taken,
}

/// A query under way. Everyone who waits for it holds it, and it stops with the last of them.
#[derive(Debug)]
pub(super) struct SharedCall {
    pub(super) outcome: watch::Receiver<Option<CallOutcome>>,
    pub(super) cancel: Arc<DropGuard>,
    /// Dropped, it is aborted: it may be waiting for a slot still.
    pub(super) _task: JoinSet<()>,
}

impl SharedCall {
    fn has_ended(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Waits for the end.
    pub(super) async fn outcome(&self) -> Option<CallOutcome> {
        let mut outcome = self.outcome.clone();
        let outcome = outcome.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }
}
