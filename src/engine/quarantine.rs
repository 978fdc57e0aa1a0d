//! Statements that brought an engine down, and whoever sent them again and again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use blake3::Hash;
use parking_lot::Mutex;

use super::protocol::QueryError;

/// How long a statement that brought an engine down is not run again.
const QUARANTINE: Duration = Duration::from_secs(600);
/// A principal that cost this many engines…
const FAILURES: usize = 3;
/// …within this time is not answered for as long.
const WINDOW: Duration = Duration::from_secs(60);
/// What is remembered of either, at most.
const REMEMBERED: usize = 4_096;

/// Who asks: a token, a scope or an address, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Principal(pub Hash);

/// What is quarantined: a statement with its parameters, of one principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Culprit {
    pub(super) principal: Principal,
    /// Of the statement and its parameters.
    pub(super) statement: Hash,
}

/// The process id of an engine.
type EngineId = u32;

/// What is remembered of culprits.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Mutex<QuarantineState>);

#[derive(Debug, Default)]
struct QuarantineState {
    until: HashMap<Culprit, Instant>,
    /// When each principal cost engines lately, and which.
    failures: HashMap<Principal, Vec<(Instant, EngineId)>>,
}

impl Quarantine {
    /// Rejects what must not be run at this moment.
    ///
    /// # Errors
    /// [`QueryError::Quarantined`] and [`QueryError::TooManyFailures`].
    pub(super) fn check(&self, culprit: &Culprit, now: Instant) -> Result<(), QueryError> {
        let state = self.0.lock();
        if let Some(failures) = state.failures.get(&culprit.principal) {
            let oldest = failures.iter().rev().nth(FAILURES - 1);
            if let (Some((oldest, _)), Some((last, _))) = (oldest, failures.last())
                && last.duration_since(*oldest) <= WINDOW
                && *last + WINDOW > now
            {
                let over = *last + WINDOW;
                return Err(QueryError::TooManyFailures(whole_seconds(over - now)));
            }
        }
        match state.until.get(culprit) {
            Some(until) if *until > now => {
                Err(QueryError::Quarantined(whole_seconds(*until - now)))
            }
            _ => Ok(()),
        }
    }

    /// Notes that this brought an engine down. What only took too long is not quarantined: it may be
    /// asked again over less, or with more time. Of several statements in one engine a principal has
    /// cost that one.
    pub(super) fn note(
        &self,
        culprit: Culprit,
        engine: EngineId,
        is_quarantined: bool,
        now: Instant,
    ) {
        let mut state = self.0.lock();
        let QuarantineState { until, failures } = &mut *state;
        until.retain(|_, until| *until > now);
        failures.retain(|_, lost| lost.last().is_some_and(|(last, _)| *last + 2 * WINDOW > now));
        if is_quarantined && until.len() < REMEMBERED {
            until.insert(culprit, now + QUARANTINE);
        }
        if failures.len() < REMEMBERED || failures.contains_key(&culprit.principal) {
            let lost = failures.entry(culprit.principal).or_default();
            if lost.iter().all(|(_, known)| *known != engine) {
                lost.push((now, engine));
            }
            let surplus = lost.len().saturating_sub(FAILURES);
            lost.drain(..surplus);
        }
    }

    /// How many statements are quarantined.
    pub(super) fn len(&self, now: Instant) -> usize {
        let state = self.0.lock();
        state.until.values().filter(|until| **until > now).count()
    }
}

/// For people and `Retry-After`: whole seconds, rounded up.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn culprit(principal: &str, statement: &str) -> Culprit {
        Culprit {
            principal: Principal(blake3::hash(principal.as_bytes())),
            statement: blake3::hash(statement.as_bytes()),
        }
    }

    #[test]
    fn a_statement_is_quarantined_for_its_principal_alone() {
        let (quarantine, now) = (Quarantine::default(), Instant::now());
        quarantine.note(culprit("ann", "a"), 1, true, now);
        let check = |principal, statement, at| quarantine.check(&culprit(principal, statement), at);
        let seconds = Duration::from_secs;
        assert_eq!(check("ann", "a", now), Err(QueryError::Quarantined(QUARANTINE)));
        assert_eq!(check("ann", "b", now), Ok(()));
        assert_eq!(check("bob", "a", now), Ok(()));
        assert_eq!(check("ann", "a", now + QUARANTINE), Ok(()));
        assert_eq!(quarantine.len(now), 1);
        let later = now + QUARANTINE - Duration::from_millis(500);
        assert_eq!(check("ann", "a", later), Err(QueryError::Quarantined(seconds(1))));
    }

    #[test]
    fn a_principal_that_cost_three_engines_must_wait() {
        let (quarantine, now) = (Quarantine::default(), Instant::now());
        let check = |at| quarantine.check(&culprit("ann", "other"), at);
        let seconds = Duration::from_secs;
        quarantine.note(culprit("ann", "a"), 1, false, now);
        quarantine.note(culprit("ann", "b"), 2, false, now + seconds(30));
        quarantine.note(culprit("ann", "c"), 2, false, now + seconds(31));
        assert_eq!(check(now + seconds(31)), Ok(()), "two of its statements were in one engine");
        quarantine.note(culprit("ann", "a"), 3, false, now + seconds(61));
        assert_eq!(check(now + seconds(61)), Ok(()), "the first is longer ago");
        quarantine.note(culprit("ann", "a"), 4, false, now + seconds(62));
        let failed = QueryError::TooManyFailures(seconds(59));
        assert_eq!(check(now + seconds(63)), Err(failed));
        assert_eq!(check(now + seconds(122)), Ok(()));
    }
}
