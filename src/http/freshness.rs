//! `GET /v1/freshness`: when each mart was last refreshed, against its rule, in dbt's words.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::access::Sizes;
use super::snapshot::{BuildDocument, MirrorDocument};
use crate::catalog::{Held, Mart, Snapshot, Source, State};
use crate::duck;
use crate::ledger::{FreshnessRule, Model, Period};

/// A column's newest value may be this far ahead: a local time that was stored as if it were UTC.
const FUTURE_SECONDS: f64 = 86_400.0;
/// A file's time may be this far ahead: clocks of two machines differ.
const FILE_FUTURE_SECONDS: f64 = 300.0;

/// dbt's words for an outcome, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FreshnessStatus {
    Pass,
    Warn,
    Error,
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct FreshnessDocument<'s> {
    metadata: Metadata,
    snapshot: Option<&'s str>,
    /// As in `/v1/snapshot`.
    verified: bool,
    source: Source,
    last_refresh: Option<Timestamp>,
    age_seconds: Option<f64>,
    status: FreshnessStatus,
    build: Option<BuildDocument<'s>>,
    held: Option<&'s Held>,
    building: Option<&'s Held>,
    /// As in `/v1/snapshot`; the status is that of the marts alone.
    mirror: Option<MirrorDocument<'s>>,
    results: Vec<MartFreshness<'s>>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    generated_at: Timestamp,
    martd_version: &'static str,
    duckdb_version: String,
}

/// One mart against its rule.
#[derive(Debug, Serialize)]
pub(super) struct MartFreshness<'s> {
    unique_id: String,
    pub(super) name: &'s str,
    /// `None` when the rule names a column in which no row has a value.
    pub(super) max_loaded_at: Option<Timestamp>,
    /// The column that says so, in the place of the file's time.
    loaded_at_field: Option<&'s str>,
    snapshotted_at: Timestamp,
    pub(super) max_loaded_at_time_ago_in_s: Option<f64>,
    pub(super) criteria: Criteria,
    pub(super) status: FreshnessStatus,
    /// Why the status says less than it should.
    pub(super) problem: Option<String>,
    /// Sizes are for those who may know them.
    pub(super) rows: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) orphan: bool,
}

/// The ages above which a mart is late, and stale. Those of `MARTD_MAX_AGE_WARN` and
/// `MARTD_MAX_AGE_ERROR` are for the marts whose models say neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Criteria {
    /// The age above which a mart is late.
    pub warn_after: Option<Period>,
    /// The age above which it is stale.
    pub error_after: Option<Period>,
}

impl<'s> FreshnessDocument<'s> {
    pub(super) fn of(
        state: &'s State,
        default: Criteria,
        sizes: Sizes<'_>,
        now: Timestamp,
    ) -> Self {
        let snapshot = state.snapshot.as_deref();
        let results =
            snapshot.map(|snapshot| results(snapshot, default, sizes, now)).unwrap_or_default();
        let last_refresh = snapshot.and_then(Snapshot::last_refresh);
        Self {
            metadata: Metadata {
                generated_at: now,
                martd_version: env!("CARGO_PKG_VERSION"),
                duckdb_version: duck::version(),
            },
            snapshot: snapshot.map(|snapshot| snapshot.id.as_str()),
            verified: snapshot.is_some_and(|snapshot| snapshot.verified),
            source: state.source(),
            last_refresh,
            age_seconds: last_refresh.map(|time| seconds_between(time, now)),
            status: overall(snapshot, &results),
            build: snapshot.and_then(Snapshot::vouching).map(BuildDocument::of),
            held: state.held_back(),
            building: state.under_way(),
            mirror: state.mirror.as_ref().map(|status| MirrorDocument::of(status, now)),
            results,
        }
    }

    pub(super) fn status(&self) -> FreshnessStatus {
        self.status
    }

    pub(super) fn results(&self) -> &[MartFreshness<'s>] {
        &self.results
    }
}

/// The worst of all marts that the project still has. Nothing served is an error; what no build
/// vouches for is late at best.
fn overall(snapshot: Option<&Snapshot>, results: &[MartFreshness<'_>]) -> FreshnessStatus {
    let Some(snapshot) = snapshot else { return FreshnessStatus::Error };
    let floor = if snapshot.verified { FreshnessStatus::Pass } else { FreshnessStatus::Warn };
    results
        .iter()
        .filter(|result| !result.orphan)
        .map(|result| result.status)
        .fold(floor, FreshnessStatus::max)
}

fn results<'s>(
    snapshot: &'s Snapshot,
    default: Criteria,
    sizes: Sizes<'_>,
    now: Timestamp,
) -> Vec<MartFreshness<'s>> {
    let models = snapshot.ledger.iter().flat_map(|ledger| &ledger.models);
    let models: HashMap<&str, &Model> = models.map(|model| (model.name.as_str(), model)).collect();
    snapshot
        .marts
        .iter()
        .map(|(name, mart)| {
            let model = models.get(name.as_str()).copied();
            let mut result = result(name, mart, model, default, now);
            if !sizes.show(name, mart) {
                (result.rows, result.bytes) = (None, None);
            }
            result
        })
        .collect()
}

fn result<'s>(
    name: &'s str,
    mart: &'s Mart,
    model: Option<&'s Model>,
    default: Criteria,
    now: Timestamp,
) -> MartFreshness<'s> {
    let rule = model.and_then(Model::freshness);
    let criteria = rule.as_ref().map_or(default, |rule| Criteria::of(rule, default));
    let mut problems: Vec<String> = rule.and_then(|rule| rule.problem).into_iter().collect();
    let loaded = match mart.loaded.as_ref().map(|loaded| &loaded.newest) {
        None => Some(mart.version.modified()),
        Some(Ok(newest)) => *newest,
        Some(Err(reason)) => {
            problems.push(format!("loaded_at_field: {reason}; this is the file's time"));
            Some(mart.version.modified())
        }
    };
    let age = loaded.map(|time| seconds_between(time, now));
    let field = mart.loaded.as_ref().map(|loaded| loaded.field.as_str());
    match (field, age) {
        (Some(field), Some(age)) if age < -FUTURE_SECONDS => {
            problems.push(format!("the newest value of {field} lies in the future"));
        }
        (None, Some(age)) if age < -FILE_FUTURE_SECONDS => problems.push(
            "the file's time lies in the future, so its age is not known; set the clock of whoever \
             wrote it, and write it again"
                .to_owned(),
        ),
        _ => {}
    }
    let floor = if problems.is_empty() { FreshnessStatus::Pass } else { FreshnessStatus::Warn };
    if let (Some(field), None) = (field, loaded) {
        problems.push(format!("no row has a value in {field}"));
    }
    MartFreshness {
        unique_id: model
            .and_then(|model| model.unique_id.clone())
            .unwrap_or_else(|| format!("mart.{name}")),
        name,
        max_loaded_at: loaded,
        loaded_at_field: field,
        snapshotted_at: now,
        max_loaded_at_time_ago_in_s: age,
        criteria,
        status: criteria.judge(age).max(floor),
        problem: (!problems.is_empty()).then(|| problems.join("; ")),
        rows: Some(mart.rows()),
        bytes: Some(mart.version.pin.size()),
        orphan: mart.orphan,
    }
}

impl Criteria {
    /// Those of a rule, or the default where it has none (any more).
    fn of(rule: &FreshnessRule, default: Self) -> Self {
        match (rule.warn_after, rule.error_after) {
            (None, None) => default,
            (warn_after, error_after) => Self { warn_after, error_after },
        }
    }

    /// What never was loaded is older than any rule allows.
    fn judge(self, age_seconds: Option<f64>) -> FreshnessStatus {
        let exceeded = |period: Option<Period>| {
            period.is_some_and(|period| age_seconds.is_none_or(|age| age > period.seconds() as f64))
        };
        if exceeded(self.error_after) {
            FreshnessStatus::Error
        } else if exceeded(self.warn_after) {
            FreshnessStatus::Warn
        } else {
            FreshnessStatus::Pass
        }
    }
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Unit;

    fn hours(count: u64) -> Option<Period> {
        Some(Period { count, period: Unit::Hour })
    }

    #[test]
    fn a_mart_has_the_status_of_its_worst_broken_rule() {
        let rule = Criteria { warn_after: hours(1), error_after: hours(2) };
        assert_eq!(rule.judge(Some(3_600.0)), FreshnessStatus::Pass);
        assert_eq!(rule.judge(Some(3_601.0)), FreshnessStatus::Warn);
        assert_eq!(rule.judge(Some(7_201.0)), FreshnessStatus::Error);
        assert_eq!(rule.judge(None), FreshnessStatus::Error);
        assert_eq!(Criteria { error_after: None, ..rule }.judge(None), FreshnessStatus::Warn);
        assert_eq!(Criteria::default().judge(Some(1e9)), FreshnessStatus::Pass);
        assert_eq!(Criteria::default().judge(None), FreshnessStatus::Pass);
    }

    #[test]
    fn the_default_is_for_models_that_say_neither_age() {
        let default = Criteria { warn_after: hours(1), error_after: hours(2) };
        let of = |rule: FreshnessRule| Criteria::of(&rule, default);
        let own = of(FreshnessRule { error_after: hours(9), ..FreshnessRule::default() });
        assert_eq!((own.warn_after, own.error_after), (None, hours(9)));
        assert_eq!(of(FreshnessRule::default()), default);
    }
}
