//! `GET /v1/freshness`: when each mart was last refreshed, against its rule, in dbt's words.

use jiff::Timestamp;
use serde::Serialize;

use super::snapshot::Build;
use crate::catalog::{Held, Mart, Snapshot, State};
use crate::engine;
use crate::ledger::{FreshnessRule, Model, Period};

/// dbt's words for an outcome, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pass,
    Warn,
    Error,
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Document<'s> {
    metadata: Metadata,
    snapshot: Option<&'s str>,
    source: &'static str,
    last_refresh: Option<Timestamp>,
    age_seconds: Option<f64>,
    status: Status,
    build: Option<Build<'s>>,
    held: Option<&'s Held>,
    results: Vec<MartFreshness<'s>>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    generated_at: Timestamp,
    martd_version: &'static str,
    duckdb_version: String,
}

#[derive(Debug, Serialize)]
struct MartFreshness<'s> {
    unique_id: String,
    name: &'s str,
    max_loaded_at: Timestamp,
    snapshotted_at: Timestamp,
    max_loaded_at_time_ago_in_s: f64,
    criteria: Criteria,
    status: Status,
    rows: u64,
    bytes: u64,
    orphan: bool,
}

#[derive(Debug, Serialize)]
struct Criteria {
    warn_after: Option<Period>,
    error_after: Option<Period>,
}

impl<'s> Document<'s> {
    pub(super) fn of(state: &'s State, now: Timestamp) -> Self {
        let snapshot = state.snapshot.as_deref();
        let results = snapshot.map(|snapshot| results(snapshot, now)).unwrap_or_default();
        let last_refresh = snapshot.and_then(Snapshot::last_refresh);
        Self {
            metadata: Metadata {
                generated_at: now,
                martd_version: env!("CARGO_PKG_VERSION"),
                duckdb_version: engine::version(),
            },
            snapshot: snapshot.map(|snapshot| snapshot.id.as_str()),
            source: super::routes::SOURCE,
            last_refresh,
            age_seconds: last_refresh.map(|time| seconds_between(time, now)),
            status: overall(snapshot, &results),
            build: snapshot.and_then(|snapshot| snapshot.ledger.as_deref()).map(Build::of),
            held: state.held.as_ref(),
            results,
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }
}

/// The worst of all marts that the project still has. Nothing served is an error; what no build
/// vouches for is late at best.
fn overall(snapshot: Option<&Snapshot>, results: &[MartFreshness<'_>]) -> Status {
    let Some(snapshot) = snapshot else { return Status::Error };
    let floor = if snapshot.verified { Status::Pass } else { Status::Warn };
    results
        .iter()
        .filter(|result| !result.orphan)
        .map(|result| result.status)
        .fold(floor, Status::max)
}

fn results(snapshot: &Snapshot, now: Timestamp) -> Vec<MartFreshness<'_>> {
    snapshot.marts.iter().map(|(name, mart)| result(snapshot, name, mart, now)).collect()
}

fn result<'s>(
    snapshot: &'s Snapshot,
    name: &'s str,
    mart: &Mart,
    now: Timestamp,
) -> MartFreshness<'s> {
    let model = snapshot.ledger.as_ref().and_then(|ledger| ledger.model(name));
    let rule = model.and_then(Model::freshness);
    let loaded = mart.version.modified();
    let age = seconds_between(loaded, now);
    MartFreshness {
        unique_id: model
            .and_then(|model| model.unique_id.clone())
            .unwrap_or_else(|| format!("mart.{name}")),
        name,
        max_loaded_at: loaded,
        snapshotted_at: now,
        max_loaded_at_time_ago_in_s: age,
        criteria: Criteria {
            warn_after: rule.and_then(|rule| rule.warn_after),
            error_after: rule.and_then(|rule| rule.error_after),
        },
        status: rule.map_or(Status::Pass, |rule| judge(rule, age)),
        rows: mart.report.rows,
        bytes: mart.version.pin.size(),
        orphan: mart.orphan,
    }
}

fn judge(rule: FreshnessRule, age_seconds: f64) -> Status {
    let exceeded =
        |period: Option<Period>| period.is_some_and(|period| age_seconds > period.seconds() as f64);
    if exceeded(rule.error_after) {
        Status::Error
    } else if exceeded(rule.warn_after) {
        Status::Warn
    } else {
        Status::Pass
    }
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Unit;

    #[test]
    fn a_mart_is_judged_by_the_strictest_rule_that_it_breaks() {
        let hours = |count| Some(Period { count, period: Unit::Hour });
        let rule = FreshnessRule { warn_after: hours(1), error_after: hours(2) };
        assert_eq!(judge(rule, 3_600.0), Status::Pass);
        assert_eq!(judge(rule, 3_601.0), Status::Warn);
        assert_eq!(judge(rule, 7_201.0), Status::Error);
        let no_rule = FreshnessRule { warn_after: None, error_after: None };
        assert_eq!(judge(no_rule, 1e9), Status::Pass);
    }
}
