//! `ops/`: the alert rules do what they say, and ask for what a running martd has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

use crate::harness::{Martd, Root, wait_for};
use crate::metrics::Scrape;
use crate::writers::{Project, Writer};

fn ops(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(ops(file)).expect("a file")
}

#[test]
fn promtool_accepts_the_rules_and_each_fires() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool is not installed (Debian has it in the package prometheus)");
        return;
    }
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(ops(""))
            .output()
            .expect("promtool runs");
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn every_alert_has_a_test_and_says_what_to_do() {
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let document = std::fs::read_to_string(ops("../docs/operations.md")).expect("it is there");
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&fires), "{alert} has no test that sees it fire");
        assert!(document.contains(&format!("`{alert}`")), "operations.md says nothing of {alert}");
    }
}

/// The names of metrics in a text, which ends names where identifiers end.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("martd_") || word.starts_with("process_"))
        .collect()
}

/// What a mirror says that has failed.
const MIRROR: &str = r#"{"source": "s3://b/p", "interval_seconds": 5, "started_at": "2026-11-27T06:00:00Z", "checked_at": "2026-11-28T06:00:09Z",
    "succeeded_at": "2026-11-28T06:00:00Z", "objects": 2, "bytes": 9, "behind": {"objects": 1, "bytes": 5},
    "error": {"reason": "the store is not reached: refused", "object": null, "since": "2026-11-28T06:00:05Z"}}"#;

/// Lets the mirror say something else.
fn put(martd: &Martd, root: &Root, status: &str, is_shown: impl Fn(&Json) -> bool) {
    let temporary = root.mart("tmp_mirror");
    fs::write(&temporary, status).expect("write");
    fs::rename(&temporary, root.mart("_mirror.json")).expect("rename");
    martd.wait_snapshot("the news", is_shown);
}

#[test]
fn what_a_mirror_says_is_shown() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    fs::write(root.mart("_mirror.json"), MIRROR).expect("write");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let snapshot = martd.snapshot();
    let mirror = &snapshot["mirror"];
    assert_eq!(mirror["source"], "s3://b/p");
    assert_eq!(mirror["error"]["reason"], "the store is not reached: refused");
    assert_eq!(mirror["objects_behind"], 1);
    assert!(mirror["seconds_behind"].as_u64().expect("a number") > 1, "{mirror}");
    assert_eq!(snapshot["ignored"], Json::Array(Vec::new()), "it is not listed as a stray file");
    let scrape = Scrape::of(&martd);
    assert_eq!(scrape.get("martd_mirror_failing"), Some(1.0));
    assert_eq!(scrape.get("martd_mirror_objects_behind"), Some(1.0));
    assert!(scrape.value("martd_mirror_behind_seconds") > 1.0);
    let told = Command::new(crate::harness::program())
        .args(["freshness", "--server", &martd.address])
        .output()
        .expect("martd runs");
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.contains("the mirror of s3://b/p is ") && told.contains(" behind, 1 object"),
        "{told}"
    );
    assert!(told.contains(": the store is not reached: refused"), "{told}");
    // One that has never been equal is behind, too.
    let never = MIRROR.replace("\"2026-11-28T06:00:00Z\"", "null");
    put(&martd, &root, &never, |now| now["mirror"]["succeeded_at"].is_null());
    assert!(martd.snapshot()["mirror"]["seconds_behind"].as_u64() > Some(1));
    assert!(Scrape::of(&martd).value("martd_mirror_behind_seconds") > 1.0);
    // Told anew, and no more.
    let well = MIRROR.replace("2026-11-28T06:00:09Z", "2999-01-01T00:00:00Z");
    let (head, _) = well.split_once(", \"behind\"").expect("a part");
    let well = format!("{head}, \"behind\": {{\"objects\": 0, \"bytes\": 0}}, \"error\": null}}");
    put(&martd, &root, &well, |now| now["mirror"]["error"].is_null());
    assert_eq!(martd.snapshot()["mirror"]["seconds_behind"], 0);
    assert_eq!(Scrape::of(&martd).get("martd_mirror_behind_seconds"), Some(0.0));
    assert_eq!(martd.get("/v1/freshness").json()["mirror"]["silent"], false);
    fs::remove_file(root.mart("_mirror.json")).expect("remove");
    martd.wait_snapshot("no mirror", |now| now["mirror"].is_null());
}

fn expressions<'j>(json: &'j Json, into: &mut Vec<&'j str>) {
    match json {
        Json::Object(members) => {
            for (key, value) in members {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "query" => into.push(text),
                    _ => expressions(value, into),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| expressions(item, into)),
        _ => {}
    }
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_exist() {
    let (root, writer, mut project) = (Root::new(), Writer::new(), Project::default());
    writer.land_stamped(&root, "a", "SELECT 1 AS x", Some("one"));
    project.built("a", "one");
    project.write_ledger(&root, "one");
    fs::write(root.mart("_mirror.json"), MIRROR).expect("write");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    wait_for("the build's metrics", || {
        Scrape::of(&martd).get("martd_served_build_finished_timestamp_seconds")
    });
    let scrape = Scrape::of(&martd);
    let there: BTreeSet<&str> = scrape.names().collect();

    let rules = read("alerts.yml");
    let asked = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let rules = asked.collect::<Vec<_>>().join("\n");
    let dashboard: Json = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    assert!(queries.len() > 30, "{queries:?}");
    let dashboard = queries.join("\n");
    let used: BTreeSet<&str> = metrics(&rules).union(&metrics(&dashboard)).copied().collect();
    assert!(used.len() > 30, "{used:?}");
    let unknown: Vec<_> = used.difference(&there).collect();
    assert!(unknown.is_empty(), "martd has no {unknown:?}; it has {there:#?}");
}
