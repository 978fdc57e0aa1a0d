//! The description at `/openapi.json` against the running daemon: whatever it allows, and what it
//! does not, is answered as it says.

use std::path::Path;
use std::process::Command;

use crate::harness::{Martd, Root, seed, wait_for};
use crate::writers::{Writer, serving};

/// Requests for each operation in each of schemathesis's phases.
const EXAMPLES: &str = "40";

/// Builds that nobody makes are not waited for: it could be five minutes each. `holds.rs` waits for
/// real ones.
///
/// What the description allows is accepted, but for what depends on what is there: a snapshot may be gone
/// and a range beyond the file; and random text is seldom SQL. A query that may take a millisecond takes longer.
const CONFIG: &str = "[checks]
positive_data_acceptance.expected-statuses = ['2xx', '3xx', 401, 403, 404, 409, 410, 412, 416, 429, '5xx']

[[operations]]
include-operation-id = 'snapshot'
parameters = { 'query.wait' = 0 }
checks.not_a_server_error.expected-statuses = ['2xx', '4xx', 504]

[[operations]]
include-operation-id-regex = '^(get_query|post_query)$'
checks.not_a_server_error.expected-statuses = ['2xx', '4xx', 504]
checks.positive_data_acceptance.expected-statuses = ['2xx', '3xx', '4xx', '5xx']

[[operations]]
include-operation-id = 'mcp'
checks.positive_data_acceptance.expected-statuses = ['2xx', '3xx', '4xx', '5xx']
";

/// Builds that nobody makes are not waited for by queries either.
const AT_ONCE: (&str, &str) = ("MARTD_CATCH_UP", "0s");

fn schemathesis(martd: &Martd, arguments: &[&str]) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/schemathesis");
    assert!(program.exists(), "schemathesis is not installed: run make .venv/ready");
    let work = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(work.path().join("schemathesis.toml"), CONFIG).expect("write");
    let output = Command::new(program)
        .arg("run")
        .arg(format!("http://{}/openapi.json", martd.address))
        .args(["--max-examples", EXAMPLES, "--request-timeout", "20", "--no-color"])
        // The answer of `events` does not end; events.rs listens to it.
        .args([
            "--seed",
            &seed().to_string(),
            "--checks",
            "all",
            "--exclude-operation-id",
            "events",
        ])
        .args(arguments)
        .current_dir(work.path())
        .output()
        .expect("schemathesis runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn whatever_is_asked_is_answered_as_described() {
    let (_root, martd) =
        serving("a", "SELECT i AS x, 'n' || i AS name FROM range(10) t(i)", &[AT_ONCE]);

    schemathesis(&martd, &[]);
    assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 10);
}

#[test]
fn whatever_is_asked_with_a_token_is_as_described() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS x, i % 2 AS user_id FROM range(10) t(i)");
    let tokens = root.path().join("tokens");
    std::fs::write(&tokens, "of-one user_id=1\n").expect("write");
    let settings = [
        ("MARTD_TOKEN_FILE", tokens.to_str().expect("UTF-8")),
        ("MARTD_SCOPE_COLUMN", "user_id"),
        // A kernel without it would refuse to scope.
        ("MARTD_LANDLOCK", "optional"),
        AT_ONCE,
    ];
    let martd = Martd::start_with(root.path(), &settings);
    wait_for("readiness", || (martd.get("/readyz").status == 200).then_some(()));

    schemathesis(&martd, &["--header", "Authorization: Bearer of-one"]);
}
