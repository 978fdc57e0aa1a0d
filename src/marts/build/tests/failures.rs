//! Builders that fail, and what that says of files.

use std::io::{BufRead, BufReader};

use rustix::process::{Pid, Signal};

use super::*;

const FRONT: &str = "MARTD_TEST_FRONT";

#[test]
fn an_internal_error_condemns_one_file_alone() {
    let stage = Stage::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/files/edges");
    let bad = stage.pin_file(&folder.join("internal-error.parquet"));
    let mut pins: Vec<_> = (0..5).map(|n| stage.pin(&format!("SELECT {n} AS a"))).collect();
    pins.insert(2, Arc::clone(&bad));
    let (pool, outcomes) = stage.start();
    for (number, pin) in pins.iter().enumerate() {
        pool.submit(Arc::clone(pin), number.to_string());
    }
    let mut built = Vec::new();
    for _ in 0..6 {
        let outcome = next(&outcomes);
        match outcome.result {
            BuildResult::Built(table) => built.push(table),
            BuildResult::Rejected(rejection) => {
                assert_eq!((outcome.name.as_str(), rejection.lasting), ("2", false));
                assert!(rejection.reason.starts_with("INTERNAL Error"), "{rejection:?}");
                assert!(!rejection.reason.contains('/'), "{rejection:?}");
                assert!(!rejection.reason.contains("Stack"), "{rejection:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(built.len(), 5);
    let runs = stage.runs();
    pool.retry_now();
    assert!(matches!(next(&outcomes).result, BuildResult::Rejected(_)), "tried again");
    assert!(stage.runs() > runs, "it is not remembered");
}

#[test]
fn a_killed_builder_says_nothing_about_its_file() {
    let once = "[ -e killed ] || { touch killed; kill -KILL $$; }";
    let stage = Stage::with_script(once);
    assert_eq!(table(&stage.build(&stage.pin("SELECT 1 AS a"))).report().rows, 1);
    assert_eq!(stage.runs(), 2);

    let until_healed = "[ -e healed ] || kill -KILL $$";
    let stage = Stage::with_script(until_healed);
    let (pool, outcomes) = stage.start();
    let pin = stage.pin("SELECT 1 AS a");
    pool.submit(Arc::clone(&pin), "a");
    let BuildResult::Rejected(rejection) = next(&outcomes).result else { panic!("built") };
    assert!(!rejection.lasting && rejection.reason.contains("SIGKILL"), "{rejection:?}");
    fs::write(stage.path("healed"), "").expect("write");
    // Tried again by itself.
    while !matches!(next(&outcomes).result, BuildResult::Built(_)) {}
}

#[test]
fn a_builder_that_is_stopped_is_replaced() {
    let mut stage = Stage::with_script("[ -e healed ] || kill -STOP $$");
    (stage.settings.deadline, stage.settings.patience) = (Duration::from_secs(2), 1);
    let (pool, outcomes) = stage.start();
    let pin = stage.pin("SELECT 1 AS a");
    pool.submit(Arc::clone(&pin), "a");
    let BuildResult::Rejected(rejection) = next(&outcomes).result else { panic!("built") };
    assert_eq!(rejection, FileRejection::passing("was not read within 2s".to_owned()));
    fs::write(stage.path("healed"), "").expect("write");
    pool.retry_now();
    while !matches!(next(&outcomes).result, BuildResult::Built(_)) {}
}

#[test]
fn a_builder_that_never_ends_is_stopped() {
    let mut stage = Stage::with_script("while :; do :; done");
    stage.settings.deadline = Duration::from_millis(100);
    let verdict = stage.build(&stage.pin("SELECT 1 AS a"));
    let reason = &rejection(&verdict).reason;
    assert_eq!(reason, "was not read within 100ms of processor time");
    assert_eq!(stage.runs(), 2, "it was read by another one alone");
}

#[test]
fn an_older_version_that_waits_is_given_up() {
    let stage = Stage::with_script("echo $$ > pid; mv pid started; kill -STOP $$");
    let (pool, outcomes) = stage.start();
    let pins: Vec<_> = (0..3).map(|n| stage.pin(&format!("SELECT {n} AS a"))).collect();
    pool.submit(Arc::clone(&pins[0]), "other");
    let builder = wait_for(&stage.path("started"));
    pool.submit(Arc::clone(&pins[1]), "mart");
    pool.submit(Arc::clone(&pins[2]), "mart");
    wait_stopped(builder);
    rustix::process::kill_process(builder, Signal::CONT).expect("alive");
    let mut superseded = Vec::new();
    for _ in 0..3 {
        let outcome = next(&outcomes);
        match outcome.result {
            BuildResult::Built(_) => {}
            BuildResult::Superseded => superseded.push(outcome.pin.hash()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(superseded, [pins[1].hash()]);
}

#[test]
fn a_version_a_snapshot_waits_for_is_kept() {
    let stage = Stage::with_script("echo $$ > pid; mv pid started; kill -STOP $$");
    let (pool, outcomes) = stage.start();
    let pins: Vec<_> = (0..3).map(|n| stage.pin(&format!("SELECT {n} AS a"))).collect();
    pool.submit(Arc::clone(&pins[0]), "other");
    let builder = wait_for(&stage.path("started"));
    pool.submit(Arc::clone(&pins[1]), "mart");
    pool.want(Arc::clone(&pins[1]), "mart");
    pool.submit(Arc::clone(&pins[2]), "mart");
    wait_stopped(builder);
    rustix::process::kill_process(builder, Signal::CONT).expect("alive");
    let mut built = Vec::new();
    while built.len() < 3 {
        let outcome = next(&outcomes);
        match outcome.result {
            BuildResult::Built(_) => built.push(outcome.pin.hash()),
            BuildResult::Superseded => assert_eq!(outcome.pin.hash(), pins[1].hash()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(built, [0, 1, 2].map(|pin: usize| pins[pin].hash()));
}

#[test]
fn a_pool_that_ends_waits_for_no_builder() {
    let stage = Stage::with_script("echo $$ > pid; mv pid started; kill -STOP $$");
    let (pool, _outcomes) = stage.start();
    pool.submit(stage.pin("SELECT 1 AS a"), "a");
    wait_for(&stage.path("started"));
    drop(pool);
    assert_eq!(stage.left_behind(), 0);
}

#[test]
fn a_killed_front_leaves_nothing_behind() {
    if let Some(dir) = std::env::var_os(FRONT) {
        return be_a_front(Path::new(&dir));
    }
    let stage = Stage::new();
    let pin = stage.pin("SELECT 1 AS a");
    assert_eq!(table(&stage.build(&pin)).report().rows, 1);
    let mut front = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "marts::build::tests::failures::a_killed_front_leaves_nothing_behind"])
        .arg("--nocapture")
        .env(FRONT, stage.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program");
    let lines = BufReader::new(front.stdout.take().expect("piped")).lines();
    let built = lines.map(|line| line.expect("text")).find(|line| line.contains("built"));
    assert!(built.is_some());
    assert_eq!(stage.left_behind(), 1, "a builder is kept");
    front.kill().expect("alive");
    front.wait().expect("a child");
    while stage.left_behind() > 0 {
        std::thread::yield_now();
    }
}

/// Builds a file, says so, and has its builder still when it is killed.
fn be_a_front(dir: &Path) {
    let budget = TableBudget::new(64 << 20, None);
    let settings =
        BuilderSettings::new(dir.join("martd"), dir.join("scratch"), budget).expect("threads");
    let pool = Pool::start(settings, |_| {}).expect("threads");
    let file = fs::File::open(dir.join("made.parquet")).expect("open");
    let pin = Arc::new(Pin::new(file, &Budget::new(1 << 20)).expect("pin"));
    let file = PinnedFile { path: "made.parquet".to_owned(), pin };
    let pin = Arc::new(MartPin::new(vec![file]));
    println!("built {:?}", pool.build_all([&pin]).len());
    std::thread::park();
}

/// The process whose number a builder writes to a file.
fn wait_for(path: &Path) -> Pid {
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            let number = text.trim().parse().expect("a number");
            return Pid::from_raw(number).expect("a process");
        }
        std::thread::yield_now();
    }
}

fn wait_stopped(process: Pid) {
    let path = format!("/proc/{}/stat", process.as_raw_nonzero());
    while !fs::read_to_string(&path).expect("alive").contains(") T ") {
        std::thread::yield_now();
    }
}
