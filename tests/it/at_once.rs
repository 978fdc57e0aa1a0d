//! Records that commands write at once, that clocks put in the wrong order, and what else lies where records do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use crate::harness::{Faults, Martd, Output, names, program, run};
use crate::publish::Stage;
use crate::writers::{Records, put};

/// Runs these commands at once, each of `martd NAME --dir DIR ARGUMENTS`.
fn at_once(stage: &Stage, commands: &[(&str, &[&str])]) -> Vec<Output> {
    let root = stage.root.path();
    let start = |(command, arguments): &(&str, &[&str])| {
        let mut process = Command::new(program());
        process.arg(command).arg("--dir").arg(root).args(*arguments).env_clear();
        process.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("martd starts")
    };
    let started: Vec<_> = commands.iter().map(start).collect();
    let end = |process: std::process::Child| {
        let output = process.wait_with_output().expect("martd ends");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().expect("an exit code");
        Output { code, out: text(output.stdout), err: text(output.stderr) }
    };
    started.into_iter().map(end).collect()
}

fn in_builds(stage: &Stage) -> Vec<String> {
    let entries = fs::read_dir(stage.root.mart("_builds")).expect("readable");
    entries.map(|entry| entry.expect("one").file_name().into_string().expect("UTF-8")).collect()
}

fn read(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
}

/// Writes a record of `a` as it is, which ends this long from now.
fn record(stage: &Stage, build: &str, from_now: SignedDuration) {
    let text = Records::default().text(&stage.root, build, &["a"], json!({}));
    let mut record: Json = serde_json::from_str(&text).expect("JSON");
    record["build"]["finished_at"] = json!(Timestamp::now() + from_now);
    put(stage.root.mart(&format!("_builds/{build}.json")), record.to_string().as_bytes());
}

/// Build `ahead` is served, whose record ends five minutes from now.
fn with_a_record_ahead() -> (Stage, Martd) {
    let stage = Stage::new();
    stage.write(&["a"], "one");
    stage.publish(&["--build", "one"]);
    record(&stage, "ahead", SignedDuration::from_mins(5));
    let martd = Martd::start(stage.root.path());
    martd.wait_build("ahead");
    (stage, martd)
}

#[test]
fn of_two_records_of_one_build_the_first_one_stands() {
    let stage = Stage::new();
    let marts = ["a", "b", "c", "d", "e", "f"];
    stage.write(&marts, "x");
    for round in 0..5 {
        let build = format!("build-{round}");
        let arguments = marts.map(|mart| ["--build", &build, mart]);
        let outputs = at_once(&stage, &arguments.each_ref().map(|all| ("publish", &all[..])));
        let recorded = read(&stage.root.mart(&format!("_builds/{build}.json")));
        let stands = names(&recorded["marts"], "name");
        for (mart, output) in marts.iter().zip(outputs) {
            if stands == [*mart] {
                assert_eq!(output.code, 0, "{output:?}");
                continue;
            }
            let said = format!("build {build} is recorded already, with other files");
            assert!(output.code == 1 && output.err.contains(&said), "{mart}: {output:?}");
        }
    }
    let left: Vec<_> =
        in_builds(&stage).into_iter().filter(|name| !name.starts_with("build-")).collect();
    assert_eq!(left, [""; 0], "no name that a writer used meanwhile is left");
}

#[test]
fn commands_at_once_do_not_fail_each_other() {
    let stage = Stage::new();
    stage.write(&["a", "b"], "x");
    stage.publish(&["--build", "first"]);
    for round in 0..24 {
        let fail = format!("check{round}=no");
        stage.publish(&["--fail", &fail]);
    }
    let fails: Vec<_> = (0..4).map(|n| ["--fail".to_owned(), format!("late{n}=no")]).collect();
    let fails: Vec<[&str; 2]> = fails.iter().map(|[flag, node]| [&**flag, &**node]).collect();
    let mut commands: Vec<(&str, &[&str])> = vec![("publish", &["--compact"]); 4];
    commands.extend(fails.iter().map(|all| ("publish", &all[..])));
    commands.extend([("publish", &["a"][..]), ("rollback", &[][..])]);
    for output in at_once(&stage, &commands) {
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{output:?}");
    }
    // No hold is lost, whoever compacted what.
    let (output, said) = stage.publish(&["a"]);
    let outstanding = names(&said["outstanding"], "unique_id");
    assert_eq!(outstanding.len(), 28, "{output:?}");
    assert!(in_builds(&stage).len() < 25, "{:?}", in_builds(&stage));
}

#[test]
fn what_is_no_record_is_named_and_blocks_nobody() {
    let stage = Stage::new();
    stage.write(&["a"], "one");
    stage.publish(&["--build", "one"]);
    let builds = stage.root.mart("_builds");
    fs::create_dir(builds.join("d.json")).expect("mkdir");
    std::os::unix::fs::symlink("nowhere", builds.join("link.json")).expect("symlink");
    assert!(Command::new("mkfifo").arg(builds.join("fifo.json")).status().expect("runs").success());
    fs::write(builds.join("half.json"), "{").expect("write");
    let all = [
        "d.json cannot be read: is no regular file",
        "fifo.json cannot be read: is no regular file",
        "half.json does not parse",
    ];
    let all: Vec<_> = all.into_iter().chain(["link.json cannot be read: No such file"]).collect();

    stage.write(&["a"], "two");
    let (output, said) = stage.publish(&["--build", "two"]);
    assert_eq!((output.code, &said["build"]), (0, &"two".into()), "{output:?}");
    let listed = stage.martd("rollback", &["one"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    for what in &all {
        let named = format!("martd: _builds/{what}");
        assert!(output.err.contains(&named) && listed.err.contains(&named), "{named}: {output:?}");
    }
    assert_eq!(stage.martd("rollback", &["--release"]).code, 0);
    let check = run(&["check", stage.root.path().to_str().expect("UTF-8")], &[]);
    let martd = Martd::start(stage.root.path());
    let rejected = martd.wait_build("two")["rejected"].take();
    let of_martd =
        |rejected: &Json| format!("{} {}", rejected["file"], rejected["reason"]).replace('"', "");
    let rejected: Vec<_> = rejected.as_array().expect("a list").iter().map(of_martd).collect();
    for what in all {
        let file = what.split(' ').next().expect("a name");
        assert!(check.code == 1 && check.out.contains(&format!("_builds/{file}")), "{check:?}");
        let named = format!("_builds/{what}");
        assert!(rejected.iter().any(|known| known.starts_with(&named)), "{named}: {rejected:?}");
    }

    // What cannot be read at all is named as well.
    fs::rename(&builds, stage.root.mart("tmp_builds")).expect("rename");
    fs::write(&builds, "").expect("write");
    let (output, _) = stage.publish(&[]);
    assert!(output.code == 1 && output.err.contains("/mart/_builds cannot be read"), "{output:?}");
}

#[test]
fn a_command_counts_after_a_record_from_the_future() {
    let (stage, martd) = with_a_record_ahead();

    stage.write(&["a"], "two");
    let waiting = ["--wait", "--timeout", "60s", "--server", martd.address.as_str()];
    let (output, _) = stage.publish(&[&["--build", "two"], &waiting[..]].concat());
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output.err.contains("the record of build ahead ends") && output.err.contains("from now")
    );
    assert_eq!(martd.query("SELECT text FROM mart.a").value(), "two");
    stage.publish(&["--fail", "check=no"]);
    martd.wait_snapshot("the hold", |s| s["held"]["outstanding"][0]["unique_id"] == "check");
    let (_, said) = stage.publish(&["--clear", "check"]);
    martd.wait_build(&said["build"]);
    assert_eq!(stage.martd("rollback", &["two"]).code, 0);
    martd.wait_snapshot("the rollback", |s| s["held"]["rollback"] == "two");
    assert_eq!(stage.martd("rollback", &["--release"]).code, 0);
    martd.wait_snapshot("its end", |s| s["held"].is_null());

    // One that is further ahead would put all others off for as long.
    record(&stage, "far", SignedDuration::from_mins(60));
    for output in [
        stage.publish(&[]).0,
        stage.publish(&["--fail", "check=no"]).0,
        stage.martd("rollback", &["two"]),
    ] {
        let named = "nothing is recorded: the record of build far ends at";
        assert!(output.code == 1 && output.err.contains(named), "{output:?}");
    }
}

#[test]
fn a_build_overtaken_by_another_record_is_not_served() {
    let (stage, martd) = with_a_record_ahead();
    stage.write(&["a"], "two");
    record(&stage, "two", SignedDuration::ZERO);
    let waiting = ["wait", "--build", "two", "--timeout", "60s", "--server", &martd.address];
    let output = run(&waiting, &[]);
    let reason = "build two is held: a.parquet: it was written after build ahead had recorded it";
    assert!(output.code == 1 && output.err.contains(reason), "{output:?}");
    assert_eq!(martd.query("SELECT text FROM mart.a").value(), "one");
    // Those whose files are served, or were, are served.
    for build in ["one", "ahead"] {
        assert_eq!(martd.get(&format!("/v1/snapshot?build={build}")).status, 200);
    }
}

#[test]
fn unverified_files_are_of_no_build() {
    let stage = Stage::new();
    for build in ["one", "two", "three"] {
        stage.write(&["a"], build);
        stage.publish(&["--build", build]);
    }
    assert_eq!(stage.martd("rollback", &["one"]).code, 0);
    let faults = Faults::short("unverified");
    let settings = [("MARTD_TEST_FAULTS", faults.path())];
    let martd = Martd::start_with(stage.root.path(), &settings);
    let snapshot = martd.wait_ready();
    assert_eq!(martd.query("SELECT text FROM mart.a").value(), "three");
    assert_eq!((&snapshot["build"], &snapshot["verified"]), (&Json::Null, &false.into()));
    assert_eq!(martd.get("/v1/freshness").json()["build"], Json::Null);
}

#[test]
fn a_new_file_in_another_case_is_not_vouched_for() {
    let stage = Stage::new();
    stage.write(&["sales"], "one");
    stage.publish(&["--build", "one"]);
    stage.write(&["SALES"], "two");
    for arguments in [&["--build", "two"][..], &["--build", "two", "SALES"]] {
        let (output, _) = stage.publish(arguments);
        let problem = "nothing is recorded: SALES: its name differs from sales in case alone";
        assert!(output.code == 1 && output.err.contains(problem), "{output:?}");
    }
    // So does a martd say that starts now.
    let martd = Martd::start(stage.root.path());
    let snapshot = martd.wait_build("one");
    assert_eq!(names(&snapshot["rejected"], "file"), ["SALES.parquet"]);
    assert_eq!(martd.query("SELECT text FROM mart.sales").value(), "one");
    let (output, _) = stage.publish(&["--build", "two", "sales"]);
    assert_eq!(output.code, 0, "it is none of its business: {output:?}");
}
