//! `GET /v1/datasets` and `/v1/datasets/{id}/schema`: what the ledger says of the marts.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root};
use crate::writers::{Writer, put, serving};

/// UUIDv5 of `fct_transactions` in the DNS namespace, as Python's `uuid.uuid5` gives it.
const ID: &str = "efd80499-4f32-542d-87f2-d085732e39bd";

fn write_ledger(root: &Root, models: &[Json]) {
    let now = Timestamp::now();
    let ledger = json!({"build": {"invocation_id": "i1", "started_at": now, "finished_at": now,
        "status": "success", "models": models}});
    put(root.mart("_build.json"), ledger.to_string().as_bytes());
}

#[test]
fn datasets_are_what_the_project_says_of_its_models() {
    let (root, writer) = (Root::new(), Writer::new());
    for name in ["fct_transactions", "dim_plain", "int_internal"] {
        writer.land_stamped(&root, name, "SELECT 1 AS amount, 'x' AS note", Some("i1"));
    }
    let model = |name: &str, description: Json, meta: Json, columns: Json| {
        json!({"name": name, "schema": "mart", "invocation_id": "i1", "description": description,
               "meta": meta, "columns": columns})
    };
    let meta = json!({
        "dataset": true, "friendly_name": "Transactions", "group": "Money", "time_grain": "day",
        "date_column": "day", "account_id_column": "account_id", "tag_id_column": null,
        "enum_filters": [{"name": "kind", "label": "Kind", "options": ["in", "out", 3]}, {"label": "no name"}],
        "numeric_filters": [{"name": "amount"}],
        "freshness": {"warn_after": {"count": 1, "period": "day"}},
    });
    let columns = json!([{"name": "Amount", "description": "It's signed.", "data_type": null},
                         {"name": "note", "description": "", "data_type": "TEXT"}]);
    write_ledger(
        &root,
        &[
            model("dim_plain", Json::Null, json!({"dataset": true}), json!([])),
            model("fct_transactions", json!("Every booking."), meta, columns),
            model("int_internal", json!("Not for users."), json!({"dataset": false}), json!([])),
        ],
    );
    let martd = Martd::start(root.path());
    martd.wait_ready();

    let answer = martd.get("/v1/datasets").json();
    assert_eq!(answer["total"], 2);
    let full = json!({
        "id": ID, "dataset_name": "fct_transactions", "friendly_name": "Transactions",
        "description": "Every booking.", "group": "Money", "time_grain": "day",
        "filters": {
            "date_column": "day", "account_id_column": "account_id", "tag_id_column": null,
            "enum_filters": [{"name": "kind", "label": "Kind", "options": ["in", "out", 3]}],
            "numeric_filters": [{"name": "amount", "label": "amount"}],
        },
    });
    assert_eq!(answer["datasets"][1], full);
    let plain = &answer["datasets"][0];
    assert_eq!((&plain["friendly_name"], &plain["description"]), (&json!("dim_plain"), &json!("")));

    let problem = json!({"dataset_name": "fct_transactions",
        "problem": "meta: enum_filters is not understood: {\"label\":\"no name\"}"});
    assert_eq!(answer["problems"], json!([problem]));

    // By id or by name; a type that the project does not give is the file's.
    let mut schema = full.clone();
    schema["columns"] = json!([
        {"name": "Amount", "description": "It's signed.", "data_type": "INTEGER"},
        {"name": "note", "description": "", "data_type": "TEXT"},
    ]);
    for id in [ID.to_owned(), ID.to_uppercase(), "fct_transactions".to_owned()] {
        assert_eq!(martd.get(&format!("/v1/datasets/{id}/schema")).json(), schema, "{id}");
    }
    // Without described columns, the file's.
    let columns = &martd.get("/v1/datasets/dim_plain/schema").json()["columns"];
    let of_file = json!([{"name": "amount", "description": "", "data_type": "INTEGER"},
                         {"name": "note", "description": "", "data_type": "VARCHAR"}]);
    assert_eq!(*columns, of_file);

    for unknown in ["int_internal", "nothing", "00000000-0000-0000-0000-000000000000"] {
        let answer = martd.get(&format!("/v1/datasets/{unknown}/schema"));
        assert_eq!(answer.problem().0, "not-found", "{unknown}");
    }
}

#[test]
fn without_a_ledger_there_are_no_datasets() {
    let (_root, martd) = serving("a", "SELECT 1 AS x", &[]);
    assert_eq!(martd.get("/v1/datasets").json(), json!({"datasets": [], "total": 0}));
}

#[test]
fn filters_stand_in_meta_or_under_a_key_of_their_own() {
    let (root, writer) = (Root::new(), Writer::new());
    let said = [
        ("flat", json!({"date_column": "day", "numeric_filters": [{"name": "amount"}]})),
        (
            "nested",
            json!({"filters": {"date_column": "day", "numeric_filters": [{"name": "amount"}]}}),
        ),
        // What is nearer to its purpose wins.
        (
            "both",
            json!({"date_column": "other", "numeric_filters": [{"name": "amount"}],
                        "filters": {"date_column": "day"}}),
        ),
        (
            "wrong",
            json!({"filters": ["day"], "date_column": 7, "numeric_filters": {"name": "amount"}}),
        ),
    ];
    let models: Vec<Json> = said
        .into_iter()
        .map(|(name, mut meta)| {
            writer.land_stamped(&root, name, "SELECT 1 AS amount", Some("i1"));
            meta["dataset"] = json!(true);
            json!({"name": name, "invocation_id": "i1", "meta": meta})
        })
        .collect();
    write_ledger(&root, &models);
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let answer = martd.get("/v1/datasets").json();
    let filters = |name: &str| {
        let datasets = answer["datasets"].as_array().expect("datasets");
        datasets.iter().find(|set| set["dataset_name"] == name).expect(name)["filters"].clone()
    };
    assert_eq!(filters("flat")["date_column"], "day");
    assert_eq!(filters("flat")["numeric_filters"], json!([{"name": "amount", "label": "amount"}]));
    assert_eq!(filters("nested"), filters("flat"));
    assert_eq!(filters("both"), filters("flat"));
    assert_eq!(filters("wrong")["date_column"], Json::Null);
    let problems: Vec<&str> = answer["problems"]
        .as_array()
        .expect("problems")
        .iter()
        .filter(|problem| problem["dataset_name"] == "wrong")
        .filter_map(|problem| problem["problem"].as_str())
        .collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("filters is not understood: [\"day\"]"), "{problems:?}");
    assert_eq!(answer["problems"].as_array().map(Vec::len), Some(3));
}
