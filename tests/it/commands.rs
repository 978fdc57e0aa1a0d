//! What people and scripts type: `check`, `query`, `freshness`, `healthcheck`, `bootstrap`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Martd, Root, run, run_with_input, wait_for};
use crate::writers::{Records, Writer};

/// A port on which nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn check_shows_what_would_be_served_and_what_is_wrong() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "good", "SELECT i FROM range(1234) t(i)");
    let good = run(&["check", text(root.path())], &[]);
    assert_eq!(good.code, 0, "{good:?}");
    let words = |text: &str, file: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(file));
        let line = line.unwrap_or_else(|| panic!("no {file} in {text}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(words(&good.out, "good.parquet")[1..3], ["served", "1234"]);
    assert!(good.out.contains("1 mart of "), "{}", good.out);
    assert!(!good.out.contains('\x1b'), "no colours in a pipe: {}", good.out);

    // A whole footer over damaged pages is found by decoding alone.
    let mut damaged = writer.parquet("SELECT i, hash(i) AS h FROM range(5000) t(i)", None);
    damaged[100..2_000].fill(0xff);
    fs::write(root.mart("damaged.parquet"), &damaged).expect("write");
    fs::write(root.mart("half.parquet"), b"PAR1 and no more").expect("write");
    fs::write(root.mart("notes.txt"), "x").expect("write");
    let bad = run(&["check"], &[("PARQUET_DIR", text(root.path()))]);
    assert_eq!(bad.code, 1, "{bad:?}");
    assert_eq!(words(&bad.out, "good.parquet")[1..3], ["served", "1234"]);
    assert_eq!(words(&bad.out, "damaged.parquet")[1], "rejected");
    assert_eq!(words(&bad.out, "half.parquet")[1], "landing");
    assert_eq!(words(&bad.out, "notes.txt")[1], "ignored");

    // The settings are those of `serve`: with no room for a table there is none.
    let small = run(&["check", text(root.path())], &[("MARTD_TABLE_MEMORY", "1KiB")]);
    let good = words(&small.out, "good.parquet");
    assert_eq!((small.code, &*good[1]), (1, "rejected"), "{small:?}");
    assert!(small.out.contains("of MARTD_TABLE_MEMORY (1.0 KiB)"), "{small:?}");

    let absent = run(&["check", "/nowhere"], &[]);
    assert_eq!(absent.code, 1);
    assert!(absent.err.contains("/nowhere/mart cannot be read"), "{}", absent.err);
}

#[test]
fn check_says_what_a_ledger_holds_back() {
    let root = Root::new();
    let writer = Writer::new();
    let file = writer.parquet("SELECT 1 AS x", Some("second"));
    fs::write(root.mart("a.parquet"), file).expect("write");
    let ledger = serde_json::json!({"build": {
        "invocation_id": "first", "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:01:00Z", "status": "success", "results": [],
        "outstanding": [],
        "models": [{"name": "a", "schema": "mart", "description": "", "invocation_id": "first",
                    "meta": {}, "columns": []}],
    }});
    fs::write(root.mart("_build.json"), ledger.to_string()).expect("write");
    let refuse = ("MARTD_UNVERIFIED", "refuse");
    let held = run(&["check", text(root.path())], &[refuse]);
    assert_eq!(held.code, 1, "{held:?}");
    assert!(held.out.contains("the file is of build second, the ledger names first"), "{held:?}");
    assert!(held.out.contains("held: a.parquet: "));
    assert!(held.out.contains("nothing in "), "{held:?}");
    let unverified = run(&["check", text(root.path())], &[]);
    assert!(unverified.out.contains("served unverified"), "{unverified:?}");
}

#[test]
fn check_knows_what_the_state_directory_keeps() {
    let (root, writer, records) = (Root::new(), Writer::new(), Records::default());
    let state = tempfile::tempdir().expect("a temporary directory");
    let settings = [("MARTD_STATE_DIR", text(state.path()))];
    writer.land(&root, "a", "SELECT i FROM range(1234) t(i)");
    records.write(&root, "one", &["a"], serde_json::json!({}));
    let mut martd = Martd::start_with(root.path(), &settings);
    let is_kept = || fs::read_to_string(state.path().join("snapshot.json")).ok();
    wait_for("a kept build", || is_kept().filter(|kept| kept.contains("\"one\"")));
    let check = |settings: &[(&str, &str)]| {
        let said = run(&["check", text(root.path())], settings);
        let line = said.out.lines().find(|line| line.starts_with("a.parquet"));
        let words = line.unwrap_or_default().split_whitespace().map(str::to_owned);
        (said.code, words.collect::<Vec<_>>(), said.out)
    };
    let (code, words, out) = check(&[]);
    assert_eq!(
        (code, &*words[1], &*words[2], words[8].as_str()),
        (0, "served", "1234", "one"),
        "{out}"
    );

    writer.land(&root, "a", "SELECT i FROM range(7) t(i)");
    let failed = serde_json::json!({"results": [{"id": "check", "status": "error"}]});
    records.write(&root, "two", &["a"], failed);
    // Also while a martd has the directory, and when it is none.
    for is_running in [true, false] {
        let (code, words, out) = check(&settings);
        assert_eq!((code, words[1..4].join(" ")), (1, "served (as last)".to_owned()), "{out}");
        assert_eq!((&*words[4], &*words[10]), ("1234", "one"), "{out}");
        assert!(out.contains("held: check has failed"), "{out}");
        if is_running {
            martd.signal(rustix::process::Signal::KILL);
            martd.wait_exit();
        }
    }
    let other = tempfile::tempdir().expect("a temporary directory");
    fs::write(other.path().join("snapshot.json"), "{}").expect("write");
    let (_, _, out) = check(&[("MARTD_STATE_DIR", text(other.path()))]);
    assert!(out.contains("is left out: snapshot.json does not parse"), "{out}");
    let (code, words, out) = check(&[]);
    assert_eq!(
        (code, words[1..3].join(" "), &*words[3]),
        (1, "served unverified".into(), "7"),
        "{out}"
    );
    // A file that no record names may be of a build that runs.
    records.write(
        &root,
        "three",
        &["a"],
        serde_json::json!({"results": [{"id": "check", "status": "success"}]}),
    );
    assert_eq!(check(&settings).0, 0);
    writer.land(&root, "b", "SELECT 1 AS x");
    let (code, _, out) = check(&settings);
    assert!(code == 4 && out.contains("no record names it yet"), "{out}");
}

#[test]
fn short_help_is_shorter_than_help() {
    assert!(!run(&["-h"], &[]).out.contains("Exit code:"));
    for command in [&["serve"][..], &["check"], &[]] {
        let help = |flag| run(&[command, &[flag]].concat(), &[]).out;
        let (short, long) = (help("-h"), help("--help"));
        assert!(short.lines().count() * 2 < long.lines().count(), "{command:?}: {short}");
        assert!(command.is_empty() || short.contains("--parquet-dir"), "{short}");
        assert!(long.contains("--scratch-dir") && !short.contains("--scratch-dir"), "{short}");
    }
}

#[test]
fn commands_that_find_no_directory_say_how_to_name_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let nowhere = dir.path().join("nowhere");
    for command in [&["publish"][..], &["rollback", "one"]] {
        let said = run(command, &[("PARQUET_DIR", text(&nowhere))]);
        assert!(said.code == 1 && said.err.contains("name PARQUET_DIR with --dir"), "{said:?}");
    }
}

#[test]
fn query_prints_tables_or_data_for_programs() {
    let root = Root::new();
    let writer = Writer::new();
    let sql = "SELECT i AS n, 'name ' || i AS name, 1.50::DECIMAL(9,2) AS price FROM range(3) t(i)";
    writer.land(&root, "a", sql);
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let server = ("MARTD_SERVER", martd.address.as_str());
    let ask = |arguments: &[&str]| {
        let mut all = vec!["query"];
        all.extend(arguments);
        run(&all, &[server])
    };
    let all = "SELECT * FROM mart.a ORDER BY n";

    let table = ask(&[all, "--format", "table"]);
    let expected = "n  name    price\n─  ──────  ─────\n0  name 0   1.50\n1  name 1   1.50\n\
                    2  name 2   1.50\n(3 rows)\n";
    assert_eq!((table.code, table.out.as_str()), (0, expected));
    assert_eq!(ask(&[all]).out, "n,name,price\n0,name 0,1.50\n1,name 1,1.50\n2,name 2,1.50\n");
    let ndjson = ask(&[all, "--format", "ndjson", "--limit", "1"]);
    assert_eq!(ndjson.out, "{\"n\":0,\"name\":\"name 0\",\"price\":1.50}\n");
    assert_eq!(ndjson.err, "martd: rows were left out; ask for more with --limit\n");
    let piped = run_with_input(&["query", "-"], &[server], "SELECT max(n) AS n FROM mart.a");
    assert_eq!(piped.out, "n\n2\n");

    let by_name = "SELECT name FROM mart.a WHERE n = $n AND name IN (SELECT unnest($names))";
    let named = ask(&[by_name, "-p", "n=2", "-p", "names=[\"name 2\"]"]);
    assert_eq!((named.code, named.out.as_str()), (0, "name\nname 2\n"), "{named:?}");
    assert_eq!(ask(&["SELECT ? + ? AS n", "-p", "47", "-p", "-5"]).out, "n\n42\n");
    // A stream of many parts comes whole, with its end.
    let many = "SELECT a.n, i FROM mart.a a, range(100000) t(i)";
    let streamed = ask(&[many, "--limit", "200000"]);
    assert_eq!(streamed.out.lines().count(), 200_001);
    assert!(streamed.err.contains("rows were left out"), "the trailer is read");
    assert_eq!(ask(&[many]).out.lines().count(), 300_001, "all of them, where no limit is named");

    let refused = ask(&["SELECT *\nFROM read_csv('/etc/passwd')"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("function-not-allowed: function read_csv"), "{}", refused.err);
    assert!(
        refused.err.contains("LINE 2: FROM read_csv('/etc/passwd')\n             ^"),
        "{}",
        refused.err
    );
    assert_eq!(ask(&["SELECT 1", "-p", "a=1", "-p", "2"]).code, 2);
    let silent = run(&["query", "SELECT 1"], &[("MARTD_SERVER", &nowhere())]);
    assert_eq!(silent.code, 3);
    assert!(silent.err.contains("does not answer"), "{}", silent.err);
    assert!(silent.err.contains("with --server (MARTD_SERVER)"), "{}", silent.err);
    assert_eq!(run(&["query", "SELECT 1"], &[("MARTD_SERVER", "martd")]).code, 2);
}

#[test]
fn query_says_whose_rows_it_wants_and_who_it_is() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS user_id, i * 10 AS x FROM range(5) t(i)");
    let tokens = root.path().join("tokens");
    fs::write(&tokens, "t0p user_id=*\n").expect("write");
    let settings = [("MARTD_SCOPE_COLUMN", "user_id"), ("MARTD_TOKEN_FILE", text(&tokens))];
    let martd = Martd::start_with(root.path(), &settings);
    wait_for("readiness", || (martd.get("/readyz").status == 200).then_some(()));
    let ask = |scope: &str, token: &str| {
        let arguments = ["query", "SELECT x FROM mart.a", "--scope", scope];
        let environment = [("MARTD_SERVER", martd.address.as_str()), ("MARTD_TOKEN", token)];
        run(&arguments, &environment)
    };
    assert_eq!(ask("user_id=3", "t0p").out, "x\n30\n");
    assert!(ask("*", "t0p").err.contains("scope-required"));
    assert!(ask("user_id=3", "wrong").err.contains("unauthorized"));
}

#[test]
fn freshness_tells_its_status_by_its_exit_code() {
    let root = Root::new();
    let martd = Martd::start_with(
        root.path(),
        &[("MARTD_MAX_AGE_WARN", "1h"), ("MARTD_MAX_AGE_ERROR", "2h")],
    );
    let ask = |format: &str| {
        run(&["freshness", "--format", format], &[("MARTD_SERVER", martd.address.as_str())])
    };
    let nothing = ask("table");
    assert_eq!(nothing.code, 1);
    assert!(nothing.out.starts_with("nothing is served yet; martd check"), "{nothing:?}");
    martd.wait_log("there is no Parquet file yet; martd waits for the first");

    let path = root.mart("a.parquet");
    let writer = Writer::new();
    for (age, code, status) in [(0, 0, "pass"), (5_400, 4, "warn"), (90_000, 1, "error")] {
        fs::write(&path, writer.parquet(&format!("SELECT {age} AS x"), None)).expect("write");
        let modified = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        let file = fs::File::options().write(true).open(&path).expect("open");
        file.set_modified(modified).expect("utimes");
        drop(file);
        let found = wait_for(status, || {
            Some(ask("table")).filter(|found| found.out.contains(&format!("status {status}")))
        });
        assert_eq!(found.code, code, "{found:?}");
        assert!(found.out.lines().nth(2).expect("a row").starts_with(&format!("a     {status}")));
    }
    let json: serde_json::Value = serde_json::from_str(&ask("json").out).expect("JSON");
    assert_eq!(json["status"], "error");
    let silent = run(&["freshness"], &[("MARTD_SERVER", &nowhere())]);
    assert_eq!(silent.code, 3);
}

#[test]
fn healthcheck_asks_where_this_martd_listens() {
    let root = Root::new();
    let socket = root.path().join("martd.sock");
    let unix = format!("unix:{}", socket.display());
    let settings = [("MARTD_LISTEN", "0.0.0.0:0"), ("MARTD_ADMIN_LISTEN", unix.as_str())];
    let martd = Martd::start_with(root.path(), &settings);
    let port = martd.address.rsplit_once(':').expect("a port").1;
    let everywhere = format!("0.0.0.0:{port}");
    // With the settings of the container, as they are.
    let by_tcp = || run(&["healthcheck"], &[("MARTD_LISTEN", everywhere.as_str())]);
    let by_socket = || {
        let environment = [("MARTD_LISTEN", "0.0.0.0:1"), ("MARTD_ADMIN_LISTEN", unix.as_str())];
        run(&["healthcheck"], &environment)
    };
    for not_ready in [by_tcp(), by_socket()] {
        assert_eq!(not_ready.code, 1, "{not_ready:?}");
        assert!(not_ready.err.contains("not-ready: no Parquet file"), "{not_ready:?}");
    }
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    wait_for("readiness", || (by_tcp().code == 0).then_some(()));
    assert_eq!(by_socket().out, "ready\n");
    let silent = run(&["healthcheck"], &[("MARTD_LISTEN", &nowhere())]);
    assert_eq!(silent.code, 1, "Docker keeps all codes but 0 and 1 for itself");
}

#[test]
fn bootstrap_makes_what_it_can_and_says_the_rest() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let parquet = root.path().join("data/parquet");
    let legacy = root.path().join("legacy/analytics.duckdb");
    let environment = [("PARQUET_DIR", text(&parquet)), ("DUCKDB_PATH", text(&legacy))];
    let first = run(&["bootstrap"], &environment);
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(first.out.matches("created").count(), 2, "{first:?}");
    assert!(parquet.join("mart").is_dir() && legacy.parent().expect("a folder").is_dir());
    let second = run(&["bootstrap"], &environment);
    assert_eq!((second.code, second.out.matches("created").count()), (0, 0), "{second:?}");

    // A file in the way.
    let blocked = root.path().join("file");
    fs::write(&blocked, "x").expect("write");
    let inside = blocked.join("parquet");
    let refused = run(&["bootstrap"], &[("PARQUET_DIR", text(&inside))]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("is there already and no directory"), "{refused:?}");

    // No permission; root needs none, so another user asks.
    let locked = root.path().join("locked");
    fs::create_dir(&locked).expect("mkdir");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    // In a place where that user may run it; the binary looks for DuckDB's library beside itself.
    let program = root.path().join("martd");
    fs::copy(crate::harness::program(), &program).expect("copied");
    let library = std::path::Path::new(env!("DUCKDB_LIB_DIR")).join("libduckdb.so");
    fs::copy(library, root.path().join("libduckdb.so")).expect("copied");
    let output = std::process::Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(program)
        .args(["bootstrap", "--parquet-dir", text(&locked)])
        .env_clear()
        .output();
    let Ok(output) = output else { return println!("SKIPPED: setpriv is not installed") };
    let message = String::from_utf8_lossy(&output.stderr);
    if rustix::process::geteuid().is_root() {
        let advice = format!("install -d -o 65534 -g 65534 {}", text(&locked.join("mart")));
        assert!(message.contains(&advice), "{message}");
        assert_eq!(output.status.code(), Some(1));
    }
}
