//! `GET /v1/snapshot?build=…&wait=…`: for those who must not go on before a build is served.

use std::time::Duration;

use hyper::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::App;
use super::access::Sizes;
use super::body::BoxBody;
use super::problem::{self, Problem};
use super::{routes, snapshot};
use crate::catalog::State;
use crate::publish::Hold;

/// The longest wait; ask again after it.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Where a build stands.
enum Standing {
    Published,
    Held(String),
    Unknown,
}

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
    let deadline = Instant::now() + wait;
    // Subscribed before the first look: a swap in between wakes the wait below.
    let mut changes = app.catalog.subscribe();
    loop {
        let state = app.catalog.load();
        match standing(&state, build) {
            Standing::Published => {
                return routes::json(
                    StatusCode::OK,
                    &snapshot::SnapshotDocument::of(&state, sizes),
                );
            }
            Standing::Held(reason) => return Err(Problem::new(problem::BUILD_HELD, reason)),
            Standing::Unknown => {}
        }
        if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
            let detail = match &state.held {
                Some(held) => held.hold.reason.clone(),
                None => format!("no record is of build {build} yet"),
            };
            return Err(Problem::new(problem::WAIT_TIMEOUT, detail));
        }
    }
}

fn standing(state: &State, build: &str) -> Standing {
    if state.serves_build(build) {
        return Standing::Published;
    }
    let hold = state.held.as_ref().map(|held| &held.hold);
    if let Some(hold) = hold.filter(|hold| hold.overtaken.iter().any(|known| known == build)) {
        return Standing::Held(format!(
            "{}; that record ends later than the one of build {build}, so the clock of a writer may be wrong: \
             set it right, and publish again",
            hold.reason
        ));
    }
    let held = state.held_back().map(|held| &held.hold);
    let is_its = |hold: &&Hold| hold.builds.iter().any(|known| known == build);
    match held.filter(is_its) {
        Some(hold) => Standing::Held(hold.reason.clone()),
        None => Standing::Unknown,
    }
}
