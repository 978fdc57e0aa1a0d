//! Which builds' work is in what is served.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::catalog::Snapshot;
use crate::ledger::Ledger;

/// Builds that `GET /v1/snapshot?build=` knows of.
const REMEMBERED: usize = 256;

/// Builds that ledgers named, and those whose work is served.
#[derive(Debug, Default)]
pub(super) struct Builds {
    /// The newest last: what is served holds the work of those up to its own.
    named: VecDeque<String>,
    served: Arc<Vec<String>>,
}

impl Builds {
    /// A ledger names a build.
    pub(super) fn named(&mut self, ledger: &Ledger, served: Option<&Snapshot>) {
        if self.named.back() != Some(&ledger.invocation_id) {
            self.named.push_back(ledger.invocation_id.clone());
            if self.named.len() > REMEMBERED {
                self.named.pop_front();
            }
            self.served(served);
        }
    }

    /// A snapshot is served: it holds the work of the build that its ledger names, and of those
    /// before it.
    pub(super) fn served(&mut self, snapshot: Option<&Snapshot>) {
        let verified = snapshot.filter(|snapshot| snapshot.verified);
        let Some(ledger) = verified.and_then(|snapshot| snapshot.ledger.as_ref()) else { return };
        if let Some(place) = self.named.iter().rposition(|id| *id == ledger.invocation_id) {
            self.served = Arc::new(self.named.iter().take(place + 1).cloned().collect());
        }
    }

    /// The builds whose work is served, the newest last.
    pub(super) fn in_served(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.served)
    }
}
