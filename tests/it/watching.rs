//! Changes are noticed whatever becomes of the directory, and watching heals by itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value as Json;

use crate::harness::{Faults, Martd, Root, wait_for};
use crate::namespace::Namespace;
use crate::proc;
use crate::writers::{Writer, put};

/// martd looks at the directory every five seconds whatever happens. What it has noticed in less, it
/// was told, or it glanced at the path.
const BEFORE_THE_NEXT_SCAN: Duration = Duration::from_secs(3);

/// The one value of mart `a`, or null.
fn served(martd: &Martd) -> Json {
    let answer = martd.query("SELECT x FROM mart.a");
    if answer.status == 200 { answer.value() } else { Json::Null }
}

fn wait_served(martd: &Martd, value: i32) {
    wait_for(&format!("{value} to be served"), || (served(martd) == value).then_some(()));
}

/// Waits until `value` is served, which must not take until the next scan by the clock.
fn wait_noticed(martd: &Martd, value: i32) {
    let started = Instant::now();
    wait_served(martd, value);
    let took = started.elapsed();
    println!("noticed after {took:?}");
    assert!(took < BEFORE_THE_NEXT_SCAN, "noticed after {took:?}, by the clock alone");
}

/// Waits for a scan that `mart` was watched at: the next one by the clock is five seconds away.
fn await_scan(martd: &Martd, mart: &Path) {
    let mark = format!("{}.txt", martd.snapshot()["ignored"].as_array().map_or(0, Vec::len));
    fs::write(mart.join(&mark), "").expect("write");
    martd.wait_snapshot("the mark", |s| {
        s["watch"] == "inotify"
            && s["ignored"].as_array().is_some_and(|list| list.iter().any(|i| i["file"] == *mark))
    });
}

fn parquet(value: i32) -> Vec<u8> {
    Writer::new().parquet(&format!("SELECT {value} AS x"), None)
}

/// A new directory with mart `a` in it.
fn make_marts(dir: &Path, value: i32) {
    fs::create_dir_all(dir).expect("mkdir");
    put(dir.join("a.parquet"), &parquet(value));
}

/// A root in which mart `a` is 1, served.
fn serving_one() -> (Root, Martd) {
    let root = Root::new();
    make_marts(&root.mart(""), 1);
    let martd = Martd::start(root.path());
    wait_served(&martd, 1);
    await_scan(&martd, &root.mart(""));
    (root, martd)
}

#[test]
fn a_directory_made_after_the_start_is_served() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let parquet_dir = root.path().join("later");
    let martd = Martd::start(&parquet_dir);
    martd.wait_snapshot("the reason", |s| {
        s["directory"].as_str().is_some_and(|reason| reason.contains("cannot be read"))
    });
    assert_eq!(martd.get("/livez").status, 200);
    assert_eq!(martd.get("/readyz").status, 503);

    make_marts(&parquet_dir.join("mart"), 1);
    wait_noticed(&martd, 1);
    await_scan(&martd, &parquet_dir.join("mart"));
    put(parquet_dir.join("mart/a.parquet"), &parquet(2));
    wait_noticed(&martd, 2);
}

#[test]
fn a_directory_deleted_and_made_again_is_watched() {
    let (root, martd) = serving_one();
    // Three times, for the file system may or may not give the same inode number out again.
    for value in 2..5 {
        fs::remove_dir_all(root.mart("")).expect("rm -r");
        martd.wait_snapshot("the reason", |s| !s["directory"].is_null());
        assert_eq!(served(&martd), value - 1, "the last snapshot stays");
        make_marts(&root.mart(""), value);
        wait_noticed(&martd, value);
        await_scan(&martd, &root.mart(""));

        // Without a moment in between, martd may see no absence.
        fs::remove_dir_all(root.mart("")).expect("rm -r");
        fs::create_dir(root.mart("")).expect("mkdir");
        put(root.mart("a.parquet"), &parquet(value + 10));
        wait_noticed(&martd, value + 10);
        await_scan(&martd, &root.mart(""));
        put(root.mart("a.parquet"), &parquet(value));
        wait_noticed(&martd, value);
    }
}

#[test]
fn a_directory_renamed_and_replaced_is_noticed() {
    let (root, martd) = serving_one();
    make_marts(&root.path().join("next"), 2);
    fs::rename(root.mart(""), root.path().join("last")).expect("rename");
    fs::rename(root.path().join("next"), root.mart("")).expect("rename");
    wait_noticed(&martd, 2);

    await_scan(&martd, &root.mart(""));
    put(root.path().join("last/a.parquet"), &parquet(3));
    put(root.mart("a.parquet"), &parquet(4));
    wait_noticed(&martd, 4);
}

#[test]
fn an_exchanged_parent_directory_is_noticed() {
    let base = tempfile::tempdir().expect("a temporary directory");
    let parquet_dir = base.path().join("parquet");
    make_marts(&parquet_dir.join("mart"), 1);
    make_marts(&base.path().join("next/mart"), 2);
    let martd = Martd::start(&parquet_dir);
    wait_served(&martd, 1);
    await_scan(&martd, &parquet_dir.join("mart"));

    fs::rename(&parquet_dir, base.path().join("last")).expect("rename");
    fs::rename(base.path().join("next"), &parquet_dir).expect("rename");
    wait_noticed(&martd, 2);
    await_scan(&martd, &parquet_dir.join("mart"));
    put(parquet_dir.join("mart/a.parquet"), &parquet(3));
    wait_noticed(&martd, 3);
}

#[test]
fn kubernetes_exchanges_the_data_link_inside() {
    let root = Root::new();
    for (version, value) in [("..v1", 1), ("..v2", 2)] {
        make_marts(&root.mart(version), value);
        put(root.mart(version).join("b.parquet"), &parquet(value));
    }
    symlink("..v1", root.mart("..data")).expect("symlink");
    for mart in ["a.parquet", "b.parquet"] {
        symlink(format!("..data/{mart}"), root.mart(mart)).expect("symlink");
    }
    let martd = Martd::start(root.path());
    wait_served(&martd, 1);
    await_scan(&martd, &root.mart(""));

    exchange_link(&root.mart("..data"), "..v2");
    fs::remove_dir_all(root.mart("..v1")).expect("rm -r");
    let started = Instant::now();
    wait_for("the exchange", || {
        let rows = martd.query("SELECT a.x AS a, b.x AS b FROM mart.a, mart.b").rows();
        assert_eq!(rows[0]["a"], rows[0]["b"], "a mixture");
        (rows[0]["a"] == 2).then_some(())
    });
    assert!(started.elapsed() < BEFORE_THE_NEXT_SCAN);
}

#[test]
fn kubernetes_exchanges_the_data_link_above() {
    let root = tempfile::tempdir().expect("a temporary directory");
    make_marts(&root.path().join("..v1/mart"), 1);
    make_marts(&root.path().join("..v2/mart"), 2);
    symlink("..v1", root.path().join("..data")).expect("symlink");
    symlink("..data/mart", root.path().join("mart")).expect("symlink");
    let martd = Martd::start(root.path());
    wait_served(&martd, 1);
    await_scan(&martd, &root.path().join("mart"));

    exchange_link(&root.path().join("..data"), "..v2");
    wait_noticed(&martd, 2);
    fs::remove_dir_all(root.path().join("..v1")).expect("rm -r");
    await_scan(&martd, &root.path().join("mart"));
    put(root.path().join("mart/a.parquet"), &parquet(3));
    wait_noticed(&martd, 3);
}

/// As the kubelet does it.
fn exchange_link(link: &Path, target: &str) {
    let temporary = link.with_file_name("..data_tmp");
    symlink(target, &temporary).expect("symlink");
    fs::rename(&temporary, link).expect("rename");
}

#[test]
fn a_mart_that_links_out_of_the_root_is_not_read() {
    let (root, martd) = serving_one();
    let outside = tempfile::tempdir().expect("a temporary directory");
    make_marts(outside.path(), 666);
    let link = root.mart("..link");
    symlink(outside.path().join("a.parquet"), &link).expect("symlink");
    fs::rename(&link, root.mart("a.parquet")).expect("rename");
    martd.wait_snapshot("the reason", |s| {
        s["ignored"].as_array().is_some_and(|list| {
            list.iter().any(|item| item["reason"] == "is a link that leads out of PARQUET_DIR")
        })
    });
    // Like a removed file: dropped in the end, and its target is never read.
    wait_for("the drop", || {
        assert_ne!(served(&martd), 666);
        served(&martd).is_null().then_some(())
    });
    let snapshot = martd.snapshot();
    assert_eq!(snapshot["marts"], Json::Array(vec![]), "{snapshot}");
}

#[test]
fn a_mount_over_the_directory_is_served() {
    let Some(namespace) = Namespace::new() else { return };
    let root = Root::new();
    let mart = root.mart("");
    make_marts(&mart, 1);
    let martd = start_in(&namespace, root.path());
    wait_served(&martd, 1);
    await_scan(&martd, &mart);

    namespace.run("mount -t tmpfs tmpfs \"$1\"", &[&mart]);
    let snapshot = martd.wait_snapshot("the reason", |s| !s["directory"].is_null());
    let reason = snapshot["directory"].as_str().expect("text");
    assert!(reason.contains("replaced by an empty one"), "{reason}");
    assert_eq!(served(&martd), 1, "the last snapshot stays");
    put(namespace.path(&mart.join("a.parquet")), &parquet(2));
    wait_noticed(&martd, 2);

    await_scan(&martd, &namespace.path(&mart));
    namespace.run("umount \"$1\"", &[&mart]);
    wait_noticed(&martd, 1);
    await_scan(&martd, &mart);
    put(mart.join("a.parquet"), &parquet(3));
    wait_noticed(&martd, 3);
}

#[test]
fn a_file_system_unmounted_and_mounted_is_watched() {
    let Some(namespace) = Namespace::new() else { return };
    let root = Root::new();
    let (mart, disk) = (root.mart(""), root.path().join("disk"));
    make_marts(&disk, 1);
    namespace.run("mount --bind \"$1\" \"$2\"", &[&disk, &mart]);
    let martd = start_in(&namespace, root.path());
    wait_served(&martd, 1);

    namespace.run("umount \"$1\"", &[&mart]);
    martd.wait_snapshot("the reason", |s| !s["directory"].is_null());
    assert_eq!(served(&martd), 1, "the empty mount point drops nothing");
    namespace.run("mount --bind \"$1\" \"$2\"", &[&disk, &mart]);
    martd.wait_snapshot("the directory", |s| s["directory"].is_null());
}

#[test]
fn a_file_system_remounted_at_once_is_watched() {
    let Some(namespace) = Namespace::new() else { return };
    let root = Root::new();
    let mart = root.mart("");
    let parts = ["lower", "upper", "work"].map(|name| root.path().join(name));
    for part in &parts {
        fs::create_dir(part).expect("mkdir");
    }
    make_marts(&parts[1], 1);
    // The same directory to all appearances, but for the mount: device, inode and time of birth stay.
    let mount = "mount -t overlay overlay \"$4\" \
                 -o \"userxattr,lowerdir=$1,upperdir=$2,workdir=$3\"";
    let paths = [&parts[0], &parts[1], &parts[2], &mart].map(|path| path.as_path());
    if !namespace.attempt(mount, &paths) {
        println!("SKIPPED: no overlay can be mounted in a user namespace here");
        return;
    }
    let martd = start_in(&namespace, root.path());
    wait_served(&martd, 1);
    let inside = namespace.path(&mart);
    for value in 2..6 {
        await_scan(&martd, &inside);
        namespace.run(&format!("umount \"$4\"; {mount}"), &paths);
        put(inside.join("a.parquet"), &parquet(value));
        wait_noticed(&martd, value);
    }
}

#[test]
fn a_bind_mount_of_a_deleted_folder_is_served_on() {
    let Some(namespace) = Namespace::new() else { return };
    let root = Root::new();
    let (mart, source) = (root.mart(""), root.path().join("source"));
    make_marts(&source, 1);
    namespace.run("mount --bind \"$1\" \"$2\"", &[&source, &mart]);
    let martd = start_in(&namespace, root.path());
    wait_served(&martd, 1);
    await_scan(&martd, &source);

    fs::remove_dir_all(&source).expect("rm -r");
    make_marts(&source, 2);
    let snapshot = martd.wait_snapshot("the reason", |s| !s["directory"].is_null());
    let reason = snapshot["directory"].as_str().expect("text");
    assert!(reason.contains("deleted; if it is a mount, mount it again"), "{reason}");
    assert_eq!(served(&martd), 1, "the mount leads to the deleted directory still");
    assert_eq!(martd.get("/readyz").status, 200);

    namespace.run("umount \"$2\"; mount --bind \"$1\" \"$2\"", &[&source, &mart]);
    wait_noticed(&martd, 2);
}

#[test]
fn changes_behind_a_read_only_mount_are_noticed() {
    let Some(namespace) = Namespace::new() else { return };
    let base = tempfile::tempdir().expect("a temporary directory");
    let (writable, read_only) = (base.path().join("writable"), base.path().join("read-only"));
    make_marts(&writable.join("mart"), 1);
    fs::create_dir(&read_only).expect("mkdir");
    namespace.run(
        "mount --bind \"$1\" \"$2\"; mount -o remount,bind,ro \"$2\"; ! touch \"$2/mart/x\"",
        &[&writable, &read_only],
    );
    let martd = start_in(&namespace, &read_only);
    wait_served(&martd, 1);
    await_scan(&martd, &writable.join("mart"));
    put(writable.join("mart/a.parquet"), &parquet(2));
    wait_noticed(&martd, 2);
}

#[test]
fn without_inotify_martd_polls_says_why_and_heals() {
    for (limit, told) in [
        ("max_inotify_instances", "fs.inotify.max_user_instances"),
        ("max_inotify_watches", "fs.inotify.max_user_watches"),
    ] {
        let Some(namespace) = Namespace::new() else { return };
        let set = |value: &str| {
            namespace.run("echo \"$2\" > /proc/sys/user/\"$1\"", &[limit.as_ref(), value.as_ref()]);
        };
        set("0");
        let root = Root::new();
        make_marts(&root.mart(""), 1);
        let faults = Faults::short("inotify");
        let launcher = namespace.launcher();
        let launcher = launcher.each_ref().map(String::as_str);
        let settings = [("MARTD_TEST_FAULTS", faults.path())];
        let martd = Martd::start_under(&launcher, root.path(), &settings);
        wait_served(&martd, 1);
        let snapshot = martd.snapshot();
        assert_eq!(snapshot["watch"], "poll");
        assert!(snapshot["watch_degraded"].as_str().expect("text").contains(told), "{snapshot}");
        let line = martd.wait_log("polling the mart directory");
        assert!(line["reason"].as_str().expect("text").contains(told), "{line}");
        put(root.mart("a.parquet"), &parquet(2));
        wait_noticed(&martd, 2);

        set("1000");
        let snapshot = martd.wait_snapshot("inotify", |s| s["watch"] == "inotify");
        assert_eq!(snapshot["watch_degraded"], Json::Null);
        martd.wait_log("inotify works again");
        put(root.mart("a.parquet"), &parquet(3));
        wait_noticed(&martd, 3);
    }
}

#[test]
fn polling_notices_every_change_without_events() {
    let root = Root::new();
    make_marts(&root.mart(""), 1);
    let martd = Martd::start_with(root.path(), &[("MARTD_WATCH", "poll")]);
    wait_served(&martd, 1);
    let snapshot = martd.snapshot();
    assert_eq!((&snapshot["watch"], &snapshot["watch_degraded"]), (&"poll".into(), &Json::Null));
    put(root.mart("a.parquet"), &parquet(2));
    wait_noticed(&martd, 2);
    fs::write(root.mart("a.parquet"), parquet(3)).expect("in place");
    wait_noticed(&martd, 3);
    make_marts(&root.path().join("next"), 4);
    fs::rename(root.mart(""), root.path().join("last")).expect("rename");
    fs::rename(root.path().join("next"), root.mart("")).expect("rename");
    wait_noticed(&martd, 4);
}

#[test]
fn an_overflowing_event_queue_causes_a_scan() {
    let (root, martd) = serving_one();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("inotify");
    let limit: usize = limit.trim().parse().expect("a number");
    let readable = ["x.txt", "y.txt"].map(|name| root.mart(name));
    for path in &readable {
        fs::write(path, "").expect("write");
    }
    await_scan(&martd, &root.mart(""));

    // Reading a file is no change, so of what the stopped martd finds in its queue afterwards only
    // the overflow says that there is something new. Alternating files keep events from merging.
    martd.signal(Signal::STOP);
    wait_for("every thread to stop", || proc::is_stopped(martd.pid()).then_some(()));
    for _ in 0..=limit {
        for path in &readable {
            fs::File::open(path).expect("open");
        }
    }
    put(root.mart("a.parquet"), &parquet(2));
    martd.signal(Signal::CONT);
    martd.wait_log("the kernel dropped events of the mart directory: looking again");
    wait_noticed(&martd, 2);
}

fn start_in(namespace: &Namespace, parquet_dir: &Path) -> Martd {
    let launcher = namespace.launcher();
    Martd::start_under(&launcher.each_ref().map(String::as_str), parquet_dir, &[])
}
