//! What replaced snapshots took is given back once they are not kept any more.

use serde_json::json;

use crate::harness::{Martd, Root, wait_for};
use crate::proc::Usage;
use crate::writers::Writer;

const MARTS: [&str; 3] = ["a", "b", "c"];
const WARM_UP: u64 = 20;
const PUBLISHES: u64 = 60;
/// What the allocators may keep for themselves after the warm-up: ten times what they did when this
/// was written. A snapshot that is kept shows in its pins and descriptors, which must be equal.
const SLACK_BYTES: u64 = 32 << 20;

fn land(root: &Root, writer: &Writer, version: u64) {
    for mart in MARTS {
        let select = format!("SELECT {version} AS version, hash(i) AS x FROM range(20_000) t(i)");
        writer.land(root, mart, &select);
    }
}

/// Replaces all marts, waits until that is served, and asks for the snapshot before by its id, too.
fn publish(martd: &Martd, root: &Root, writer: &Writer, version: u64) {
    let before = martd.snapshot()["id"].as_str().expect("a snapshot").to_owned();
    land(root, writer, version);
    let sql = "SELECT min(a.version) + min(b.version) + min(c.version) AS sum \
               FROM mart.a, mart.b, mart.c WHERE a.x = b.x AND b.x = c.x";
    wait_for("the new version", || (martd.query(sql).value() == 3 * version).then_some(()));
    let answer = martd.post_with(&json!({ "sql": sql }), &[("martd-snapshot", &before)]);
    assert!([200, 410].contains(&answer.status), "{answer:?}");
}

/// What martd takes when it keeps nothing but the current snapshot.
fn at_rest(martd: &Martd) -> Usage {
    martd.wait_snapshot("the retention to end", |s| {
        s["retained"].as_array().is_some_and(Vec::is_empty)
    });
    wait_for("the pins to be freed", || {
        Some(Usage::of(martd.pid())).filter(|usage| usage.pins == MARTS.len())
    })
}

#[test]
fn memory_is_given_back_after_the_retention() {
    let root = Root::new();
    let writer = Writer::new();
    land(&root, &writer, 1);
    let martd = Martd::start_with(root.path(), &[("MARTD_RETAIN", "1s"), ("RUST_LOG", "info")]);
    martd.wait_ready();
    (2..=WARM_UP).for_each(|version| publish(&martd, &root, &writer, version));
    let before = at_rest(&martd);

    let mut most = before;
    for version in 1..=PUBLISHES {
        publish(&martd, &root, &writer, WARM_UP + version);
        let usage = Usage::of(martd.pid());
        most.pins = most.pins.max(usage.pins);
    }
    assert!(most.pins > MARTS.len(), "replaced snapshots were kept: {most:?}");

    let after = at_rest(&martd);
    println!(
        "before {before:?}\nafter {PUBLISHES} publishes {after:?}, at most {} pins",
        most.pins
    );
    assert_eq!(after.pinned, before.pinned);
    // A builder is kept for a while, with descriptors: how many there were before depends on how busy the machine is.
    wait_for("the descriptors to be freed", || {
        (Usage::of(martd.pid()).descriptors <= before.descriptors).then_some(())
    });
    assert!(after.resident < before.resident + SLACK_BYTES, "before {before:?}, after {after:?}");
}
