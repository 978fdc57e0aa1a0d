//! Replicas: what one shows already and another does not have yet.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::harness::{Answer, Martd, Root, wait_for};
use crate::metrics::Scrape;
use crate::writers::{Records, Writer, put, serving};

/// Longer than any test waits.
const PATIENT: [(&str, &str); 2] = [("MARTD_CATCH_UP", "1h"), ("MARTD_QUERY_TIMEOUT", "1h")];
/// No snapshot and no build.
const NOWHERE: &str = "0123456789abcdef0123456789abcdef";
const TEXT: &str = "SELECT text FROM mart.a";

/// A directory that is written, and one to which its files are copied later.
struct Stage {
    writer: Writer,
    records: Records,
    written: Root,
    copied: Root,
}

impl Stage {
    /// With a build `one` in both.
    fn new() -> Self {
        let stage = Self {
            writer: Writer::new(),
            records: Records::default(),
            written: Root::new(),
            copied: Root::new(),
        };
        stage.build("one", json!({}));
        stage.copy();
        stage
    }

    fn build(&self, build: &str, rest: Json) {
        self.writer.land(&self.written, "a", &format!("SELECT '{build}' AS text"));
        self.records.write(&self.written, build, &["a"], rest);
    }

    /// As a mirror does: records last.
    fn copy(&self) {
        let bytes = std::fs::read(self.written.mart("a.parquet")).expect("read");
        put(self.copied.mart("a.parquet"), &bytes);
        std::fs::create_dir_all(self.copied.mart("_builds")).expect("mkdir");
        for record in std::fs::read_dir(self.written.mart("_builds")).expect("records") {
            let record = record.expect("a record");
            let bytes = std::fs::read(record.path()).expect("read");
            put(self.copied.mart("_builds").join(record.file_name()), &bytes);
        }
    }
}

fn wait_build(martd: &Martd, build: &str) -> String {
    martd.wait_build(build)["id"].as_str().expect("an id").to_owned()
}

fn pinned(martd: &Martd, id: &str) -> Answer {
    martd.post_with(&json!({ "sql": TEXT }), &[("martd-snapshot", id)])
}

fn after(martd: &Martd, builds: &str) -> Answer {
    martd.get(&format!("/v1/query?sql={}&build={builds}", TEXT.replace(' ', "+")))
}

fn wait_waiting(martd: &Martd, count: f64) {
    wait_for("those who wait", || {
        (Scrape::of(martd).value("martd_requests_behind") == count).then_some(())
    });
}

fn problem(answer: &Answer) -> (u16, String, &str) {
    (answer.status, answer.problem().0, answer.header("retry-after"))
}

#[test]
fn a_replica_that_is_behind_waits_for_what_is_asked() {
    let stage = Stage::new();
    let ahead = Martd::start(stage.written.path());
    let settings = [PATIENT[0], PATIENT[1], ("MARTD_QUERIES", "1")];
    let behind = Martd::start_with(stage.copied.path(), &settings);
    assert_eq!(wait_build(&ahead, "one"), wait_build(&behind, "one"));
    stage.build("two", json!({}));
    let id = wait_build(&ahead, "two");
    let of_ahead = ahead.query(TEXT);
    assert_eq!((of_ahead.header("martd-snapshot"), of_ahead.header("martd-build")), (&*id, "two"));

    thread::scope(|scope| {
        let by_id = scope.spawn(|| pinned(&behind, &id));
        let by_build = scope.spawn(|| after(&behind, "one,two"));
        let posted = scope.spawn(|| {
            let body = json!({ "sql": TEXT }).to_string();
            behind.post_to("/v1/query?build=two", &body, &[])
        });
        let agent = scope.spawn(|| {
            let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": "query", "arguments": {"sql": TEXT}}});
            behind.post_to("/mcp", &call.to_string(), &[("martd-snapshot", &id)])
        });
        let file = scope
            .spawn(|| behind.get_bytes("/v1/marts/a.parquet", &[("martd-snapshot", id.as_str())]));
        wait_waiting(&behind, 5.0);
        // They hold no slot, of which there is one.
        assert_eq!(behind.query(TEXT).value(), "one");
        stage.copy();
        for answer in [by_id, by_build, posted].map(|waiting| waiting.join().expect("an answer")) {
            assert_eq!(answer.value(), "two");
            assert_eq!(answer.header("martd-snapshot"), id);
            assert_eq!(answer.header("martd-build"), "two");
        }
        let told = agent.join().expect("an answer");
        assert!(told.body.contains(&id) && told.body.contains("two"), "{told:?}");
        let written = std::fs::read(stage.written.mart("a.parquet")).expect("read");
        assert_eq!(file.join().expect("an answer"), (200, written));
    });
    // What came before is no reason to wait, and the id names its snapshot alone.
    assert_eq!(after(&behind, "one").value(), "two");
    assert_eq!(pinned(&behind, &id).value(), "two");
}

#[test]
fn a_build_that_cannot_come_is_told_at_once() {
    let stage = Stage::new();
    let settings = [PATIENT[0], PATIENT[1], ("MARTD_RETAIN", "0s")];
    let martd = Martd::start_with(stage.written.path(), &settings);
    let one = wait_build(&martd, "one");
    stage.build("two", json!({}));
    wait_build(&martd, "two");
    assert_eq!(problem(&pinned(&martd, &one)), (410, "snapshot-gone".to_owned(), ""));
    assert_eq!(problem(&pinned(&martd, "never")), (410, "snapshot-gone".to_owned(), ""));
    assert_eq!(problem(&after(&martd, "two,")), (400, "bad-request".to_owned(), ""));
    stage.build("three", json!({"results": [{"id": "test.t", "status": "fail"}]}));
    martd.wait_snapshot("the hold", |s| !s["held"].is_null());
    let held = after(&martd, "three");
    assert_eq!(problem(&held), (409, "build-held".to_owned(), "1"));
    assert!(held.problem().1.contains("test.t"), "{held:?}");

    let settings = [("MARTD_CATCH_UP", "300ms")];
    let martd = Martd::start_with(stage.copied.path(), &settings);
    wait_build(&martd, "one");
    for (is_pinned, retry) in [(true, ""), (false, "1")] {
        let start = Instant::now();
        let answer = if is_pinned { pinned(&martd, NOWHERE) } else { after(&martd, NOWHERE) };
        assert_eq!(problem(&answer), (410, "snapshot-gone".to_owned(), retry));
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    }
}

#[test]
fn waiting_requests_are_few_and_leave_with_clients() {
    let stage = Stage::new();
    let settings = [PATIENT[0], PATIENT[1], ("MARTD_QUEUE", "1")];
    let martd = Martd::start_with(stage.written.path(), &settings);
    wait_build(&martd, "one");
    let mut leaver = TcpStream::connect(&martd.address).expect("connect");
    let head =
        format!("GET /v1/query?sql=SELECT+1&build={NOWHERE} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    leaver.write_all(head.as_bytes()).expect("write");
    wait_waiting(&martd, 1.0);
    assert_eq!(problem(&pinned(&martd, NOWHERE)), (503, "overloaded".to_owned(), "1"));
    drop(leaver);
    wait_waiting(&martd, 0.0);

    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let headers = [("martd-snapshot", NOWHERE), ("x-request-id", "the-patient-one")];
            martd.post_with(&json!({ "sql": TEXT }), &headers)
        });
        wait_for("the cancellation", || {
            (martd.delete_with("/v1/queries/the-patient-one", &[]).status == 204).then_some(())
        });
        let answer = waiting.join().expect("an answer");
        assert_eq!(problem(&answer), (504, "query-timeout".to_owned(), ""));
    });
}

#[test]
fn what_a_rollback_put_aside_counts_as_seen() {
    let stage = Stage::new();
    let rolled_back = Martd::start(stage.written.path());
    let behind = Martd::start_with(stage.copied.path(), &[("MARTD_CATCH_UP", "100ms")]);
    wait_build(&rolled_back, "one");
    stage.build("two", json!({}));
    stage.copy();
    wait_build(&rolled_back, "two");
    wait_build(&behind, "two");
    stage.records.write(&stage.written, "back", &[], json!({"rollback": "one"}));
    wait_build(&rolled_back, "one");
    // A client that has seen the build goes on, and one that has seen the rollback does not go back.
    let answer = after(&rolled_back, "two");
    assert_eq!((answer.value(), answer.header("martd-build")), (json!("one"), "two,back"));
    assert_eq!(after(&rolled_back, "two,back").value(), "one");
    assert_eq!(problem(&after(&behind, "two,back")).0, 410);
    stage.copy();
    wait_for("the rollback", || (after(&behind, "two,back").status == 200).then_some(()));
    assert_eq!(after(&behind, "two,back").value(), "one");
}

#[test]
fn without_records_nothing_tells_what_is_newer() {
    let (_root, martd) = serving("a", "SELECT 'one' AS text", &[("MARTD_CATCH_UP", "0s")]);
    let answer = martd.query(TEXT);
    assert_eq!((answer.value(), answer.header("martd-build")), (json!("one"), ""));
    assert_eq!(problem(&after(&martd, "one")).0, 410);
}
