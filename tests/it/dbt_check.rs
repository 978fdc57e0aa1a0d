//! `martd check --dbt-target`: what would become of a dbt project's models.

use std::fs;

use serde_json::{Value as Json, json};

use crate::harness::run;
use crate::publish::Stage;

#[test]
fn check_says_which_models_would_be_served() {
    let stage = Stage::new();
    let check = |change: &dyn Fn(&mut Json)| {
        stage.dbt_ran("1.11", "build.json", |_, manifest| change(manifest));
        for name in ["orders", "customers"] {
            fs::remove_file(stage.file(name)).expect("it is there");
        }
        let target = stage.target.path().to_str().expect("UTF-8");
        run(
            &["check", "--dbt-target", target],
            &[("PARQUET_DIR", stage.root.path().to_str().expect("UTF-8"))],
        )
    };
    let set = |manifest: &mut Json, name: &str, config: Json| {
        let model = &mut manifest["nodes"][format!("model.shop.{name}")];
        *model = json!({"resource_type": "model", "alias": name, "config": config});
    };
    let without = check(&|_| {});
    assert_eq!(without.code, 1, "{without:?}");
    for text in [
        "mart.orders",
        "mart.customers",
        "does not use the dbt package",
        "2 models would be served",
    ] {
        assert!(without.out.contains(text), "{text}: {without:?}");
    }
    assert!(!without.out.contains("stg_orders"), "a view is no mart: {without:?}");

    let good = check(&|manifest| {
        manifest["nodes"]["operation.martd.martd-on-run-end-0"] =
            json!({"resource_type": "operation"});
        set(
            manifest,
            "exported",
            json!({"materialized": "view", "post-hook": [{"sql": "{{ martd.export() }}"}]}),
        );
        set(manifest, "kept", json!({"materialized": "incremental"}));
        set(manifest, "text", json!({"materialized": "external", "options": {"format": "csv"}}));
        set(
            manifest,
            "away",
            json!({"materialized": "external", "location": "elsewhere/away.parquet"}),
        );
        let options = json!({"partition_by": "day", "overwrite": true});
        let by_day = json!({"materialized": "external", "options": options});
        set(manifest, "parts", by_day);
        set(manifest, "_own", json!({"materialized": "external"}));
    });
    assert_eq!(good.code, 0, "{good:?}");
    for (model, text) in [
        ("exported", "mart.exported"),
        ("parts", "mart.parts"),
        ("kept", "stays in the database"),
        ("text", "is not Parquet"),
        ("away", "lies outside of"),
        ("_own", "starts with `_`"),
    ] {
        let line = good.out.lines().find(|line| line.contains(&format!("model.shop.{model} ")));
        assert!(line.is_some_and(|line| line.contains(text)), "{model}: {text}: {}", good.out);
    }
    assert!(good.out.ends_with("4 models would be served\n"), "{good:?}");

    for (option, text) in [
        ("overwrite_or_ignore", "partition_by with overwrite_or_ignore leaves old parts"),
        ("compression", "partition_by without overwrite or append fails when its folder is there"),
    ] {
        let warned = check(&|manifest| {
            manifest["nodes"]["operation.martd.martd-on-run-end-0"] =
                json!({"resource_type": "operation"});
            let options = json!({"partition_by": "day", option: "true", "overwrite": "false"});
            let by_day = json!({"materialized": "external", "options": options});
            set(manifest, "parts", by_day);
        });
        assert_eq!(warned.code, 4, "{warned:?}");
        let line = warned.out.lines().find(|line| line.starts_with("model.shop.parts"));
        let line = line.expect("a line");
        assert!(line.contains(text) && line.ends_with("set overwrite: true"), "{line}");
    }

    let twice = check(&|manifest| {
        manifest["nodes"]["operation.martd.martd-on-run-end-0"] =
            json!({"resource_type": "operation"});
        manifest["nodes"]["model.shop.customers"]["alias"] = json!("orders");
    });
    assert_eq!(twice.code, 1, "{twice:?}");
    let both = "model.shop.customers and model.shop.orders both write mart.orders";
    assert!(twice.out.contains(both), "{twice:?}");

    fs::remove_file(stage.target.path().join("manifest.json")).expect("it is there");
    let target = stage.target.path().to_str().expect("UTF-8");
    let none = run(&["check", "--dbt-target", target], &[]);
    assert!(none.code == 1 && none.err.contains("manifest.json: No such file"), "{none:?}");
    assert!(none.err.contains("`dbt parse` writes it"), "{none:?}");
}
