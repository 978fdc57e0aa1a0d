//! `martd publish`: records without writing JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use crate::harness::{Martd, Output, Root, names, run};
use crate::records::validate;
use crate::writers::Writer;

/// The versions whose artifacts were recorded.
const DBT: [&str; 5] = ["1.8", "1.9", "1.10", "1.11", "1.12"];

/// A mart directory, and a target directory of dbt.
pub(crate) struct Stage {
    pub(crate) root: Root,
    writer: Writer,
    pub(crate) target: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let target = tempfile::tempdir().expect("a temporary directory");
        Self { root: Root::new(), writer: Writer::new(), target }
    }

    pub(crate) fn write(&self, marts: &[&str], text: &str) {
        for name in marts {
            self.writer.land(&self.root, name, &format!("SELECT '{text}' AS text"));
        }
    }

    /// `martd publish` with these arguments, and what it says.
    pub(crate) fn publish(&self, arguments: &[&str]) -> (Output, Json) {
        let output = self.martd("publish", arguments);
        let said = serde_json::from_str(&output.out).unwrap_or(Json::Null);
        (output, said)
    }

    pub(crate) fn martd(&self, command: &str, arguments: &[&str]) -> Output {
        let root = self.root.path().to_str().expect("UTF-8");
        run(&[&[command, "--dir", root], arguments].concat(), &[])
    }

    /// Lays dbt's target directory out with these results, and marts that were written as they say.
    pub(crate) fn dbt_ran(
        &self,
        version: &str,
        results: &str,
        change: impl Fn(&mut Json, &mut Json),
    ) -> Json {
        let read = |name: &str| -> Json {
            let text = fs::read(artifacts().join(version).join(name)).expect("readable");
            serde_json::from_slice(&text).expect("JSON")
        };
        let (mut results, mut manifest) = (read(results), read("manifest.json"));
        change(&mut results, &mut manifest);
        for result in results["results"].as_array().expect("a list") {
            let id = result["unique_id"].as_str().expect("an id");
            let name = id.trim_start_matches("model.shop.");
            if result["status"] == "success" && ["orders", "customers"].contains(&name) {
                self.write(&[name], "x");
                self.set_time(name, end(result));
            }
        }
        for (name, json) in [("run_results.json", &results), ("manifest.json", &manifest)] {
            fs::write(self.target.path().join(name), json.to_string()).expect("write");
        }
        results
    }

    pub(crate) fn set_time(&self, mart: &str, time: Timestamp) {
        let file = fs::File::options().write(true).open(self.file(mart)).expect("open");
        file.set_modified(SystemTime::from(time)).expect("utimensat");
    }

    pub(crate) fn file(&self, mart: &str) -> PathBuf {
        self.root.mart(&format!("{mart}.parquet"))
    }

    pub(crate) fn publish_dbt(&self, arguments: &[&str]) -> (Output, Json) {
        let target = self.target.path().to_str().expect("UTF-8");
        self.publish(&[&["--dbt-target", target], arguments].concat())
    }
}

fn artifacts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dbt-artifacts")
}

/// When dbt says that a node had ended.
fn end(result: &Json) -> Timestamp {
    let timing = result["timing"].as_array().expect("a list");
    let execute = timing.iter().find(|timing| timing["name"] == "execute").expect("it ran");
    execute["completed_at"].as_str().expect("a time").parse().expect("a time")
}

fn result<'r>(results: &'r Json, id: &str) -> &'r Json {
    let mut all = results["results"].as_array().expect("a list").iter();
    all.find(|result| result["unique_id"] == id).expect("it ran")
}

fn nothing(_: &mut Json, _: &mut Json) {}

fn outstanding(said: &Json) -> Vec<String> {
    names(&said["outstanding"], "unique_id")
}

#[test]
fn a_script_publishes_its_directory_as_one_build() {
    let stage = Stage::new();
    stage.write(&["a", "b"], "one");
    let martd = Martd::start_with(stage.root.path(), &[("MARTD_PUBLISH", "build")]);
    let (output, said) = stage.publish(&[
        "--build",
        "one",
        "--wait",
        "--timeout",
        "60s",
        "--server",
        &martd.address,
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.out.contains("build one is served in snapshot"), "{said} {output:?}");
    validate(&stage.root.mart("_builds/one.json"));

    // A file that is not published is not served; one mart can be.
    stage.write(&["a", "b"], "two");
    let (output, said) = stage.publish(&["a"]);
    assert_eq!((output.code, names(&said["vouched"], "name")), (0, vec!["a".to_owned()]));
    martd.wait_build(&said["build"]);
    let texts = "SELECT a.text || b.text FROM mart.a, mart.b";
    assert_eq!(martd.query(texts).value(), "twoone");

    // One that is gone has left.
    fs::remove_file(stage.file("b")).expect("remove");
    let (_, said) = stage.publish(&[]);
    martd.wait_snapshot("one mart", |s| {
        s["build"]["invocation_id"] == said["build"] && names(&s["marts"], "name") == ["a"]
    });
    let (output, _) = stage.publish(&["--build", "one"]);
    assert!(output.code == 1 && output.err.contains("is recorded already"), "{output:?}");
    assert!(output.err.contains("with other files or results"), "{output:?}");
    let (_, said) = stage.publish(&["--build", "three"]);
    let record = || fs::read(stage.root.mart("_builds/three.json")).expect("readable");
    let (before, (output, again)) = (record(), stage.publish(&["--build", "three"]));
    assert_eq!(
        (output.code, &said["already"], &again["already"]),
        (0, &false.into(), &true.into())
    );
    assert!(again["record"] == said["record"] && record() == before, "{again}");
    assert_eq!(stage.publish(&["--build", "../x"]).0.code, 2);
}

#[test]
fn a_failed_check_holds_until_it_is_cleared() {
    let stage = Stage::new();
    stage.write(&["a"], "one");
    let (_, one) = stage.publish(&[]);
    let martd = Martd::start(stage.root.path());
    martd.wait_build(&one["build"]);
    stage.write(&["a"], "two");
    let (output, said) = stage.publish(&["--fail", "check=three rows too few"]);
    assert_eq!((output.code, outstanding(&said)), (0, vec!["check".to_owned()]));
    assert_eq!(said["vouched"], json!([]), "it vouches for nothing");
    // Nor does a later publish of everything end it.
    let (_, said) = stage.publish(&[]);
    assert_eq!(outstanding(&said), ["check"]);
    martd.wait_snapshot("the hold", |s| s["held"]["invocation_id"] == said["build"]);
    assert_eq!(martd.query("SELECT text FROM mart.a").value(), "one");
    let (output, _) = stage.publish(&["--clear", "chekc"]);
    assert!(output.code == 2 && output.err.contains("there is [check]"), "{output:?}");
    let (_, said) = stage.publish(&["--clear", "check"]);
    martd.wait_build(&said["build"]);
    assert_eq!(martd.query("SELECT text FROM mart.a").value(), "two");
    assert_eq!(stage.publish(&["--fail", "check"]).0.code, 2);
}

#[test]
fn a_broken_file_or_one_of_another_build_is_refused() {
    let stage = Stage::new();
    fs::write(stage.file("half"), b"PAR1 and then").expect("write");
    stage.writer.land_stamped(&stage.root, "stamped", "SELECT 1 AS x", Some("of-dbt"));
    stage.write(&["good"], "one");
    let (output, said) = stage.publish(&[]);
    assert_eq!(
        (output.code, names(&said["refused"], "name")),
        (1, vec!["half".into(), "stamped".into()])
    );
    let reason = said["refused"][1]["reason"].as_str().expect("text");
    assert!(reason.contains("publish it with --build of-dbt"), "{reason}");
    assert_eq!(outstanding(&said), ["half", "stamped"], "the whole build is held");
    // A mart whose file has gone is missed; a name that was never one is a slip of the hand.
    fs::remove_file(stage.file("good")).expect("it is there");
    let (output, said) = stage.publish(&["--build", "of-dbt", "stamped", "good"]);
    assert_eq!((output.code, outstanding(&said)), (1, vec!["half".to_owned(), "good".to_owned()]));
    let (output, _) = stage.publish(&["halff"]);
    assert!(
        output.code == 2 && output.err.contains("there is no mart halff; there is ["),
        "{output:?}"
    );
    stage.write(&["half"], "whole");
    let (output, said) = stage.publish(&["half"]);
    assert_eq!((output.code, outstanding(&said)), (0, vec!["good".to_owned()]));
    let nowhere = run(&["publish", "--dir", "/nowhere"], &[]);
    assert!(
        nowhere.code == 1 && nowhere.err.contains("/nowhere/mart cannot be read"),
        "{nowhere:?}"
    );
}

#[test]
fn every_dbt_publishes_what_its_build_wrote() {
    for version in DBT.into_iter().chain(["2.0"]) {
        let stage = Stage::new();
        let build = if version == "2.0" { "build-by-hand.json" } else { "build.json" };
        // The test was written after that build.
        let results = stage.dbt_ran(version, build, |_, manifest| {
            manifest["nodes"].as_object_mut().expect("an object").remove("test.shop.no_orders");
        });
        let martd = Martd::start(stage.root.path());
        let (output, said) = stage.publish_dbt(&[]);
        assert_eq!((output.code, outstanding(&said)), (0, vec![]), "{version} {output:?}");
        assert_eq!(names(&said["vouched"], "name"), ["customers", "orders"], "{version}");
        assert_eq!(said["build"], results["metadata"]["invocation_id"]);
        let (output, again) = stage.publish_dbt(&[]);
        assert_eq!((output.code, &again["already"]), (0, &true.into()), "{output:?}");
        let path =
            stage.root.mart(&format!("_builds/{}.json", said["build"].as_str().expect("id")));
        validate(&path);
        let record: Json = serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON");
        assert_eq!(record["build"]["project"], "shop");
        let orders = &record["marts"][1];
        assert_eq!(
            (&orders["id"], &orders["description"]),
            (&"model.shop.orders".into(), &"All orders.".into())
        );
        assert_eq!(
            orders["tests"].as_array().map(Vec::len),
            Some(1),
            "without the test that only warns: {orders}"
        );
        let snapshot = martd.wait_build(&said["build"]);
        assert_eq!((names(&snapshot["marts"], "name").len(), &snapshot["held"]), (2, &Json::Null));
        let columns = martd.get("/v1/freshness").json();
        assert_eq!(columns["results"][1]["unique_id"], "model.shop.orders");
    }
}

#[test]
fn a_run_without_its_tests_is_held_for_every_dbt() {
    for version in DBT {
        let stage = Stage::new();
        stage.dbt_ran(version, "run.json", nothing);
        let (output, said) = stage.publish_dbt(&[]);
        let status = said["outstanding"][0]["status"].as_str();
        assert_eq!((output.code, status), (0, Some("untested")), "{version} {output:?}");
        fs::remove_dir_all(stage.root.mart("_builds")).expect("remove");
        assert_eq!(outstanding(&stage.publish_dbt(&["--untested"]).1), [""; 0]);
    }
}

#[test]
fn a_failed_build_is_held_and_names_its_test_first() {
    for version in DBT {
        let stage = Stage::new();
        stage.dbt_ran(version, "failed.json", nothing);
        let (output, said) = stage.publish_dbt(&[]);
        assert_eq!(output.code, 0, "{version} {output:?}");
        assert_eq!(
            outstanding(&said)[..2],
            ["test.shop.no_orders".to_owned(), "model.shop.customers".to_owned()]
        );
        assert_eq!(names(&said["vouched"], "name"), ["orders"]);
    }
}

#[test]
fn results_that_say_nothing_of_the_data_are_refused() {
    for version in DBT {
        let stage = Stage::new();
        stage.dbt_ran(version, "compile.json", nothing);
        let (output, _) = stage.publish_dbt(&[]);
        assert!(output.code == 2 && output.err.contains("is of dbt compile"), "{output:?}");
        assert!(!stage.root.mart("_builds").exists(), "nothing is recorded");
    }
    let stage = Stage::new();
    stage.dbt_ran("2.0", "nothing-ran.json", nothing);
    let (output, _) = stage.publish_dbt(&[]);
    assert!(output.code == 2 && output.err.contains("names no node"), "{output:?}");
    fs::remove_file(stage.target.path().join("manifest.json")).expect("remove");
    stage.dbt_ran("1.11", "build.json", nothing);
    fs::remove_file(stage.target.path().join("manifest.json")).expect("remove");
    assert!(stage.publish_dbt(&[]).0.err.contains("manifest.json: No such file"));
}

#[test]
fn a_file_changed_after_its_model_ended_is_refused() {
    for (shift, said_of_it) in
        [(1, "changed after its model had ended"), (-60_000, "is older than the run")]
    {
        let stage = Stage::new();
        let results = stage.dbt_ran("1.11", "build.json", nothing);
        let end = end(result(&results, "model.shop.orders"));
        stage.set_time("orders", end + SignedDuration::from_millis(shift));
        let (output, said) = stage.publish_dbt(&[]);
        assert_eq!(
            (output.code, names(&said["vouched"], "name")),
            (1, vec!["customers".to_owned()])
        );
        let reason = said["refused"][0]["reason"].as_str().expect("text");
        assert!(reason.contains(said_of_it), "{reason}");
        assert_eq!(outstanding(&said), ["model.shop.orders"], "nothing of it is published");
    }
}

#[test]
fn what_ran_over_no_rows_does_not_vouch() {
    for (key, value) in [("empty", json!(true)), ("sample", json!("3 days"))] {
        let stage = Stage::new();
        stage.dbt_ran("1.12", "build.json", |results, _| results["args"][key] = value.clone());
        let (output, said) = stage.publish_dbt(&[]);
        assert_eq!((output.code, &said["vouched"]), (0, &json!([])), "{output:?}");
        assert_eq!(said["outstanding"][0]["status"], "empty");
        assert!(outstanding(&said).contains(&"model.shop.orders".to_owned()), "{said}");
    }
}

#[test]
fn results_with_fewer_nodes_than_ran_do_not_vouch() {
    let stage = Stage::new();
    let whole = stage.dbt_ran("1.11", "build.json", nothing);
    let end = end(result(&whole, "model.shop.orders"));
    stage.dbt_ran("1.11", "build.json", |results, _| {
        let all = results["results"].as_array_mut().expect("a list");
        all.retain(|result| result["unique_id"] != "model.shop.orders");
    });
    stage.set_time("orders", end);
    let (_, said) = stage.publish_dbt(&[]);
    assert_eq!(outstanding(&said), ["model.shop.orders"]);
    let message = said["outstanding"][0]["message"].as_str().expect("text");
    assert!(message.contains("written during this run, which does not name it"), "{message}");
}

#[test]
fn models_that_martd_does_not_serve_are_named() {
    for (config, value, reason) in [
        ("location", json!("/elsewhere/orders.parquet"), "lies outside of"),
        ("location", json!("s3://bucket/orders.parquet"), "is no local file"),
        ("format", json!("csv"), "is not Parquet"),
    ] {
        let stage = Stage::new();
        stage.dbt_ran("1.11", "build.json", |_, manifest| {
            manifest["nodes"]["model.shop.orders"]["config"][config] = value.clone();
        });
        let (output, said) = stage.publish_dbt(&[]);
        assert_eq!(
            (output.code, names(&said["not_served"], "id")),
            (0, vec!["model.shop.orders".to_owned()])
        );
        assert!(
            said["not_served"][0]["reason"].as_str().is_some_and(|said| said.contains(reason)),
            "{said}"
        );
    }
    // A table of that name stays in the database, whoever has written the file.
    let stage = Stage::new();
    stage.dbt_ran("1.11", "build.json", |_, manifest| {
        manifest["nodes"]["model.shop.a_table"] = json!({
            "resource_type": "model", "alias": "orders", "config": {"materialized": "table"},
        });
    });
    assert_eq!(stage.publish_dbt(&[]).0.code, 0);
    // Two models in one file are an error.
    let stage = Stage::new();
    let location = stage.file("customers");
    stage.dbt_ran("1.11", "build.json", |_, manifest| {
        manifest["nodes"]["model.shop.orders"]["config"]["location"] = json!(location);
    });
    let (output, _) = stage.publish_dbt(&[]);
    assert!(
        output.code == 2
            && output.err.contains("model.shop.customers and model.shop.orders both write"),
        "{output:?}"
    );
}

#[test]
fn a_partitioned_model_has_the_parts_of_its_run() {
    const LEFT: &str = "day=2025-12-31/data_0.parquet is not of this run";
    const LATE: &str = "day=2026-01-02/data_0.parquet changed after";
    for (is_left, late, appends, files) in [
        (false, 0, false, Ok(2)),
        (true, 0, true, Ok(3)),
        (true, 0, false, Err(LEFT)),
        (false, 10, false, Err(LATE)),
    ] {
        let stage = Stage::new();
        let results = stage.dbt_ran("1.11", "build.json", |_, manifest| {
            manifest["nodes"]["model.shop.orders"]["config"]["options"] =
                json!({"partition_by": "day", "append": appends});
        });
        fs::remove_file(stage.file("orders")).expect("removed");
        let end = end(result(&results, "model.shop.orders"));
        let left = is_left.then_some(("2025-12-31", -3_600)); // of an earlier run
        for (day, seconds) in left.into_iter().chain([("2026-01-01", 0), ("2026-01-02", late)]) {
            let folder = stage.root.mart(&format!("orders/day={day}"));
            fs::create_dir_all(&folder).expect("mkdir");
            let path = folder.join("data_0.parquet");
            stage.writer.copy("SELECT 1 AS id", &path, "");
            let file = fs::File::options().write(true).open(path).expect("open");
            let time = end + SignedDuration::from_secs(seconds);
            file.set_modified(SystemTime::from(time)).expect("utimensat");
        }
        let (output, said) = stage.publish_dbt(&["--untested"]);
        let files = match files {
            Ok(files) => files,
            Err(expected) => {
                assert_eq!(
                    (output.code, names(&said["refused"], "name")),
                    (1, vec!["orders".into()])
                );
                let reason = said["refused"][0]["reason"].as_str().expect("text");
                assert!(reason.contains(expected), "{reason}");
                assert!(expected != LEFT || reason.contains("overwrite: true"), "{reason}");
                continue;
            }
        };
        assert_eq!(output.code, 0, "{output:?}");
        let build = results["metadata"]["invocation_id"].as_str().expect("an id");
        validate(&stage.root.mart(&format!("_builds/{build}.json")));
        let martd = Martd::start(stage.root.path());
        let snapshot = martd.wait_build(&build);
        assert_eq!(snapshot["marts"][1]["files"], files, "{snapshot}");
        let sql = "SELECT min(day)::VARCHAR FROM mart.orders";
        let first = if appends { "2025-12-31" } else { "2026-01-01" };
        assert_eq!(martd.query(sql).value(), first);
    }
}

#[test]
fn old_records_are_compacted_and_nothing_changes() {
    let stage = Stage::new();
    stage.write(&["a", "b"], "one");
    stage.publish(&["--fail", "check=no"]);
    for _ in 0..14 {
        assert_eq!(stage.publish(&["a"]).0.code, 0);
    }
    stage.publish(&["--clear", "check", "b"]);
    let count = || fs::read_dir(stage.root.mart("_builds")).expect("readable").count();
    assert_eq!(count(), 16);
    let martd = Martd::start(stage.root.path());
    let before = martd.wait_ready();
    let (output, said) = stage.publish(&["--compact"]);
    assert_eq!((output.code, &said["compacted"], count()), (0, &5.into(), 11), "{output:?}");
    let (_, said) = stage.publish(&["a"]);
    let after = martd.wait_build(&said["build"]);
    assert_eq!(
        (&after["id"], &after["held"], &after["rejected"]),
        (&before["id"], &Json::Null, &json!([]))
    );
    for record in fs::read_dir(stage.root.mart("_builds")).expect("readable") {
        validate(&record.expect("readable").path());
    }
    assert_eq!(stage.publish(&["--compact"]).1["compacted"], 1);
}
