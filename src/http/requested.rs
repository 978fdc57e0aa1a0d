//! Which snapshot a request asks for: the current one, the one that it names, or one that was decided with
//! certain builds in view.
//!
//! A replica that is behind waits for it. Who waits holds no slot, is woken by the catalog, and leaves with
//! its client; as many may wait as queries may queue. What can be known never to come is not waited for.

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use tokio::time::Instant;

use super::App;
use super::arguments::Arguments;
use super::probes;
use super::problem::{self, Problem};
use super::routes::MARTD_SNAPSHOT;
use crate::catalog::{Snapshot, State};
use crate::ledger;
use crate::publish::Hold;

/// What a request says of the snapshot that it asks for.
#[derive(Debug)]
pub(super) struct RequestedSnapshot<'r> {
    id: Option<&'r str>,
    builds: Vec<&'r str>,
}

impl<'r> RequestedSnapshot<'r> {
    /// The one that `Martd-Snapshot` names, or else the current one.
    pub(super) fn named(headers: &'r HeaderMap) -> Self {
        let id = headers.get(MARTD_SNAPSHOT).map(|id| id.to_str().unwrap_or_default());
        Self { id, builds: Vec::new() }
    }

    /// The same, which goes by the builds that `?build=` lists.
    ///
    /// # Errors
    /// 400 when one of them can be no build's id.
    pub(super) fn of(headers: &'r HeaderMap, arguments: &'r Arguments) -> Result<Self, Problem> {
        let builds = arguments.get("build").map(|builds| builds.split(',').collect());
        let builds: Vec<&str> = builds.unwrap_or_default();
        if let Some(wrong) = builds.iter().find(|build| !ledger::is_id(build)) {
            let detail =
                format!("build has {wrong:?}, which is no build's id; separate ids by commas");
            return Err(Problem::bad_request(detail));
        }
        Ok(Self { builds, ..Self::named(headers) })
    }

    /// The snapshot, for which this waits as long as `MARTD_CATCH_UP` and the query's own time allow.
    ///
    /// # Errors
    /// 410 when it is gone or does not come in time, 409 when a build is held, 503 when nothing is
    /// served or too many wait.
    pub(super) async fn snapshot(
        &self,
        app: &App,
        state: &State,
        time: Duration,
    ) -> Result<Arc<Snapshot>, Problem> {
        if let Some(found) = self.find(app, state)? {
            return Ok(found);
        }
        let _permit = app.waiting.try_acquire().map_err(|_| {
            let detail = "too many requests wait for snapshots that are not here yet (MARTD_QUEUE)";
            Problem::new(problem::OVERLOADED, detail).retry_after(1)
        })?;
        let time = time.min(app.settings.catch_up);
        let deadline = Instant::now() + time;
        let found = app.catalog.find(deadline, |state| self.find(app, state).transpose()).await;
        found.unwrap_or_else(|state| Err(self.not_here(app, &state, time)))
    }

    /// The snapshot, if it is here; an error when it will not come.
    fn find(&self, app: &App, state: &State) -> Result<Option<Arc<Snapshot>>, Problem> {
        let found = match self.id {
            Some(id) => state.snapshot_by_id(id),
            None => state.snapshot.as_ref(),
        };
        if let Some(found) = found.filter(|found| self.builds.iter().all(|id| found.goes_by(id))) {
            return Ok(Some(Arc::clone(found)));
        }
        match self.id {
            Some(id) if state.gone.iter().any(|gone| gone == id) || !is_id(id) => Err(gone()),
            Some(_) => Ok(None),
            None if self.builds.is_empty() => Err(probes::not_ready(app, state)),
            // A file that is missing may be on its way.
            None => match self.hold(state) {
                Some(hold) if !hold.outstanding.is_empty() => Err(held(hold)),
                _ => Ok(None),
            },
        }
    }

    /// What keeps one of its builds from being served.
    fn hold<'s>(&self, state: &'s State) -> Option<&'s Hold> {
        let hold = state.held_back().map(|held| &held.hold);
        hold.filter(|hold| hold.builds.iter().any(|build| self.builds.contains(&build.as_str())))
    }

    fn not_here(&self, app: &App, state: &State, time: Duration) -> Problem {
        if state.snapshot.is_none() {
            return probes::not_ready(app, state);
        }
        if let Some(hold) = self.hold(state) {
            return held(hold);
        }
        if self.builds.is_empty() {
            return gone();
        }
        let detail = format!(
            "no snapshot of build {} came within {} ms (MARTD_CATCH_UP): this martd is behind, or there is \
             no such build; ask again, or another replica",
            self.builds.join(", "),
            time.as_millis()
        );
        Problem::new(problem::SNAPSHOT_GONE, detail).retry_after(1)
    }
}

fn gone() -> Problem {
    let detail = "that snapshot is not kept any more (MARTD_RETAIN), or never was here; ask again \
                  without the header Martd-Snapshot";
    Problem::new(problem::SNAPSHOT_GONE, detail)
}

fn held(hold: &Hold) -> Problem {
    Problem::new(problem::BUILD_HELD, hold.reason.clone()).retry_after(1)
}

/// Whether it can be the id of a snapshot.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
