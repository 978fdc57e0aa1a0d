//! What records come to: one rule a test, and what holds for all of them.

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// The record of a build that ended at this second.
fn record(id: &str, second: u32, rest: Json) -> Record {
    let time = format!("2026-01-31T06:{:02}:{:02}Z", second / 60, second % 60);
    let mut json = json!({"version": 2, "build": {
        "id": id, "started_at": time, "finished_at": time, "status": "success",
    }});
    for (key, value) in rest.as_object().expect("an object") {
        match key.as_str() {
            "project" => json["build"]["project"] = value.clone(),
            _ => json[key] = value.clone(),
        }
    }
    Record::parse(json.to_string().as_bytes()).expect("a record")
}

/// A mart whose file has this content, by number.
fn mart(name: &str, content: u8, tests: &[&str]) -> Json {
    let file =
        json!({"path": format!("{name}.parquet"), "bytes": 1, "sha256": format!("{content:064x}")});
    json!({"id": format!("model.p.{name}"), "name": name, "files": [file], "tests": tests})
}

fn result(id: &str, status: &str) -> Json {
    json!({"id": id, "status": status})
}

/// What is outstanding, as `id status`.
fn outstanding(records: &[Record]) -> Vec<String> {
    let ledger = fold(records).expect("a ledger");
    ledger.outstanding.iter().map(|node| format!("{} {}", node.unique_id, node.status)).collect()
}

/// The marts, each with its build and content.
fn marts(ledger: &Ledger) -> Vec<String> {
    let said = |model: &Model| {
        let content = model.files[0].sha256.as_bytes()[31];
        format!("{} {} {content}", model.name, model.invocation_id)
    };
    ledger.models.iter().map(said).collect()
}

fn at(second: u32) -> Timestamp {
    format!("2026-01-31T06:00:{second:02}Z").parse().expect("a time")
}

#[test]
fn a_node_holds_until_it_succeeds_or_is_removed() {
    let failed = record("1", 1, json!({"results": [result("test.p.t", "fail")]}));
    let other = record("2", 2, json!({"results": [result("model.p.a", "success")]}));
    assert_eq!(outstanding(&[failed.clone(), other.clone()]), ["test.p.t fail"]);
    for status in ["pass", "warn", "success", "no-op", "reused"] {
        let passed = record("3", 3, json!({"results": [result("test.p.t", status)]}));
        assert_eq!(outstanding(&[failed.clone(), passed]), [""; 0], "{status}");
    }
    for status in ["skipped", "error", "runtime error", "partial success", "empty", "?"] {
        let again = record("3", 3, json!({"results": [result("test.p.t", status)]}));
        assert_eq!(outstanding(&[failed.clone(), again.clone()]), [format!("test.p.t {status}")]);
        assert_eq!(fold(&[failed.clone(), again]).expect("a ledger").outstanding[0].since, at(1));
    }
    let left = record("3", 3, json!({"nodes": ["model.p.a"]}));
    assert_eq!(outstanding(&[failed.clone(), left]), [""; 0]);
    let stays = record("3", 3, json!({"nodes": ["model.p.a", "test.p.t"]}));
    assert_eq!(outstanding(&[failed, stays]), ["test.p.t fail"]);
}

#[test]
fn a_hook_counts_for_its_run_a_unit_test_till_a_build() {
    let failed = record(
        "1",
        1,
        json!({"nodes": ["model.p.a"], "results": [
            result("operation.other.other-on-run-end-0", "error"), result("unit_test.p.a.t", "fail"),
        ]}),
    );
    assert_eq!(outstanding(std::slice::from_ref(&failed)).len(), 2);
    let next = record("2", 2, json!({"nodes": ["model.p.a"], "results": []}));
    assert_eq!(outstanding(&[failed.clone(), next]), ["unit_test.p.a.t fail"]);
    let built = record(
        "2",
        2,
        json!({"nodes": ["model.p.a"], "results": [result("model.p.a", "success")]}),
    );
    assert_eq!(outstanding(&[failed.clone(), built]), [""; 0]);
    let gone = record("2", 2, json!({"nodes": []}));
    assert_eq!(outstanding(&[failed, gone]), [""; 0]);
}

#[test]
fn a_mart_built_after_its_tests_ran_is_not_tested() {
    let built = |id, second, tests: &[&str], ran: &[&str]| {
        let results: Vec<Json> = ran.iter().map(|test| result(test, "pass")).collect();
        record(id, second, json!({"marts": [mart("a", 1, tests)], "results": results}))
    };
    let build = built("1", 1, &["t1", "t2"], &["t1", "t2"]);
    assert_eq!(outstanding(std::slice::from_ref(&build)), [""; 0]);
    let run = built("2", 2, &["t1", "t2"], &["t1"]);
    assert_eq!(outstanding(&[build.clone(), run.clone()]), ["t2 untested"]);
    let tested = record("3", 3, json!({"results": [result("t2", "pass")]}));
    assert_eq!(outstanding(&[build.clone(), run.clone(), tested.clone()]), [""; 0]);
    // A test that had run before the mart was built again says nothing.
    assert_eq!(outstanding(&[build.clone(), tested, built("4", 4, &["t2"], &[])]), ["t2 untested"]);
    // Tests that the mart has no more, or whose results are not asked for.
    assert_eq!(outstanding(&[run, built("5", 5, &[], &[])]), [""; 0]);
}

#[test]
fn what_failed_comes_first_and_what_was_skipped_last() {
    let results = ["skipped", "error", "skipped"].iter().enumerate();
    let results: Vec<Json> =
        results.map(|(place, status)| result(&format!("model.p.{place}"), status)).collect();
    let record = record("1", 1, json!({"marts": [mart("a", 1, &["t"])], "results": results}));
    assert_eq!(
        outstanding(&[record]),
        ["model.p.1 error", "t untested", "model.p.0 skipped", "model.p.2 skipped"]
    );
}

#[test]
fn what_no_run_of_dbt_ends_can_be_cleared_by_hand() {
    for (id, status, project, can) in [
        ("row count", "error", None, true),
        ("row count", "error", Some("shop"), false), // dbt's next run ends it
        ("orders", "refused", None, true),
        ("model.shop.orders", "refused", Some("shop"), true),
        ("model.shop.orders", "error", Some("shop"), false),
        ("test.shop.t", "fail", None, false), // of the first edition's ledger
        ("mart orders", "conflict", None, false),
    ] {
        let (message, since) = (None, at(0));
        let (project, status) = (project.map(str::to_owned), status.to_owned());
        let node = Outstanding { unique_id: id.to_owned(), project, status, message, since };
        assert_eq!(node.can_be_cleared(), can, "{node:?}");
    }
}

#[test]
fn runs_that_overlap_are_folded_by_when_they_ended() {
    let first = record("x", 2, json!({"marts": [mart("a", 1, &[]), mart("b", 1, &[])]}));
    let second = record("y", 1, json!({"marts": [mart("b", 2, &[]), mart("c", 2, &[])]}));
    let ledger = fold([&first, &second]).expect("a ledger");
    assert_eq!(marts(&ledger), ["a x 1", "b x 1", "c y 2"]);
    assert_eq!(ledger.builds, ["y", "x"]);
    assert_eq!(ledger.invocation_id, "x");
}

#[test]
fn two_projects_of_one_ledger_keep_their_own_tests() {
    let p = record(
        "1",
        1,
        json!({"project": "p", "nodes": ["model.p.a", "t"],
        "marts": [mart("a", 1, &[])], "results": [result("t", "fail")]}),
    );
    let q = record(
        "2",
        2,
        json!({"project": "q", "nodes": ["model.p.b"],
        "marts": [mart("b", 2, &[])], "results": [result("t", "pass")]}),
    );
    let ledger = fold([&p, &q]).expect("a ledger");
    assert_eq!(marts(&ledger), ["a 1 1", "b 2 2"]);
    assert_eq!(
        outstanding(&[p.clone(), q.clone()]),
        ["t fail"],
        "q's test of that name is its own"
    );

    let clash = record("3", 3, json!({"project": "q", "marts": [mart("a", 3, &[])]}));
    let ledger = fold([&p, &q, &clash]).expect("a ledger");
    let said =
        ledger.outstanding.iter().find(|node| node.status == "conflict").expect("a conflict");
    let message = said.message.as_ref().expect("a message");
    assert!(said.unique_id == "mart a" && message.contains("project p and project q"), "{said:?}");
    let gone = record("4", 4, json!({"project": "p", "nodes": []}));
    assert_eq!(outstanding(&[p, q, clash, gone]), [""; 0]);
}

#[test]
fn a_mart_without_a_project_stays_until_taken_over() {
    let built = record("1", 1, json!({"marts": [mart("a", 1, &[]), mart("b", 1, &[])]}));
    let without = record("2", 2, json!({"nodes": ["model.p.b"]}));
    let ledger = fold([&built, &without]).expect("a ledger");
    assert_eq!((marts(&ledger), &*ledger.left[0].name), (vec!["b 1 1".to_owned()], "a"));
    assert!(ledger.names("a") && ledger.model("a").is_none());
    let mut renamed = mart("z", 2, &[]);
    renamed["id"] = "model.p.a".into();
    let renamed = record("2", 2, json!({"nodes": ["model.p.a", "model.p.b"], "marts": [renamed]}));
    let ledger = fold([&built, &renamed]).expect("a ledger");
    assert_eq!(
        (marts(&ledger), &*ledger.left[0].name),
        (vec!["b 1 1".to_owned(), "z 2 2".to_owned()], "a")
    );
    let elsewhere = record("3", 3, json!({"project": "q", "marts": [mart("a", 2, &[])]}));
    let ledger = fold([&built, &without, &elsewhere]).expect("a ledger");
    assert_eq!((marts(&ledger).len(), ledger.left.len()), (2, 0));
}

#[test]
fn a_rollback_counts_until_it_is_released() {
    let one = record("1", 1, json!({"marts": [mart("a", 1, &[])]}));
    let two = record("2", 2, json!({"marts": [mart("a", 2, &[])]}));
    let back = record("back", 3, json!({"rollback": "1"}));
    let three = record("3", 4, json!({"marts": [mart("a", 3, &[])]}));
    let ledger = fold([&one, &two, &back, &three]).expect("a ledger");
    assert_eq!((marts(&ledger), &*ledger.invocation_id), (vec!["a 3 3".to_owned()], "3"));
    let rollback = ledger.rollback.expect("a rollback");
    assert_eq!(marts(rollback.ledger.as_ref().expect("known")), ["a 1 1"]);
    assert_eq!(ledger.builds, ["1", "2", "3"], "a rollback is no build");

    let release = record("release", 5, json!({"release": true}));
    let released = fold([&one, &two, &back, &three, &release]).expect("a ledger");
    assert_eq!((released.rollback, released.heads), (None, ids(&["3", "release"])));
    let nowhere = record("back", 3, json!({"rollback": "?"}));
    let rollback = fold([&one, &nowhere]).expect("a ledger").rollback.expect("a rollback");
    assert_eq!(rollback.ledger, None);
    assert_eq!(fold([&back]), None);
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn who_knows_the_heads_knows_all_that_counts() {
    let of = |id, second, project| record(id, second, json!({"project": project, "marts": []}));
    let (p1, p2, q1) = (of("p1", 1, "p"), of("p2", 3, "p"), of("q1", 2, "q"));
    let heads = |records: &[&Record]| fold(records.iter().copied()).expect("a ledger").heads;
    assert_eq!(heads(&[&p1]), ids(&["p1"]));
    // A build that comes late, from another clock, is told although it is not the last.
    assert_eq!(heads(&[&p1, &p2]), ids(&["p2"]));
    assert_eq!(heads(&[&p1, &p2, &q1]), ids(&["p2", "q1"]));

    // What was rolled back is known, and so is that it was, until a build comes after it.
    let back = record("back", 4, json!({"rollback": "p1"}));
    let ledger = fold([&p1, &q1, &p2, &back]).expect("a ledger");
    let earlier = ledger.rollback.as_ref().and_then(|rollback| rollback.ledger.as_ref());
    let earlier = earlier.expect("known");
    assert_eq!(earlier.builds, ids(&["p1"]));
    assert_eq!(earlier.heads, ids(&["p2", "q1", "back"]));
    assert!(["p1", "p2", "q1", "back"].iter().all(|id| earlier.knows(id)), "{earlier:?}");
    assert!(!earlier.knows("p3"));
    let p3 = of("p3", 5, "p");
    assert_eq!(heads(&[&p1, &q1, &p2, &back, &p3]), ids(&["p3", "q1"]));
}

#[test]
fn a_ledger_of_the_first_edition_is_one_record() {
    let text = br#"{"build": {
        "invocation_id": "i2", "started_at": "2026-01-31T06:00:00Z",
        "finished_at": "2026-01-31T06:00:09.5Z", "status": "error", "new_key": {"a": 1},
        "results": [{"unique_id": "test.t", "name": "t", "resource_type": "test", "status": "fail"}],
        "outstanding": [
            {"unique_id": "model.p.z", "message": "skipped, because another node failed", "since": null},
            {"unique_id": "test.t", "message": "got 3 results", "since": "2026-01-31T06:00:01Z"}],
        "models": [{"unique_id": "model.p.a", "name": "a", "schema": "mart", "description": "d",
            "invocation_id": "i1", "columns": [{"name": "id", "description": ""}],
            "meta": {"dataset": true, "freshness": {"warn_after": {"count": 25, "period": "hour"}}}}]
    }}"#;
    let first = of_first_edition(text, vec!["i1".to_owned()]).expect("parses");
    let ledger = fold([&first]).expect("a ledger");
    let said = |node: &Outstanding| (node.unique_id.clone(), node.since);
    assert_eq!(said(&ledger.outstanding[0]), ("test.t".to_owned(), at(1)));
    assert_eq!(ledger.outstanding[1].kind(), NodeKind::Skipped);
    assert_eq!(ledger.builds, ["i1", "i2"]);
    assert_eq!((&*ledger.models[0].invocation_id, ledger.recorded_since), ("i1", None));
    let rule = ledger.model("a").and_then(Model::freshness).expect("a rule");
    assert_eq!(rule.warn_after.map(|period| period.seconds()), Some(90_000));

    // Records of the same project take over from it.
    let next = record(
        "3",
        10,
        json!({"project": "p", "nodes": ["model.p.a"],
        "marts": [mart("a", 1, &[])], "results": [result("model.p.a", "success")]}),
    );
    let ledger = fold([&first, &next]).expect("a ledger");
    assert_eq!((marts(&ledger), ledger.is_clear()), (vec!["a 3 1".to_owned()], true));
    assert_eq!(ledger.recorded_since, Some(at(10)));

    let error =
        of_first_edition(br#"{"build": {"invocation_id": "i1","#, vec![]).expect_err("half");
    assert!(error.to_string().contains("line 1 column"), "{error}");
}

#[test]
fn an_impossible_record_is_refused_with_the_reason() {
    let base = json!({"version": 2, "build": {"id": "b", "started_at": "2026-01-31T06:00:00Z",
        "finished_at": "2026-01-31T06:00:00Z", "status": "success"}, "unknown": 1});
    let refused = |change: &dyn Fn(&mut Json)| {
        let mut json = base.clone();
        change(&mut json);
        Record::parse(json.to_string().as_bytes()).expect_err("refused").to_string()
    };
    assert!(Record::parse(base.to_string().as_bytes()).is_ok(), "unknown keys are ignored");
    assert!(refused(&|json| json["version"] = 3.into()).contains("version 3"));
    for id in ["", ".b", "tmp_b", "a/b", "ä", &"x".repeat(129)] {
        assert!(refused(&|json| json["build"]["id"] = id.into()).contains("build.id is"), "{id}");
    }
    let with = |marts: Json| refused(&|json| json["marts"] = marts.clone());
    let twice = json!([{"id": "model.x", "name": "a", "files": []}, mart("a", 1, &[])]);
    assert!(with(json!([twice[1], twice[0]])).contains("model.p.a and model.x both write mart a"));
    assert!(with(json!([{"name": "a"}])).contains("names no files"));
    let stray = json!([{"name": "a", "files": [{"path": "../a.parquet", "bytes": 1, "sha256": "0".repeat(64)}]}]);
    assert!(with(stray).contains("is no file of mart a"));
    let of = |paths: &[&str]| {
        let file = |path: &&str| json!({"path": path, "bytes": 1, "sha256": "0".repeat(64)});
        json!([{"name": "a", "files": paths.iter().map(file).collect::<Vec<_>>()}])
    };
    for path in ["a/../b.parquet", "a/./b.parquet", "a//b.parquet", "a/"] {
        assert!(with(of(&[path])).contains("is no file of mart a"), "{path}");
    }
    for paths in [["a.parquet", "a/b.parquet"], ["a/b.parquet", "a/b.parquet"]] {
        assert!(with(of(&paths)).contains("names a file twice, or both"), "{paths:?}");
    }
    let short =
        json!([{"name": "a", "files": [{"path": "a.parquet", "bytes": 1, "sha256": "00"}]}]);
    assert!(with(short).contains("64 hexadecimal digits"));
}

/// Any run of one of two projects with three marts, each with a test, over ten moments.
fn any_record() -> impl Strategy<Value = Json> {
    let status = prop::sample::select(vec!["pass", "fail", "skipped", "empty"]);
    let mart = (0..3_u8, any::<u8>(), any::<bool>());
    let results = vec((0..3_u8, status), 0..4);
    let nodes = prop::option::of(vec(0..3_u8, 0..3));
    let of_a_run = (0..2_u8, prop::option::of(mart), results, nodes).prop_map(
        |(project, built, results, nodes)| {
            let name = |number: u8| format!("{}{number}", ["p", "q"][usize::from(project)]);
            let results =
                results.iter().map(|(n, status)| result(&format!("t{}", name(*n)), status));
            let built = built.map(|(number, content, tested)| {
                let test = format!("t{}", name(number));
                mart_json(&name(number), content, tested.then_some(test))
            });
            let mut json = json!({"project": (["p", "q"][usize::from(project)]),
                "results": results.collect::<Vec<_>>(), "marts": Vec::from_iter(built)});
            if let Some(nodes) = nodes {
                let nodes = nodes
                    .iter()
                    .flat_map(|n| [format!("model.p.{}", name(*n)), format!("t{}", name(*n))]);
                json["nodes"] = nodes.collect();
            }
            json
        },
    );
    prop_oneof![
        8 => of_a_run,
        1 => (0..12_u8).prop_map(|build| json!({"rollback": build.to_string()})),
        1 => Just(json!({"release": true})),
    ]
}

fn mart_json(name: &str, content: u8, test: Option<String>) -> Json {
    mart(name, content, &test.as_deref().into_iter().collect::<Vec<_>>())
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    vec((any_record(), 0..30_u32), 1..24).prop_map(|records| {
        let records = records.into_iter().enumerate();
        records.map(|(id, (json, second))| record(&id.to_string(), second, json)).collect()
    })
}

proptest! {
    #[test]
    fn the_order_of_finding_records_does_not_matter(
        (records, shuffled) in any_records().prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle())),
    ) {
        prop_assert_eq!(fold(&records), fold(&shuffled));
    }

    #[test]
    fn compacted_records_come_to_the_same(records in any_records(), keep in 1..8_usize, deleted in 0..24_usize) {
        let before = fold(&records);
        if let Some(Compaction { write, remove }) = compact(&records, keep, "compact") {
            for record in &write {
                prop_assert_eq!(record.check(), Ok(()));
            }
            // Whatever moment the writer dies at: all is written first, then the oldest go first.
            let gone = &remove[..deleted.min(remove.len())];
            let left: Vec<Record> = records.iter().filter(|record| !gone.contains(&record.build.id)).cloned().chain(write.clone()).collect();
            prop_assert_eq!(same(fold(&left)), same(before.clone()));
            let few: Vec<Record> = records.iter().filter(|record| !remove.contains(&record.build.id)).cloned().chain(write).collect();
            prop_assert_eq!(same(fold(&few)), same(before.clone()));
            // And again.
            if let Some(Compaction { write, remove }) = compact(&few, 1, "again") {
                let fewer: Vec<Record> = few.iter().filter(|record| !remove.contains(&record.build.id)).cloned().chain(write).collect();
                prop_assert_eq!(same(fold(&fewer)), same(before));
            }
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written(records in any_records()) {
        for record in records {
            let text = serde_json::to_vec(&record).expect("JSON");
            prop_assert_eq!(Record::parse(&text).expect("parses"), record);
        }
    }
}

/// Without the order of builds of two projects, of which a compacted record stands for all of its own, without
/// its id, and without rollbacks that are over, which it does not name.
fn same(ledger: Option<Ledger>) -> Option<Ledger> {
    let sort = |ledger: &mut Ledger| {
        ledger.builds.retain(|id| id.parse::<u8>().is_ok());
        ledger.builds.sort();
        ledger.beside.clear();
    };
    ledger.map(|mut ledger| {
        sort(&mut ledger);
        if let Some(earlier) =
            ledger.rollback.as_mut().and_then(|rollback| rollback.ledger.as_mut())
        {
            sort(Arc::make_mut(earlier));
        }
        ledger
    })
}
