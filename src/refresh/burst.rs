//! Changes that come together, and are published together where no ledger says what belongs together.

use std::time::{Duration, Instant};

/// Further changes are waited for this long…
const QUIET: Duration = Duration::from_millis(25);
/// …but no longer than this.
const QUIET_AT_MOST: Duration = Duration::from_millis(500);

/// When the first and the last of some changes were seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    pub(super) fn begin(now: Instant) -> Self {
        Self { first: now, last: now }
    }

    pub(super) fn go_on(&mut self, now: Instant) {
        self.last = now;
    }

    /// When it is over, unless it goes on.
    pub(super) fn over(&self) -> Instant {
        (self.last + QUIET).min(self.first + QUIET_AT_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_when_it_is_quiet_and_does_not_last() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut burst = Burst::begin(begin);
        burst.go_on(at(20));
        assert_eq!(burst.over(), at(45));
        burst.go_on(at(499));
        assert_eq!(burst.over(), at(500));
    }
}
