//! martd is killed at random moments under load, and started again: it is ready with what is on disk,
//! and has left nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value as Json;

use crate::harness::{Client, Martd, Root, seed, wait_for};
use crate::proc;
use crate::writers::{Project, Writer};

const KILLS: usize = 12;
/// A start takes about a tenth of this.
const KILLED_WITHIN_MS: u64 = 1_500;
const MARTS: [&str; 3] = ["a", "b", "c"];

/// Large enough that a builder is at work much of the time.
fn rows(build: u64) -> String {
    format!("SELECT {build} AS build, hash(i) AS x FROM range(200_000) t(i)")
}

struct Stage {
    root: Root,
    writer: Writer,
    project: Project,
    builds: u64,
    state: tempfile::TempDir,
    /// Where martd is started; a place for what it should not write.
    work: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = || tempfile::tempdir().expect("a temporary directory");
        Self {
            root: Root::new(),
            writer: Writer::new(),
            project: Project::default(),
            builds: 0,
            state: dir(),
            work: dir(),
        }
    }

    fn build(&mut self) {
        self.builds += 1;
        let invocation = format!("build-{}", self.builds);
        for mart in MARTS {
            self.writer.land_stamped(&self.root, mart, &rows(self.builds), Some(&invocation));
            self.project.built(mart, &invocation);
        }
        self.project.write_ledger(&self.root, &invocation);
    }

    /// Starts martd as the leader of a process group, in which its children stay.
    fn start(&self, keeps_state: bool) -> Martd {
        let state = self.state.path().to_str().expect("UTF-8");
        let settings = [("MARTD_STATE_DIR", state)];
        let settings = if keeps_state { &settings[..] } else { &[] };
        Martd::start_in_group(self.root.path(), settings, self.work.path())
    }

    fn is_served_by(&self, martd: &Martd) {
        let build = self.builds;
        martd.wait_snapshot("the last build", |snapshot| {
            snapshot["build"]["invocation_id"] == format!("build-{build}").as_str()
        });
        for mart in MARTS {
            let sql = format!("SELECT min(build) + max(build) FROM mart.{mart}");
            assert_eq!(martd.query(&sql).value(), 2 * build);
        }
    }

    /// Nothing but what writers put there.
    fn mart_directory_is_clean(&self) {
        let expected = MARTS.iter().map(|mart| format!("{mart}.parquet"));
        let expected: BTreeSet<String> = expected.chain(["_build.json".to_owned()]).collect();
        assert_eq!(entries(&self.root.mart("")), expected);
        assert_eq!(entries(self.work.path()), BTreeSet::new());
    }

    /// Nothing but the manifest, the lock, and the files that the manifest names.
    fn state_directory_becomes_clean(&self) {
        wait_for("a clean state directory", || {
            let text = fs::read(self.state.path().join("snapshot.json")).ok()?;
            let manifest: Json = serde_json::from_slice(&text).expect("replaced as a whole");
            let snapshots = manifest["snapshots"].as_array().expect("snapshots").iter();
            let marts =
                snapshots.flat_map(|kept| kept["marts"].as_object().expect("marts").values());
            let hash = |file: &Json| file.as_str().expect("a hash").to_owned();
            let files = marts.flat_map(|mart| mart["files"].as_object().expect("files").values());
            let mut expected: BTreeSet<String> =
                files.map(|file| format!("{}.parquet", hash(file))).collect();
            expected.extend(["snapshot.json", "lock"].map(str::to_owned));
            (entries(self.state.path()) == expected).then_some(())
        });
    }
}

fn entries(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).expect("readable");
    entries
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect()
}

/// Asks as long as there is someone to answer. Whatever is answered is right.
fn ask_until_killed(martd: &Client, killed: &AtomicBool) {
    let sql = "SELECT count(DISTINCT build) AS n FROM \
               (SELECT build FROM mart.a UNION ALL SELECT build FROM mart.b)";
    while !killed.load(Ordering::Relaxed) {
        let Some(answer) = martd.query(sql) else { continue };
        match answer.status {
            200 => assert_eq!(answer.value(), 1, "an answer mixes builds"),
            status => assert_eq!((status, answer.problem().0.as_str()), (503, "not-ready")),
        }
    }
}

/// Kills martd after this time, or, without one, as soon as it builds a table.
fn kill(martd: &mut Martd, after: Option<Duration>) {
    match after {
        Some(time) => thread::sleep(time),
        None => {
            let builder = || proc::children(martd.pid()).first().copied();
            wait_for("a builder", builder);
        }
    }
    martd.signal(Signal::KILL);
    martd.wait_exit();
}

fn killed_again_and_again(keeps_state: bool) {
    let mut rng = Rng::with_seed(seed());
    let mut stage = Stage::new();
    stage.build();

    for round in 0..KILLS {
        let mut martd = stage.start(keeps_state);
        let group = martd.pid();
        let killed = AtomicBool::new(false);
        let after = (round % 3 != 0).then(|| Duration::from_millis(rng.u64(0..KILLED_WITHIN_MS)));
        thread::scope(|scope| {
            let (killed, stage) = (&killed, &mut stage);
            let client = martd.client();
            scope.spawn(move || ask_until_killed(&client, killed));
            scope.spawn(move || {
                while !killed.load(Ordering::Relaxed) {
                    stage.build();
                }
            });
            kill(&mut martd, after);
            killed.store(true, Ordering::Relaxed);
        });
        wait_for("martd's children to die with it", || {
            proc::members(group).is_empty().then_some(())
        });
        stage.mart_directory_is_clean();
    }

    let martd = stage.start(keeps_state);
    stage.is_served_by(&martd);
    if keeps_state {
        stage.state_directory_becomes_clean();
    }
    stage.mart_directory_is_clean();
}

#[test]
fn a_killed_martd_comes_back_with_what_is_on_disk() {
    killed_again_and_again(false);
}

#[test]
fn a_killed_martd_goes_on_from_its_state_directory() {
    killed_again_and_again(true);
}
