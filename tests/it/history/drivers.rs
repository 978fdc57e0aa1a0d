//! What writers do all day: free files in every way there is, and dbt-like builds that succeed, fail,
//! or are killed half way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value as Json;

use super::record::{At, Awaited, Fate, History, Mart, Version, Vouched, Write};
use super::writer::{Ended, Job, Way, Writer};
use crate::harness::{Martd, Root};
use crate::writers::Project;

/// The longest that a writer lets a file or a build be.
const LONGEST_PAUSE_MS: u64 = 1_000;
/// A job takes 10 to 20 ms; a writer that is to be killed is killed within this time.
const KILLED_WITHIN_US: u64 = 20_000;
/// How long to wait for a build to be served, in seconds.
const AWAIT_SECONDS: u32 = 20;

/// The stage that all threads of a run share.
pub struct Stage<'r> {
    pub root: &'r Root,
    pub martd: &'r Martd,
    pub started: Instant,
    /// Set when writers are to come to an end.
    pub closing: &'r AtomicBool,
}

impl Stage<'_> {
    pub fn now(&self) -> At {
        self.started.elapsed()
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

/// Often none at all, sometimes long enough for a version to be seen.
fn pause(rng: &mut Rng) {
    let longest = rng.choice([0, 0, 20, 200, LONGEST_PAUSE_MS]).expect("there are some");
    thread::sleep(Duration::from_millis(rng.u64(0..=longest)));
}

fn any_way(rng: &mut Rng) -> Way {
    match rng.u8(0..20) {
        0..4 => Way::Copy,
        4..8 => Way::CopyStraight,
        8..12 => Way::Rename,
        12..15 => Way::UnlinkThenRename,
        15..19 => {
            let parts = rng.usize(1..6);
            let mut pause = || rng.choice([0, 0, 300, 4_000]).expect("there are some");
            Way::InPlace((0..parts).map(|_| pause()).collect())
        }
        _ => Way::Damaged,
    }
}

/// One writer of one mart.
struct Pen<'s, 'r> {
    stage: &'s Stage<'r>,
    writer: Writer,
    history: History,
}

impl<'s, 'r> Pen<'s, 'r> {
    fn new(stage: &'s Stage<'r>) -> Self {
        Self { stage, writer: Writer::start(), history: History::default() }
    }

    fn path(&self, mart: Mart) -> PathBuf {
        self.stage.root.mart(&format!("{mart}.parquet"))
    }

    /// Writes a version, or is killed in the attempt when that takes longer than `kill`.
    fn write(
        &mut self,
        mart: Mart,
        version: Version,
        invocation: Option<&str>,
        way: Way,
        kill: Option<Duration>,
    ) -> Ended {
        let damaged = way == Way::Damaged;
        let invocation = invocation.map(str::to_owned);
        let name = mart.to_owned();
        let job = Job::Mart { path: self.path(mart), name, version, invocation, way };
        let began = self.stage.now();
        let ended = self.run(&job, kill);
        let fate = match ended {
            Ended::Killed => Fate::Killed,
            Ended::Done if damaged => Fate::Damaged,
            Ended::Done => Fate::Done(self.stage.now()),
        };
        self.history.writes.push(Write { mart, version, began, fate });
        ended
    }

    fn run(&mut self, job: &Job, kill: Option<Duration>) -> Ended {
        match kill {
            Some(time) => self.writer.run_or_kill(job, time),
            None => {
                self.writer.run(job);
                Ended::Done
            }
        }
    }
}

/// Writes one free mart in all ways, and is killed now and then. The last version is whole.
pub fn write_freely(stage: &Stage<'_>, mart: Mart, mut rng: Rng) -> History {
    let mut pen = Pen::new(stage);
    let mut version = 0;
    let mut killed = false;
    while !stage.is_closing() {
        version += 1;
        // After a kill the file may be gone, which martd tolerates for two seconds only.
        let way = if killed { Way::Rename } else { any_way(&mut rng) };
        let kill = (!killed && rng.u8(0..10) == 0)
            .then(|| Duration::from_micros(rng.u64(0..KILLED_WITHIN_US)));
        killed = pen.write(mart, version, None, way, kill) == Ended::Killed;
        if !killed {
            pause(&mut rng);
        }
    }
    pen.write(mart, version + 1, None, Way::Rename, None);
    pen.history
}

/// The kinds of runs that a dbt project sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Builds all models, or some; all tests pass.
    Good,
    /// A test fails after its model was written.
    TestFails,
    /// A model fails: it and those after it are not written.
    ModelFails,
    /// The process is killed half way.
    Killed,
    /// `dbt test`: writes nothing, and the tests that failed pass now.
    Retest,
}

/// A dbt project: what its ledger says, and what is on disk.
struct Dbt<'s, 'r> {
    pen: Pen<'s, 'r>,
    marts: &'s [Mart],
    number: u64,
    /// The ledger: the build that last wrote each model…
    models: BTreeMap<Mart, Version>,
    /// …and what has failed and not succeeded since.
    failed_models: BTreeSet<Mart>,
    failed_tests: BTreeSet<Mart>,
    /// The version of each file; none where a killed writer may have left anything.
    disk: BTreeMap<Mart, Option<Version>>,
}

/// Runs dbt-like builds. The first and the last one are good, and build everything.
pub fn build(stage: &Stage<'_>, marts: &[Mart], mut rng: Rng) -> History {
    let mut dbt = Dbt {
        pen: Pen::new(stage),
        marts,
        number: 0,
        models: BTreeMap::new(),
        failed_models: BTreeSet::new(),
        failed_tests: BTreeSet::new(),
        disk: BTreeMap::new(),
    };
    dbt.run(Run::Good, marts, &mut rng);
    dbt.await_served();
    while !stage.is_closing() {
        let run = match rng.u8(0..20) {
            0..12 => Run::Good,
            12..14 => Run::TestFails,
            14..16 => Run::ModelFails,
            16..19 => Run::Killed,
            _ => Run::Retest,
        };
        let mut selected = marts.to_vec();
        if rng.u8(0..3) == 0 {
            rng.shuffle(&mut selected);
            selected.truncate(rng.usize(1..=marts.len()));
        }
        dbt.run(run, &selected, &mut rng);
        if dbt.is_whole() && rng.bool() {
            dbt.await_served();
        } else {
            pause(&mut rng);
        }
    }
    dbt.run(Run::Good, marts, &mut rng);
    dbt.await_served();
    dbt.pen.history
}

impl Dbt<'_, '_> {
    /// Runs dbt once over these models, in the project's order.
    fn run(&mut self, run: Run, selected: &[Mart], rng: &mut Rng) {
        self.number += 1;
        let last = rng.usize(0..selected.len());
        let selected = if run == Run::Retest { &[] } else { selected };
        for (place, mart) in selected.iter().enumerate() {
            if run == Run::ModelFails && place == last {
                self.failed_models.insert(mart);
                break;
            }
            let kill = (run == Run::Killed && place == last)
                .then(|| Duration::from_micros(rng.u64(0..KILLED_WITHIN_US)));
            if !self.write(mart, kill) {
                return;
            }
            if kill.is_some() {
                return; // it was fast, and is stopped behind this model
            }
            self.models.insert(mart, self.number);
            self.failed_models.remove(mart);
            self.failed_tests.remove(mart);
        }
        match run {
            Run::TestFails => {
                self.failed_tests.insert(selected[last]);
            }
            Run::Retest => self.failed_tests.clear(),
            _ => {}
        }
        self.write_ledger();
    }

    fn invocation(&self) -> String {
        format!("build-{}", self.number)
    }

    /// Writes a model's file as dbt-duckdb does. `false` if the writer was killed.
    fn write(&mut self, mart: Mart, kill: Option<Duration>) -> bool {
        let invocation = self.invocation();
        let ended = self.pen.write(mart, self.number, Some(&invocation), Way::Copy, kill);
        self.disk.insert(mart, (ended == Ended::Done).then_some(self.number));
        ended == Ended::Done
    }

    /// Writes the ledger as the hook at a run's end does.
    fn write_ledger(&mut self) {
        let mut project = Project::default();
        for (mart, version) in &self.models {
            project.built(mart, &format!("build-{version}"));
        }
        for mart in &self.failed_models {
            project.failed(&format!("model.finance.{mart}"));
        }
        for mart in &self.failed_tests {
            project.failed(&format!("test.finance.not_null_{mart}"));
        }
        let path = self.pen.stage.root.mart("_build.json");
        let began = self.pen.stage.now();
        self.pen.writer.run(&Job::Ledger { path, text: project.ledger(&self.invocation()) });
        if self.is_clear() {
            let state = Vouched {
                build: self.number,
                marts: self.models.clone(),
                began,
                done: self.pen.stage.now(),
            };
            self.pen.history.vouched.push(state);
        }
    }

    fn is_clear(&self) -> bool {
        self.failed_models.is_empty()
            && self.failed_tests.is_empty()
            && self.models.len() == self.marts.len()
    }

    /// Whether the last run's ledger vouches for exactly what is on disk.
    fn is_whole(&self) -> bool {
        let vouched = self.pen.history.vouched.last();
        vouched.is_some_and(|state| state.build == self.number)
            && self.models.iter().all(|(mart, version)| self.disk[mart] == Some(*version))
    }

    fn await_served(&mut self) {
        let path = format!("/v1/snapshot?build={}&wait={AWAIT_SECONDS}", self.invocation());
        let answer = self.pen.stage.martd.get(&path);
        let ended = self.pen.stage.now();
        if answer.status == 200 {
            let held = &answer.json()["held"];
            assert_eq!(*held, Json::Null, "a build that is served whole is not held");
        }
        let awaited = Awaited { build: self.number, ended, status: answer.status };
        self.pen.history.awaited.push(awaited);
    }
}
