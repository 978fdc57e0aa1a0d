//! Writers that rewrite the same inode, as pandas and pyarrow do; files that are copied and files
//! that are held; and clocks that tell nothing.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use crate::harness::{Answer, Martd, Root, wait_for};
use crate::namespace::Namespace;
use crate::writers::{Writer, put};

const HELD: &[(&str, &str)] = &[("MARTD_PIN_MEMORY", "0B")];

/// A file whose rows all say `value`, in several row groups.
fn uniform(writer: &Writer, value: i32) -> Vec<u8> {
    writer.parquet(&format!("SELECT {value} AS x, hash(i) AS noise FROM range(20000) t(i)"), None)
}

fn parquet(value: i32) -> Vec<u8> {
    Writer::new().parquet(&format!("SELECT {value} AS x"), None)
}

fn ask(martd: &Martd) -> Answer {
    martd.query(
        "SELECT min(x) AS low, max(x) AS high, count(*) AS rows, random() AS unkept FROM mart.a",
    )
}

/// The value of all rows; the file that they are from must be whole.
fn value_of(answer: &Answer) -> i64 {
    let row = answer.rows()[0].take();
    assert_eq!((&row["low"], &row["rows"]), (&row["high"], &20000.into()), "torn: {row}");
    row["low"].as_i64().expect("a number")
}

/// Truncates the file and writes it in pieces.
fn rewrite(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).expect("open");
    for piece in bytes.chunks(bytes.len() / 6) {
        file.write_all(piece).expect("write");
        thread::sleep(Duration::from_millis(2)); // as long as an encoder needs for the next piece
    }
}

/// Rewrites mart `a` in place again and again while `read` looks at each answer.
fn rewrite_under_readers(martd: &Martd, root: &Root, mut read: impl FnMut(Answer)) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let writer = Writer::new();
            for value in 2..30 {
                rewrite(&root.mart("a.parquet"), &uniform(&writer, value));
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            read(ask(martd));
        }
    });
    wait_for("the last version", || {
        let answer = ask(martd);
        (answer.status == 200 && value_of(&answer) == 29).then_some(())
    });
}

#[test]
fn a_file_rewritten_in_place_is_read_whole() {
    let root = Root::new();
    put(root.mart("a.parquet"), &uniform(&Writer::new(), 1));
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let mut last = 0;
    rewrite_under_readers(&martd, &root, |answer| {
        let value = value_of(&answer); // 200, always
        assert!(value >= last, "{value} after {last}");
        last = value;
    });
}

#[test]
fn a_held_file_rewritten_in_place_is_read_whole() {
    let root = Root::new();
    put(root.mart("a.parquet"), &uniform(&Writer::new(), 1));
    let martd = Martd::start_with(root.path(), HELD);
    let snapshot = martd.wait_ready();
    assert_eq!(snapshot["marts"][0]["pin"], "descriptor");
    let mut last = 0;
    rewrite_under_readers(&martd, &root, |answer| {
        let value = value_of(&answer); // 200, always: its table is what it was
        assert!(value >= last, "{value} after {last}");
        last = value;
    });
}

#[test]
fn a_held_file_being_rewritten_is_served_as_it_was() {
    let root = Root::new();
    let writer = Writer::new();
    put(root.mart("a.parquet"), &uniform(&writer, 1));
    let martd = Martd::start_with(root.path(), HELD);
    martd.wait_ready();
    assert_eq!(value_of(&ask(&martd)), 1);

    let next = uniform(&writer, 2);
    let mut file = File::create(root.mart("a.parquet")).expect("open");
    file.write_all(&next[..next.len() / 2]).expect("write");
    assert_eq!(value_of(&ask(&martd)), 1);
    file.write_all(&next[next.len() / 2..]).expect("write");
    wait_for("the new version", || {
        let answer = ask(&martd);
        (answer.status == 200 && value_of(&answer) == 2).then_some(())
    });
}

#[test]
fn a_snapshot_reads_files_that_were_replaced() {
    let root = Root::new();
    let writer = Writer::new();
    let small = writer.parquet("SELECT 1 AS x", None);
    put(root.mart("small.parquet"), &small);
    put(root.mart("a.parquet"), &uniform(&writer, 1));
    let budget = format!("{}B", 4 * small.len());
    let martd = Martd::start_with(root.path(), &[("MARTD_PIN_MEMORY", &budget)]);
    let first = martd.wait_snapshot("both marts", |s| s["marts"][1]["name"] == "small");
    assert_eq!(first["marts"][0]["pin"], "descriptor");
    assert_eq!(first["marts"][1]["pin"], "memory");

    let sql =
        "SELECT max(a.x) AS a, max(small.x) AS small, count(*) AS rows FROM mart.a, mart.small";
    let in_first = || {
        let id = first["id"].as_str().expect("an id");
        martd.post_with(&json!({ "sql": sql }), &[("martd-snapshot", id)]).rows()
    };
    let expected = json!([{ "a": 1, "small": 1, "rows": 20000 }]);
    assert_eq!(in_first(), expected);

    put(root.mart("a.parquet"), &uniform(&writer, 2));
    put(root.mart("small.parquet"), &parquet(2));
    wait_for("the replacement", || {
        let rows = martd.query(sql).rows();
        (rows == json!([{ "a": 2, "small": 2, "rows": 20000 }])).then_some(())
    });
    assert_eq!(in_first(), expected, "replaced on disk, and in the current snapshot");

    for name in ["a.parquet", "small.parquet"] {
        fs::remove_file(root.mart(name)).expect("remove");
    }
    assert_eq!(martd.query(sql).status, 200, "not dropped yet");
    martd.wait_snapshot("the drop", |s| s["marts"] == json!([]));
    assert_eq!(in_first(), expected, "removed");
}

#[test]
fn the_largest_files_are_held_over_the_budget() {
    let root = Root::new();
    let writer = Writer::new();
    let mut small = 0;
    put(root.mart("a_large.parquet"), &uniform(&writer, 1));
    for name in ["b", "c", "d"] {
        let bytes = parquet(1);
        small += bytes.len();
        put(root.mart(&format!("{name}.parquet")), &bytes);
    }
    // Enough for the large one alone, or for all others.
    let budget = format!("{}B", (small + 100).max(uniform(&writer, 1).len()));
    let martd = Martd::start_with(root.path(), &[("MARTD_PIN_MEMORY", &budget)]);
    let snapshot = martd.wait_snapshot("all marts", |s| !s["marts"][3].is_null());
    let pins: Vec<&Json> = (0..4).map(|index| &snapshot["marts"][index]["pin"]).collect();
    assert_eq!(pins, ["descriptor", "memory", "memory", "memory"]);
}

#[test]
fn the_budget_counts_all_live_snapshots() {
    let root = Root::new();
    let writer = Writer::new();
    put(root.mart("a.parquet"), &uniform(&writer, 1));
    // Two versions fit, a third does not as long as a snapshot holds the first.
    let size = uniform(&writer, 1).len();
    let budget = format!("{}B", size * 5 / 2);
    let settings = [("MARTD_PIN_MEMORY", budget.as_str()), ("MARTD_RETAIN", "3s")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let baseline = pinned(&martd);
    assert_eq!(baseline.len(), 1);

    let mut kinds = vec![];
    for value in 2..=4 {
        put(root.mart("a.parquet"), &uniform(&writer, value));
        let snapshot = martd.wait_snapshot("the next", |s| s["generation"] == value);
        kinds.push(snapshot["marts"][0]["pin"].as_str().expect("a kind").to_owned());
        assert_eq!(value_of(&ask(&martd)), i64::from(value));
        assert!(pinned(&martd).iter().sum::<u64>() <= size as u64 * 5 / 2);
    }
    assert_eq!(kinds, ["memory", "descriptor", "descriptor"]);

    martd.wait_snapshot("the old ones to go", |s| s["retained"] == json!([]));
    wait_for("their memory to be free", || pinned(&martd).is_empty().then_some(()));
    put(root.mart("a.parquet"), &uniform(&writer, 5));
    let snapshot = martd.wait_snapshot("the next", |s| s["generation"] == 5);
    assert_eq!(snapshot["marts"][0]["pin"], "memory", "there is room again");
    wait_for("the baseline", || {
        (pinned(&martd).len() == 1 && martd.snapshot()["retained"] == json!([])).then_some(())
    });
}

/// The sizes of the copies that a martd holds, as the kernel lists them.
fn pinned(martd: &Martd) -> Vec<u64> {
    let dir = format!("/proc/{}/fd", martd.pid());
    let mut pins: Vec<(u64, u64)> = fs::read_dir(dir)
        .expect("procfs")
        .filter_map(|entry| {
            let path = entry.expect("procfs").path();
            let target = fs::read_link(&path).ok()?; // closed meanwhile
            let stat =
                target.to_str()?.starts_with("/memfd:martd-pin").then(|| fs::metadata(&path));
            let stat = stat?.ok()?;
            Some((stat.ino(), stat.size()))
        })
        .collect();
    pins.sort_unstable();
    pins.dedup();
    pins.into_iter().map(|(_, size)| size).collect()
}

/// Waits until the only value of mart `a` is this.
fn wait_value(martd: &Martd, value: i32) {
    wait_for(&format!("{value} to be served"), || {
        let answer = martd.query("SELECT x FROM mart.a");
        (answer.status == 200 && answer.value() == value).then_some(())
    });
}

fn stamp(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).expect("open");
    file.set_times(FileTimes::new().set_modified(time)).expect("utimensat");
}

#[test]
fn files_of_any_time_are_served_in_order_of_landing() {
    let root = Root::new();
    put(root.mart("a.parquet"), &parquet(0));
    let martd = Martd::start(root.path());
    wait_value(&martd, 0);
    let day = Duration::from_secs(86_400);
    let epoch = SystemTime::UNIX_EPOCH;
    let times = [epoch + day * 60_000, epoch, epoch - day * 9_000, epoch + day * 20_000];
    for (time, value) in times.into_iter().zip(1..) {
        fs::write(root.mart("tmp_a.parquet"), parquet(value)).expect("write");
        stamp(&root.mart("tmp_a.parquet"), time);
        fs::rename(root.mart("tmp_a.parquet"), root.mart("a.parquet")).expect("rename");
        wait_value(&martd, value);
        assert_eq!(martd.get("/v1/freshness").status, 200);
    }
}

#[test]
fn copies_of_the_same_time_and_size_are_noticed() {
    for settings in [&[], HELD] {
        let root = Root::new();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        put(root.mart("a.parquet"), &parquet(1));
        stamp(&root.mart("a.parquet"), time);
        let martd = Martd::start_with(root.path(), settings);
        wait_value(&martd, 1);
        for value in 2..8 {
            let path = root.mart(if value % 2 == 0 { "a.parquet" } else { "tmp_a.parquet" });
            fs::write(&path, parquet(value)).expect("write");
            stamp(&path, time);
            fs::rename(&path, root.mart("a.parquet")).expect("rename");
            wait_value(&martd, value);
        }
    }
}

#[test]
fn each_of_many_replacements_in_a_second_is_noticed() {
    let root = Root::new();
    let versions: Vec<Vec<u8>> = (0..8).map(parquet).collect();
    assert!(versions.iter().all(|bytes| bytes.len() == versions[0].len()));
    put(root.mart("a.parquet"), &versions[0]);
    let martd = Martd::start(root.path());
    for (bytes, value) in versions.iter().zip(0..).cycle().take(24) {
        put(root.mart("a.parquet"), bytes);
        wait_value(&martd, value);
    }
}

#[test]
fn the_second_rewrite_within_a_clock_tick_is_served() {
    // Since Linux 6.13 most file systems give every write that somebody looked at a time of its own.
    // ramfs has the clock that others had before, and that many have still.
    let Some(namespace) = Namespace::new() else { return };
    let root = Root::new();
    namespace.run("mount -t ramfs ramfs \"$1\"", &[&root.mart("")]);
    let path = namespace.path(&root.mart("a.parquet"));
    let versions = [parquet(1), parquet(2), parquet(3)];
    put(path.clone(), &versions[0]);
    let launcher = namespace.launcher();
    let martd = Martd::start_under(&launcher.each_ref().map(String::as_str), root.path(), &[]);
    wait_value(&martd, 1);

    let file = File::options().write(true).open(&path).expect("open");
    let mut within_a_tick = 0;
    for round in 0..60 {
        // The same size, never truncated: the first is a whole file for martd to find meanwhile.
        let (first, second) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        file.write_all_at(&versions[first], 0).expect("write");
        let stamp = file.metadata().and_then(|metadata| metadata.modified()).expect("stat");
        thread::sleep(Duration::from_micros(50 * round)); // from at once to most of a tick
        file.write_all_at(&versions[second], 0).expect("write");
        let again = file.metadata().and_then(|metadata| metadata.modified()).expect("stat");
        within_a_tick += usize::from(stamp == again);
        wait_value(&martd, second as i32 + 1);
    }
    println!("{within_a_tick} of 60 pairs had one time");
    assert!(within_a_tick > 0, "nothing was tested");
}
