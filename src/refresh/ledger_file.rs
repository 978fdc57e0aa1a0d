//! What is known of the ledger's file.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{info, warn};

use super::entry::GONE_FOR;
use super::files::{RETRY_INTERVAL, soonest};
use crate::ledger::{self, Ledger};
use crate::scan::{Fault, Identity, LEDGER, OpenDir};

/// The ledger's file, and the last ledger in it that parsed.
#[derive(Debug, Default)]
pub(super) struct LedgerFile {
    identity: Option<Identity>,
    settled: bool,
    last_good: Option<Arc<Ledger>>,
    fault: Option<Fault>,
    gone: Option<Instant>,
}

impl LedgerFile {
    /// Reads it if it has changed, or is too young to tell. Returns whether another ledger is in force.
    pub(super) fn look(
        &mut self,
        dir: &OpenDir,
        seen: Option<Identity>,
        tick: Duration,
        now: Instant,
        look_again: &mut Option<Duration>,
    ) -> bool {
        let Some(seen) = seen else {
            if self.identity.is_none() {
                return false;
            }
            let gone = *self.gone.get_or_insert(now);
            soonest(look_again, Some((gone + GONE_FOR).saturating_duration_since(now)));
            if now.duration_since(gone) < GONE_FOR {
                return false;
            }
            info!("the ledger {LEDGER} is gone");
            *self = Self::default();
            return true;
        };
        self.gone = None;
        if self.identity == Some(seen) && self.settled {
            return false;
        }
        self.identity = Some(seen);
        self.settled = !seen.is_young(Timestamp::now(), tick);
        if !self.settled {
            soonest(look_again, Some(tick));
        }
        match load_ledger(dir) {
            Ok(new) => {
                self.fault = None;
                if self.last_good.as_deref() == Some(&new) {
                    return false;
                }
                self.last_good = Some(Arc::new(new));
                true
            }
            Err(error) => {
                // What could not be read may be read later although the file stays as it is.
                if matches!(error, LedgerError::Read(_)) {
                    self.settled = false;
                    soonest(look_again, Some(RETRY_INTERVAL));
                }
                let reason = error.to_string();
                if self.fault.as_ref().is_none_or(|known| known.reason != reason) {
                    warn!(file = LEDGER, reason, "the last ledger that parsed stays in force");
                    let (file, since) = (LEDGER.to_owned(), Timestamp::now());
                    self.fault = Some(Fault { file, reason, since });
                }
                false
            }
        }
    }

    /// The ledger in force.
    pub(super) fn in_force(&self) -> Option<&Arc<Ledger>> {
        self.last_good.as_ref()
    }

    /// Why the file as it is now is not in force.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.clone()
    }
}

/// Why a ledger is not taken.
#[derive(Debug, thiserror::Error)]
enum LedgerError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("is larger than {} MiB", ledger::MAX_BYTES >> 20)]
    TooLarge,
    #[error("does not parse: {0}")]
    Parse(#[from] serde_json::Error),
}

fn load_ledger(dir: &OpenDir) -> Result<Ledger, LedgerError> {
    let file = dir.open_file(LEDGER)?;
    let mut text = Vec::new();
    file.take(ledger::MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > ledger::MAX_BYTES {
        return Err(LedgerError::TooLarge);
    }
    Ok(Ledger::parse(&text)?)
}
