//! Clients that ask all the time and write down what they were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use super::drivers::Stage;
use super::record::{Answer, History, Look, Mart, Outcome};
use super::stamp;

/// Between two looks at `/v1/snapshot`.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Questions that are asked of one snapshot by its id.
const QUESTIONS_OF_ONE: usize = 4;

/// Asks one question over these marts and writes it down.
pub fn ask(stage: &Stage<'_>, client: usize, marts: &[Mart], snapshot: Option<&str>) -> Answer {
    let header = snapshot.map(|id| ("martd-snapshot", id));
    let body = json!({ "sql": stamp::question(marts) });
    let began = stage.now();
    let answer = stage.martd.post_with(&body, header.as_slice());
    let ended = stage.now();
    let outcome = if answer.status == 200 {
        let snapshot = answer.header("martd-snapshot").to_owned();
        Outcome::Rows { snapshot, seen: stamp::sightings(marts, &answer.rows()) }
    } else {
        Outcome::Refused { status: answer.status, problem: answer.body }
    };
    Answer { client, began, ended, asked: snapshot.map(str::to_owned), outcome }
}

/// Asks for all marts in one statement, some of them twice, until it is done.
pub fn ask_for_all(
    stage: &Stage<'_>,
    client: usize,
    marts: &[Mart],
    mut rng: Rng,
    done: &AtomicBool,
) -> History {
    let mut history = History::default();
    while !done.load(Ordering::Relaxed) {
        let mut asked = marts.to_vec();
        asked.push(*rng.choice(marts).expect("there are marts"));
        history.answers.push(ask(stage, client, &asked, None));
    }
    history
}

/// Asks for one mart, then for others of the snapshot that answered, by its id.
pub fn ask_one_snapshot(
    stage: &Stage<'_>,
    client: usize,
    marts: &[Mart],
    mut rng: Rng,
    done: &AtomicBool,
) -> History {
    let mut history = History::default();
    while !done.load(Ordering::Relaxed) {
        let first = ask(stage, client, &[*rng.choice(marts).expect("there are marts")], None);
        let id = first.rows().map(|(id, _)| id.to_owned());
        history.answers.push(first);
        for _ in 0..id.as_ref().map_or(0, |_| QUESTIONS_OF_ONE) {
            let some = rng.choose_multiple(marts.iter().copied(), 2);
            history.answers.push(ask(stage, client, &some, id.as_deref()));
        }
    }
    history
}

/// Looks at `/v1/snapshot`.
pub fn look(stage: &Stage<'_>, done: &AtomicBool) -> History {
    let mut history = History::default();
    while !done.load(Ordering::Relaxed) {
        let began = stage.now();
        let answer = stage.martd.get("/v1/snapshot");
        let ended = stage.now();
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        history.looks.push(Look {
            began,
            ended,
            generation: json["generation"].as_u64().expect("a snapshot is served"),
            snapshot: json["id"].as_str().expect("a snapshot is served").to_owned(),
            marts: crate::harness::names(&json["marts"], "name"),
        });
        thread::sleep(LOOK_EVERY);
    }
    history
}
