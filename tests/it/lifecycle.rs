//! Settings, signals, and the end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Martd, Root, Tokens, program, wait_for};
use crate::proc::{self, cpu_ticks, engine};
use crate::writers::{Writer, serving};

#[test]
fn a_wrong_setting_is_named_with_what_is_right() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    for (setting, value, expected) in [
        (
            "MARTD_LISTEN",
            "localhost:8321",
            "'localhost:8321' for '--listen <ADDR> (MARTD_LISTEN)': not an address and port; write 127",
        ),
        (
            "MARTD_PUBLISH",
            "sometimes",
            "'sometimes' for '--publish <PUBLISH> (MARTD_PUBLISH)'\n  [possible values: auto,",
        ),
        (
            "MARTD_QUERY_TIMEOUT",
            "1d",
            "'1d' for '--query-timeout <TIME> (MARTD_QUERY_TIMEOUT)': not a time; write it as 500ms",
        ),
        (
            "MARTD_PIN_MEMORY",
            "-1",
            "'-1' for '--pin-memory <SIZE> (MARTD_PIN_MEMORY)': not a size with its unit; write it as 256MiB",
        ),
        (
            "MARTD_CACHE",
            "256",
            "'256' for '--cache <SIZE> (MARTD_CACHE)': not a size with its unit",
        ),
        (
            "MARTD_QUERIES",
            "0",
            "'0' for '--queries <N> (MARTD_QUERIES)': not a whole number of at least 1",
        ),
        ("MARTD_QUEUE", "few", "'few' for '--queue <N> (MARTD_QUEUE)': not a whole number"),
        (
            "MARTD_MEMORY",
            "1MiB",
            "--memory (MARTD_MEMORY): 1.0 MiB is too little; give DuckDB at least 64 MiB",
        ),
        (
            "MARTD_TIMEZONE",
            "Mars/X",
            "--timezone (MARTD_TIMEZONE): \"Mars/X\" is not a time zone; near it are \"A",
        ),
        (
            "MARTD_MAX_AGE_WARN",
            "90s",
            "--max-age-warn (MARTD_MAX_AGE_WARN): 90s is not a number of whole minutes; write it as",
        ),
        (
            "MARTD_SCHEMAS",
            "mart,,x",
            "--schemas (MARTD_SCHEMAS): \"mart,,x\" has an empty name; separate",
        ),
        (
            "MARTD_HOSTS",
            "http://a",
            "--hosts (MARTD_HOSTS): \"http://a\" is not a name alone; write it as",
        ),
        (
            "MARTD_UNSCOPED",
            "a",
            "--unscoped (MARTD_UNSCOPED): has no use without --scope-column (MARTD_SCOPE_COLUMN)",
        ),
        (
            "MARTD_TABLE_DIR",
            "/nope",
            "--table-dir (MARTD_TABLE_DIR): /nope is not a directory; create it",
        ),
        ("RUST_LOG", "verbose", "RUST_LOG: \"verbose\" is not a level; write off, error, warn"),
        ("RUST_LOG", "martd=much", "RUST_LOG: \"martd=much\" is not a level"),
    ] {
        // It is the engine that knows time zones, and it is started after the port is opened.
        let listen = if setting == "MARTD_TIMEZONE" { "127.0.0.1:0" } else { &taken };
        let mut command = Command::new(program());
        let command = command.env("MARTD_LISTEN", listen).env(setting, value);
        let output = command.output().expect("martd starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{setting}={value}: {message}");
        assert!(message.contains(expected), "{setting}={value}: {message}");
    }
}

#[test]
fn settings_that_look_wrong_are_warned_of() {
    let warnings = |settings: &[(&str, &str)], wanted: &str| {
        let (_root, martd) = serving("a", "SELECT 1 AS user_id", settings);
        wait_for(wanted, || {
            let log = martd.log();
            let published = log.iter().any(|line| line["message"] == "published");
            let warnings = log.into_iter().filter(|line| line["level"] == "WARN");
            let texts: Vec<_> =
                warnings.map(|line| line["message"].as_str().unwrap_or("").to_owned()).collect();
            let told = wanted.is_empty() || texts.iter().any(|text| text.contains(wanted));
            (published && told).then_some(texts)
        })
    };
    let about_settings = |texts: &[String]| {
        texts.iter().any(|text| text.contains("MARTD_") && !text.contains("more memory"))
    };
    let fine = [
        ("MARTD_SCOPE_COLUMN", "USER_ID"),
        ("MARTD_URL", "http://127.0.0.1:8321"),
        ("MARTD_SERVICE_HOST", "10.0.0.1"), // Kubernetes's
    ];
    let texts = warnings(&fine, "");
    assert!(!about_settings(&texts), "{texts:?}");
    warnings(
        &[("MARTD_QUERY_TIMOUT", "1s")],
        "MARTD_QUERY_TIMOUT is not a setting of martd; did you mean MARTD_QUERY_TIMEOUT?",
    );
    warnings(
        &[("MARTD_SCOPE_COLUMN", "tenant")],
        "--scope-column (MARTD_SCOPE_COLUMN): no mart has a column tenant",
    );
    let open = "may read every mart: set --token-file (MARTD_TOKEN_FILE), or listen on 127.0.0.1";
    warnings(&[("MARTD_LISTEN", "0.0.0.0:0")], open);
    let tokens = Tokens::new(1);
    let guarded = [("MARTD_LISTEN", "0.0.0.0:0"), ("MARTD_TOKEN_FILE", tokens.file())];
    let root = Root::new();
    let martd = Martd::start_with(root.path(), &guarded);
    assert!(!martd.log().iter().any(|line| line.to_string().contains(open)));
}

#[test]
fn a_port_that_is_taken_is_said_and_exits_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output =
        Command::new(program()).env("MARTD_LISTEN", &address).output().expect("martd starts");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    let expected = format!("--listen (MARTD_LISTEN): {address} cannot be listened on");
    assert!(message.contains(&expected), "{message}");
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
            "POST /v1/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
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
        .write_all(b"POST /v1/query HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
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

#[test]
fn a_stop_under_load_loses_no_request() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS x FROM range(100000) t(i)");
    let settings = [
        ("MARTD_ADMIN_LISTEN", "127.0.0.1:0"),
        ("MARTD_DRAIN_DELAY", "2s"),
        ("MARTD_QUEUE", "100"),
        ("MARTD_CACHE", "0"),
    ];
    let mut martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let running = AtomicUsize::new(0);
    thread::scope(|scope| {
        // Each keeps its connection until an answer asks it not to, as HTTP clients do.
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let (running, address) = (&running, martd.address.clone());
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(address).expect("connect");
                    for number in 0.. {
                        let sql = format!("SELECT sum(x * {client} + {number}) AS n FROM mart.a");
                        let request = format!(
                            "POST /v1/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n\
                             content-length: {}\r\n\r\n{sql}",
                            sql.len()
                        );
                        stream.write_all(request.as_bytes()).expect("the connection is open");
                        let answer = one_answer(&mut stream);
                        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
                        if number == 2 {
                            running.fetch_add(1, Ordering::Relaxed);
                        }
                        if answer.contains("\r\nconnection: close\r\n") {
                            return number;
                        }
                    }
                    0
                })
            })
            .collect();
        wait_for("load", || (running.load(Ordering::Relaxed) == 6).then_some(()));
        martd.signal(Signal::TERM);
        wait_for("readiness to turn", || (martd.get("/readyz").status == 503).then_some(()));
        assert_eq!(martd.get_admin("/readyz").status, 503);
        let late = martd.query("SELECT count(*) FROM mart.a");
        assert_eq!((late.status, late.header("connection")), (200, "close"), "still answered");
        for client in clients {
            assert!(client.join().expect("no request was lost") > 2);
        }
    });
    wait_for("the listener to close", || TcpStream::connect(&martd.address).err());
    assert_eq!(martd.wait_exit().code(), Some(0));
}

/// Reads one answer with a length.
fn one_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
            if body.len() >= length {
                return text;
            }
        }
        let count = stream.read(&mut buffer).expect("an answer");
        assert!(count > 0, "the connection was closed in the middle of {text:?}");
        bytes.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn silent_clients_do_not_hold_up_the_end() {
    let root = Root::new();
    let settings = [("MARTD_DRAIN", "50s"), ("MARTD_HEADER_TIMEOUT", "50s")];
    let mut martd = Martd::start_with(root.path(), &settings);
    let _idle: Vec<_> =
        (0..5).map(|_| TcpStream::connect(&martd.address).expect("connect")).collect();
    let mut half = TcpStream::connect(&martd.address).expect("connect");
    half.write_all(b"GET /livez HT").expect("write");
    assert_eq!(martd.get("/livez").status, 200);
    martd.signal(Signal::TERM);
    let stopping = std::time::Instant::now();
    assert_eq!(martd.wait_exit().code(), Some(0));
    // Without that rule it is the 50 s of MARTD_DRAIN.
    assert!(stopping.elapsed() < std::time::Duration::from_secs(40));
}

#[test]
fn a_signal_to_all_processes_is_the_fronts_matter() {
    for signal in [Signal::TERM, Signal::INT] {
        let root = Root::new();
        Writer::new().land(&root, "a", "SELECT 1 AS x");
        let mut martd = Martd::start_with(root.path(), &[("MARTD_QUERY_TIMEOUT", "60s")]);
        martd.wait_ready();
        let engine = engine(martd.pid());
        let before = cpu_ticks(engine);
        let answer = thread::scope(|scope| {
            let sql = "SELECT count(DISTINCT i + x) FROM mart.a, range(2000000) t(i)";
            let answer = scope.spawn(|| martd.query(sql));
            wait_for("the statement to run", || (cpu_ticks(engine) > before + 10).then_some(()));
            // As a service manager does, or a terminal.
            for pid in proc::children(martd.pid()).into_iter().chain([martd.pid()]) {
                let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a process");
                kill_process(pid, signal).expect("it runs");
            }
            answer.join().expect("the client ends")
        });
        assert_eq!(answer.value(), 2_000_000);
        assert_eq!(martd.wait_exit().code(), Some(0));
        let replaced = |line: &serde_json::Value| line["message"] == "the engine is replaced";
        assert!(!martd.log().iter().any(replaced), "{:?}", martd.log());
    }
}
