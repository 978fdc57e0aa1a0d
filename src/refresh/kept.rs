//! What was served of the build that a rollback asks for, as long as one does.

use std::sync::Arc;

use tracing::info;

use crate::catalog::Retained;
use crate::ledger::Ledger;
use crate::pin::Budget;
use crate::publish::Target;
use crate::state::StateDir;

/// Looks where earlier builds are.
#[derive(Debug, Default)]
pub(super) struct Kept {
    state: Option<Arc<StateDir>>,
    /// The build that is asked for, and what was found.
    found: Option<(String, Option<Target>)>,
}

impl Kept {
    /// `state` keeps builds over a restart.
    pub(super) fn new(state: Option<Arc<StateDir>>) -> Self {
        Self { state, found: None }
    }

    /// Looks for the build that the ledger rolls back to, once.
    pub(super) fn look(
        &mut self,
        ledger: Option<&Arc<Ledger>>,
        retained: &[Retained],
        budget: &Arc<Budget>,
    ) {
        let wanted = ledger.and_then(|ledger| Some(&ledger.rollback.as_ref()?.build));
        if wanted == self.found.as_ref().map(|(build, _)| build) {
            return;
        }
        self.found = wanted.map(|build| {
            let mut targets = retained.iter().map(|retained| &retained.snapshot.target);
            let kept = targets.find(|target| target.build() == Some(build)).cloned();
            let kept = kept.or_else(|| self.state.as_ref()?.build(build, budget));
            info!(build, at_hand = kept.is_some(), "a rollback is asked for");
            (build.clone(), kept)
        });
    }

    /// What was found.
    pub(super) fn target(&self) -> Option<&Target> {
        self.found.as_ref()?.1.as_ref()
    }
}
