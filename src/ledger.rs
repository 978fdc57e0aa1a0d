//! The ledger `_build.json`: what dbt's on-run-end hook records of each build.
//!
//! Unknown keys are ignored, so that a newer hook can add some. A ledger that does not parse
//! changes nothing: the last one that did stays in force. What people write by hand into a model's
//! `meta` is read leniently: what is wrong there concerns that model alone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// The largest ledger that is read; a thousand documented models take about 5 MB.
pub const MAX_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct Document {
    build: Ledger,
}

/// The state of the dbt project after its last build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The dbt invocation that wrote it.
    pub invocation_id: String,
    /// When that invocation began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether everything in this invocation succeeded.
    pub status: Status,
    /// What this invocation ran.
    #[serde(default)]
    pub results: Vec<NodeResult>,
    /// Every node that failed and has not succeeded since, in this or an earlier invocation.
    #[serde(default)]
    pub outstanding: Vec<Outstanding>,
    /// Every model that writes a mart.
    #[serde(default)]
    pub models: Vec<Model>,
}

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All nodes passed.
    Success,
    /// At least one did not.
    Error,
}

/// One node that an invocation ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResult {
    /// dbt's id, for example `model.finance.fct_transactions`.
    pub unique_id: String,
    /// dbt's word for the outcome: success, error, pass, fail, warn, skipped.
    pub status: String,
}

/// A node that failed and has not succeeded since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outstanding {
    /// dbt's id of the node.
    pub unique_id: String,
    /// dbt's message.
    #[serde(default)]
    pub message: Option<String>,
    /// When it first failed, as dbt wrote it.
    #[serde(default)]
    pub since: Option<String>,
}

/// A model that writes a mart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// dbt's id of the model.
    #[serde(default)]
    pub unique_id: Option<String>,
    /// The mart's name: the file's stem.
    pub name: String,
    /// The schema that dbt gives it; the mart can be named by it as well.
    #[serde(default)]
    pub schema: Option<String>,
    /// What it holds.
    #[serde(default)]
    pub description: Option<String>,
    /// The invocation that last built it.
    pub invocation_id: String,
    /// The model's meta as dbt wrote it: what describes the dataset, and the freshness rule.
    #[serde(default)]
    pub meta: Map<String, Json>,
    /// The columns that the project describes.
    #[serde(default)]
    pub columns: Vec<Column>,
}

/// A column as the project describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    #[serde(default)]
    pub description: Option<String>,
    /// Its type, where the project says it.
    #[serde(default)]
    pub data_type: Option<String>,
}

/// A freshness rule in dbt's words. People write it by hand, so a part that does not parse is left
/// out and named in `problem`: a typing error in one model must not take the whole ledger down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreshnessRule {
    /// The age above which a mart is late.
    pub warn_after: Option<Period>,
    /// The age above which it is stale.
    pub error_after: Option<Period>,
    /// The column whose newest value says when the mart was loaded, in the place of the file's time.
    pub loaded_at_field: Option<String>,
    /// What is wrong with the rule.
    pub problem: Option<String>,
}

impl FreshnessRule {
    fn read(json: &Json) -> Option<Self> {
        let mut rule = Self::default();
        let Json::Object(members) = json else {
            rule.problem = Some("meta.freshness must be an object".to_owned());
            return (!json.is_null()).then_some(rule);
        };
        let said = |key: &str| members.get(key).filter(|json| !json.is_null());
        let mut problems = Vec::new();
        let mut period = |key: &str| {
            let json = said(key)?;
            let period = Period::deserialize(json).ok();
            if period.is_none() {
                problems.push(format!(
                    "meta.freshness.{key} must be as {{count: 12, period: hour}} (minute, hour or \
                     day), and is {json}"
                ));
            }
            period
        };
        rule.warn_after = period("warn_after");
        rule.error_after = period("error_after");
        if let Some(json) = said("loaded_at_field") {
            rule.loaded_at_field = json.as_str().map(str::to_owned);
            if rule.loaded_at_field.is_none() {
                problems.push(format!(
                    "meta.freshness.loaded_at_field must be the name of a column, and is {json}"
                ));
            }
        }
        rule.problem = (!problems.is_empty()).then(|| problems.join("; "));
        Some(rule)
    }
}

/// A time span in dbt's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// How many.
    pub count: u64,
    /// Of what.
    pub period: Unit,
}

/// dbt's units of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// 60 seconds
    Minute,
    /// 60 minutes
    Hour,
    /// 24 hours
    Day,
}

impl Period {
    /// A time of whole minutes in the largest unit that it is a multiple of.
    pub fn of_minutes(minutes: u64) -> Self {
        match minutes {
            minutes if minutes.is_multiple_of(24 * 60) => {
                Self { count: minutes / (24 * 60), period: Unit::Day }
            }
            minutes if minutes.is_multiple_of(60) => {
                Self { count: minutes / 60, period: Unit::Hour }
            }
            count => Self { count, period: Unit::Minute },
        }
    }

    /// The span in seconds.
    pub fn seconds(&self) -> u64 {
        let unit = match self.period {
            Unit::Minute => 60,
            Unit::Hour => 3_600,
            Unit::Day => 86_400,
        };
        self.count.saturating_mul(unit)
    }
}

impl Model {
    /// What the project says that a column means. Names are compared as DuckDB does, without case.
    pub fn meaning(&self, column: &str) -> Option<&str> {
        let known = self.columns.iter().find(|known| known.name.eq_ignore_ascii_case(column))?;
        known.description.as_deref()
    }

    /// How old the mart may get: `meta.freshness`.
    pub fn freshness(&self) -> Option<FreshnessRule> {
        FreshnessRule::read(self.meta.get("freshness")?)
    }
}

impl Ledger {
    /// Reads a ledger from the file's text.
    ///
    /// # Errors
    /// What is wrong with the JSON, and where.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<Document>(text).map(|document| document.build)
    }

    /// The entry of a mart.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// Whether nothing is outstanding.
    pub fn is_clear(&self) -> bool {
        self.outstanding.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_of_a_newer_hook_still_parses() {
        let ledger = Ledger::parse(
            br#"{"build": {
                "invocation_id": "i1", "started_at": "2026-01-31T06:00:00Z",
                "finished_at": "2026-01-31T06:00:09.5Z", "status": "error", "new_key": {"a": 1},
                "results": [{"unique_id": "test.t", "name": "t", "resource_type": "test", "status": "fail"}],
                "outstanding": [{"unique_id": "test.t", "message": "got 3 results", "since": "2026-01-31T06:00:09Z"}],
                "models": [{"name": "dim_tags", "schema": "mart", "description": "d", "invocation_id": "i1",
                    "meta": {"dataset": true, "freshness": {"warn_after": {"count": 25, "period": "hour"}}},
                    "columns": [{"name": "id", "description": ""}]}]
            }}"#,
        )
        .expect("parses");
        assert!(!ledger.is_clear());
        let rule = ledger.model("dim_tags").and_then(Model::freshness).expect("a rule");
        assert_eq!(rule.warn_after.map(|period| period.seconds()), Some(90_000));
        assert_eq!((rule.error_after, rule.problem), (None, None));
    }

    #[test]
    fn a_rule_that_does_not_parse_is_named_and_its_other_parts_hold() {
        let read = |text: &str| FreshnessRule::read(&serde_json::from_str(text).expect("JSON"));
        let broken = read(
            r#"{"warn_after": {"count": "1", "period": "hour"}, "loaded_at_field": ["x"],
                "error_after": {"count": 1, "period": "hour"}}"#,
        )
        .expect("a rule");
        let hour = Some(Period { count: 1, period: Unit::Hour });
        assert_eq!((broken.warn_after, broken.error_after), (None, hour));
        let problem = broken.problem.expect("a problem");
        assert!(problem.contains("meta.freshness.warn_after must be"), "{problem}");
        assert!(problem.contains("loaded_at_field must be the name"), "{problem}");
        for text in [
            r#"{"warn_after": {"count": -1, "period": "hour"}}"#,
            r#"{"warn_after": {"count": 1, "period": "week"}}"#,
            r#"{"error_after": 12}"#,
            "\"12 hours\"",
        ] {
            assert!(read(text).is_some_and(|rule| rule.problem.is_some()), "{text}");
        }
        let nothing = read(r#"{"warn_after": null, "error_after": null, "filter": "x > 1"}"#);
        assert_eq!(nothing, Some(FreshnessRule::default()));
        assert_eq!(read("null"), None);
    }

    #[test]
    fn half_a_ledger_says_where_it_ends() {
        let error = Ledger::parse(br#"{"build": {"invocation_id": "i1","#).expect_err("half");
        assert!(error.to_string().contains("line 1 column"), "{error}");
    }
}
