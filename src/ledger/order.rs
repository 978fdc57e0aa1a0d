//! Whether a record that is new would count after those that are there: records are folded in the order in which they say
//! that they ended, and whoever writes one has a clock that may be wrong.

use jiff::{SignedDuration, Timestamp};

use super::fold::fold;
use super::{Build, File, RECORDS, Record};

/// A writer's clock that is further ahead than this is not followed.
pub const MOST_AHEAD: SignedDuration = SignedDuration::from_mins(10);

/// The newest record, if it has not ended by `now`, and how far that is ahead.
pub fn newest_ahead<'r>(
    records: impl IntoIterator<Item = &'r Record>,
    now: Timestamp,
) -> Option<(&'r Build, SignedDuration)> {
    let builds = records.into_iter().map(|record| &record.build);
    let newest = builds.max_by_key(|build| build.finished_at)?;
    let ahead = newest.finished_at.duration_since(now);
    ahead.is_positive().then_some((newest, ahead))
}

/// What there is to say when no record counts after one that ends further ahead than [`MOST_AHEAD`]. `place` is where
/// its file is.
pub fn too_far_ahead(Build { id, finished_at, .. }: &Build, place: &str) -> String {
    format!(
        "the record of build {id} ends at {finished_at}, so none that is written now counts after it; set the clock \
         of its writer right, remove {RECORDS}/{id}.json from {place}, and publish that build again under another id"
    )
}

/// The record among `others` behind which `record` stays: it changes nothing of what is shown, and would if it came
/// last. Of what others have overtaken in part, the rest counts.
pub fn overtaken_by<'r>(record: &Record, others: &'r [Record]) -> Option<&'r Record> {
    let of_builds = record.is_of_a_build();
    let later = others.iter().filter(|other| {
        let is_alike = match of_builds {
            true => other.is_of_a_build() && other.build.project == record.build.project,
            false => !other.is_of_a_build(),
        };
        is_alike && other.build.order() > record.build.order()
    });
    let last = later.max_by_key(|other| other.build.order())?;
    let mut as_if_last = record.clone();
    as_if_last.build.finished_at = Timestamp::MAX;
    let with = |record| shown(others.iter().chain([record]));
    let now = with(record);
    (now == shown(others) && now != with(&as_if_last)).then_some(last)
}

/// What people see of records: the files of each mart, what holds, and the build that a rollback asks for.
#[derive(Debug, Default, PartialEq)]
struct Shown {
    marts: Vec<(String, Vec<File>)>,
    left: Vec<String>,
    holds: Vec<(String, String)>,
    rollback: Option<String>,
}

fn shown<'r>(records: impl IntoIterator<Item = &'r Record>) -> Shown {
    let Some(ledger) = fold(records) else { return Shown::default() };
    let holds = ledger.outstanding.into_iter();
    let mut holds: Vec<_> = holds.map(|node| (node.unique_id, node.status)).collect();
    holds.sort();
    Shown {
        marts: ledger.models.into_iter().map(|mart| (mart.name, mart.files)).collect(),
        left: ledger.left.into_iter().map(|mart| mart.name).collect(),
        holds,
        rollback: ledger.rollback.map(|rollback| rollback.build),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NodeResult, samples};
    use super::*;

    fn record(id: &str, second: i64, marts: &[(&str, &str)]) -> Record {
        let file = |(name, content): &(&str, _)| (format!("{name}.parquet"), *content);
        samples::record(id, second, &marts.iter().map(file).collect::<Vec<_>>())
    }

    fn with_result(mut record: Record, id: &str, status: &str) -> Record {
        let (id, status) = (id.to_owned(), status.to_owned());
        record.results.push(NodeResult { id, status, message: None, since: None });
        record
    }

    fn overtaken(record: &Record, others: &[Record]) -> Option<String> {
        overtaken_by(record, others).map(|other| other.build.id.clone())
    }

    #[test]
    fn a_build_behind_a_later_one_is_overtaken() {
        let new = record("new", 5, &[("a", "new"), ("b", "new")]);
        let later = record("later", 6, &[("a", "later"), ("b", "later")]);
        assert_eq!(overtaken(&new, std::slice::from_ref(&later)).as_deref(), Some("later"));
        let earlier = record("earlier", 4, &[("a", "earlier"), ("b", "earlier")]);
        assert_eq!(overtaken(&new, &[earlier]), None);
        // In part, and by two together.
        let one = record("one", 7, &[("a", "later")]);
        let two = record("two", 6, &[("b", "later")]);
        assert_eq!(overtaken(&new, std::slice::from_ref(&one)), None);
        assert_eq!(overtaken(&new, &[one, two]).as_deref(), Some("one"));
        // Another project's builds do not count, and equal bytes are shown.
        let mut other = later.clone();
        other.build.project = Some("other".to_owned());
        assert_eq!(overtaken(&new, &[other]), None);
        let same = record("same", 6, &[("a", "new"), ("b", "new")]);
        assert_eq!(overtaken(&new, &[same]), None);
    }

    #[test]
    fn what_says_nothing_new_is_not_overtaken() {
        let later = record("later", 6, &[("a", "later")]);
        let passed = with_result(record("new", 5, &[]), "test", "pass");
        assert_eq!(overtaken(&passed, std::slice::from_ref(&later)), None);
        let failed = with_result(record("new", 5, &[]), "test", "fail");
        assert_eq!(overtaken(&failed, std::slice::from_ref(&later)), None);
        let passed = with_result(later, "test", "pass");
        assert_eq!(overtaken(&failed, &[passed]).as_deref(), Some("later"));
    }

    #[test]
    fn a_rollback_behind_a_release_is_overtaken() {
        let build = record("build", 1, &[("a", "a")]);
        let mut rollback = record("rollback", 5, &[]);
        rollback.rollback = Some("build".to_owned());
        let mut release = record("release", 6, &[]);
        release.release = true;
        let later = record("later", 7, &[("a", "later")]);
        assert_eq!(overtaken(&rollback, &[build.clone(), later]), None);
        assert_eq!(overtaken(&rollback, &[build, release]).as_deref(), Some("release"));
    }

    #[test]
    fn only_what_has_not_ended_is_ahead() {
        let now = Timestamp::from_second(10).expect("a time");
        let records = [record("b", 13, &[]), record("a", 9, &[])];
        let (build, ahead) = newest_ahead(&records, now).expect("one is ahead");
        assert_eq!((&*build.id, ahead), ("b", SignedDuration::from_secs(3)));
        assert_eq!(newest_ahead(&records[1..], now), None);
    }
}
