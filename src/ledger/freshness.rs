//! `meta.freshness` of a mart: how old it may get, in dbt's words.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

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
    pub(super) fn read(json: &Json) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_part_of_a_rule_is_named_and_the_rest_counts() {
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
}
