//! The PostgreSQL protocol, through real clients and by hand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Faults, Martd, Root, wait_for};
use crate::pg_raw::{Raw, answer_to, rest_of, startup};
use crate::writers::Writer;

pub(crate) const BIG: &str =
    "SELECT i::INTEGER AS id, 'n' || i AS name, (i * 1.5)::DECIMAL(12, 2) AS amount,
    DATE '2026-01-01' + (i % 90)::INTEGER AS day FROM range(200000) t(i)";

/// No slot becomes free by the time limit of statements before a test gives up.
const BEYOND_PATIENCE: (&str, &str) = ("MARTD_QUERY_TIMEOUT", "10min");

pub(crate) fn start(root: &Root, settings: &[(&str, &str)]) -> (Martd, u16) {
    let mut all = vec![("MARTD_PG_LISTEN", "127.0.0.1:0"), ("MARTD_QUERY_TIMEOUT", "60s")];
    all.extend(settings);
    let martd = Martd::start_with(root.path(), &all);
    wait_for("readiness", || (martd.get("/readyz").status == 200).then_some(()));
    let line = martd.wait_log("serving");
    let address = line["postgres"].as_str().expect("an address");
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    (martd, port.expect("a port"))
}

pub(crate) fn python(script: &str, arguments: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(folder.join(".venv/bin/python"))
        .arg(folder.join("tests/postgres").join(script))
        .args(arguments)
        .output()
        .expect("Python runs: run make .venv/ready")
}

pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn clients_get_every_type_cursors_errors_and_cancel() {
    let root = Root::new();
    Writer::new().land(&root, "big", BIG);
    let (martd, port) = start(&root, &[]);
    let output = python("check.py", &[&port.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    let metrics = martd.get("/metrics").body;
    let answered = "martd_queries_total{outcome=\"ok\",format=\"postgres\"}";
    assert!(metrics.lines().any(|line| line.starts_with(answered) && !line.ends_with(" 0")));
    let logged = martd.log().into_iter().any(|line| line["protocol"] == "postgres");
    assert!(logged, "the access log has its statements");
}

#[test]
fn what_is_no_message_ends_its_connection_alone() {
    let root = Root::new();
    Writer::new().land(&root, "one", "SELECT 1 AS x");
    let (martd, port) = start(&root, &[("MARTD_HEADER_TIMEOUT", "1s")]);
    let after = |bytes: &[u8]| [startup("anyone"), bytes.to_vec()].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![255; 64],
        after(&[b'Q', 0, 0, 0, 0]),
        after(&[b'Q', 255, 255, 255, 255]),
        after(&[b'B', 0, 0, 0, 6, 0, 0]),
        after(&[b'P', 0, 0, 0, 5, b'x']),
        after(&[b'Z', 0, 0, 0, 4]),
    ] {
        let answer = answer_to(port, &bytes);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.contains("08P01"), "{bytes:?}: {text}");
    }
    assert_eq!(answer_to(port, &[0, 0]), b"", "half a start-up ends by time");
    assert_eq!(martd.query("SELECT x FROM mart.one").value(), 1);
}

/// What psql prints, or why it does not.
pub(crate) fn psql(port: u16, user: &str, password: &str, sql: &str) -> Option<String> {
    let outcome = Command::new("psql")
        .env("PGPASSWORD", password)
        .env("PGCONNECT_TIMEOUT", "20")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", user, "-d", "martd", "-XAtc", sql])
        .output();
    match outcome {
        Ok(output) => Some(said(&output)),
        Err(_) => {
            eprintln!("skipped: psql is not installed (Debian has it as postgresql-client)");
            None
        }
    }
}

#[test]
fn the_user_is_the_scope_and_the_password_the_token() {
    let root = Root::new();
    Writer::new().land(
        &root,
        "notes",
        "SELECT * FROM (VALUES (1, 'alices'), (2, 'bobs-secret')) t(user_id, note)",
    );
    let tokens = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(tokens.path(), "alice user_id=1\nall *\n").expect("write");
    let settings = [
        ("MARTD_SCOPE_COLUMN", "user_id"),
        ("MARTD_TOKEN_FILE", tokens.path().to_str().expect("UTF-8")),
    ];
    let (martd, port) = start(&root, &settings);
    let notes = "SELECT note FROM mart.notes ORDER BY note";
    let Some(own) = psql(port, "1", "alice", notes) else { return };
    assert_eq!(own, "alices\n");
    assert_eq!(psql(port, "*", "all", notes).as_deref(), Some("alices\nbobs-secret\n"));
    for (user, password) in [("2", "alice"), ("*", "alice"), ("1", "unknown"), ("1", "")] {
        let refused = psql(port, user, password, notes).expect("psql is there");
        assert!(!refused.contains("alices") && !refused.contains("bobs"), "{user}: {refused}");
        assert!(!refused.is_empty(), "{user} {password}");
    }
    for sql in ["SELECT note FROM mart.notes WHERE user_id = 2", "SELECT note FROM notes"] {
        let told = psql(port, "1", "alice", sql).expect("psql is there");
        assert!(!told.contains("bobs-secret"), "{sql}: {told}");
    }
    drop(martd);
}

#[test]
fn clear_text_is_for_loopback_alone() {
    let settings = [("PARQUET_DIR", "/tmp"), ("MARTD_PG_LISTEN", "0.0.0.0:0")];
    let output = crate::harness::run(&["serve"], &settings);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(
        output.err.contains("MARTD_PG_LISTEN") && output.err.contains("loopback"),
        "{output:?}"
    );
}

#[test]
fn a_transaction_reads_one_snapshot() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "one", "SELECT 'old' AS x");
    let (martd, port) = start(&root, &[]);
    let (mut inside, mut outside) = (Raw::connect(port), Raw::connect(port));
    let sql = "SELECT x FROM mart.one";
    inside.ask("BEGIN");
    assert!(inside.value(sql).ends_with("old"));
    writer.land(&root, "one", "SELECT 'new' AS x");
    wait_for("the new version", || (martd.query(sql).value() == "new").then_some(()));
    assert!(outside.value(sql).ends_with("new"));
    assert!(inside.value(sql).ends_with("old"));
    inside.ask("COMMIT");
    assert!(inside.value(sql).ends_with("new"));
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let root = Root::new();
    Writer::new().land(&root, "big", BIG);
    let (martd, port) = start(&root, &[("MARTD_QUERIES", "2"), BEYOND_PATIENCE]);
    let slow = "SELECT count(*) FROM range(100000000) a, range(1000) b WHERE a.range + b.range = 1";
    let in_flight = || {
        let metrics = martd.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("martd_queries_in_flight "));
        line.expect("the metric").ends_with(" 0.0")
    };
    let mut clients: Vec<Raw> = (0..3).map(|_| Raw::connect(port)).collect();
    for client in &mut clients[..2] {
        client.ask("BEGIN");
        client.send(slow);
    }
    // One that takes nothing of a large answer.
    clients[2].send("SELECT repeat('x', 1000) FROM mart.big");
    wait_for("the statements to run", || (!in_flight()).then_some(()));
    drop(clients);
    wait_for("the slots to be free", || in_flight().then_some(()));
    let idle: Vec<Raw> = (0..200).map(|_| Raw::connect(port)).collect();
    assert_eq!(martd.query("SELECT count(*) FROM mart.big").value(), 200_000);
    drop(idle);
}

#[test]
fn a_transaction_that_is_idle_is_ended() {
    let root = Root::new();
    Writer::new().land(&root, "one", "SELECT 1 AS x");
    let faults = Faults::short("idle");
    let (_martd, port) = start(&root, &[("MARTD_TEST_FAULTS", faults.path())]);
    let (mut idle, mut outside) = (Raw::connect(port), Raw::connect(port));
    idle.ask("BEGIN");
    idle.ask("SELECT x FROM mart.one");
    let told = String::from_utf8_lossy(&rest_of(&mut idle.0)).into_owned();
    assert!(told.contains("C25P03"), "{told}");
    assert!(
        outside.value("SELECT x FROM mart.one").ends_with('1'),
        "one that has begun nothing stays"
    );
}

#[test]
fn rows_that_wait_for_their_client_are_bounded() {
    let root = Root::new();
    Writer::new().land(&root, "big", BIG);
    let (martd, port) = start(&root, &[("MARTD_MAX_RESULT", "1GiB"), ("MARTD_QUERIES", "2")]);
    let mut client = Raw::connect(port);
    client.ask("BEGIN");
    client.ask("DECLARE large CURSOR FOR SELECT repeat('x', 1000) FROM mart.big");
    let first = client.ask("FETCH 10 FROM large");
    assert_eq!(first.iter().filter(|(kind, _)| *kind == b'D').count(), 10);
    let rest = client.ask("FETCH ALL FROM large");
    assert!(rest.iter().any(|(kind, text)| *kind == b'E' && text.contains("C53400")));
    client.ask("ROLLBACK");
    // What waited has gone, and holds no slot.
    for name in ["one", "two", "three"] {
        client.ask("BEGIN");
        client.ask(&format!("DECLARE {name} CURSOR FOR SELECT repeat('x', 200) FROM mart.big"));
        client.ask(&format!("FETCH 10 FROM {name}"));
        let rest = client.ask(&format!("FETCH ALL FROM {name}"));
        assert_eq!(rest.iter().filter(|(kind, _)| *kind == b'D').count(), 199_990, "{name}");
        client.ask("ROLLBACK");
    }
    assert_eq!(martd.query("SELECT count(*) FROM mart.big").value(), 200_000);
}

#[test]
fn a_thousand_connections_are_served_and_no_more() {
    let root = Root::new();
    Writer::new().land(&root, "big", BIG);
    let (martd, port) = start(&root, &[("MARTD_MAX_CONNECTIONS", "1000"), ("MARTD_QUERIES", "2")]);
    let mut clients: Vec<Raw> = (0..1000).map(|_| Raw::connect(port)).collect();
    let refused = String::from_utf8_lossy(&answer_to(port, &startup("anyone"))).into_owned();
    assert!(refused.contains("C53300"), "{refused}");
    // All ask at once; half take nothing of an answer that is larger than what sockets hold.
    let (slow, quick) = clients.split_at_mut(500);
    slow.iter_mut().for_each(|client| client.send("SELECT name FROM mart.big"));
    quick.iter_mut().for_each(|client| client.send("SELECT count(*) FROM mart.big WHERE id < 5"));
    let (mut answered, mut busy) = (0, 0);
    for client in quick {
        let answer = client.answer();
        match answer.iter().find(|(kind, _)| *kind == b'E') {
            Some((_, error)) => {
                assert!(error.contains("C53300") || error.contains("C57014"), "{error}");
                busy += 1;
            }
            None => answered += 1,
        }
    }
    println!("{answered} answered, {busy} told that martd is busy");
    assert!(answered > 0);
    drop(clients);
    wait_for("room for others", || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(&startup("anyone")).ok()?;
        let mut kind = [0];
        stream.read_exact(&mut kind).ok()?;
        (kind[0] == b'R').then_some(())
    });
    assert!(Raw::connect(port).value("SELECT count(*) FROM mart.big").ends_with("200000"));
    assert_eq!(martd.query("SELECT count(*) FROM mart.big").value(), 200_000);
}

/// A certificate of an authority of its own for `localhost`, and its key.
fn certificate(folder: &Path) -> Option<(String, String, String)> {
    let path = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    let (authority, authority_key) = (path("authority.pem"), path("authority-key.pem"));
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let openssl = |arguments: &[&str]| {
        let arguments =
            [&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"], arguments];
        Command::new("openssl").args(arguments.concat()).output()
    };
    let made =
        openssl(&["-subj", "/CN=authority", "-keyout", &authority_key, "-out", &authority]).ok()?;
    assert!(made.status.success(), "{}", said(&made));
    let signed = openssl(&[
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        &authority,
        "-CAkey",
        &authority_key,
        "-keyout",
        &key,
        "-out",
        &cert,
    ]);
    let signed = signed.expect("openssl runs");
    assert!(signed.status.success(), "{}", said(&signed));
    Some((authority, cert, key))
}

#[test]
fn tls_is_what_psql_verifies() {
    let root = Root::new();
    Writer::new().land(&root, "one", "SELECT 41 + 1 AS x");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let Some((authority, cert, key)) = certificate(folder.path()) else {
        eprintln!("skipped: openssl is not installed");
        return;
    };
    let settings = [("MARTD_PG_TLS_CERT", cert.as_str()), ("MARTD_PG_TLS_KEY", key.as_str())];
    let (_martd, port) = start(&root, &settings);
    let ask = |host: &str, mode: &str, authority: &str| {
        let address = format!(
            "host={host} hostaddr=127.0.0.1 port={port} user=anyone dbname=martd sslmode={mode} \
             sslrootcert={authority}"
        );
        let output =
            Command::new("psql").args([&address, "-XAtc", "SELECT x FROM mart.one"]).output();
        output.ok().map(|output| said(&output))
    };
    let Some(told) = ask("localhost", "verify-full", &authority) else {
        eprintln!("skipped: psql is not installed (Debian has it as postgresql-client)");
        return;
    };
    assert_eq!(told, "42\n");
    let told = ask("elsewhere", "verify-full", &authority).expect("psql is there");
    assert!(told.contains("does not match host name"), "{told}");
    let told = ask("localhost", "verify-full", &cert).expect("psql is there");
    assert!(told.contains("certificate verify failed"), "{told}");
    assert_eq!(ask("localhost", "disable", &authority).as_deref(), Some("42\n"), "on loopback");
    // What comes before the handshake is never taken for what came encrypted.
    let stuffed = [&[0, 0, 0, 8, 4, 210, 22, 47][..], &startup("anyone")].concat();
    let answer = String::from_utf8_lossy(&answer_to(port, &stuffed)).into_owned();
    assert!(answer.contains("08P01"), "{answer}");
    assert!(!answer.contains("server_version"), "{answer}");
}

#[test]
fn a_new_certificate_is_served_without_a_restart() {
    let root = Root::new();
    Writer::new().land(&root, "one", "SELECT 41 + 1 AS x");
    let (old, new) = (tempfile::tempdir(), tempfile::tempdir());
    let (old, new) = (old.expect("a temporary directory"), new.expect("a temporary directory"));
    let (Some((authority, cert, key)), Some((new_authority, new_cert, new_key))) =
        (certificate(old.path()), certificate(new.path()))
    else {
        eprintln!("skipped: openssl is not installed");
        return;
    };
    let settings = [("MARTD_PG_TLS_CERT", cert.as_str()), ("MARTD_PG_TLS_KEY", key.as_str())];
    let (martd, port) = start(&root, &settings);
    let ask = |authority: &str| {
        let address = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user=anyone dbname=martd \
             sslmode=verify-full sslrootcert={authority}"
        );
        let output =
            Command::new("psql").args([&address, "-XAtc", "SELECT x FROM mart.one"]).output();
        output.ok().map(|output| said(&output))
    };
    let Some(told) = ask(&authority) else {
        eprintln!("skipped: psql is not installed (Debian has it as postgresql-client)");
        return;
    };
    assert_eq!(told, "42\n");
    let told =
        |message: &str| martd.log().into_iter().filter(|line| line["message"] == message).count();
    let complaint = "the certificate is wrong: the old one stays";
    let copy = |from: &str, to: &str| std::fs::copy(from, to).expect("copied");
    std::fs::write(&cert, "no certificate\n").expect("write");
    martd.signal(rustix::process::Signal::HUP);
    wait_for("the complaint", || (told(complaint) == 1).then_some(()));
    copy(&new_cert, &cert); // which is not of the old key
    martd.signal(rustix::process::Signal::HUP);
    wait_for("the second complaint", || (told(complaint) == 2).then_some(()));
    assert_eq!(ask(&authority).as_deref(), Some("42\n"), "the old one stays");
    copy(&new_key, &key);
    martd.signal(rustix::process::Signal::HUP);
    wait_for("the new certificate", || (told("certificate reloaded") == 1).then_some(()));
    assert_eq!(ask(&new_authority).as_deref(), Some("42\n"));
    let refused = ask(&authority).expect("psql is there");
    assert!(refused.contains("certificate verify failed"), "{refused}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").expect("write");
    let empty = empty.to_str().expect("UTF-8");
    for settings in [
        &[("MARTD_PG_TLS_CERT", empty)][..],
        &[("MARTD_PG_TLS_CERT", empty), ("MARTD_PG_TLS_KEY", empty)],
        &[("MARTD_PG_TLS_CERT", "/nowhere"), ("MARTD_PG_TLS_KEY", empty)],
    ] {
        let all = [&[("PARQUET_DIR", "/tmp"), ("MARTD_PG_LISTEN", "0.0.0.0:0")], settings].concat();
        let output = crate::harness::run(&["serve"], &all);
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.err.contains("MARTD_PG_TLS_CERT"), "{output:?}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let root = Root::new();
    Writer::new().land(&root, "big", BIG);
    let settings = [
        ("MARTD_QUERIES", "1"),
        ("MARTD_STALL_TIMEOUT", "1s"),
        ("MARTD_MAX_RESULT", "1GiB"),
        BEYOND_PATIENCE,
    ];
    let (_martd, port) = start(&root, &settings);
    let mut slow = Raw::connect(port);
    slow.send("SELECT repeat('x', 1000) FROM mart.big");
    slow.0.read_exact(&mut [0]).expect("it has begun");
    // Its slot is the only one.
    let mut other = Raw::connect(port);
    wait_for("the slot", || {
        let answer = other.ask("SELECT count(*) FROM mart.big");
        answer.iter().any(|(kind, _)| *kind == b'D').then_some(())
    });
    let rest = rest_of(&mut slow.0);
    assert!(rest.len() < 200_000 * 1000, "{} bytes", rest.len());
}
