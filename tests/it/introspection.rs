//! What a statement can learn of the catalog: the marts of its snapshot, and nothing else.

use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root, wait_for};
use crate::writers::{Writer, put};

fn land(root: &Root) {
    let writer = Writer::new();
    writer.land_stamped(root, "orders", "SELECT 1 AS id, 7 AS user_id, 1.50 AS amount", Some("i1"));
    writer.land_stamped(root, "it's", "SELECT DATE '2026-01-01' AS \"a day\"", Some("i1"));
}

fn write_ledger(root: &Root, description: &str) {
    let model = json!({"name": "orders", "schema": "main_mart", "invocation_id": "i1",
        "description": description,
        "columns": [{"name": "AMOUNT", "description": "In euros; it's net.", "data_type": null},
                    {"name": "gone", "description": "Not in the file.", "data_type": null}]});
    let other = json!({"name": "it's", "invocation_id": "i1"});
    let ledger = json!({"build": {"invocation_id": "i1", "started_at": "2026-11-01T00:00:00Z",
        "finished_at": "2026-11-01T00:00:10Z", "status": "success", "models": [model, other]}});
    put(root.mart("_build.json"), ledger.to_string().as_bytes());
}

const TABLES: &str =
    "SELECT table_catalog AS c, table_schema AS s, table_name AS t, TABLE_COMMENT AS m
    FROM information_schema.tables ORDER BY t";

#[test]
fn the_catalog_is_that_of_the_snapshot() {
    let root = Root::new();
    land(&root);
    write_ledger(&root, "One row for each order.");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    assert_eq!(martd.query("SHOW TABLES").rows(), json!([{"name": "it's"}, {"name": "orders"}]));
    let row =
        |name: &str, meaning: Json| json!({"c": "martd", "s": "mart", "t": name, "m": meaning});
    let expected =
        json!([row("it's", Json::Null), row("orders", json!("One row for each order."))]);
    assert_eq!(martd.query(TABLES).rows(), expected);
    let columns =
        "SELECT column_name AS c, data_type AS t, ordinal_position AS n, COLUMN_COMMENT AS m
        FROM information_schema.columns WHERE table_name = 'orders' ORDER BY n";
    let column = |name: &str, ty: &str, number: u32, meaning: Json| json!({"c": name, "t": ty, "n": number, "m": meaning});
    let expected = json!([
        column("id", "INTEGER", 1, Json::Null),
        column("user_id", "INTEGER", 2, Json::Null),
        column("amount", "DECIMAL(3,2)", 3, json!("In euros; it's net.")),
    ]);
    assert_eq!(martd.query(columns).rows(), expected);
    let names = "SELECT current_schema() AS s, current_schema AS t, current_database() AS d,
        current_catalog AS c, version() LIKE 'v1.%' AS v";
    let expected = json!([{"s": "mart", "t": "mart", "d": "martd", "c": "martd", "v": true}]);
    assert_eq!(martd.query(names).rows(), expected);
    let described = martd.query("DESCRIBE mart.\"it's\"").rows();
    assert_eq!(
        (&described[0]["column_name"], &described[0]["column_type"]),
        (&json!("a day"), &json!("DATE"))
    );

    // Other words about the same data are told at once.
    write_ledger(&root, "Changed.");
    wait_for("the new words", || {
        martd.query(TABLES).rows()[1]["m"].as_str().is_some_and(|m| m == "Changed.").then_some(())
    });
    // An error shows its place in the statement as it was sent.
    let wrong = "SELECT nothing FROM information_schema.tables";
    assert!(martd.query(wrong).body.contains("nothing"), "{}", martd.query(wrong).body);
}

#[test]
fn a_scoped_request_sees_only_the_marts_it_may_read() {
    let root = Root::new();
    land(&root);
    let martd = Martd::start_with(root.path(), &[("MARTD_SCOPE_COLUMN", "user_id")]);
    wait_for("readiness", || (martd.get("/readyz").status == 200).then_some(()));
    let ask = |sql: &str| {
        let answer = martd.post_with(&json!({"sql": sql}), &[("martd-scope", "user_id=7")]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.rows()
    };
    assert_eq!(ask("SHOW TABLES"), json!([{"name": "orders"}]));
    assert_eq!(
        ask("SELECT DISTINCT table_name AS t FROM information_schema.columns"),
        json!([{"t": "orders"}])
    );
    let number = "SELECT count(*) AS n FROM information_schema.tables";
    assert_eq!(ask(number), json!([{"n": 1}]));
}

#[test]
fn a_name_that_is_nearly_right_is_put_right() {
    let root = Root::new();
    land(&root);
    let martd = Martd::start(root.path());
    martd.wait_snapshot("both marts", |snapshot| {
        snapshot["marts"].as_array().is_some_and(|m| m.len() == 2)
    });
    for (sql, hint) in [
        ("FROM mart.ordesr", "Did you mean \"mart.orders\"?"),
        ("FROM orders", "Did you mean \"mart.orders\"?"),
        ("FROM mart.nothing_like_it", "SHOW TABLES lists the marts"),
    ] {
        let (slug, detail) = martd.query(sql).problem();
        assert!(slug == "sql-error" && detail.contains(hint), "{sql}: {detail}");
    }
    for (sql, at) in [
        ("SELECT * FROM mart.orders WHERE id = :id", 35),
        ("SELECT * FROM mart.orders WHERE id = %s", 35),
        ("SELECT * FROM mart.orders WHERE id = %(id)s", 35),
    ] {
        let (slug, detail) = martd.query(sql).problem();
        assert_eq!(slug, "sql-error");
        assert!(detail.contains("a parameter is written $name, $1 or ?"), "{at}: {detail}");
    }
}
