//! When descriptors, memory, disks or permissions run out, what is served stays, the reason is told,
//! and martd goes on by itself once it can.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::inotify;
use serde_json::Value as Json;

use crate::harness::{Martd, Root, names, wait_for};
use crate::namespace::Namespace;
use crate::writers::{Writer, put};

fn count(snapshot: &Json, list: &str) -> usize {
    snapshot[list].as_array().map_or(0, Vec::len)
}

fn value(martd: &Martd, name: &str) -> Json {
    martd.query(&format!("SELECT x FROM mart.{name}")).value()
}

/// Lands so many marts `m0`, `m1`, … each with its number.
fn land_many(root: &Root, many: usize) {
    let writer = Writer::new();
    for number in 0..many {
        let bytes = writer.parquet(&format!("SELECT {number} AS x"), None);
        put(root.mart(&format!("m{number}.parquet")), &bytes);
    }
}

#[test]
fn out_of_descriptors_some_marts_are_served() {
    let root = Root::new();
    let martd = Martd::start(root.path());
    let limit = |most: &str| {
        let pid = martd.pid().to_string();
        let status = Command::new("prlimit").args([most, "--pid", &pid]).status();
        assert!(status.expect("prlimit").success());
    };
    limit("--nofile=128:");
    land_many(&root, 100);
    let snapshot = martd.wait_snapshot("a quarter as many marts", |s| count(s, "marts") == 32);
    let waiting = martd.wait_snapshot("the others", |s| count(s, "landing") >= 68);
    let reason = waiting["landing"][0]["reason"].as_str().expect("text");
    assert!(reason.contains("RLIMIT_NOFILE"), "{reason}");
    for mart in snapshot["marts"].as_array().expect("marts") {
        let name = mart["name"].as_str().expect("a name");
        assert_eq!(value(&martd, name).to_string(), name[1..]);
    }

    limit("--nofile=1024:");
    martd.wait_snapshot("all marts", |s| count(s, "marts") == 100 && count(s, "landing") == 0);
}

#[test]
fn a_copy_that_the_kernel_refuses_is_held_instead() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "small", "SELECT 1 AS x");
    // Large by its stamp, for the limit is there for its table, too.
    writer.land_stamped(&root, "large", "SELECT 2 AS x", Some(&"x".repeat(200_000)));
    // A limit of file sizes holds for memory files, too. Its signal must not kill martd either.
    let martd = Martd::start_under(&["prlimit", "--fsize=131072:131072"], root.path(), &[]);
    let snapshot = martd.wait_snapshot("both marts", |s| count(s, "marts") == 2);
    assert_eq!(snapshot["marts"][0]["pin"], "descriptor");
    assert_eq!(snapshot["marts"][1]["pin"], "memory");
    martd.wait_log("a file cannot be copied to memory: holding the file itself");
    assert_eq!(martd.query("SELECT x FROM mart.large").value(), 2);
}

#[test]
fn marts_are_copied_without_executable_memory_files() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    let words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    let script = "echo 2 > /proc/sys/vm/memfd_noexec && exec \"$@\"";
    let allowed = Command::new(words[0])
        .args(&words[1..])
        .args(["sh", "-c", script, "sh", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !allowed {
        println!("SKIPPED: vm.memfd_noexec cannot be set here");
        return;
    }
    let launcher = [words.as_slice(), &["sh", "-c", script, "sh"]].concat();
    let martd = Martd::start_under(&launcher, root.path(), &[]);
    assert_eq!(martd.wait_ready()["marts"][0]["pin"], "memory");
}

#[test]
fn a_file_that_a_full_disk_cut_short_is_never_served() {
    let Some(namespace) = Namespace::new() else { return };
    let root = Root::new();
    let disk = root.mart("");
    namespace.run("mount -t tmpfs -o size=256k tmpfs \"$1\"", &[&disk]);
    let writer = Writer::new();
    let inside = namespace.path(&disk);
    put(inside.join("a.parquet"), &writer.parquet("SELECT 1 AS x", None));
    let launcher = namespace.launcher();
    let martd = Martd::start_under(&launcher.each_ref().map(String::as_str), root.path(), &[]);
    martd.wait_ready();

    let large = writer.parquet("SELECT 2 AS x, hash(i) FROM range(100000) t(i)", None);
    for name in ["a.parquet", "b.parquet"] {
        let error = fs::write(inside.join(name), &large).expect_err("the disk is full");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        let snapshot = martd.wait_snapshot("the landing file", |s| {
            names(&s["landing"], "file").contains(&name.to_owned())
        });
        assert_eq!(count(&snapshot, "marts"), 1);
        assert_eq!(value(&martd, "a"), 1);
        fs::write(inside.join(name), "").expect("room again");
    }
    put(inside.join("a.parquet"), &writer.parquet("SELECT 3 AS x", None));
    wait_for("the next version", || (value(&martd, "a") == 3).then_some(()));
}

#[test]
fn a_full_state_directory_keeps_the_last_snapshot() {
    let Some(namespace) = Namespace::new() else { return };
    let root = Root::new();
    let state = tempfile::tempdir().expect("a temporary directory");
    namespace.run("mount -t tmpfs -o size=128k tmpfs \"$1\"", &[state.path()]);
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let launcher = namespace.launcher();
    let start = || {
        let settings = [("MARTD_STATE_DIR", state.path().to_str().expect("UTF-8"))];
        Martd::start_under(&launcher.each_ref().map(String::as_str), root.path(), &settings)
    };
    let martd = start();
    let first = martd.wait_ready();
    let kept = || {
        let manifest = fs::read(namespace.path(&state.path().join("snapshot.json"))).ok()?;
        let manifest: Json = serde_json::from_slice(&manifest).ok()?;
        manifest["snapshots"][0]["id"].as_str().map(str::to_owned)
    };
    wait_for("the first snapshot to be kept", || (kept()? == first["id"].as_str()?).then_some(()));

    writer.land(&root, "a", "SELECT 2 AS x, hash(i) FROM range(100000) t(i)");
    martd.wait_log("the snapshot cannot be kept for a restart; the last one is");
    martd.wait_snapshot("the second", |snapshot| snapshot["generation"] == 2);
    assert_eq!(martd.query("SELECT max(x) FROM mart.a").value(), 2, "published all the same");
    assert_eq!(kept().as_deref(), first["id"].as_str());
    let left = fs::read_dir(namespace.path(state.path())).expect("readable");
    let left = left.map(|entry| entry.expect("readable").file_name());
    // Builders have their folders there, as no other is named.
    let is_builders = |name: &OsString| name.to_string_lossy().starts_with("martd-build-");
    let left: Vec<_> = left.filter(|name| !is_builders(name)).collect();
    assert_eq!(left.len(), 3, "the manifest, the lock and one file: {left:?}");
    drop(martd);

    fs::remove_file(root.mart("a.parquet")).expect("remove");
    let martd = start();
    let line = martd.wait_log("restored the last snapshot");
    assert_eq!(line["snapshot"], first["id"]);
}

#[test]
fn a_file_without_permission_is_served_as_it_was() {
    // root may read everything, unless that capability is taken from it.
    let without_it = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let launcher: &[&str] = if rustix::process::geteuid().is_root() { &without_it } else { &[] };
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    fs::create_dir(root.mart("..v1")).expect("mkdir");
    put(root.mart("..v1/b.parquet"), &writer.parquet("SELECT 1 AS x", None));
    symlink("..v1/b.parquet", root.mart("b.parquet")).expect("symlink");
    let martd = Martd::start_under(launcher, root.path(), &[]);
    martd.wait_snapshot("both marts", |s| count(s, "marts") == 2);
    let allow = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };

    // A file.
    let temporary = root.mart("tmp_a.parquet");
    fs::write(&temporary, writer.parquet("SELECT 2 AS x", None)).expect("write");
    allow(&temporary, 0o000);
    fs::rename(&temporary, root.mart("a.parquet")).expect("rename");
    let snapshot = martd.wait_snapshot("the reason", |s| s["rejected"][0]["file"] == "a.parquet");
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("text");
    assert!(reason.contains("give it read permission"), "{reason}");
    assert_eq!(value(&martd, "a"), 1);
    allow(&root.mart("a.parquet"), 0o644);
    wait_for("the version", || (value(&martd, "a") == 2).then_some(()));

    // The directory, and one that a link leads to.
    for (dir, told) in [("", "directory"), ("..v1", "rejected")] {
        allow(&root.mart(dir), 0o000);
        martd.signal(rustix::process::Signal::HUP);
        let snapshot = martd
            .wait_snapshot("the reason", |s| s[told].to_string().contains("Permission denied"));
        assert_eq!(count(&snapshot, "marts"), 2);
        // Longer than a file may be gone before it is dropped.
        let since = std::time::Instant::now();
        wait_for("what is served to stay", || {
            assert_eq!((value(&martd, "a"), value(&martd, "b")), (2.into(), 1.into()));
            (since.elapsed() > std::time::Duration::from_secs(3)).then_some(())
        });
        assert_eq!(count(&martd.snapshot(), "marts"), 2);
        allow(&root.mart(dir), 0o755);
        martd.signal(rustix::process::Signal::HUP);
        martd.wait_snapshot("the directory", |s| {
            s["directory"].is_null() && s["rejected"] == Json::Array(vec![])
        });
    }
}

#[test]
fn of_a_thousand_files_one_change_opens_one() {
    let root = Root::new();
    land_many(&root, 1000);
    // The customary soft limit is too low for them: martd raises it as far as it may.
    let martd = Martd::start_under(&["prlimit", "--nofile=1024:4096"], root.path(), &[]);
    for hundreds in 1..10 {
        martd.wait_snapshot("a hundred more", |s| count(s, "marts") >= 100 * hundreds);
    }
    let snapshot = martd.wait_snapshot("all marts", |s| count(s, "marts") == 1000);
    assert_eq!(value(&martd, "m777"), 777);
    // While the last of them are young they are read twice.
    let mut opened = opens(&root, &martd, 0);
    for round in 1.. {
        opened = if opened.len() <= 2 { break } else { opens(&root, &martd, round) };
    }
    assert!(
        opened.iter().all(|name| name == "m7.parquet" || name == "tmp_m7.parquet"),
        "{opened:?}"
    );
    assert_ne!(martd.snapshot()["id"], snapshot["id"]);
}

/// The names that are opened until a change of one mart is published, as the kernel tells.
fn opens(root: &Root, martd: &Martd, round: usize) -> Vec<String> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK).expect("inotify");
    inotify::add_watch(&fd, root.mart(""), inotify::WatchFlags::OPEN).expect("watch");
    let before = martd.snapshot()["generation"].as_u64();
    Writer::new().land(root, "m7", &format!("SELECT {round} AS x, 'changed' AS y"));
    martd.wait_snapshot("the change", |s| s["generation"].as_u64() > before);
    let mut names = Vec::new();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 16 << 10];
    let mut reader = inotify::Reader::new(&fd, &mut buffer);
    while let Ok(event) = reader.next() {
        names.extend(event.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    names.dedup();
    names.retain(|name| !name.is_empty());
    names
}
