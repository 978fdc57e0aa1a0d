//! `GET /v1/snapshot?build=…&wait=…`: for those who must not go on before a build is served.

use std::time::Duration;

use hyper::{Response, StatusCode};
use tokio::time::Instant;

use super::App;
use super::access::Sizes;
use super::body::BoxBody;
use super::problem::{self, Problem};
use super::{routes, snapshot};
use crate::catalog::State;
use crate::publish::Hold;

/// The longest wait; ask again after it.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// How long to wait: a number of seconds; not at all without one.
pub(super) fn duration(wait: Option<&str>) -> Result<Duration, Problem> {
    match wait.map(str::parse::<u64>) {
        None => Ok(Duration::ZERO),
        Some(Ok(seconds)) if seconds <= MAX_WAIT.as_secs() => Ok(Duration::from_secs(seconds)),
        Some(_) => {
            let detail = format!("wait is a number of seconds, {} at most", MAX_WAIT.as_secs());
            Err(Problem::bad_request(detail))
        }
    }
}

/// Answers 200 with the snapshot once the build is published, 409 when it is held, 504 when neither
/// has happened in time.
pub(super) async fn answer(
    app: &App,
    build: &str,
    wait: Duration,
    sizes: Sizes<'_>,
) -> Result<Response<BoxBody>, Problem> {
    let found =
        app.catalog.find(Instant::now() + wait, |state| {
            let served = standing(state, build)?;
            Some(served.map(|()| {
                routes::json(StatusCode::OK, &snapshot::SnapshotDocument::of(state, sizes))
            }))
        });
    match found.await {
        Ok(Ok(document)) => document,
        Ok(Err(reason)) => Err(Problem::new(problem::BUILD_HELD, reason)),
        Err(state) => {
            let detail = match &state.held {
                Some(held) => held.hold.reason.clone(),
                None => format!("no record is of build {build} yet"),
            };
            Err(Problem::new(problem::WAIT_TIMEOUT, detail))
        }
    }
}

/// Whether a build is served, or held for a reason; `None` while neither is known.
fn standing(state: &State, build: &str) -> Option<Result<(), String>> {
    if state.serves_build(build) {
        return Some(Ok(()));
    }
    let hold = state.held.as_ref().map(|held| &held.hold);
    if let Some(hold) = hold.filter(|hold| hold.overtaken.iter().any(|known| known == build)) {
        return Some(Err(format!(
            "{}; that record ends later than the one of build {build}, so the clock of a writer may be wrong: \
             set it right, and publish again",
            hold.reason
        )));
    }
    let held = state.held_back().map(|held| &held.hold);
    let is_its = |hold: &&Hold| hold.builds.iter().any(|known| known == build);
    held.filter(is_its).map(|hold| Err(hold.reason.clone()))
}
