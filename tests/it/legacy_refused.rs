//! A legacy file that cannot be served is told as such, wherever people look.

use std::fs;

use crate::harness::{Martd, Root, wait_for};
use crate::legacy::Stage;
use crate::writers::Writer;

#[test]
fn a_file_that_is_not_there_is_told() {
    let root = Root::new();
    let settings = [("DUCKDB_PATH", "/nowhere/analytics.duckdb")];
    let martd = Martd::start_with(root.path(), &settings);
    let told = "the legacy DuckDB file (DUCKDB_PATH) is not there";
    martd.wait_snapshot("the word", |snapshot| snapshot["legacy"] == told);
    let (slug, detail) = martd.get("/readyz").problem();
    assert_eq!(slug, "not-ready");
    assert_eq!(detail, format!("no Parquet file has landed yet; {told}"));
    assert_eq!(martd.wait_log(told)["path"], "/nowhere/analytics.duckdb");
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    martd.wait_ready();
    assert!(martd.snapshot()["legacy"].is_null(), "it is not waited for any more");
}

#[test]
fn views_over_files_alone_are_never_ready() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("a.parquet");
    fs::write(&file, Writer::new().parquet("SELECT 1 AS x", None)).expect("write");
    let view =
        format!("CREATE VIEW main_mart.a AS SELECT * FROM read_parquet('{}')", file.display());
    let stage = Stage::new(&view);
    let martd = stage.start(&[]);
    let snapshot = martd.wait_snapshot("the verdict", |s| !s["rejected"][0].is_null());
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("has views alone") && reason.contains("main_mart.a: "), "{reason}");
    assert!(reason.contains("PARQUET_DIR") && !reason.contains("MARTD_SCHEMAS"), "{reason}");
    let (_, detail) = martd.get("/readyz").problem();
    assert!(detail.contains("(DUCKDB_PATH) has views alone"), "{detail}");
    assert_eq!(martd.query("SELECT x FROM mart.a").problem().0, "not-ready");
    // It is told beside what else is waited for.
    fs::remove_dir(stage.root.path().join("mart")).expect("empty");
    wait_for("both", || {
        let (_, detail) = martd.get("/readyz").problem();
        (detail.contains("cannot be read: ") && detail.contains("has views alone")).then_some(())
    });
}

/// DuckDB's checksum of a header block.
fn checksum(block: &[u8]) -> u64 {
    let words = block.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8")));
    words.fold(5381, |sum, word| sum ^ word.wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

#[test]
fn a_file_of_a_newer_duckdb_is_refused_and_says_so() {
    let stage = Stage::new("CREATE TABLE main_mart.a AS SELECT 1 AS x");
    let mut bytes = fs::read(&stage.file).expect("read");
    assert_eq!(bytes[..8], checksum(&bytes[8..4096]).to_le_bytes());
    bytes[12..20].copy_from_slice(&69_u64.to_le_bytes());
    let sum = checksum(&bytes[8..4096]).to_le_bytes();
    bytes[..8].copy_from_slice(&sum);
    fs::write(&stage.file, bytes).expect("write");
    let martd = stage.start(&[]);
    let snapshot = martd.wait_snapshot("the verdict", |s| !s["rejected"][0].is_null());
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("version number 69"), "{reason}");
    assert!(martd.get("/readyz").problem().1.contains("version number 69"));
}
