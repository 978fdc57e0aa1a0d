//! What is a mart, what is not, and why.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use rustix::fs::inotify;
use serde_json::Value as Json;

use crate::harness::{Martd, Root, names, run, wait_for};
use crate::proc::builders;
use crate::writers::{Project, Writer, put};

fn reasons(list: &Json) -> BTreeMap<String, String> {
    let list = list.as_array().expect("a list");
    let text = |item: &Json, key: &str| item[key].as_str().expect("text").to_owned();
    list.iter().map(|item| (text(item, "file"), text(item, "reason"))).collect()
}

#[test]
fn a_file_that_is_no_mart_is_listed_with_its_reason() {
    let root = Root::new();
    let writer = Writer::new();
    let bytes = writer.parquet("SELECT 42 AS x", None);
    let write = |name: &str, bytes: &[u8]| std::fs::write(root.mart(name), bytes).expect("write");
    write("good.parquet", &bytes);
    write("tmp_good.parquet", &bytes);
    write("_private.parquet", &bytes);
    write("notes.txt", b"hello");
    write("truncated.parquet", &bytes[..bytes.len() / 2]);
    write("zero.parquet", b"");
    write("text.parquet", b"this is no Parquet file");
    write("a b'\"ö.parquet", &bytes);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.mart("fifo.parquet"),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .expect("mkfifo");
    std::fs::create_dir(root.mart("dir.parquet")).expect("mkdir");
    symlink("/etc/passwd", root.mart("link.parquet")).expect("symlink");

    let martd = Martd::start(root.path());
    let snapshot = martd.wait_ready();

    assert_eq!(names(&snapshot["marts"], "name"), ["a b'\"ö", "good"]);
    let ignored = reasons(&snapshot["ignored"]);
    for (file, reason) in [
        ("tmp_good.parquet", "being written (tmp_)"),
        ("_private.parquet", "underscore"),
        ("notes.txt", "does not end in .parquet"),
        ("fifo.parquet", "is a FIFO"),
        ("dir.parquet", "is a directory"),
        ("link.parquet", "leads out of PARQUET_DIR"),
    ] {
        assert!(ignored[file].contains(reason), "{file}: {ignored:?}");
    }
    let landing = reasons(&snapshot["landing"]);
    for (file, reason) in [
        ("truncated.parquet", "no PAR1"),
        ("zero.parquet", "is empty"),
        ("text.parquet", "no PAR1"),
    ] {
        assert!(landing[file].contains(reason), "{file}: {landing:?}");
    }
    assert_eq!(snapshot["rejected"], Json::Array(vec![]));
    assert_eq!(martd.query("SELECT x FROM mart.good").value(), 42);
    assert_eq!(martd.query(r#"SELECT x FROM mart."a b'""ö""#).value(), 42);
    assert_eq!(martd.query("SELECT x FROM main_mart.GOOD").value(), 42);
}

#[test]
fn damaged_pages_leave_the_last_version_served() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_ready();

    let mut bytes = writer.parquet("SELECT hash(i) AS x FROM range(5000) t(i)", None);
    bytes[40..2000].fill(0xff);
    crate::writers::put(root.mart("a.parquet"), &bytes);
    let snapshot =
        martd.wait_snapshot("the rejection", |s| s["rejected"][0]["file"] == "a.parquet");
    assert_eq!(names(&snapshot["marts"], "name"), ["a"]);
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 1);

    writer.land(&root, "a", "SELECT 2 AS x");
    martd.wait_snapshot("the next good version", |s| s["generation"] == 2);
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 2);
}

#[test]
fn a_good_version_outlives_a_damaged_one_behind_it() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_ready();

    let mut damaged = writer.parquet("SELECT hash(i) AS x FROM range(5000) t(i)", None);
    damaged[40..2000].fill(0xff);
    // Large, so that building it takes a while.
    writer.land(&root, "a", "SELECT 2 AS x, hash(i) AS y FROM range(3_000_000) t(i)");
    wait_for("the builder", || builders(martd.pid()).iter().any(|child| child.busy).then_some(()));
    crate::writers::put(root.mart("a.parquet"), &damaged);
    martd.wait_snapshot("the rejection", |s| s["rejected"][0]["file"] == "a.parquet");

    // Another mart, so that what is served is decided anew.
    writer.land(&root, "b", "SELECT 1 AS x");
    martd.wait_snapshot("the other mart", |s| names(&s["marts"], "name") == ["a", "b"]);
    // Where building it takes longer than a second, the other mart does not wait for it.
    wait_for("the good version", || {
        (martd.query("SELECT max(x) FROM mart.a").value() == 2).then_some(())
    });
}

#[test]
fn eleven_files_at_once_make_one_or_two_snapshots() {
    let root = Root::new();
    let writer = Writer::new();
    let names: Vec<String> = (0..11).map(|mart| format!("m{mart}")).collect();
    for name in &names {
        writer.land(&root, name, "SELECT 0 AS x");
    }
    let martd = Martd::start(root.path());
    martd.wait_snapshot("all", |s| s["marts"].as_array().is_some_and(|m| m.len() == 11));
    for round in 1.. {
        let before = martd.snapshot()["generation"].as_u64().expect("a number");
        let file =
            |name: &String| (root.mart(&format!(".{name}")), root.mart(&format!("{name}.parquet")));
        for name in &names {
            writer.copy(&format!("SELECT {round} AS x"), &file(name).0, "");
        }
        let began = Instant::now();
        for name in &names {
            let (from, to) = file(name);
            std::fs::rename(from, to).expect("rename");
        }
        let took = began.elapsed();
        let sum =
            names.iter().map(|name| format!("(SELECT x FROM mart.{name})")).collect::<Vec<_>>();
        let sum = format!("SELECT {}", sum.join(" + "));
        let wanted = round * names.len();
        wait_for("all of them", || (martd.query(&sum).value() == wanted).then_some(()));
        let after = martd.snapshot()["generation"].as_u64().expect("a number");
        // A machine that is busy elsewhere makes no burst.
        if took < Duration::from_millis(10) {
            assert!(after - before <= 2, "{} snapshots of one burst", after - before);
            break;
        }
    }
}

#[test]
fn one_row_of_nulls_is_an_empty_model_of_dbts_alone() {
    let root = Root::new();
    let writer = Writer::new();
    let nulls = "SELECT NULL::INTEGER AS a, NULL::VARCHAR AS b";
    writer.land(&root, "anybodys", nulls);
    writer.land(&root, "named", nulls);
    writer.land_stamped(&root, "stamped", nulls, Some("first"));
    writer.land_stamped(&root, "stamped_row", "SELECT NULL::INTEGER AS a, 'x' AS b", Some("first"));
    let martd = Martd::start_with(root.path(), &[("MARTD_PUBLISH", "file")]);
    let snapshot = martd.wait_snapshot("all", |s| !s["marts"][3].is_null());
    let rows = |snapshot: &Json, martd: &Martd, expected: [u64; 4]| {
        for (mart, rows) in snapshot["marts"].as_array().expect("marts").iter().zip(expected) {
            let name = mart["name"].as_str().expect("a name");
            assert_eq!(mart["rows"], rows, "{name}");
            let answer = martd.query(&format!("SELECT count(*) FROM mart.{name}"));
            assert_eq!(answer.value(), rows, "{name}");
        }
    };
    rows(&snapshot, &martd, [1, 1, 0, 1]);

    // dbt says that one of them is a model of its.
    let mut project = Project::default();
    for model in ["named", "stamped", "stamped_row"] {
        project.built(model, "first");
    }
    project.write_ledger(&root, "first");
    let snapshot = martd.wait_snapshot("the ledger", |s| s["marts"][1]["rows"] == 0);
    rows(&snapshot, &martd, [1, 0, 0, 1]);
    let check =
        run(&["check", root.path().to_str().expect("UTF-8")], &[("MARTD_PUBLISH", "file")]).out;
    let line = |file: &str| check.lines().find(|line| line.starts_with(file)).map(str::to_owned);
    for (file, rows) in
        [("anybodys.parquet", "1"), ("named.parquet", "0"), ("stamped.parquet", "0")]
    {
        let line = line(file).unwrap_or_else(|| panic!("{check}"));
        assert_eq!(line.split_whitespace().nth(2), Some(rows), "{line}");
    }
}

#[test]
fn a_new_file_in_another_case_replaces_no_mart() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "sales", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    writer.land(&root, "Sales", "SELECT 2 AS x");
    writer.land(&root, "other", "SELECT 3 AS x");
    let snapshot = martd.wait_snapshot("the other", |s| !s["marts"][1].is_null());
    assert_eq!(names(&snapshot["marts"], "name"), ["other", "sales"]);
    assert_eq!(names(&snapshot["rejected"], "file"), ["Sales.parquet"]);
    assert_eq!(martd.query("SELECT x FROM mart.Sales").value(), 1, "names have no case");

    // Written again, it is the one that is served still.
    writer.land(&root, "sales", "SELECT 4 AS x");
    martd
        .wait_snapshot("the new version", |_| martd.query("SELECT x FROM mart.sales").value() == 4);
    // Renamed, it is one mart all the time.
    std::fs::rename(root.mart("Sales.parquet"), root.mart("sales.parquet")).expect("rename");
    martd.wait_snapshot("the other file", |_| martd.query("SELECT x FROM mart.sales").value() == 2);
    std::fs::rename(root.mart("sales.parquet"), root.mart("SALES.parquet")).expect("rename");
    let snapshot = martd.wait_snapshot("the new name", |s| s["marts"][0]["name"] == "SALES");
    assert_eq!(names(&snapshot["marts"], "name"), ["SALES", "other"]);
    assert_eq!(names(&snapshot["rejected"], "file"), [""; 0]);
}

#[test]
fn a_mart_may_have_any_name() {
    let root = Root::new();
    let writer = Writer::new();
    let names = [
        "sales.csv",
        "x.parquet",
        "a*b",
        "back\\slash",
        "dir?",
        "[ab]",
        "sp ace",
        "quo\"te",
        "it's",
        "größe",
        "🦆",
        "select",
        "1",
        "a;b",
        "--",
        "mart.a",
        "s3:x",
        "~",
        "t",
        "%s",
        "$1",
        "main",
    ];
    for (number, name) in names.iter().enumerate() {
        // DuckDB writes where no name is a pattern.
        put(
            root.mart(&format!("{name}.parquet")),
            &writer.parquet(&format!("SELECT {number} AS x"), None),
        );
    }
    let martd = Martd::start(root.path());
    let snapshot = martd.wait_snapshot("all", |s| !s["marts"][names.len() - 1].is_null());
    assert_eq!(snapshot["rejected"], serde_json::json!([]));
    for (number, name) in names.iter().enumerate() {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        for schema in ["mart", "main_mart"] {
            let answer = martd.query(&format!("SELECT x FROM {schema}.{quoted}"));
            assert_eq!(answer.value(), number, "{schema}.{quoted}");
        }
        assert_eq!(
            martd.query(&format!("SELECT count(*) FROM mart.{quoted} AS \"a*b\"")).value(),
            1
        );
    }
}

#[test]
fn a_removed_file_is_dropped_after_a_moment() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    writer.land(&root, "b", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_snapshot("both marts", |s| s["marts"].as_array().is_some_and(|m| m.len() == 2));

    // As DuckDB up to 1.4 does it: unlink, then rename.
    let bytes = writer.parquet("SELECT 2 AS x", None);
    std::fs::remove_file(root.mart("a.parquet")).expect("remove");
    assert_eq!(martd.query("SELECT x FROM mart.a").status, 200);
    crate::writers::put(root.mart("a.parquet"), &bytes);
    martd.wait_snapshot("the new version", |_| martd.query("SELECT x FROM mart.a").value() == 2);

    std::fs::remove_file(root.mart("a.parquet")).expect("remove");
    let snapshot =
        martd.wait_snapshot("the drop", |s| s["marts"].as_array().is_some_and(|m| m.len() == 1));
    assert_eq!(names(&snapshot["marts"], "name"), ["b"]);
    let (slug, detail) = martd.query("SELECT x FROM mart.a").problem();
    assert_eq!(slug, "sql-error");
    assert!(detail.contains("Table with name a does not exist"), "{detail}");
}

#[test]
fn unchanged_files_are_not_opened_again() {
    let root = Root::new();
    let writer = Writer::new();
    for name in ["a", "b", "c"] {
        writer.land(&root, name, "SELECT 1 AS x");
    }
    let martd = Martd::start(root.path());
    martd.wait_snapshot("all marts", |s| s["marts"].as_array().is_some_and(|m| m.len() == 3));
    // The first version is read twice while it is young: coarse clocks could hide a rewrite.
    wait_for("the files to grow old", || {
        let opened = opens_while(&root, || writer.land(&root, "a", "SELECT 1 AS x"), &martd);
        (!opened.contains_key("b.parquet")).then_some(())
    });

    let opened = opens_while(&root, || writer.land(&root, "a", "SELECT 2 AS x"), &martd);
    assert!(opened["a.parquet"] >= 1, "{opened:?}");
    assert!(!opened.contains_key("b.parquet"), "{opened:?}");
    assert!(!opened.contains_key("c.parquet"), "{opened:?}");
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 2);
}

/// Counts, as the kernel sees it, how often each mart file is opened until martd has published
/// what `change` did.
fn opens_while(root: &Root, change: impl FnOnce(), martd: &Martd) -> BTreeMap<String, usize> {
    let before = martd.snapshot()["generation"].as_u64().expect("a snapshot");
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK).expect("inotify");
    inotify::add_watch(&fd, root.mart(""), inotify::WatchFlags::OPEN).expect("watch");
    change();
    martd.wait_snapshot("the change", |s| s["generation"].as_u64() > Some(before));
    let mut opened = BTreeMap::new();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 16 << 10];
    let mut reader = inotify::Reader::new(&fd, &mut buffer);
    while let Ok(event) = reader.next() {
        let name = event.file_name().map_or(String::new(), |n| n.to_string_lossy().into_owned());
        if !name.is_empty() {
            *opened.entry(name).or_insert(0) += 1;
        }
    }
    opened
}
