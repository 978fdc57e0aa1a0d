//! `/readyz` and `/livez`: whether to send requests here, and whether to restart this process.
//!
//! Stale data does not make martd unready: answers that are known to be old beat no answers, and
//! `/v1/freshness` tells how old they are.

use std::fmt::Write as _;
use std::time::Duration;

use hyper::{Response, StatusCode};

use super::App;
use super::body::{self, BoxBody};
use super::problem::{self, Problem};
use crate::catalog::State;
use crate::legacy::Trouble;

/// Without an engine for this long, another martd may have more luck.
const ENGINE_WITHIN: Duration = Duration::from_secs(30);

/// One check: its name, and the reason when it fails.
struct Check {
    name: String,
    problem: Option<String>,
}

/// `GET /readyz`
pub(super) fn ready(app: &App, state: &State, verbose: bool) -> Result<Response<BoxBody>, Problem> {
    report(readiness(app, state), verbose)
}

/// `GET /livez`
pub(super) fn live(app: &App, verbose: bool) -> Result<Response<BoxBody>, Problem> {
    let missing = app.engine.status().missing.filter(|missing| *missing >= ENGINE_WITHIN);
    let problem = missing.map(|missing| {
        format!("no engine could be started for {} s; the log has the reason", missing.as_secs())
    });
    report(vec![Check { name: "engine".to_owned(), problem }], verbose)
}

/// Whether `/readyz` says 200.
pub(super) fn is_ready(app: &App, state: &State) -> bool {
    reasons(app, state).is_empty()
}

/// Why it does not.
pub(super) fn reasons(app: &App, state: &State) -> Vec<String> {
    readiness(app, state).into_iter().filter_map(|check| check.problem).collect()
}

/// Why nothing can be answered.
pub(super) fn not_ready(app: &App, state: &State) -> Problem {
    let failed = reasons(app, state);
    let locked = state.legacy == Some(Trouble::Locked);
    let kind = if locked { problem::LEGACY_LOCKED } else { problem::NOT_READY };
    Problem::new(kind, failed.join("; ")).retry_after(1)
}

fn readiness(app: &App, state: &State) -> Vec<Check> {
    let mut checks = vec![Check {
        name: "snapshot".to_owned(),
        problem: state.snapshot.is_none().then(|| why_nothing(state)),
    }];
    for name in &app.settings.require {
        let there =
            state.snapshot.as_ref().is_some_and(|snapshot| snapshot.marts.contains_key(name));
        checks.push(Check {
            name: format!("mart {name}"),
            problem: (!there).then(|| format!("the required mart {name} is not served")),
        });
    }
    checks.push(Check {
        name: "draining".to_owned(),
        problem: app.is_draining().then(|| "martd is shutting down".to_owned()),
    });
    checks
}

/// Why there is no snapshot: what is being waited for, and what cannot be served meanwhile.
pub(crate) fn why_nothing(state: &State) -> String {
    let unopened = state.unopened.as_ref();
    let unopened = unopened
        .map(|reason| format!("the marts cannot be opened, which is tried again: {reason}"));
    let problem = state.directory.clone().or(unopened);
    let mut reasons = vec![match (problem, &state.held, state.building) {
        (Some(problem), _, _) => problem,
        (None, Some(held), _) if held.hold.outstanding.is_empty() => held.hold.reason.clone(),
        (None, Some(held), _) => format!("a build is held: {}", held.hold.reason),
        (None, None, (0, _)) => "no Parquet file has landed yet".to_owned(),
        (None, None, (left, all)) => {
            format!("{} of {all} files are verified", all.saturating_sub(left))
        }
    }];
    let is_legacy =
        |reason: &str| matches!(&state.legacy, Some(Trouble::Unusable(known)) if known == reason);
    let faults = state.landing.iter().chain(&state.rejected);
    let first = faults.clone().find(|fault| !is_legacy(&fault.reason));
    reasons.extend(first.map(|fault| format!("{} {}", fault.file, fault.reason)));
    reasons.extend(state.legacy.as_ref().map(Trouble::to_string));
    reasons.join("; ")
}

fn report(checks: Vec<Check>, verbose: bool) -> Result<Response<BoxBody>, Problem> {
    let failed: Vec<&str> = checks.iter().filter_map(|check| check.problem.as_deref()).collect();
    if !failed.is_empty() {
        let list: Vec<_> = checks
            .iter()
            .map(|check| {
                serde_json::json!({
                    "name": check.name, "ok": check.problem.is_none(), "reason": check.problem,
                })
            })
            .collect();
        return Err(Problem::new(problem::NOT_READY, failed.join("; ")).with("checks", list));
    }
    let mut text = String::new();
    if verbose {
        for check in &checks {
            let _ = writeln!(text, "[+] {} ok", check.name);
        }
    }
    text.push_str("ok\n");
    Ok(body::response(StatusCode::OK, "text/plain; charset=utf-8", text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn an_unreadable_snapshot_is_not_called_missing_files() {
        let state = State { directory: None, ..State::clone(&Catalog::default().load()) };
        assert_eq!(why_nothing(&state), "no Parquet file has landed yet");
        let state = State { unopened: Some("out of memory".to_owned()), ..state };
        let reason = "the marts cannot be opened, which is tried again: out of memory";
        assert_eq!(why_nothing(&state), reason);
    }
}
