//! What becomes known of files, in which order.

use super::*;
use crate::mart_dir::MartDir;
use crate::marts::build;
use crate::scan::Identity;

/// A Parquet file that this text tells from others.
fn parquet(text: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let duckdb = duckdb::Connection::open_in_memory().expect("DuckDB opens");
    let path = file.path().display();
    let copy = format!("COPY (SELECT '{text}' AS x) TO '{path}' (FORMAT parquet)");
    duckdb.execute_batch(&copy).expect("a file");
    std::fs::read(file.path()).expect("readable")
}

fn rejected(reason: &str, lasting: bool) -> BuildResult {
    BuildResult::Rejected(FileRejection { reason: reason.to_owned(), lasting })
}

#[test]
fn a_late_verdict_does_not_bring_back_an_old_version() {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("mart")).expect("mkdir");
    let dir = MartDir::new(root.path()).open().expect("open");
    let mut files = Files::new(Budget::new(1 << 20));
    let land = |files: &mut Files, text: &str| {
        let beside = root.path().join("beside");
        std::fs::write(&beside, parquet(text)).expect("write");
        std::fs::rename(&beside, root.path().join("mart/a.parquet")).expect("rename");
        let sweep = files.sweep(&dir, Instant::now(), |_, _| {}).expect("readable");
        assert_eq!(sweep.landed.len(), 1);
        Arc::clone(&sweep.landed[0])
    };
    let built = || BuildResult::Built(build::table_of("SELECT 1 AS x"));

    let old = land(&mut files, "old");
    let served = land(&mut files, "served");
    files.learn(&served, &built());
    files.learn(&old, &built());
    let bad = land(&mut files, "bad");
    files.learn(&bad, &rejected("no", true));

    // It is young, so it is read again, which tells nothing new.
    assert!(files.sweep(&dir, Instant::now(), |_, _| {}).expect("readable").landed.is_empty());
    assert_eq!(files.rejected().count(), 1);
    assert!(Arc::ptr_eq(&files.good()["a"], &served));
}

#[test]
fn a_file_rejected_in_passing_is_served_when_built() {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("mart")).expect("mkdir");
    let dir = MartDir::new(root.path()).open().expect("open");
    let mut files = Files::new(Budget::new(1 << 20));
    std::fs::write(root.path().join("mart/a.parquet"), parquet("good")).expect("write");
    let landed = files.sweep(&dir, Instant::now(), |_, _| {}).expect("readable").landed.remove(0);
    for reason in ["its builder was killed", "its builder was killed again"] {
        files.learn(&landed, &rejected(reason, false));
        let told: Vec<_> = files.rejected().map(|fault| fault.reason).collect();
        assert_eq!((told, files.good().len()), (vec![reason.to_owned()], 0));
        assert!(files.retried("a", &landed.pin).is_some_and(|v| Arc::ptr_eq(&v, &landed)));
        assert!(files.sweep(&dir, Instant::now(), |_, _| {}).expect("readable").landed.is_empty());
    }
    files.learn(&landed, &BuildResult::Built(build::table_of("SELECT 1 AS x")));
    assert!(Arc::ptr_eq(&files.good()["a"], &landed) && landed.table.get().is_some());
    assert!(files.rejected().count() == 0 && files.retried("a", &landed.pin).is_none());

    files.learn(&landed, &rejected("no", true));
    assert!(files.retried("a", &landed.pin).is_none(), "nobody tries it again");
}

#[test]
fn a_young_file_is_read_again_unless_it_is_large() {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let tick = Duration::from_millis(20);
    let hides = |bytes: u64, began: Duration| {
        file.as_file().set_len(bytes).expect("a sparse file");
        let identity = Identity::of_open(file.as_file()).expect("stat");
        may_hide_a_rewrite(&identity, identity.modified() + began, tick)
    };
    let soon = Duration::from_millis(1);
    assert!(hides(10, soon) && hides(320 << 20, soon));
    assert!(!hides((320 << 20) + 1, soon), "no writer is that fast");
    assert!(!hides(10, tick), "another write would be told by its time");
}

#[test]
fn a_file_read_again_unchanged_keeps_its_version() {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("mart")).expect("mkdir");
    let dir = MartDir::new(root.path()).open().expect("open");
    let budget = Budget::new(1 << 20);
    let mut files = Files::new(Arc::clone(&budget));
    let bytes = parquet("same");
    std::fs::write(root.path().join("mart/a.parquet"), &bytes).expect("write");
    let [landed] = &files.sweep(&dir, Instant::now(), |_, _| {}).expect("readable").landed[..]
    else {
        panic!("it has landed")
    };
    assert_eq!(budget.bytes_read(), bytes.len() as u64);
    let entry = files.entries.get_mut("a").expect("known");
    entry.read_again = Some(Duration::ZERO);
    entry.set(Condition::Landing("could not be read".to_owned()));
    assert!(files.sweep(&dir, Instant::now(), |_, _| {}).expect("readable").landed.is_empty());
    assert!(Arc::ptr_eq(&files.good()["a"], landed));
    assert_eq!(budget.bytes_read(), 2 * bytes.len() as u64);
    assert_eq!(files.landing().count(), 0, "it could be read now");
}

#[test]
fn a_held_file_touched_while_built_is_read_again() {
    let root = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(root.path().join("mart")).expect("mkdir");
    let dir = MartDir::new(root.path()).open().expect("open");
    let path = root.path().join("mart/a.parquet");
    std::fs::write(&path, parquet("the same")).expect("write");
    let stamp = |seconds| {
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = std::fs::File::options().write(true).open(&path).expect("open");
        file.set_modified(time).expect("utimensat");
    };
    let mut files = Files::new(Budget::new(0));
    let sweep = |files: &mut Files| files.sweep(&dir, Instant::now(), |_, _| {}).expect("readable");

    let written = sweep(&mut files).landed;
    stamp(1_700_000_000);
    // Read before it is known that nothing was found of the first: the same bytes, another time.
    let stamped = sweep(&mut files).landed;
    files.learn(&written[0], &BuildResult::Rewritten);
    assert!(Arc::ptr_eq(&files.good()["a"], &stamped[0]));

    // It is known before the file is read.
    stamp(1_600_000_000);
    files.learn(&stamped[0], &BuildResult::Rewritten);
    assert_eq!((files.good().len(), files.landing().count()), (0, 1));
    // Put back to what is on record; only the time of the change differs, if that.
    stamp(1_700_000_000);
    assert_eq!(sweep(&mut files).landed.len(), 1);
    assert_eq!((files.landing().count(), files.rejected().count()), (0, 0));
}

/// A directory of two parts that says that it is complete, older than a tick of the clock.
fn parts(root: &std::path::Path) -> OpenDir {
    for part in ["mart/x/g=1", "mart/x/g=2"] {
        std::fs::create_dir_all(root.join(part)).expect("mkdir");
        std::fs::write(root.join(part).join("a.parquet"), parquet(part)).expect("write");
    }
    succeed(root);
    MartDir::new(root).open().expect("open")
}

/// Writes `_SUCCESS`, and waits until a look at what is there tells whether it changes.
fn succeed(root: &std::path::Path) {
    let success = root.join("mart/x/_SUCCESS");
    std::fs::write(&success, "").expect("write");
    let identity = Identity::of_path(&success).expect("stat");
    while identity.is_young(Timestamp::now(), crate::scan::CLOCK_TICK) {
        std::thread::yield_now();
    }
}

#[test]
fn parts_that_change_while_they_are_read_are_landing() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = parts(root.path());
    let budget = Budget::new(1 << 20);
    let tick = crate::scan::CLOCK_TICK;
    let reader = Reader { dir: &dir, budget: &budget, tick, model: None, known: None };
    let look = || dir.parts("x", |_| {}).expect("readable").expect("there");
    assert!(matches!(reader.read(&mut look()), Reading::Version(_)));

    // As if each of these happened after the scan and before it was read.
    let mut seen = look();
    let part = root.path().join("mart/x/g=2/a.parquet");
    std::fs::write(root.path().join("beside"), parquet("other")).expect("write");
    std::fs::rename(root.path().join("beside"), &part).expect("rename");
    assert!(!matches!(reader.read(&mut seen), Reading::Version(_)), "a part was swapped");
    succeed(root.path());
    let mut seen = look();
    std::fs::create_dir(root.path().join("mart/x/g=3")).expect("mkdir");
    std::fs::hard_link(&part, root.path().join("mart/x/g=3/a.parquet")).expect("link");
    assert!(!matches!(reader.read(&mut seen), Reading::Version(_)), "a part came");
    succeed(root.path());
    let mut seen = look();
    std::fs::remove_file(root.path().join("mart/x/g=3/a.parquet")).expect("removed");
    assert!(!matches!(reader.read(&mut seen), Reading::Version(_)), "a part went");
    succeed(root.path());
    let mut seen = look();
    std::fs::remove_file(root.path().join("mart/x/_SUCCESS")).expect("removed");
    assert!(!matches!(reader.read(&mut seen), Reading::Version(_)), "a writer began anew");
}

#[test]
fn of_many_parts_only_those_that_changed_are_read() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = parts(root.path());
    let budget = Budget::new(1 << 20);
    let mut files = Files::new(Arc::clone(&budget));
    let sweep =
        |files: &mut Files| files.sweep(&dir, Instant::now(), |_, _| {}).expect("readable").landed;
    let first = sweep(&mut files);
    assert_eq!((first.len(), budget.bytes_read()), (1, first[0].pin.size()));

    let changed = parquet("another text");
    std::fs::write(root.path().join("mart/x/g=2/a.parquet"), &changed).expect("write");
    succeed(root.path());
    let second = sweep(&mut files);
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].pin.hash(), first[0].pin.hash());
    assert_eq!(budget.bytes_read(), first[0].pin.size() + changed.len() as u64);

    // The same bytes on another path are another version.
    let [from, to] = ["mart/x/g=2", "mart/x/g=4"].map(|part| root.path().join(part));
    std::fs::rename(from, to).expect("rename");
    succeed(root.path());
    let third = sweep(&mut files);
    assert_eq!(third.len(), 1);
    assert_ne!(third[0].pin.hash(), second[0].pin.hash());
}
