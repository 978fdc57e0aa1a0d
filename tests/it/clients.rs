//! Clients of every bad kind: the daemon stays up, limits hold, what they took comes back, and probes on
//! the listener for operators are answered all the while.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit};

use crate::harness::{Faults, Martd, PATIENCE, Root, seed, wait_for};
use crate::proc::Usage;
use crate::writers::Writer;

fn start(settings: &[(&str, &str)]) -> (Root, Martd) {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS x, repeat('y', 100) AS y FROM range(2000) t(i)");
    let mut all = vec![
        ("MARTD_ADMIN_LISTEN", "127.0.0.1:0"),
        ("MARTD_HEADER_TIMEOUT", "1s"),
        ("MARTD_BODY_TIMEOUT", "1s"),
        ("MARTD_STALL_TIMEOUT", "1s"),
    ];
    all.extend(settings);
    let martd = Martd::start_with(root.path(), &all);
    martd.wait_ready();
    (root, martd)
}

fn connect(martd: &Martd) -> TcpStream {
    let stream = TcpStream::connect(&martd.address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// All that a server sends until it closes the connection; a reset is a close, too.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Does something while probes are asked without a pause, each of which must be answered well.
fn probed<T>(martd: &Martd, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let probes = scope.spawn(|| {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) || asked == 0 {
                assert_eq!(martd.get_admin("/readyz").status, 200);
                assert_eq!(martd.get_admin("/livez").status, 200);
                asked += 1;
                thread::sleep(Duration::from_millis(2));
            }
        });
        // The probes end also when the work panics.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        probes.join().expect("every probe was answered");
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Connections that the test's own client keeps to both listeners.
const KEPT_BY_TEST: usize = 2;

/// Waits until martd has as few descriptors again as it had before.
fn wait_descriptors(martd: &Martd, before: Usage) {
    wait_for("descriptors to come back", || {
        (Usage::of(martd.pid()).descriptors <= before.descriptors + KEPT_BY_TEST).then_some(())
    });
}

/// Sends a byte at a time until the server has had enough, and returns what it says.
fn drip(mut stream: TcpStream) -> String {
    let since = Instant::now();
    while stream.write_all(b"x").is_ok() {
        assert!(since.elapsed() < PATIENCE, "nothing ends it");
        thread::sleep(Duration::from_millis(20));
        stream.set_nonblocking(true).expect("a socket");
        let closed = stream.peek(&mut [0; 1]).is_ok();
        stream.set_nonblocking(false).expect("a socket");
        if closed {
            break;
        }
    }
    rest(&mut stream)
}

#[test]
fn slow_heads_and_slow_bodies_are_ended() {
    let (_root, martd) = start(&[("MARTD_MAX_CONNECTIONS", "40")]);
    let before = Usage::of(martd.pid());
    let post = "POST /v1/query HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n";
    probed(&martd, || {
        thread::scope(|scope| {
            let drips: Vec<_> = (0..20)
                .map(|client| {
                    let mut stream = connect(&martd);
                    let head = if client % 2 == 0 { "GET / HTTP/1.1\r\nx: " } else { post };
                    stream.write_all(head.as_bytes()).expect("write");
                    scope.spawn(move || (client, drip(stream)))
                })
                .collect();
            for drip in drips {
                let (client, answer) = drip.join().expect("it is ended");
                if client % 2 == 1 {
                    assert!(answer.contains("urn:martd:problem:body-timeout"), "{answer:?}");
                }
            }
        });
        assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 2000);
    });
    wait_descriptors(&martd, before);
}

/// More bytes of answers than the kernel has buffers for on a connection: about 200 KiB each.
const ANSWERS: usize = 1_000;

#[test]
fn readers_that_stop_reading_are_left() {
    let (_root, martd) = start(&[("MARTD_QUERIES", "1"), ("MARTD_CACHE", "64MiB")]);
    let before = Usage::of(martd.pid());
    probed(&martd, || {
        // Small answers that nobody takes, out of the cache: no query waits, only the connection.
        let mut stream = connect(&martd);
        let small =
            "GET /v1/query?sql=SELECT%20*%20FROM%20mart.a HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(small.repeat(ANSWERS).as_bytes()).expect("write");
        wait_for("the connection to be left", || {
            martd.log().into_iter().find(|line| {
                line["error"].as_str().is_some_and(|error| error.contains("writing a body"))
            })
        });
        let taken = rest(&mut stream);
        let answers = taken.matches("HTTP/1.1 200 OK").count();
        assert!(answers < ANSWERS, "{answers} answers were kept for a client that does not read");

        // A stream, whose query has the only slot.
        let mut stream = connect(&martd);
        let large = "GET /v1/query?limit=9000000&format=csv&sql=SELECT%20*%20FROM%20mart.a,range(4000) \
                     HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(large.as_bytes()).expect("write");
        let mut first = [0; 17];
        stream.read_exact(&mut first).expect("it begins");
        assert_eq!(&first, b"HTTP/1.1 200 OK\r\n");
        wait_for("its slot", || {
            (martd.query("SELECT max(x) FROM mart.a").status == 200).then_some(())
        });
        assert!(!rest(&mut stream).ends_with("\r\n0\r\n\r\n"), "it must not look complete");
    });
    wait_descriptors(&martd, before);
}

/// Of the 512 places; the others are those of connections that the test itself keeps.
const IDLE_AT_LEAST: usize = 500;

#[test]
fn five_thousand_idle_connections_are_limited_to_512() {
    let (_root, martd) = start(&[("MARTD_HEADER_TIMEOUT", "60s")]);
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    if limit.maximum.is_some_and(|most| most < 6_000) {
        return println!("SKIPPED: {:?} descriptors are too few for the clients", limit.maximum);
    }
    let before = Usage::of(martd.pid());
    let address: SocketAddr = martd.address.parse().expect("an address");
    let open = || -> OwnedFd {
        // Of those that the backlog has no room for, connecting must not be waited for.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
            .expect("a socket");
        let _ = rustix::net::connect(&socket, &address);
        socket
    };
    let during = probed(&martd, || {
        let idle: Vec<OwnedFd> = (0..5_000).map(|_| open()).collect();
        let during = wait_for("all places to be taken", || {
            let usage = Usage::of(martd.pid());
            (usage.descriptors >= before.descriptors + IDLE_AT_LEAST).then_some(usage)
        });
        for _ in 0..50 {
            assert_eq!(martd.get_admin("/readyz").status, 200);
        }
        let most = Usage::of(martd.pid()).descriptors;
        assert!(most <= before.descriptors + 512 + 32, "{most} descriptors");
        drop(idle);
        during
    });
    println!("{} KiB for each", during.resident.saturating_sub(before.resident) / 512 / 1024);
    assert!(during.resident < before.resident + (64 << 20), "{before:?} {during:?}");
    assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 2000);
    wait_descriptors(&martd, before);
}

#[test]
fn silent_connections_keep_nobody_out() {
    let (_root, martd) = start(&[("MARTD_HEADER_TIMEOUT", "10m"), ("MARTD_MAX_CONNECTIONS", "50")]);
    let asked: Vec<TcpStream> = (0..5)
        .map(|_| {
            let mut stream = connect(&martd);
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("write");
            assert!(stream.read(&mut [0; 1 << 10]).expect("an answer") > 0);
            stream
        })
        .collect();
    // Those that begin to ask and do not go on are as silent.
    let silent: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(&martd.address).expect("the backlog has room");
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET /livez HTTP/1.1\r\n"); // it may be closed by then
            }
            stream
        })
        .collect();
    for _ in 0..20 {
        let mut stream = connect(&martd); // a new one, after all those
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .expect("write");
        let answer = rest(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Whoever has asked is not who gives way.
    for mut stream in asked {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("write");
        assert!(stream.read(&mut [0; 1 << 10]).expect("an answer") > 0);
    }
    drop(silent);
}

#[test]
fn what_is_not_http_gets_a_word_or_nothing() {
    let (_root, martd) = start(&[]);
    let before = Usage::of(martd.pid());
    let mut random = fastrand::Rng::with_seed(seed());
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let mut inputs = vec![tls, b"\0\0\0\0\0\0".to_vec(), b"GET / HTTP/9.9\r\n\r\n".to_vec()];
    inputs.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
    inputs
        .push(b"POST /v1/query HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n".to_vec());
    inputs.push(
        b"POST /v1/query HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
            .to_vec(),
    );
    let long = "a".repeat(200 << 10);
    inputs.push(format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n").into_bytes());
    inputs.push(format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes());
    let many: String = (0..500).map(|number| format!("x-{number}: y\r\n")).collect();
    inputs.push(format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{many}\r\n").into_bytes());
    inputs.extend((0..100).map(|_| (0..200).map(|_| random.u8(..)).collect()));
    probed(&martd, || {
        for input in inputs {
            let mut stream = connect(&martd);
            let _ = stream.write_all(&input); // it may be closed by then
            let _ = stream.shutdown(Shutdown::Write);
            let answer = rest(&mut stream);
            let shown = String::from_utf8_lossy(&input[..input.len().min(60)]).into_owned();
            assert!(!answer.starts_with("HTTP/1.1 2"), "{shown:?}: {answer}");
            assert!(!answer.starts_with("HTTP/1.1 5"), "{shown:?}: {answer}");
        }
        assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 2000);
    });
    wait_descriptors(&martd, before);
}

#[test]
fn half_open_connections_are_closed() {
    let (_root, martd) = start(&[]);
    let before = Usage::of(martd.pid());
    probed(&martd, || {
        for part in
            ["", "GET /livez HTTP/1.1\r\nhos", "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"]
        {
            let mut stream = connect(&martd);
            stream.write_all(part.as_bytes()).expect("write");
            stream.shutdown(Shutdown::Write).expect("a socket");
            rest(&mut stream); // it ends
        }
    });
    // Those that say nothing more, and never close, are left to the timeout.
    let _silent: Vec<TcpStream> = (0..20).map(|_| connect(&martd)).collect();
    wait_descriptors(&martd, before);
}

#[test]
fn requests_in_a_row_and_old_http_are_answered() {
    let (_root, martd) = start(&[]);
    let mut stream = connect(&martd);
    let requests: String = (0..50)
        .map(|number| {
            let last = if number == 49 { "connection: close\r\n" } else { "" };
            format!(
                "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-request-id: r{number}\r\n{last}\r\n"
            )
        })
        .collect();
    stream.write_all(requests.as_bytes()).expect("write");
    let answers = rest(&mut stream);
    let ids: Vec<&str> =
        answers.lines().filter_map(|line| line.strip_prefix("x-request-id: ")).collect();
    let expected: Vec<String> = (0..50).map(|number| format!("r{number}")).collect();
    assert_eq!(ids, expected);

    let mut stream = connect(&martd);
    stream
        .write_all(
            b"GET /v1/query?format=csv&sql=SELECT+count(*)+AS+n+FROM+mart.a HTTP/1.0\r\n\r\n",
        )
        .expect("write");
    let answer = rest(&mut stream);
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nn\n2000\n"), "{answer}");
}

#[test]
fn a_panic_ends_its_own_request_alone() {
    if !cfg!(debug_assertions) {
        return println!("SKIPPED: a release build has no faults to switch on");
    }
    let faults = tempfile::tempdir().expect("a temporary directory");
    let path = faults.path().to_str().expect("UTF-8");
    let (_root, martd) = start(&[("MARTD_TEST_FAULTS", path)]);
    let fault = faults.path().join("panic-request");
    fs::write(&fault, "").expect("write");
    for _ in 0..20 {
        let (slug, detail) = martd.get("/v1/snapshot").problem();
        assert_eq!(slug, "internal");
        assert!(!detail.contains("a test asked for it"), "the log has that: {detail}");
    }
    fs::remove_file(&fault).expect("remove");
    assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 2000);
    let told = martd.log().iter().any(|line| line.to_string().contains("a test asked for it"));
    assert!(told, "the log says what happened");
}

#[test]
fn an_engine_that_has_failed_is_replaced() {
    if !cfg!(debug_assertions) {
        return println!("SKIPPED: a release build has no faults to switch on");
    }
    let faults = Faults::new();
    let (_root, martd) = start(&[("MARTD_TEST_FAULTS", faults.path()), ("MARTD_CACHE", "0")]);
    let before = martd.snapshot();
    // A third within a minute, and this client would be told to wait.
    for fatal in ["SELECT count(*) + 1 FROM mart.a", "SELECT count(*) + 2 FROM mart.a"] {
        faults.abort_at(fatal);
        assert_eq!(martd.query(fatal).problem().0, "engine-failed");
        let after = martd.snapshot();
        for key in ["id", "marts", "generation"] {
            assert_eq!(after[key], before[key], "{key}");
        }
        assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 2000);
    }
    martd.wait_log("the engine is replaced");
}
