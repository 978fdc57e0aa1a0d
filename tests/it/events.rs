//! `/v1/events`: what happens is told as it happens, and nobody who listens costs more than a number.

use std::io::{BufRead, BufReader, Write};
use std::iter;
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::harness::{Martd, PATIENCE, Root, wait_for};
use crate::writers::{Project, Writer, put};

/// One event as the stream has it.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    kind: String,
    data: Json,
}

/// Someone who listens, and how their answer began.
pub(crate) struct Listener {
    status: String,
    events: Receiver<Event>,
    connection: TcpStream,
}

impl Listener {
    pub(crate) fn new(martd: &Martd, headers: &str) -> Self {
        let mut connection = TcpStream::connect(&martd.address).expect("connect");
        let request = format!("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        connection.write_all(request.as_bytes()).expect("write");
        let mut lines = BufReader::new(connection.try_clone().expect("a clone")).lines();
        let status = lines.next().expect("a status").expect("read");
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut id, mut kind) = (String::new(), String::new());
            for line in lines.map_while(Result::ok) {
                if let Some(value) = line.strip_prefix("id: ") {
                    id = value.to_owned();
                    if kind.is_empty() {
                        // The greeting: where the stream begins.
                        let event = Event { id: id.clone(), kind: "id".into(), data: Json::Null };
                        let _ = sender.send(event);
                    }
                } else if let Some(value) = line.strip_prefix("event: ") {
                    kind = value.to_owned();
                } else if let Some(value) = line.strip_prefix("data: ") {
                    let data = serde_json::from_str(value).expect("JSON");
                    let event = Event { id: id.clone(), kind: kind.clone(), data };
                    let _ = sender.send(event);
                }
            }
        });
        Self { status, events, connection }
    }

    /// The next event that is no greeting.
    fn next(&self) -> Event {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("an event");
            if event.kind != "id" {
                return event;
            }
        }
    }

    /// What the next event of a kind says, whatever else happens.
    pub(crate) fn wait(&self, kind: &str) -> Json {
        iter::repeat_with(|| self.next()).find(|event| event.kind == kind).expect("an event").data
    }

    fn expect(&self, kind: &str) -> Event {
        let event = self.next();
        assert_eq!(event.kind, kind, "{event:?}");
        event
    }
}

#[test]
fn what_happens_is_told_in_order_and_can_be_resumed() {
    let (root, writer, mut project) = (Root::new(), Writer::new(), Project::default());
    writer.land_stamped(&root, "a", "SELECT 1 AS x", Some("one"));
    project.built("a", "one");
    project.write_ledger(&root, "one");
    let martd = Martd::start(root.path());
    let first = martd.wait_ready();
    let listener = Listener::new(&martd, "");
    assert_eq!(listener.status, "HTTP/1.1 200 OK");
    let greeting = listener.events.recv_timeout(PATIENCE).expect("a greeting").id;

    writer.land(&root, "rates", "SELECT 1 AS x");
    let snapshot = listener.expect("snapshot");
    assert_eq!(snapshot.data["generation"], first["generation"].as_u64().expect("one") + 1);
    assert_eq!(snapshot.data["changed"], serde_json::json!(["rates"]));
    assert_eq!((&snapshot.data["marts"], &snapshot.data["build"]), (&2.into(), &"one".into()));
    assert_eq!(snapshot.data["id"], martd.snapshot()["id"]);

    project.failed("test.finance.t");
    project.write_ledger(&root, "two");
    let held = listener.expect("held");
    assert_eq!(
        (&held.data["invocation_id"], &held.data["outstanding"]),
        (&"two".into(), &1.into())
    );
    assert!(held.data["reason"].as_str().is_some_and(|reason| reason.contains("test.finance.t")));
    // Held for another build now; files that come while one runs are no news.
    project.write_ledger(&root, "three");
    assert_eq!(listener.expect("held").data["invocation_id"], "three");
    writer.land_stamped(&root, "b", "SELECT 1 AS x", Some("four"));
    martd.wait_snapshot("the pending file", |s| !s["held"]["pending"][0].is_null());
    project.built("b", "four");
    project.outstanding.clear();
    project.write_ledger(&root, "four");
    let mut kinds = [listener.next().kind, listener.next().kind];
    kinds.sort_unstable();
    assert_eq!(kinds, ["released", "snapshot"]);

    put(root.mart("_build.json"), b"{");
    let rejected = listener.expect("rejected");
    assert_eq!(rejected.data["file"], "_build.json");
    project.write_ledger(&root, "four");
    assert_eq!(listener.expect("recovered").data["file"], "_build.json");

    // Someone who comes back hears what came since, whatever their last event was.
    let resumed = Listener::new(&martd, &format!("last-event-id: {}\r\n", held.id));
    let kinds: Vec<String> = (0..5).map(|_| resumed.next().kind).collect();
    assert_eq!(
        (kinds[0].as_str(), &kinds[3..]),
        ("held", ["rejected", "recovered"].map(str::to_owned).as_slice())
    );
    let from_start = Listener::new(&martd, &format!("last-event-id: {greeting}\r\n"));
    assert_eq!(from_start.next(), snapshot);
    // An id of a process that is gone: nobody knows what was missed.
    let stranger = Listener::new(&martd, "last-event-id: 0badcafe-7\r\n");
    assert_eq!(stranger.expect("missed").data["missed"], Json::Null);
}

#[test]
fn a_running_build_or_a_removal_is_no_failure() {
    let (root, writer, mut project) = (Root::new(), Writer::new(), Project::default());
    writer.land_stamped(&root, "a", "SELECT 1 AS x", Some("one"));
    writer.land(&root, "rates", "SELECT 1 AS x");
    project.built("a", "one");
    project.write_ledger(&root, "one");
    let martd = Martd::start(root.path());
    martd.wait_snapshot("both", |snapshot| snapshot["marts"][1]["name"] == "rates");
    let listener = Listener::new(&martd, "");
    listener.events.recv_timeout(PATIENCE).expect("a greeting");

    writer.land_stamped(&root, "a", "SELECT 2 AS x", Some("two"));
    assert_eq!(listener.expect("building").data["invocation_id"], "two");
    assert!(martd.get("/").body.contains("A build is running"));
    for path in ["/v1/snapshot", "/v1/freshness"] {
        let answer = martd.get(path).json();
        assert_eq!(
            (&answer["held"], &answer["building"]["outstanding"]),
            (&Json::Null, &json!([]))
        );
    }
    assert!(martd.get("/metrics").body.contains("\nmartd_build_held 0.0\n"));
    project.built("a", "two");
    project.write_ledger(&root, "two");
    assert_eq!(listener.expect("snapshot").data["changed"], serde_json::json!(["a"]));

    std::fs::remove_file(root.mart("rates.parquet")).expect("remove");
    let removal = listener.expect("snapshot").data;
    assert_eq!(
        (&removal["removed"], &removal["changed"]),
        (&["rates"][..].into(), &Json::Array(Vec::new()))
    );
    assert!(martd.get("/").body.contains("removed rates"), "the page says so");

    let mut damaged = writer.parquet("SELECT i AS x FROM range(5000) t(i)", None);
    damaged[60..400].fill(0xff);
    put(root.mart("bad.parquet"), &damaged);
    assert_eq!(listener.expect("rejected").data["file"], "bad.parquet");
    std::fs::remove_file(root.mart("bad.parquet")).expect("remove");
    assert_eq!(listener.expect("removed").data["file"], "bad.parquet");
}

#[test]
fn listeners_take_no_slots_and_are_limited() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    let settings = [("MARTD_MAX_CONNECTIONS", "8"), ("MARTD_QUERIES", "1"), ("MARTD_QUEUE", "0")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let mut listeners = vec![Listener::new(&martd, ""), Listener::new(&martd, "")];
    let third = Listener::new(&martd, "connection: close\r\n");
    assert_eq!(third.status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 1);
    assert!(martd.get("/metrics").body.contains("\nmartd_event_listeners 2\n"));

    let left = listeners.pop().expect("one");
    left.connection.shutdown(std::net::Shutdown::Both).expect("shutdown");
    wait_for("its place", || {
        (Listener::new(&martd, "connection: close\r\n").status == "HTTP/1.1 200 OK").then_some(())
    });
}

#[test]
fn listening_needs_a_token_and_ends_with_martd() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    let tokens = root.path().join("tokens");
    std::fs::write(&tokens, "secret\n").expect("write");
    let tokens = tokens.display().to_string();
    let mut martd = Martd::start_with(root.path(), &[("MARTD_TOKEN_FILE", &tokens)]);
    let nobody = Listener::new(&martd, "connection: close\r\n");
    assert_eq!(nobody.status, "HTTP/1.1 401 Unauthorized");

    let listener = Listener::new(&martd, "authorization: Bearer secret\r\n");
    assert_eq!(listener.status, "HTTP/1.1 200 OK");
    martd.signal(Signal::TERM);
    // Well before the 20 s after which requests in flight are cut off.
    let exit = martd.wait_exit();
    assert!(exit.success(), "{exit}");
    assert!(!martd.log().iter().any(|line| {
        line["message"].as_str().is_some_and(|text| text.contains("still in flight"))
    }));
}
