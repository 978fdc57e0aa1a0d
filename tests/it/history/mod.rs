//! The history checker: writers of every kind and readers of every kind at once, and a proof from
//! what they wrote down that no reader ever saw what no writer had finished.
//!
//! [`drivers`] write, in [`writer`] processes that can be killed, what [`stamp`] makes recognisable;
//! [`readers`] ask; all of them keep a [`record`]; and [`checker`] judges it. [`bad_histories`]
//! proves that it would notice.
//!
//! Every random choice comes from one seed, which reproduces a run as far as timing allows. `SOAK=10m`
//! makes it longer, which is `make soak`.

mod record;
mod checker;
mod bad_histories;
mod stamp;
mod writer;
mod drivers;
mod readers;
mod figures;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::SignedDuration;

use crate::harness::{Martd, Root, seed};
use crate::proc::Usage;
use checker::Promise;
use drivers::Stage;
use figures::Figures;
use record::{Content, Fate, History, Mart};

const DURATION: Duration = Duration::from_secs(45);
/// Memory and descriptors are compared with those after this part of the run.
const WARM_UP: f64 = 0.25;
/// What the allocators may keep for themselves beyond that: runs end up to 15 MiB above or below.
const SLACK_BYTES: u64 = 64 << 20;
/// At rest a mart is pinned as it is served, and in the three versions that wait for a ledger.
const PINS_PER_MART: usize = 4;
const RETAIN: Duration = Duration::from_secs(2);
/// More than martd publishes in that time.
const RETAIN_COUNT: &str = "64";
/// Far above what it takes (the figures tell), for the machine may be busy.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// A directory with writers of its own, and a martd over it.
struct Plan {
    policy: &'static str,
    free: &'static [Mart],
    built: &'static [Mart],
}

const FILES: Plan = Plan { policy: "file", free: &["apples", "pears", "plums"], built: &[] };
const BUILDS: Plan = Plan {
    policy: "build",
    free: &["rates"],
    built: &["dim_a", "dim_b", "fct_c", "fct_d", "fct_e"],
};

#[test]
fn every_answer_is_one_state_that_writers_finished() {
    let soak = std::env::var("SOAK").ok().filter(|time| !time.is_empty());
    let duration = soak.map_or(DURATION, |time| {
        let time: SignedDuration = time.parse().expect("SOAK is a time such as 10m");
        time.try_into().expect("SOAK is not negative")
    });
    let mut rng = Rng::with_seed(seed());
    thread::scope(|scope| {
        for plan in [&FILES, &BUILDS] {
            let rng = rng.fork();
            scope.spawn(move || plan.run_and_check(duration, rng));
        }
    });
}

impl Plan {
    fn marts(&self) -> Vec<Mart> {
        [self.free, self.built].concat()
    }

    fn run_and_check(&self, duration: Duration, rng: Rng) {
        let (history, usage) = self.run(duration, rng);
        let promise = Promise { visible_within: VISIBLE_WITHIN, retained_for: RETAIN };
        let violations = checker::check(&history, &promise);
        let figures = Figures::of(&history, &violations, usage);
        println!("MARTD_PUBLISH={}\n{figures}", self.policy);

        let some: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), some.join("\n"));

        let (warm, end) = usage;
        assert!(end.resident < warm.resident + SLACK_BYTES, "memory grew: {warm:?}, {end:?}");
        assert!(end.pins <= PINS_PER_MART * self.marts().len(), "pins are left: {end:?}");
        let others = |usage: Usage| usage.descriptors - usage.pin_descriptors;
        assert!(others(end) <= others(warm), "descriptors are left: {warm:?}, {end:?}");

        // A run in which little happened proves little.
        assert!(figures.replacements() > 100, "the writers wrote next to nothing");
        assert!(figures.answers_by_id() > 100, "hardly any snapshot was asked for by its id");
        assert!(self.built.is_empty() || figures.builds_seen() > 10, "hardly any build was seen");
    }

    /// Runs writers and readers, and returns what they wrote down, and what martd took when it was
    /// warm and in the end, at rest.
    fn run(&self, duration: Duration, mut rng: Rng) -> (History, (Usage, Usage)) {
        let root = Root::new();
        let retain = format!("{}s", RETAIN.as_secs());
        let martd = Martd::start_with(
            root.path(),
            &[
                ("MARTD_PUBLISH", self.policy),
                ("MARTD_RETAIN", &retain),
                ("MARTD_RETAIN_COUNT", RETAIN_COUNT),
                ("RUST_LOG", "info"),
            ],
        );
        let closing = AtomicBool::new(false);
        let done = AtomicBool::new(false);
        let stage =
            Stage { root: &root, martd: &martd, started: Instant::now(), closing: &closing };
        let (stage, done, marts) = (&stage, &done, &self.marts());

        let (history, warm) = thread::scope(|scope| {
            let mut writers = Vec::new();
            for mart in self.free {
                let rng = rng.fork();
                writers.push(scope.spawn(move || drivers::write_freely(stage, mart, rng)));
            }
            if !self.built.is_empty() {
                let rng = rng.fork();
                writers.push(scope.spawn(move || drivers::build(stage, self.built, rng)));
            }
            martd.wait_snapshot("all marts", |snapshot| {
                snapshot["marts"].as_array().is_some_and(|served| served.len() == marts.len())
            });
            let (one, two) = (rng.fork(), rng.fork());
            let readers = [
                scope.spawn(move || readers::ask_for_all(stage, 1, marts, one, done)),
                scope.spawn(move || readers::ask_one_snapshot(stage, 2, marts, two, done)),
                scope.spawn(move || readers::look(stage, done)),
            ];
            thread::sleep(duration.mul_f64(WARM_UP));
            let warm = Usage::of(martd.pid());
            thread::sleep(duration.saturating_sub(stage.now()));
            closing.store(true, Ordering::Relaxed);

            let mut history = History::default();
            for writer in writers {
                history.absorb(writer.join().expect("the writer ends"));
            }
            history.answers.push(last_answer(stage, marts, &history));
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                history.absorb(reader.join().expect("the reader ends"));
            }
            (history, warm)
        });
        martd.wait_snapshot("the retention to end", |snapshot| {
            snapshot["retained"].as_array().is_some_and(Vec::is_empty)
        });
        (history, (warm, Usage::of(martd.pid())))
    }
}

/// Asks until the last state that was written is seen; or for longer than it may take, so that the
/// checker finds it missing.
fn last_answer(stage: &Stage<'_>, marts: &[Mart], history: &History) -> record::Answer {
    let written = |mart: Mart| {
        let of_mart = history.writes.iter().filter(|write| write.mart == mart);
        let done = of_mart.filter(|write| matches!(write.fate, Fate::Done(_)));
        Content::Whole(done.map(|write| write.version).max().expect("the last write is whole"))
    };
    let deadline = stage.now() + 2 * VISIBLE_WITHIN;
    loop {
        let answer = readers::ask(stage, 0, marts, None);
        let is_last = answer
            .rows()
            .is_some_and(|(_, seen)| seen.iter().all(|(mart, content)| *content == written(mart)));
        if is_last || stage.now() > deadline {
            return answer;
        }
    }
}
