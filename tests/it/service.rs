//! martd under systemd: what it tells, when it is silent, and that the unit's restrictions suit it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Martd, PATIENCE, Root, wait_for};
use crate::namespace::Namespace;
use crate::writers::Writer;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");

/// The service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { socket, path, _dir: dir }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// The lines of the next message.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("martd tells something");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        text.lines().map(str::to_owned).collect()
    }

    /// Reads on until a line begins like this, and returns it.
    fn wait(&self, beginning: &str) -> String {
        loop {
            let lines = self.next();
            if let Some(line) = lines.into_iter().find(|line| line.starts_with(beginning)) {
                return line;
            }
        }
    }

    /// Forgets what has come.
    fn clear(&self) {
        self.socket.set_nonblocking(true).expect("a socket");
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).expect("a socket");
    }
}

#[test]
fn systemd_is_told_what_martd_waits_for_and_serves() {
    let manager = Manager::new();
    let root = Root::new();
    let mut martd = Martd::start_with(root.path(), &[("NOTIFY_SOCKET", manager.path())]);
    // Ready is to listen: the first build may be hours away, and a start must not time out by then.
    assert_eq!(manager.next(), ["READY=1"]);
    let waiting = manager.wait("STATUS=waiting: no Parquet file");
    assert_eq!(waiting, "STATUS=waiting: no Parquet file has landed yet");
    assert_eq!(martd.get("/readyz").status, 503);

    Writer::new().land(&root, "a", "SELECT 1 AS x");
    let serving = manager.wait("STATUS=serving");
    let id = martd.snapshot()["id"].as_str().expect("a snapshot").to_owned();
    assert_eq!(serving, format!("STATUS=serving snapshot {id} (1 marts)"));
    // A name cannot add a line of its own.
    fs::create_dir(root.mart("x")).expect("mkdir");
    fs::write(root.mart("A\nREADY=0.parquet"), "x").expect("write");
    fs::write(root.mart("A.parquet"), "x").expect("write");
    let rejected = manager.wait("STATUS=serving");
    assert!(rejected.contains("1 rejected: "), "{rejected}");

    martd.signal(Signal::HUP);
    let reloading = manager.wait("RELOADING=1");
    assert_eq!(reloading, "RELOADING=1");
    manager.wait("READY=1");
    martd.signal(Signal::TERM);
    manager.wait("STOPPING=1");
    assert_eq!(martd.wait_exit().code(), Some(0));
}

/// The watchdog's time in the tests, in microseconds; three beats of it are half a second each.
const WATCHDOG_USEC: &str = "2400000";

fn watched(manager: &Manager, root: &Root) -> (Martd, tempfile::TempDir) {
    let faults = tempfile::tempdir().expect("a temporary directory");
    let settings = [
        ("NOTIFY_SOCKET", manager.path()),
        ("WATCHDOG_USEC", WATCHDOG_USEC),
        ("MARTD_TEST_FAULTS", faults.path().to_str().expect("UTF-8")),
        ("MARTD_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let martd = Martd::start_with(root.path(), &settings);
    manager.wait("WATCHDOG=1");
    (martd, faults)
}

/// Whether the heartbeat has stopped for the whole of the watchdog's time; martd then says why.
fn is_silent(manager: &Manager) -> bool {
    manager.clear();
    let limit = Duration::from_micros(WATCHDOG_USEC.parse().expect("a number"));
    manager.socket.set_read_timeout(Some(limit)).expect("a socket");
    let mut buffer = [0; 4096];
    let silent = loop {
        match manager.socket.recv(&mut buffer) {
            Ok(length) if buffer[..length].starts_with(b"WATCHDOG=1") => break false,
            Ok(_) => {}
            Err(_) => break true,
        }
    };
    manager.socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    silent
}

#[test]
fn the_watchdog_fires_when_refresh_or_http_is_stuck() {
    if !cfg!(debug_assertions) {
        return println!("SKIPPED: a release build has no faults to switch on");
    }
    let manager = Manager::new();
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    for (fault, complaint) in [
        ("stuck-refresh", "the refresh thread has stood still"),
        ("stuck-http", "a request to martd itself was not answered"),
    ] {
        let (martd, faults) = watched(&manager, &root);
        martd.wait_ready();
        assert!(!is_silent(&manager), "fed while all is well");
        fs::write(faults.path().join(fault), "").expect("write");
        wait_for("martd to notice", || {
            let log = martd.log();
            log.into_iter().find(|line| {
                line["message"].as_str().is_some_and(|message| message.starts_with(complaint))
            })
        });
        assert!(is_silent(&manager), "{fault}");
        // A stuck refresh thread keeps nobody from the last snapshot.
        if fault == "stuck-refresh" {
            assert_eq!(martd.query("SELECT x FROM mart.a").value(), 1);
        }
        fs::remove_file(faults.path().join(fault)).expect("remove");
        manager.clear();
        manager.wait("WATCHDOG=1");
    }
}

#[test]
fn a_full_listener_does_not_stop_the_heartbeat() {
    let manager = Manager::new();
    let root = Root::new();
    let settings = [
        ("NOTIFY_SOCKET", manager.path()),
        ("WATCHDOG_USEC", WATCHDOG_USEC),
        ("MARTD_MAX_CONNECTIONS", "1"),
    ];
    let martd = Martd::start_with(root.path(), &settings);
    let _taken: Vec<_> = (0..3)
        .map(|_| std::net::TcpStream::connect(&martd.address).expect("the backlog has room"))
        .collect();
    for _ in 0..3 {
        manager.clear();
        manager.wait("WATCHDOG=1");
    }
}

/// Whether there is a systemd-analyze that can judge units without a running systemd.
fn systemd_analyze(arguments: &[&str]) -> Option<std::process::Output> {
    let output = Command::new("systemd-analyze").arg("--no-pager").args(arguments).output();
    let Ok(output) = output else {
        println!("SKIPPED: systemd-analyze is not installed (Debian's package systemd)");
        return None;
    };
    if String::from_utf8_lossy(&output.stderr).contains("unrecognized option") {
        println!("SKIPPED: systemd-analyze is too old: 250 or later is needed");
        return None;
    }
    Some(output)
}

#[test]
fn the_units_are_without_fault_and_hardly_exposed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = crate::harness::program().to_str().expect("UTF-8");
    // The mirror may reach every address; how exposed a unit is, in tenths.
    for (name, command, most) in [("martd", "serve", "15"), ("martd-mirror", "mirror", "17")] {
        // The unit names the installed program, which is not here.
        let unit = Path::new(UNITS).join(format!("{name}.service"));
        let unit = fs::read_to_string(unit).expect("the unit");
        assert!(unit.contains(&format!("ExecStart=/usr/local/bin/martd {command}")), "{unit}");
        let service = dir.path().join(format!("{name}.service"));
        fs::write(&service, unit.replace("/usr/local/bin/martd", program)).expect("write");
        let mut arguments = vec!["verify".to_owned(), "--man=no".to_owned()];
        arguments.push(service.to_str().expect("UTF-8").to_owned());
        if name == "martd" {
            let socket = dir.path().join("martd.socket");
            fs::copy(Path::new(UNITS).join("martd.socket"), &socket).expect("copy");
            arguments.push(socket.to_str().expect("UTF-8").to_owned());
        }
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let Some(verified) = systemd_analyze(&words) else { return };
        let complaints = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && complaints.is_empty(), "{complaints}");

        let threshold = format!("--threshold={most}");
        let judged = systemd_analyze(&["security", "--offline=true", &threshold, words[2]]);
        let Some(judged) = judged else { return };
        let text = String::from_utf8_lossy(&judged.stdout);
        println!("{}", text.lines().last().unwrap_or_default());
        assert!(judged.status.success(), "{name} is more exposed than {most}:\n{text}");
    }
}

#[test]
fn martd_works_under_the_units_restrictions() {
    if systemd_analyze(&["syscall-filter"]).is_none() {
        return;
    }
    // Where confine.py looks the numbers of system calls up; every C toolchain brings it.
    let numbers = ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"];
    if !numbers.iter().any(|path| Path::new(path).exists()) {
        return println!("SKIPPED: unistd_64.h is not here (Debian's package linux-libc-dev)");
    }
    let Some(namespace) = Namespace::new() else { return };
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT i AS x, 'n' || i AS name FROM range(10000) t(i)");
    let state = tempfile::tempdir().expect("a temporary directory");
    // ProtectSystem=strict: all is read-only but the state directory.
    let script = r#"
        mount --bind "$1" "$1"
        awk '{ print $5 }' /proc/self/mountinfo | while read -r at; do
            [ "$at" = "$1" ] || mount -o remount,bind,ro "$at" 2>/dev/null || true
        done
        ! touch "$2/mart/written" 2>/dev/null
        touch "$1/written" && rm "$1/written""#;
    if !namespace.attempt(script, &[state.path(), root.path()]) {
        return println!("SKIPPED: the file system cannot be made read-only here");
    }
    let confine = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/confine.py");
    let unit = format!("{UNITS}/martd.service");
    let inside = namespace.launcher();
    let mut launcher: Vec<&str> = inside.iter().map(String::as_str).collect();
    launcher.extend(["python3", confine, &unit]);
    let manager = Manager::new();
    let settings = [
        ("MARTD_STATE_DIR", state.path().to_str().expect("UTF-8")),
        ("MARTD_ADMIN_LISTEN", "127.0.0.1:0"),
        ("NOTIFY_SOCKET", manager.path()),
        ("WATCHDOG_USEC", WATCHDOG_USEC),
    ];
    let mut martd = Martd::start_under(&launcher, root.path(), &settings);
    martd.wait_ready();
    let status = fs::read_to_string(format!("/proc/{}/status", martd.pid())).expect("it runs");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{line} is missing:\n{status}");
    }
    let no_landlock = "this kernel has no Landlock: rights are not given up";
    assert!(martd.log().iter().all(|line| line["message"] != no_landlock), "{:?}", martd.log());
    let snapshot = martd.snapshot();
    assert_eq!(snapshot["watch"], "inotify", "{snapshot}");
    assert_eq!(snapshot["marts"][0]["pin"], "memory", "{snapshot}");
    for sql in [
        "SELECT count(*) FROM mart.a",
        "SELECT name, sum(x) FROM mart.a GROUP BY ALL ORDER BY name LIMIT 5",
        "SELECT regexp_replace(name, '[0-9]', 'd', 'g'), now() FROM mart.a LIMIT 1",
        "SELECT x, count(*) OVER (PARTITION BY x % 7) FROM mart.a ORDER BY x DESC",
    ] {
        assert_eq!(martd.query(sql).status, 200, "{sql}");
    }
    for format in ["csv", "arrow", "ndjson"] {
        let sql = "SELECT * FROM mart.a a, range(20) LIMIT 9000";
        let path = format!("/v1/query?format={format}&sql={}", sql.replace(' ', "%20"));
        assert_eq!(martd.get_bytes(&path, &[("accept-encoding", "zstd")]).0, 200, "{format}");
    }
    let slow = json!({"sql": "SELECT count(*) FROM range(1000000000) a, range(1000) b", "timeout_ms": 200});
    assert_eq!(martd.post(&slow).problem().0, "query-timeout");
    // The next build: another child decodes it, the state directory takes it.
    let id = snapshot["id"].clone();
    writer.land(&root, "b", "SELECT 7 AS y");
    martd.wait_snapshot("the new mart", |now| now["id"] != id);
    assert_eq!(martd.query("SELECT y FROM mart.b").value(), 7);
    wait_for("the kept snapshot", || {
        let kept = fs::read_to_string(state.path().join("snapshot.json")).ok()?;
        kept.contains("\"b\"").then_some(())
    });
    assert_eq!(martd.get_admin("/metrics").status, 200);
    martd.signal(Signal::HUP);
    martd.wait_log("answered");
    manager.wait("WATCHDOG=1");
    martd.signal(Signal::TERM);
    assert_eq!(martd.wait_exit().code(), Some(0));
    let refused = martd.log().into_iter().find(|line| {
        let text = line.to_string();
        text.contains("Operation not permitted") || text.contains("EPERM")
    });
    assert!(refused.is_none(), "{refused:?}");
}
