//! Settings, signals, and the end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::{Martd, Root, program, wait_for};
use crate::writers::Writer;

#[test]
fn bad_settings_are_named_and_exit_2_before_a_port_is_opened() {
    for (setting, value, expected) in [
        ("MARTD_LISTEN", "nonsense", "--listen"),
        ("MARTD_PUBLISH", "sometimes", "--publish"),
        ("MARTD_QUERY_TIMEOUT", "10", "write it as 500ms or 10s"),
        ("MARTD_PIN_MEMORY", "much", "--pin-memory"),
        ("MARTD_QUERIES", "0", "--queries"),
        ("MARTD_MEMORY", "1MiB", "MARTD_MEMORY: 1.0 MiB is too little"),
        ("MARTD_TIMEZONE", "Mars/Olympus", "MARTD_TIMEZONE: "),
        ("MARTD_TEMP_DIR", "/nowhere", "MARTD_TEMP_DIR: /nowhere is no directory; create it"),
        ("MARTD_MAX_AGE_WARN", "90s", "MARTD_MAX_AGE_WARN: 90s is no number of whole minutes"),
        ("MARTD_SCHEMAS", "mart,,x", "MARTD_SCHEMAS: an empty name"),
    ] {
        let output = Command::new(program()).env(setting, value).output().expect("martd starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{setting}={value}: {message}");
        assert!(message.contains(expected), "{setting}={value}: {message}");
    }
}

#[test]
fn a_port_that_is_taken_is_said_and_exits_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output =
        Command::new(program()).env("MARTD_LISTEN", &address).output().expect("martd starts");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains(&format!("MARTD_LISTEN: {address} cannot be listened on")),
        "{message}"
    );
}

#[test]
fn sigterm_answers_what_is_in_flight_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let root = Root::new();
        Writer::new().land(&root, "a", "SELECT 1 AS x");
        let mut martd = Martd::start(root.path());
        martd.wait_ready();

        // A request whose body is still on its way when the signal comes.
        let mut connection = TcpStream::connect(&martd.address).expect("connect");
        let body = r#"{"sql": "SELECT x + 41 AS x FROM mart.a"}"#;
        let head = format!(
            "POST /v1/query HTTP/1.1\r\nhost: martd\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all(head.as_bytes()).expect("write");
        connection.write_all(&body.as_bytes()[..5]).expect("write");
        // An answer on another connection proves that martd has accepted the first by now.
        martd.wait_ready();

        martd.signal(signal);
        wait_for("the listener to close", || TcpStream::connect(&martd.address).err());
        connection.write_all(&body.as_bytes()[5..]).expect("write");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer, then the end");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains(r#""data":[{"x":42}]"#), "{answer}");
        assert_eq!(martd.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_second_signal_exits_at_once() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    let mut martd = Martd::start(root.path());
    martd.wait_ready();
    let mut connection = TcpStream::connect(&martd.address).expect("connect");
    connection
        .write_all(b"POST /v1/query HTTP/1.1\r\nhost: martd\r\ncontent-length: 9\r\n\r\n{")
        .expect("write");
    martd.snapshot();
    martd.signal(Signal::TERM);
    wait_for("the listener to close", || TcpStream::connect(&martd.address).err());
    martd.signal(Signal::TERM);
    assert_eq!(martd.wait_exit().code(), Some(1));
}

#[test]
fn sighup_looks_at_the_directory() {
    let root = Root::new();
    let martd = Martd::start_with(root.path(), &[("MARTD_WATCH", "poll")]);
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    martd.signal(Signal::HUP);
    martd.wait_ready();
}
