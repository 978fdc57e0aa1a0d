//! TCP, Unix sockets, sockets from systemd, and the listener for operators.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::harness::{Martd, PATIENCE, Root, run, wait_for};
use crate::writers::Writer;

fn root() -> Root {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 42 AS x");
    root
}

/// What a server sends when it is asked and then the connection closed.
fn ask(mut stream: impl Read + Write, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, then the end");
    answer
}

fn ask_socket(path: &Path) -> String {
    ask(UnixStream::connect(path).expect("connect"), "/v1/snapshot")
}

#[test]
fn a_unix_socket_is_its_groups_and_ends_with_martd() {
    let root = root();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("martd.sock");
    let address = format!("unix:{}", path.display());
    let settings = [("MARTD_LISTEN", address.as_str())];
    let mut first = Martd::start_with(root.path(), &settings);
    assert_eq!(first.address, address);
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o660, "{mode:o}");
    wait_for("a snapshot", || ask_socket(&path).contains("\"name\":\"a\"").then_some(()));
    let asked = run(&["query", "SELECT x FROM mart.a"], &[("MARTD_SERVER", &address)]);
    assert_eq!((asked.code, asked.out.as_str()), (0, "x\n42\n"), "{asked:?}");

    // Another one there is refused, and does the first no harm.
    let arguments = ["serve", "--listen", &address];
    let parquet_dir = root.path().to_str().expect("UTF-8");
    let refused = run(&arguments, &[("PARQUET_DIR", parquet_dir)]);
    assert_eq!(refused.code, 1);
    let expected = "another process listens there; stop it, or choose another path";
    assert!(refused.err.contains(expected), "{}", refused.err);
    assert!(ask_socket(&path).starts_with("HTTP/1.1 200"));

    // One that was killed leaves its socket behind, and the next one takes its place.
    first.signal(Signal::KILL);
    first.wait_exit();
    assert!(path.exists());
    let mut second = Martd::start_with(root.path(), &settings);
    assert!(ask_socket(&path).starts_with("HTTP/1.1 200"));
    second.signal(Signal::TERM);
    assert_eq!(second.wait_exit().code(), Some(0));
    assert!(!path.exists(), "removed at the end");

    // Also at the end that a second signal forces.
    let mut third = Martd::start_with(root.path(), &settings);
    let mut busy = UnixStream::connect(&path).expect("connect");
    busy.write_all(b"POST /v1/query HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
        .expect("write");
    assert!(ask_socket(&path).starts_with("HTTP/1.1 200"));
    third.signal(Signal::TERM);
    third.wait_log("stopping");
    third.signal(Signal::TERM);
    assert_eq!(third.wait_exit().code(), Some(1));
    assert!(!path.exists(), "removed at a forced end");
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("precious.db");
    fs::write(&path, "data").expect("write");
    let refused = run(&["serve", "--listen", &format!("unix:{}", path.display())], &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("something there is not a socket"), "{}", refused.err);
    assert_eq!(fs::read(&path).expect("still there"), b"data");
}

#[test]
fn sockets_from_systemd_are_served_by_their_names() {
    let root = root();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("inherited.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let unix = UnixListener::bind(&path).expect("a socket");
    let admin = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tcp_address = tcp.local_addr().expect("an address");
    let admin_address = admin.local_addr().expect("an address").to_string();
    // Whoever connects before martd is there waits for it.
    let early = TcpStream::connect(tcp_address).expect("systemd listens");

    let settings = [
        ("MARTD_LISTEN", "192.0.2.1:1"), // not opened, or it would fail
        ("LISTEN_FDS", "3"),
        ("LISTEN_FDNAMES", "martd:martd:admin"),
    ];
    // The process's id has to be known before it becomes martd.
    let launcher = ["sh", "-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""];
    let mut command = Martd::command(&launcher, root.path(), &settings);
    let fds: [OwnedFd; 3] = [tcp.into(), unix.into(), admin.into()];
    let mappings = fds.into_iter().zip(3..);
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).expect("no collision");
    let mut martd = Martd::run(&mut command);
    drop(command);

    assert_eq!(martd.address, format!("{tcp_address}, unix:{}", path.display()));
    assert_eq!(martd.admin, admin_address);
    assert!(ask(early, "/livez").starts_with("HTTP/1.1 200"));
    wait_for("a snapshot", || ask_socket(&path).contains("\"name\":\"a\"").then_some(()));
    let admin = || TcpStream::connect(&admin_address).expect("connect");
    assert!(ask(admin(), "/readyz").starts_with("HTTP/1.1 200"));
    assert!(ask(admin(), "/v1/snapshot").starts_with("HTTP/1.1 404"));
    martd.signal(Signal::TERM);
    assert_eq!(martd.wait_exit().code(), Some(0));
    assert!(path.exists(), "the file is systemd's to remove");
}

#[test]
fn probes_are_answered_with_all_connections_taken() {
    let root = root();
    let tokens = root.path().join("tokens");
    fs::write(&tokens, "s3cret\n").expect("write");
    let martd = Martd::start_with(
        root.path(),
        &[
            ("MARTD_ADMIN_LISTEN", "127.0.0.1:0"),
            ("MARTD_MAX_CONNECTIONS", "2"),
            ("MARTD_BODY_TIMEOUT", "5m"),
            ("MARTD_TOKEN_FILE", tokens.to_str().expect("UTF-8")),
        ],
    );
    wait_for("readiness", || (martd.get_admin("/readyz").status == 200).then_some(()));
    let taken: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(&martd.address).expect("the backlog has room");
            // One that has asked keeps its place, whatever martd waits for.
            let request = "POST /v1/query HTTP/1.1\r\nhost: localhost\r\n\
                           authorization: Bearer s3cret\r\ncontent-length: 9\r\n\r\n";
            stream.write_all(request.as_bytes()).expect("write");
            stream
        })
        .collect();
    let waiting = TcpStream::connect(&martd.address).expect("the backlog has room");
    for _ in 0..10 {
        assert_eq!(martd.get_admin("/readyz").status, 200);
        assert_eq!(martd.get_admin("/livez").status, 200);
        let (slug, detail) = martd.get_admin("/v1/snapshot").problem();
        assert_eq!(slug, "not-found");
        assert!(detail.contains("MARTD_ADMIN_LISTEN"), "{detail}");
    }
    waiting.set_nonblocking(true).expect("a socket");
    (&waiting)
        .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("write");
    let unanswered = (&waiting).read(&mut [0; 1]).expect_err("it is not accepted yet");
    assert_eq!(unanswered.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(martd.get_admin("/metrics").status, 200, "without a token");
    drop(taken);
    waiting.set_nonblocking(false).expect("a socket");
    let mut answer = String::new();
    (&waiting).read_to_string(&mut answer).expect("its turn has come");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(martd.get("/metrics").status, 401);
}

#[test]
fn probes_are_answered_without_descriptors() {
    let root = root();
    // No connection that is idle gives its descriptor back while this lasts.
    let settings = [("MARTD_ADMIN_LISTEN", "127.0.0.1:0"), ("MARTD_HEADER_TIMEOUT", "10m")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    assert_eq!(martd.get_admin("/readyz").status, 200);
    // From here on every new descriptor has a number beyond the limit.
    let highest = || -> u64 {
        let fds = fs::read_dir(format!("/proc/{}/fd", martd.pid())).expect("it runs");
        let number = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("an entry").file_name().to_str().expect("ASCII").parse::<u64>()
        };
        fds.map(number).map(|number| number.expect("a number")).max().expect("some")
    };
    let pid = Pid::from_raw(i32::try_from(martd.pid()).expect("small"));
    let before = rustix::process::getrlimit(Resource::Nofile);
    let limit = |most: u64| {
        let limit = Rlimit { current: Some(most), maximum: before.maximum };
        rustix::process::prlimit(pid, Resource::Nofile, limit).expect("a child of this process");
    };
    limit(highest() + 1);
    // Whatever numbers are free below are taken.
    let mut connections = Vec::new();
    while !martd.log().iter().any(|line| line["message"] == "no connection can be accepted") {
        connections.push(TcpStream::connect(&martd.address).expect("the backlog has room"));
        std::thread::yield_now();
        assert!(connections.len() < 1_000, "descriptors do not run out");
    }
    for _ in 0..20 {
        let stream = TcpStream::connect(&martd.admin).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert!(ask(stream, "/livez").starts_with("HTTP/1.1 200"));
    }
    limit(4_096);
    drop(connections);
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 42);
}
