//! The pattern that every row carries, and the question that finds out whether a scan saw exactly one
//! version.
//!
//! All versions of a mart have the same rows and the same size, in several row groups and without
//! compression. So nothing but the content tells two versions apart, and a file that is half of one
//! and half of another would still decode.

use serde_json::Value as Json;

use super::record::{Content, Mart, Version};

/// Three row groups of DuckDB's smallest size.
const ROWS: u64 = 3 * 2048;

/// How the pattern's files are laid out.
pub const LAYOUT: &str = "COMPRESSION uncompressed, ROW_GROUP_SIZE 2048";

/// The statement that makes a version's rows.
pub fn rows(mart: &str, version: Version) -> String {
    format!(
        "SELECT '{mart}' AS mart, {version}::BIGINT AS version, i, {version} * (i + 1) AS seal \
         FROM range({ROWS}) t(i)"
    )
}

/// The statement that looks at these marts, all in one; a mart may be named twice.
pub fn question(marts: &[Mart]) -> String {
    let scans: Vec<String> = marts
        .iter()
        .map(|mart| {
            format!(
                "SELECT '{mart}' AS asked, min(mart) AS mart, max(mart) AS other_mart, \
                 min(version) AS version, max(version) AS other_version, count(*) AS rows, \
                 sum(i) AS places, count(*) FILTER (WHERE seal <> version * (i + 1)) AS unsealed \
                 FROM mart.{mart}"
            )
        })
        .collect();
    scans.join(" UNION ALL ")
}

/// What the answer says of each mart, in no particular order.
pub fn sightings(marts: &[Mart], rows: &Json) -> Vec<(Mart, Content)> {
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), marts.len(), "one row for each mart that was asked for");
    let named = |row: &Json| {
        let asked = row["asked"].as_str().expect("a name");
        *marts.iter().find(|mart| **mart == asked).expect("a mart that was asked for")
    };
    rows.iter().map(|row| (named(row), content(row))).collect()
}

fn content(row: &Json) -> Content {
    let whole = row["mart"] == row["asked"]
        && row["other_mart"] == row["asked"]
        && row["version"] == row["other_version"]
        && row["rows"] == ROWS
        && row["places"] == ROWS * (ROWS - 1) / 2
        && row["unsealed"] == 0;
    match row["version"].as_u64() {
        Some(version) if whole => Content::Whole(version),
        _ => Content::Torn(row.to_string()),
    }
}
