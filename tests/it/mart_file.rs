//! `GET /v1/marts/{name}.parquet`: the mart's bytes as served.

use crate::harness::{Martd, Root};
use crate::writers::Writer;

#[test]
fn the_file_is_served_from_the_pin_whole_and_in_ranges() {
    let (root, writer) = (Root::new(), Writer::new());
    let select = "SELECT i, hash(i) AS h FROM range(200000) t(i)";
    writer.land(&root, "a b", select);
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let path = "/v1/marts/a%20b.parquet";
    let file = std::fs::read(root.mart("a b.parquet")).expect("read");
    assert!(file.len() > 1 << 20, "several parts");

    let head = martd.get_with(path, &[("range", "bytes=0-3")]);
    assert_eq!((head.status, head.body.as_str()), (206, "PAR1"));
    assert_eq!(head.header("content-range"), format!("bytes 0-3/{}", file.len()));
    assert_eq!(head.header("accept-ranges"), "bytes");
    let etag = head.header("etag").to_owned();
    let first = head.header("martd-snapshot").to_owned();

    assert!(martd.get_bytes(path, &[]) == (200, file.clone()));
    let tail = [("range", "bytes=-1000")];
    assert!(martd.get_bytes(path, &tail) == (206, file[file.len() - 1000..].to_vec()));
    assert_eq!(martd.get_with(path, &[("if-none-match", &etag)]).status, 304);
    let beyond = [("range", "bytes=99999999-")];
    assert_eq!(martd.get_with(path, &beyond).problem().0, "range-not-satisfiable");
    assert_eq!(martd.get("/v1/marts/nothing.parquet").problem().0, "not-found");

    // Another version: the tag changes, a range of the old one is not mixed into the new one, and
    // the old one can still be had from its snapshot.
    writer.land(&root, "a b", "SELECT 1 AS i");
    martd.wait_snapshot("the new version", |s| s["generation"] == 2);
    let stale = martd.get_bytes(path, &[("range", "bytes=0-3"), ("if-range", &etag)]);
    assert_eq!(stale.0, 200);
    assert!(stale.1 == std::fs::read(root.mart("a b.parquet")).expect("read"));
    assert!(martd.get_bytes(path, &[("martd-snapshot", &first)]) == (200, file));
}

#[test]
fn a_file_is_not_served_where_rows_are_scoped() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS user_id");
    let martd = Martd::start_with(root.path(), &[("MARTD_SCOPE_COLUMN", "user_id")]);
    martd.wait_ready();
    let answer = martd.get_with("/v1/marts/a.parquet", &[("martd-scope", "user_id=1")]);
    assert_eq!((answer.status, answer.problem().0.as_str()), (403, "scope-required"));
}
