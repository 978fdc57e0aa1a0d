//! Orchestrators gate on readiness until the first whole Parquet file has landed.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root, wait_for};
use crate::writers::{Records, Writer, put};

#[test]
fn ready_once_the_first_file_is_whole() {
    let bytes = Writer::new().parquet("SELECT i FROM range(1000) t(i)", None);
    let root = tempfile::tempdir().expect("a temporary directory");
    let martd = Martd::start(root.path());

    assert_eq!(martd.get("/livez").status, 200);
    let answer = martd.get("/readyz");
    assert_eq!(answer.status, 503);
    let (slug, detail) = answer.problem();
    assert_eq!(slug, "not-ready");
    assert!(detail.contains("mart cannot be read"), "{detail}");

    std::fs::create_dir(root.path().join("mart")).expect("mkdir");
    let mut file = File::create(root.path().join("mart/slow.parquet")).expect("create");
    for part in bytes[..bytes.len() - 1].chunks(bytes.len() / 7) {
        file.write_all(part).expect("write");
        let landing = martd.wait_snapshot("the file to be landing", |snapshot| {
            snapshot["landing"][0]["file"] == "slow.parquet"
        });
        assert!(landing["id"].is_null(), "{landing}");
        assert_eq!(martd.get("/readyz").status, 503);
    }
    let (_, detail) = martd.get("/readyz").problem();
    assert!(detail.contains("slow.parquet"), "the reason names the file: {detail}");

    file.write_all(&bytes[bytes.len() - 1..]).expect("write");
    drop(file);
    let written = Instant::now();
    wait_for("readiness", || (martd.get("/readyz").status == 200).then_some(()));
    println!("ready {:?} after the last byte", written.elapsed());
    assert_eq!(martd.query("SELECT count(*) FROM mart.slow").value(), 1000);
}

#[test]
fn required_marts_are_waited_for() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x");
    let martd = Martd::start_with(root.path(), &[("MARTD_REQUIRE", "a,b")]);
    martd.wait_ready();

    let (_, detail) = martd.get("/readyz").problem();
    assert_eq!(detail, "the required mart b is not served");
    writer.land(&root, "b", "SELECT 1 AS x");
    wait_for("readiness", || (martd.get("/readyz").status == 200).then_some(()));
    assert_eq!(
        martd.get("/readyz?verbose").body,
        "[+] snapshot ok\n[+] mart a ok\n[+] mart b ok\n[+] draining ok\nok\n"
    );
}

#[test]
fn a_snapshot_can_be_asked_for_before_the_first() {
    let root = Root::new();
    let martd = Martd::start(root.path());

    let snapshot = martd.get("/v1/snapshot");
    assert_eq!((snapshot.status, &snapshot.json()["id"]), (200, &Json::Null));
    let freshness = martd.get("/v1/freshness");
    assert_eq!((freshness.status, &freshness.json()["status"]), (200, &"error".into()));
    assert_eq!(martd.get("/v1/freshness?strict").status, 503);
    let query = martd.query("SELECT 1");
    assert_eq!(query.problem().0, "not-ready");
    assert_eq!(query.header("retry-after"), "1");
}

/// What a mirror says of itself.
fn tell_of_mirror(root: &Root, awaits_record: bool) {
    let at = "2026-01-01T00:00:00Z";
    let status = json!({
        "source": "s3://bucket/marts", "interval_seconds": 5.0, "started_at": at, "checked_at": at,
        "succeeded_at": null, "objects": 0, "bytes": 0, "behind": { "objects": 2, "bytes": 10 },
        "awaits_record": awaits_record, "error": null,
    });
    put(root.mart("_mirror.json"), status.to_string().as_bytes());
}

fn is_awaiting(snapshot: &Json) -> bool {
    let reason = snapshot["building"]["reason"].as_str();
    reason.is_some_and(|reason| reason.starts_with("the mirror has not brought a whole build"))
}

#[test]
fn a_mirror_without_a_record_shows_no_file() {
    let root = Root::new();
    let writer = Writer::new();
    tell_of_mirror(&root, true);
    writer.land(&root, "a", "SELECT 1 AS x");
    let files = Martd::start_with(root.path(), &[("MARTD_PUBLISH", "file")]);
    let builds =
        [Martd::start(root.path()), Martd::start_with(root.path(), &[("MARTD_PUBLISH", "build")])];
    files.wait_ready();
    for martd in &builds {
        let snapshot = martd.wait_snapshot("what is awaited to be told", is_awaiting);
        assert!(snapshot["id"].is_null(), "{snapshot}");
        let (_, detail) = martd.get("/readyz").problem();
        assert!(detail.contains("the mirror has not brought"), "{detail}");
    }
    Records::default().write(&root, "one", &["a"], json!({}));
    for martd in &builds {
        martd.wait_ready();
        assert_eq!(martd.get("/v1/snapshot").json()["build"]["invocation_id"], "one");
    }
}

#[test]
fn a_mirror_that_cannot_be_understood_is_told() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    put(root.mart("_mirror.json"), b"{");
    let martd = Martd::start(root.path());
    let snapshot = martd.wait_snapshot("the file to be told", |snapshot| {
        snapshot["rejected"][0]["file"] == "_mirror.json" && is_awaiting(snapshot)
    });
    assert!(snapshot["id"].is_null(), "it may be a mirror that awaits a record: {snapshot}");
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("cannot be read") && reason.contains("remove it"), "{reason}");
    tell_of_mirror(&root, false);
    martd.wait_ready();
    assert_eq!(martd.get("/v1/snapshot").json()["rejected"], json!([]));
}
