//! `martd rollback`: an earlier build is served again, and people find out which there are.

use crate::harness::Martd;
use crate::publish::Stage;

#[test]
fn a_rollback_is_a_command_and_so_is_its_end() {
    let stage = Stage::new();
    let martd = Martd::start(stage.root.path());
    for build in ["one", "two"] {
        stage.write(&["a"], build);
        stage.publish(&["--build", build]);
        martd.wait_build(build);
    }
    assert_eq!(stage.martd("rollback", &["--release"]).code, 2, "there is none");
    let unknown = stage.martd("rollback", &["zero"]);
    assert!(unknown.code == 2 && unknown.err.contains("the newest are two, one"), "{unknown:?}");
    let listed = stage.martd("rollback", &[]);
    let lines: Vec<_> = listed.out.lines().skip(2).collect();
    assert!(lines[0].starts_with("two ") && lines[0].ends_with("the newest"), "{listed:?}");
    assert!(
        lines[1].starts_with("one ") && lines[1].ends_with("can be served again"),
        "{listed:?}"
    );
    let waiting = ["--wait", "--timeout", "60s", "--server", &martd.address];
    let output = stage.martd("rollback", &[&["on"], &waiting[..]].concat());
    assert!(
        output.code == 0 && output.out.contains("build one is served in snapshot"),
        "{output:?}"
    );
    assert_eq!(martd.query("SELECT text FROM mart.a").value(), "one");
    let listed = stage.martd("rollback", &[]).out;
    assert!(
        listed.contains("rolled back to build one, until martd rollback --release"),
        "{listed}"
    );
    let output = stage.martd("rollback", &[&["--release"], &waiting[..]].concat());
    assert!(
        output.code == 0 && output.out.contains("newest build two is served again"),
        "{output:?}"
    );
    assert!(output.out.contains("build two is served in snapshot"), "{output:?}");
    assert_eq!(martd.query("SELECT text FROM mart.a").value(), "two");

    stage.publish(&["--build", "bad", "--fail", "check=no"]);
    assert_eq!(stage.martd("rollback", &["one"]).code, 0);
    let output = stage.martd("rollback", &["--release"]);
    assert!(
        output.out.contains("the newest build") && output.out.contains("is held: check"),
        "{output:?}"
    );
    for build in ["three", "third"] {
        stage.publish(&["--build", build, "--clear", "check"]);
        stage.publish(&["--fail", "check=no"]);
    }
    let output = stage.martd("rollback", &["th"]);
    assert!(output.code == 2 && output.err.contains("may be each of third, three"), "{output:?}");
    // One that no martd has kept does not keep anybody waiting.
    let late = Martd::start(stage.root.path());
    let address = ["--server", late.address.as_str(), "--wait", "--timeout", "60s"];
    let output = stage.martd("rollback", &[&["one"], &address[..]].concat());
    assert!(output.code == 1 && output.err.contains("cannot be served here"), "{output:?}");
    let held = stage.martd("rollback", &["bad"]);
    assert!(held.code == 2 && held.err.contains("build bad was held itself: check"), "{held:?}");
}
