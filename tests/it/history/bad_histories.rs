//! Proves that the checker fails when it should: a good history, and one thing changed in each.

use std::time::Duration;

use super::checker::{Kind, Promise, check};
use super::record::{
    Answer, At, Awaited, Content, Fate, History, Look, Mart, Outcome, Version, Vouched, Write,
};

const PROMISE: Promise =
    Promise { visible_within: Duration::from_secs(5), retained_for: Duration::from_secs(2) };

fn at(seconds: u64) -> At {
    Duration::from_secs(seconds)
}

fn write(mart: Mart, version: Version, began: u64) -> Write {
    Write { mart, version, began: at(began), fate: Fate::Done(at(began + 1)) }
}

fn rows(snapshot: &str, seen: &[(Mart, Version)], began: u64) -> Answer {
    let seen = seen.iter().map(|(mart, version)| (*mart, Content::Whole(*version))).collect();
    answer(None, Outcome::Rows { snapshot: snapshot.to_owned(), seen }, began)
}

fn refused(asked: Option<&str>, status: u16, problem: &str, began: u64) -> Answer {
    answer(asked, Outcome::Refused { status, problem: problem.to_owned() }, began)
}

fn answer(asked: Option<&str>, outcome: Outcome, began: u64) -> Answer {
    let ended = at(began) + Duration::from_millis(100);
    Answer { client: 1, began: at(began), ended, asked: asked.map(str::to_owned), outcome }
}

fn look(generation: u64, snapshot: &str, marts: &[&str], began: u64) -> Look {
    let marts = marts.iter().map(|mart| (*mart).to_owned()).collect();
    let ended = at(began) + Duration::from_millis(100);
    Look { began: at(began), ended, generation, snapshot: snapshot.to_owned(), marts }
}

/// Two builds of `a` and `b`, and three versions of the free mart `f`, of which the second was
/// killed; each seen in order.
fn good() -> History {
    let vouched = |build: u64, began: u64| Vouched {
        build,
        marts: [("a", build), ("b", build)].into(),
        began: at(began),
        done: at(began + 1),
    };
    let killed = Write { mart: "f", version: 2, began: at(5), fate: Fate::Killed };
    History {
        writes: vec![
            write("a", 1, 0),
            write("b", 1, 1),
            write("a", 2, 10),
            write("b", 2, 11),
            write("f", 1, 0),
            killed,
            write("f", 3, 8),
        ],
        vouched: vec![vouched(1, 2), vouched(2, 12)],
        awaited: vec![Awaited { build: 1, ended: at(4), status: 200 }],
        answers: vec![
            rows("one", &[("a", 1), ("b", 1), ("f", 1)], 4),
            rows("two", &[("a", 1), ("b", 1), ("f", 3)], 9),
            rows("three", &[("a", 2), ("b", 2), ("f", 3)], 14),
        ],
        looks: vec![
            look(1, "one", &["a", "b", "f"], 4),
            look(2, "two", &["a", "b", "f"], 9),
            look(3, "three", &["a", "b", "f"], 14),
        ],
    }
}

fn kinds(history: &History) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = check(history, &PROMISE).into_iter().map(|v| v.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// The kinds of violation after a change to the good history.
fn after(change: impl FnOnce(&mut History)) -> Vec<Kind> {
    let mut history = good();
    change(&mut history);
    kinds(&history)
}

#[test]
fn a_good_history_is_good() {
    assert_eq!(check(&good(), &PROMISE), []);
}

#[test]
fn a_killed_writers_version_may_be_seen_or_not() {
    let seen = rows("in between", &[("a", 1), ("b", 1), ("f", 2)], 7);
    assert_eq!(after(|h| h.answers.push(seen)), []);
}

#[test]
fn a_torn_scan() {
    let torn = Content::Torn("version 1 and 2".to_owned());
    let outcome = Outcome::Rows { snapshot: "torn".to_owned(), seen: vec![("f", torn)] };
    assert_eq!(after(|h| h.answers.push(answer(None, outcome, 7))), [Kind::Torn]);
}

#[test]
fn a_version_damaged_unwritten_or_seen_too_early() {
    assert_eq!(after(|h| h.writes[5].fate = Fate::Damaged), []);
    let seen = |version, began| rows("odd", &[("f", version)], began);
    let damaged = |h: &mut History| {
        h.writes[5].fate = Fate::Damaged;
        h.answers.push(seen(2, 7));
    };
    assert_eq!(after(damaged), [Kind::Unwritten]);
    assert_eq!(after(|h| h.answers.push(seen(4, 20))), [Kind::Unwritten]);
    assert_eq!(after(|h| h.answers.push(seen(2, 4))), [Kind::Unwritten]);
}

#[test]
fn marts_of_two_builds_in_one_answer() {
    let mixed = rows("mixed", &[("a", 2), ("b", 1)], 13);
    assert_eq!(after(|h| h.answers.push(mixed)), [Kind::Mixed]);
}

#[test]
fn marts_of_two_builds_in_two_answers_of_one_snapshot() {
    let rest = Answer { asked: Some("mixed".to_owned()), ..rows("mixed", &[("b", 1)], 13) };
    let kinds = after(|h| h.answers.extend([rows("mixed", &[("a", 2)], 13), rest]));
    assert_eq!(kinds, [Kind::Mixed]);
}

#[test]
fn a_build_seen_before_its_ledger_or_without_one() {
    let early = rows("early", &[("a", 2), ("b", 2), ("f", 1)], 11);
    assert_eq!(after(|h| h.answers = vec![early]), [Kind::Mixed]);
    assert_eq!(after(|h| h.vouched.truncate(1)), [Kind::Mixed]);
}

#[test]
fn one_id_for_two_contents_and_two_ids_for_one() {
    let other = rows("two", &[("f", 2)], 9);
    assert!(after(|h| h.answers.push(other)).contains(&Kind::Ambiguous));
    let same = rows("another", &[("a", 2), ("b", 2), ("f", 3)], 14);
    assert_eq!(after(|h| h.answers.push(same)), [Kind::Ambiguous]);
    assert_eq!(after(|h| h.looks.push(look(3, "other", &["a", "b", "f"], 15))), [Kind::Ambiguous]);
}

#[test]
fn an_answer_that_is_older_than_one_before_it() {
    let backward = rows("one", &[("a", 1), ("b", 1), ("f", 1)], 10);
    assert_eq!(after(|h| h.answers.push(backward)), [Kind::Backward]);
}

#[test]
fn an_older_answer_to_an_earlier_question_is_right() {
    let mut slow = rows("one", &[("a", 1), ("b", 1), ("f", 1)], 8);
    slow.ended = at(20);
    assert_eq!(after(|h| h.answers.push(slow)), []);
}

#[test]
fn an_older_answer_by_a_snapshots_id_is_no_step_back() {
    let by_id = Answer { asked: Some("one".to_owned()), ..rows("one", &[("f", 1)], 15) };
    assert_eq!(after(|h| h.answers.push(by_id)), []);
}

#[test]
fn two_marts_that_are_seen_in_two_orders() {
    // Both were asked for at the same time, so neither answer is older.
    let crossed = |h: &mut History| {
        h.vouched.clear();
        h.awaited.clear();
        h.looks.clear();
        h.answers = vec![
            rows("x", &[("a", 1), ("b", 2)], 14), //
            rows("y", &[("a", 2), ("b", 1)], 14),
        ];
    };
    assert_eq!(after(crossed), [Kind::Backward]);
}

#[test]
fn a_generation_that_goes_back() {
    let back = look(1, "one", &["a", "b", "f"], 15);
    assert_eq!(after(|h| h.looks.push(back)), [Kind::Backward]);
    let swapped = |h: &mut History| {
        h.looks[1].snapshot = "three".to_owned();
        h.looks[2].snapshot = "two".to_owned();
    };
    assert_eq!(after(swapped), [Kind::Backward], "later generations have later contents");
}

#[test]
fn an_answer_older_than_the_build_waited_for() {
    let awaited = Awaited { build: 2, ended: at(13), status: 200 };
    let old = rows("two", &[("a", 1), ("b", 1), ("f", 3)], 14);
    let late = |h: &mut History| {
        h.awaited.push(awaited);
        h.answers[2] = old;
        h.looks.clear();
    };
    assert_eq!(after(late), [Kind::Backward]);
}

#[test]
fn a_build_that_is_never_served() {
    let waited = Awaited { build: 2, ended: at(40), status: 504 };
    assert_eq!(after(|h| h.awaited.push(waited)), [Kind::Stale]);
}

#[test]
fn a_version_that_is_not_seen_in_time() {
    let seen = |began| rows("two", &[("f", 1)], began);
    let unseen = |began| {
        after(|h| {
            h.answers = vec![seen(began)];
            h.looks.clear();
        })
    };
    assert_eq!(unseen(13), [], "version 3 may take until 14");
    assert_eq!(unseen(14), [Kind::Stale]);
}

#[test]
fn a_version_before_an_unfinished_one_may_be_lost() {
    let lost = |h: &mut History| {
        h.writes[6].fate = Fate::Killed;
        h.writes[5].fate = Fate::Done(at(6));
        h.answers = vec![rows("one", &[("f", 1)], 30)];
        h.looks.clear();
    };
    assert_eq!(after(lost), []);
}

#[test]
fn a_mart_that_is_missing() {
    let problem = "Table with name f does not exist!";
    assert_eq!(after(|h| h.answers.push(refused(None, 400, problem, 6))), [Kind::Missing]);
    assert_eq!(after(|h| drop(h.looks[1].marts.pop())), [Kind::Missing]);
}

#[test]
fn a_question_that_is_not_answered() {
    for status in [400, 410, 500, 503, 504] {
        let failed = refused(None, status, "something", 6);
        assert_eq!(after(|h| h.answers.push(failed)), [Kind::Failed], "{status}");
    }
}

#[test]
fn a_snapshot_that_is_not_kept_as_long_as_promised() {
    let gone = |began| refused(Some("two"), 410, "snapshot-gone", began);
    assert_eq!(after(|h| h.answers.push(gone(10))), [Kind::NotRetained]);
    assert_eq!(after(|h| h.answers.push(gone(11))), []);
    let other = Answer { asked: Some("one".to_owned()), ..rows("two", &[("f", 3)], 10) };
    assert_eq!(after(|h| h.answers.push(other)), [Kind::NotRetained]);
}
