//! What is known of contents, and what somebody is about to know.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use blake3::Hash;
use quick_cache::unsync::Cache;

use super::Verdict;
use super::children::Judged;
use crate::pin::Pin;

/// Verdicts that are remembered.
const REMEMBERED: usize = 8_192;

/// Verdicts by content, and who decodes what.
#[derive(Debug, Default)]
pub(super) struct Book {
    pages: Mutex<Pages>,
    /// Told whenever something is not under way any more.
    decoded: Condvar,
}

#[derive(Debug)]
struct Pages {
    verdicts: Cache<Hash, Verdict>,
    /// What is being decoded. Others wait for it.
    under_way: HashMap<Hash, Arc<Outcome>>,
}

/// What decoding some content came to, for those who wait for that. Empty when it says nothing about
/// their files.
pub(super) type Outcome = OnceLock<Verdict>;

/// Files that are one caller's to decode. When it is done, or has failed, they are nobody's again.
pub(super) struct Claim<'b, 'p> {
    book: &'b Book,
    pub(super) pins: Vec<&'p Pin>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { verdicts: Cache::new(REMEMBERED), under_way: HashMap::new() }
    }
}

impl Book {
    /// Sorts files into those that are known, those that others decode, and those that are the
    /// caller's to decode from here on.
    pub(super) fn claim<'p>(
        &self,
        missing: &HashMap<Hash, &'p Pin>,
        verdicts: &mut HashMap<Hash, Verdict>,
    ) -> (Claim<'_, 'p>, Vec<(Hash, Arc<Outcome>)>) {
        let mut pages = self.pages();
        let mut claim = Claim { book: self, pins: Vec::new() };
        let mut others = Vec::new();
        for (&hash, &pin) in missing {
            if let Some(verdict) = pages.verdicts.get(&hash) {
                verdicts.insert(hash, verdict.clone());
            } else if let Some(outcome) = pages.under_way.get(&hash) {
                others.push((hash, Arc::clone(outcome)));
            } else {
                pages.under_way.insert(hash, Arc::default());
                claim.pins.push(pin);
            }
        }
        (claim, others)
    }

    /// Enters what decoding some content came to.
    pub(super) fn enter(&self, hash: Hash, judged: &Judged) {
        let mut pages = self.pages();
        if judged.lasting {
            pages.verdicts.insert(hash, judged.verdict.clone());
        }
        if let Some(outcome) = pages.under_way.get(&hash) {
            let _ = outcome.set(judged.verdict.clone());
        }
    }

    /// What another caller's decoding came to; `None` when it says nothing about others' files.
    pub(super) fn wait(&self, hash: &Hash, outcome: &Arc<Outcome>) -> Option<Verdict> {
        let is_under_way = |pages: &mut Pages| {
            outcome.get().is_none()
                && pages.under_way.get(hash).is_some_and(|now| Arc::ptr_eq(now, outcome))
        };
        let pages = self.decoded.wait_while(self.pages(), is_under_way);
        drop(pages.unwrap_or_else(PoisonError::into_inner));
        outcome.get().cloned()
    }

    /// Whether somebody waits for what another caller decodes.
    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        self.pages().under_way.values().any(|outcome| Arc::strong_count(outcome) > 1)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_, '_> {
    fn drop(&mut self) {
        let mut pages = self.book.pages();
        for pin in &self.pins {
            pages.under_way.remove(&pin.hash());
        }
        drop(pages);
        self.book.decoded.notify_all();
    }
}
