//! `/mcp`: what an agent finds and is told, through the reference client and by hand.

use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};

use crate::harness::{Answer, Martd, Root};
use crate::writers::{Writer, put};

const ORDERS: &str =
    "SELECT i AS id, 7 + i % 2 AS user_id, i * 1.5 AS amount, ['a', 'b'][1 + i % 3 % 2] AS kind
    FROM range(20) t(i)";

fn ledger() -> Json {
    let model = json!({"name": "orders", "schema": "mart", "invocation_id": "i1",
        "description": "One row for each order.",
        "columns": [{"name": "amount", "description": "In euros.", "data_type": null}]});
    json!({"build": {"invocation_id": "i1", "started_at": "2026-11-01T00:00:00Z",
        "finished_at": "2026-11-01T00:00:10Z", "status": "success", "models": [model]}})
}

fn land(root: &Root) {
    Writer::new().land_stamped(root, "orders", ORDERS, Some("i1"));
    put(root.mart("_build.json"), ledger().to_string().as_bytes());
}

#[test]
fn an_agent_finds_the_tables_of_its_scope() {
    let root = Root::new();
    land(&root);
    let tokens = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(tokens.path(), "secret user_id=7\n").expect("write");
    let settings = [
        ("MARTD_SCOPE_COLUMN", "user_id"),
        ("MARTD_TOKEN_FILE", tokens.path().to_str().expect("UTF-8")),
    ];
    let martd = Martd::start_with(root.path(), &settings);
    crate::harness::wait_for("readiness", || (martd.get("/readyz").status == 200).then_some(()));

    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(folder.join(".venv/bin/python"))
        .arg(folder.join("tests/mcp/check.py"))
        .args([&format!("http://{}", martd.address), "secret", "user_id=7"])
        .output()
        .expect("Python runs: run make .venv/ready");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Json> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let versions: Vec<&Json> = answers.iter().map(|answer| &answer["version"]).collect();
    assert_eq!(versions, ["2026-07-28", "2025-11-25"]);
    for found in &answers {
        assert!(found["instructions"].as_str().is_some_and(|text| text.contains("list_marts")));
        let tools =
            json!({"list_marts": true, "describe_mart": true, "query": true, "freshness": true});
        assert_eq!(found["tools"], tools);
        let mart = &found["marts"]["marts"][0];
        assert_eq!(
            (&mart["name"], &mart["description"]),
            (&json!("orders"), &json!("One row for each order."))
        );
        assert_eq!(mart["columns"][2]["description"], "In euros.");
        assert_eq!(found["freshness"]["results"][0]["name"], "orders");

        // Ten of the twenty rows are the caller's, and the examples are among them.
        assert_eq!(found["described"]["rows"], 10);
        let examples = found["described"]["examples"].as_array().expect("rows");
        assert_eq!(examples.len(), 3);
        assert!(examples.iter().all(|row| row["user_id"] == 7), "{examples:?}");
        assert_eq!(found["total"]["rows"], json!([{"total": 135.0}]));
        assert_eq!(found["total"]["columns"][0]["name"], "total");
        assert_eq!(found["by_kind"]["rows"], json!([{"kind": "a", "n": 7}, {"kind": "b", "n": 3}]));
        assert_eq!(found["above"]["rows"], json!([{"id": 14}, {"id": 16}]));
        assert_eq!(found["above"]["truncated"], true);
        assert_eq!(found["others"]["rows"], json!([{"n": 0}]));

        // A model reads all of an answer, so it ends early, and says so.
        let rows = found["everything"]["rows"].as_array().expect("rows");
        assert!((40..50).contains(&rows.len()), "{}", rows.len());
        assert!(
            found["everything"]["note"].as_str().is_some_and(|note| note.contains("aggregate"))
        );

        let error = |of: &str| found[of]["error"].as_str().unwrap_or_default().to_owned();
        assert!(error("wrong").contains("nothing") && error("wrong").contains("describe_mart"));
        assert!(error("writes").contains("SELECT"), "{}", error("writes"));
        assert!(error("unknown").contains("list_marts"));
        assert!(error("misnamed").contains("statement"), "{}", error("misnamed"));
    }
}

fn send(martd: &Martd, message: &Json, headers: &[(&str, &str)]) -> Answer {
    martd.post_to("/mcp", &message.to_string(), headers)
}

#[test]
fn a_wrong_message_gets_an_error_of_json_rpc() {
    let root = Root::new();
    land(&root);
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let envelope = |version: &str| {
        json!({"io.modelcontextprotocol/protocolVersion": version,
               "io.modelcontextprotocol/clientCapabilities": {}})
    };
    let request = |method: &str, params: Json| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let call = request("tools/call", json!({"name": "query", "_meta": envelope("2026-07-28")}));
    let said = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "query"),
    ];
    let cases = [
        (json!([]), &[][..], 400, -32_600),
        (json!({"jsonrpc": "1.0", "id": 1, "method": "ping"}), &[], 400, -32_600),
        (request("tools/call", json!({"name": "drop"})), &[], 400, -32_602),
        (request("tools/call", json!({})), &[], 400, -32_602),
        (request("resources/list", json!({})), &[], 200, -32_601),
        (request("tools/list", json!({})), &[("mcp-protocol-version", "1999-01-01")], 400, -32_022),
        (call.clone(), &said[..2], 400, -32_020),
        (call.clone(), &[said[0], said[1], ("mcp-name", "freshness")], 400, -32_020),
        (
            request("server/discover", json!({"_meta": envelope("2099-01-01")})),
            &[("mcp-protocol-version", "2099-01-01"), ("mcp-method", "server/discover")],
            400,
            -32_022,
        ),
        (
            request("resources/list", json!({"_meta": envelope("2026-07-28")})),
            &[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "resources/list")],
            404,
            -32_601,
        ),
    ];
    for (message, headers, status, code) in cases {
        let answer = send(&martd, &message, headers);
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{message}"
        );
    }
    let broken = martd.post_to("/mcp", "{", &[]);
    assert_eq!((broken.status, &broken.json()["error"]["code"]), (400, &json!(-32_700)));
    // Told, not asked: nothing is answered.
    let told = send(&martd, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}), &[]);
    assert_eq!((told.status, told.body.as_str()), (202, ""));
    assert_eq!(send(&martd, &call, &said).status, 200);
    assert_eq!(martd.get("/mcp").status, 405);
}

#[test]
fn marts_are_listed_with_what_they_mean() {
    let root = Root::new();
    land(&root);
    let martd = Martd::start(root.path());
    let snapshot = martd.wait_ready();
    let answer = martd.get("/v1/marts").json();
    assert_eq!(answer["snapshot"], snapshot["id"]);
    let mart = &answer["marts"][0];
    assert_eq!((&mart["name"], &mart["rows"]), (&json!("orders"), &json!(20)));
    let amount = json!({"name": "amount", "type": "DECIMAL(21,1)", "description": "In euros."});
    assert_eq!(mart["columns"][2], amount);
    assert_eq!(mart["freshness"]["status"], "pass");
}

#[test]
fn a_duckdb_elsewhere_makes_views_over_the_files() {
    let root = Root::new();
    land(&root);
    Writer::new().land_stamped(&root, "a b's", "SELECT 42 AS x", Some("i1"));
    let martd = Martd::start_with(root.path(), &[("MARTD_PUBLISH", "file")]);
    martd.wait_snapshot("both marts", |snapshot| {
        snapshot["marts"].as_array().is_some_and(|m| m.len() == 2)
    });
    let sql = martd.get("/v1/attach.sql");
    assert_eq!(sql.status, 200);
    let url = format!("http://{}/v1/marts/a%20b%27s.parquet", martd.address);
    assert!(sql.body.contains(&format!(
        "CREATE OR REPLACE VIEW mart.\"a b's\" AS FROM read_parquet('{url}');"
    )));
    // The file is where the view says.
    let (status, file) = martd.get_bytes("/v1/marts/a%20b%27s.parquet", &[]);
    assert_eq!((status, &file[..4]), (200, b"PAR1".as_slice()));
    let scoped = Martd::start_with(
        root.path(),
        &[("MARTD_SCOPE_COLUMN", "user_id"), ("MARTD_UNSCOPED", "a b's")],
    );
    crate::harness::wait_for("readiness", || (scoped.get("/readyz").status == 200).then_some(()));
    assert_eq!(scoped.get("/v1/attach.sql").problem().0, "scope-required");
}
