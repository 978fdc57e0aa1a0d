//! The description at `/openapi.json` against the running daemon: whatever it allows, and what it
//! does not, is answered as it says.

use std::path::Path;
use std::process::Command;

use crate::harness::{Martd, Root, seed};
use crate::writers::Writer;

/// Requests for each operation in each of schemathesis's phases.
const EXAMPLES: &str = "40";

/// Builds that nobody makes are not waited for: it could be five minutes each. `holds.rs` waits for
/// real ones.
const CONFIG: &str = "[[operations]]
include-operation-id = 'snapshot'
parameters = { 'query.wait' = 0 }
checks.not_a_server_error.expected-statuses = ['2xx', '4xx', 504]
";

fn schemathesis(martd: &Martd, arguments: &[&str]) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/schemathesis");
    assert!(program.exists(), "schemathesis is not installed: run make .venv/ready");
    let work = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(work.path().join("schemathesis.toml"), CONFIG).expect("write");
    let output = Command::new(program)
        .arg("run")
        .arg(format!("http://{}/openapi.json", martd.address))
        .args(["--max-examples", EXAMPLES, "--request-timeout", "20", "--no-color"])
        .args(["--seed", &seed().to_string()])
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
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS x, 'n' || i AS name FROM range(10) t(i)");
    let martd = Martd::start(root.path());
    martd.wait_ready();

    // Random text is seldom SQL, so that being valid by the schema says nothing of acceptance.
    let arguments = [
        "--exclude-checks",
        "positive_data_acceptance",
        // Its answer does not end; events.rs listens to it.
        "--exclude-operation-id",
        "events",
    ];
    schemathesis(&martd, &arguments);
    assert_eq!(martd.query("SELECT count(*) FROM mart.a").value(), 10);
}
