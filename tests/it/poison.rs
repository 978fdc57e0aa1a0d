//! Files that stop their reader: what one of them does to DuckDB costs no other file anything.

use std::fs;
use std::path::Path;

use fastrand::Rng;

use crate::harness::{Martd, Root, names, seed};
use crate::writers::{Writer, put};

/// How often files are mixed.
const MIXTURES: u64 = 2;
const FILES: usize = 200;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/files/edges");
    fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// On this one DuckDB has an internal error, after which its process reads nothing any more.
fn internal_error() -> Vec<u8> {
    fixture("internal-error.parquet")
}

#[test]
fn a_file_with_an_internal_error_is_rejected_alone() {
    let root = Root::new();
    put(root.mart("poison.parquet"), &internal_error());
    let writer = Writer::new();
    for mart in 0..5 {
        writer.land(&root, &format!("m{mart}"), &format!("SELECT {mart} AS x"));
    }
    let martd = Martd::start(root.path());
    let snapshot = martd.wait_snapshot("the good ones", |s| !s["marts"][4].is_null());
    assert_eq!(names(&snapshot["marts"], "name"), ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(names(&snapshot["rejected"], "file"), ["poison.parquet"]);
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("text");
    assert!(!reason.contains("Stack") && !reason.contains('/'), "{reason}");
    assert_eq!(martd.get("/readyz").status, 200);
    for mart in 0..5 {
        assert_eq!(martd.query(&format!("SELECT x FROM mart.m{mart}")).value(), mart);
    }
    fs::remove_file(root.mart("poison.parquet")).expect("remove");
    martd.wait_snapshot("nothing to be wrong", |s| s["rejected"][0].is_null());
}

#[test]
fn what_duckdb_and_pyarrow_read_is_served() {
    let root = Root::new();
    let good = [
        ("converted_type", "converted-type-24.parquet", 2),
        ("empty", "empty-group.parquet", 0),
        ("empty_between", "empty-group-between.parquet", 4),
        ("empty_first", "empty-group-first.parquet", 2),
        ("empty_last", "empty-group-last.parquet", 2),
        ("fastparquet", "fastparquet-empty.parquet", 0),
        ("list", "list-of-i16.parquet", 2),
        ("metadata", "metadata-not-utf8.parquet", 2),
        ("no_group", "no-group.parquet", 0),
    ];
    for (mart, file, _) in good {
        put(root.mart(&format!("{mart}.parquet")), &fixture(file));
    }
    let martd = Martd::start_with(root.path(), &[("MARTD_PUBLISH", "file")]);
    let snapshot = martd.wait_snapshot("all", |s| !s["marts"][good.len() - 1].is_null());
    assert_eq!(names(&snapshot["rejected"], "file"), [""; 0]);
    for (mart, _, rows) in good {
        let answer = martd.query(&format!("SELECT count(*) FROM mart.{mart}"));
        assert_eq!(answer.value(), rows, "{mart}");
    }
}

/// A file, and how many rows it has; `None` when it must not be served.
type Mixed = (String, Vec<u8>, Option<usize>);

/// Good files, and such as are poisoned in five ways, in a random order.
fn mixed(rng: &mut Rng) -> Vec<Mixed> {
    let writer = Writer::new();
    let (internal, contradiction) = (internal_error(), fixture("contradiction.parquet"));
    let mut files: Vec<Mixed> = (0..FILES)
        .map(|number| {
            let rows = rng.usize(1..3_000);
            let select = format!("SELECT {number} AS n, hash(i) AS h FROM range({rows}) t(i)");
            let whole = || writer.parquet(&select, None);
            // Appended to, a file of one content becomes many that differ.
            let marked = |bytes: &[u8]| {
                let mark = (number as u64).to_le_bytes();
                [&bytes[..4], &mark, &bytes[4..]].concat()
            };
            let name = |kind: &str| format!("{kind}_{number:03}");
            match rng.u8(0..10) {
                0 => (name("internal"), internal.clone(), None),
                1 => (name("contradiction"), contradiction.clone(), None),
                2 => {
                    let mut bytes = whole();
                    let end = bytes.len() / 2;
                    bytes[8..end.max(40)].fill(0xff); // the pages
                    (name("pages"), bytes, None)
                }
                3 => (name("shifted"), marked(&whole()), None),
                4 => {
                    let text = format!("{}'{number}'{}", "[".repeat(210), "]".repeat(210));
                    (name("nested"), writer.parquet(&format!("SELECT {text} AS x"), None), None)
                }
                _ => (name("good"), whole(), Some(rows)),
            }
        })
        .collect();
    rng.shuffle(&mut files);
    files
}

#[test]
fn every_good_file_among_poisoned_ones_is_served() {
    let first = seed();
    for seed in first..first + MIXTURES {
        let mut rng = Rng::with_seed(seed);
        let files = mixed(&mut rng);
        let root = Root::new();
        let martd = Martd::start(root.path());
        for (name, bytes, _) in &files {
            put(root.mart(&format!("{name}.parquet")), bytes);
        }
        let good: Vec<_> = files.iter().filter_map(|(n, _, rows)| Some((n, (*rows)?))).collect();
        let bad = files.len() - good.len();
        let count = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
        let snapshot = martd.wait_snapshot("a verdict on each", |s| {
            (count(&s["marts"]), count(&s["rejected"])) == (good.len(), bad)
        });
        for mart in snapshot["marts"].as_array().expect("marts") {
            let name = mart["name"].as_str().expect("a name");
            let rows = good.iter().find(|(good, _)| *good == name).map(|(_, rows)| *rows);
            assert_eq!(mart["rows"].as_u64(), rows.map(|rows| rows as u64), "seed {seed}: {mart}");
        }
        for (name, rows) in good.iter().step_by(20) {
            let sum = martd.query(&format!("SELECT count(h) FROM mart.\"{name}\""));
            assert_eq!(sum.value(), *rows, "seed {seed}: {name}");
        }
    }
}
