//! `GET /v1/marts/{name}.parquet`: the mart's bytes as served.

use crate::harness::{Martd, Root};
use crate::writers::{Writer, serving};

#[test]
fn a_marts_file_is_served_whole_and_in_ranges() {
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
fn conditions_are_those_of_rfc_9110() {
    let (root, martd) = serving("a", "SELECT 1 AS i", &[]);
    let ask = |headers: &[(&str, &str)]| martd.get_bytes("/v1/marts/a.parquet", headers).0;
    let answer = martd.get_with("/v1/marts/a.parquet", &[("range", "bytes=0-3")]);
    let (etag, modified) = (answer.header("etag"), answer.header("last-modified"));
    let before = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (headers, expected) in [
        (&[("if-match", etag)][..], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", "\"other\"")], 412),
        (&[("if-unmodified-since", modified)], 200),
        (&[("if-unmodified-since", before)], 412),
        (&[("if-none-match", etag)], 304),
        (&[("if-modified-since", modified)], 304),
        (&[("if-modified-since", before)], 200),
        (&[("if-modified-since", modified), ("if-none-match", "\"other\"")], 200),
        (&[("range", "bytes=0-3"), ("if-range", etag)], 206),
        (&[("range", "bytes=0-3"), ("if-range", "\"other\"")], 200),
        (&[("range", "bytes=0-3"), ("if-range", &format!("W/{etag}"))], 200),
        // A second may have two versions.
        (&[("range", "bytes=0-3"), ("if-range", modified)], 200),
        (&[("range", "bytes=0-3"), ("if-match", "\"other\"")], 412),
    ] {
        assert_eq!(ask(headers), expected, "{headers:?}");
    }
    let failed = martd.get_with("/v1/marts/a.parquet", &[("if-match", "\"other\"")]);
    assert_eq!(failed.problem().0, "precondition-failed");
    let size = std::fs::metadata(root.mart("a.parquet")).expect("there").len();
    let beyond = martd.get_with("/v1/marts/a.parquet", &[("range", "bytes=99999999-")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, &*format!("bytes */{size}")));
    let unchanged = martd.get_with("/v1/marts/a.parquet", &[("if-none-match", etag)]);
    assert_eq!((unchanged.header("etag"), unchanged.header("last-modified")), (etag, modified));
}

#[test]
fn a_query_is_answered_for_the_version_asked_for() {
    let (_root, martd) = serving("a", "SELECT 1 AS i", &[]);
    let path = "/v1/query?sql=from+mart.a";
    let etag = martd.get(path).header("etag").to_owned();
    let ask = |headers: &[(&str, &str)]| martd.get_with(path, headers).status;
    assert_eq!(ask(&[("if-none-match", &format!("\"x\", {etag}"))]), 304);
    assert_eq!(ask(&[("if-none-match", &etag), ("if-match", "*")]), 304);
    assert_eq!(ask(&[("if-match", "\"other\"")]), 412);
    assert_eq!(ask(&[("if-modified-since", "Sun, 06 Nov 2094 08:49:37 GMT")]), 200);
}

#[test]
fn a_file_is_not_served_where_rows_are_scoped() {
    let (_root, martd) = serving("a", "SELECT 1 AS user_id", &[("MARTD_SCOPE_COLUMN", "user_id")]);
    let answer = martd.get_with("/v1/marts/a.parquet", &[("martd-scope", "user_id=1")]);
    assert_eq!((answer.status, answer.problem().0.as_str()), (403, "scope-required"));
}
