//! A legacy file becomes a table for each of its tables and views.

use super::*;
use crate::legacy::{LegacyFile, LegacyVersion};

fn version(stage: &Stage, path: PathBuf) -> LegacyVersion {
    let mut file = LegacyFile::new(path);
    loop {
        // Not while it is as young as the clock's tick.
        if let Some(version) = file.look(&stage.pins) {
            return version;
        }
        std::thread::yield_now();
    }
}

fn make(path: &Path, sql: &str) {
    Connection::open(path).expect("DuckDB").execute_batch(sql).expect(sql);
}

const SQL: &str = "CREATE SCHEMA main_mart;
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE main_mart.fct AS SELECT i, union_value(n := i) AS u, INTERVAL 1 DAY AS iv,
        i::UHUGEINT AS uh, '12:00:00'::TIME_NS AS tn, i::BIGNUM AS bn, '101'::BIT AS bit, 'ok'::mood AS m
        FROM range(5000) t(i);
    CREATE TABLE main_mart.gone AS SELECT 1 AS a;
    CREATE VIEW main_mart.good AS SELECT count(*) AS n FROM legacy.main_mart.fct;
    CREATE VIEW main_mart.bad AS FROM main_mart.gone;
    CREATE TABLE main.fct AS SELECT 1 AS other;
    CREATE TABLE main.dim AS SELECT 1 AS a, NULL AS b;
    CREATE TABLE main.nulls AS SELECT NULL::INT AS a;
    DROP TABLE main_mart.gone;";

#[test]
fn each_table_and_view_of_a_legacy_file_is_built() {
    for pins in [Budget::new(64 << 20), Budget::new(0)] {
        let mut stage = Stage::new();
        stage.pins = pins;
        let path = stage.path("legacy.duckdb");
        make(&path, SQL);
        let version = version(&stage, path);
        let (pool, _outcomes) = stage.start();
        let schemas = ["main_mart".to_owned(), "main".to_owned()];
        let tables = pool.build_legacy(&version, &schemas).expect("tables");
        let found: Vec<_> = tables
            .iter()
            .map(|t| {
                (
                    t.schema.as_str(),
                    t.name.as_str(),
                    t.outcome.as_ref().map(|t| t.report().rows).ok(),
                )
            })
            .collect();
        let expected = [
            ("main_mart", "bad", None),
            ("main_mart", "fct", Some(5000)),
            ("main_mart", "good", Some(1)),
            ("main", "dim", Some(1)),
            ("main", "nulls", Some(1)),
        ];
        assert_eq!(found, expected);
        let fct = tables[1].outcome.as_ref().expect("built");
        let types: Vec<_> = fct.report().columns.iter().map(|column| column.ty.as_str()).collect();
        let held =
            ["BIGINT", "UNION(n BIGINT)", "INTERVAL", "UHUGEINT", "TIME_NS", "BIGNUM", "BIT"];
        assert_eq!(types[..7], held);
        let last = "SELECT concat_ws(' ', i, u.n, iv, uh, tn, bn, bit, m) FROM t WHERE i = 4999";
        assert_eq!(read(fct, last), "4999 4999 1 day 4999 12:00:00 4999 101 ok");
        let good = tables[2].outcome.as_ref().expect("built");
        assert_eq!(read(good, "SELECT n::VARCHAR FROM t"), "5000");
        let reason = tables[0].outcome.as_ref().expect_err("a view of nothing");
        assert!(reason.contains("gone") && !reason.contains('/'), "{reason}");
        drop(pool);
        assert_eq!(stage.left_behind(), 0);
    }
}

#[test]
fn a_legacy_file_beyond_the_budget_lies_on_disk() {
    let mut stage = Stage::new();
    let folder = stage.path("tables");
    fs::create_dir(&folder).expect("mkdir");
    let path = stage.path("legacy.duckdb");
    make(&path, "CREATE SCHEMA mart; CREATE TABLE mart.a AS SELECT md5(i::VARCHAR) AS m FROM range(30000) t(i);
                 CREATE TABLE mart.b AS SELECT 1 AS b");
    stage.settings.budget = TableBudget::new(300 << 10, Some(folder));
    let version = version(&stage, path);
    let (pool, _outcomes) = stage.start();
    let tables = pool.build_legacy(&version, &["mart".to_owned()]).expect("tables");
    let kinds: Vec<_> =
        tables.iter().map(|table| table.outcome.as_ref().expect("built").kind()).collect();
    assert_eq!(kinds, [TableKind::Disk, TableKind::Memory]);
    let missing = pool.build_legacy(&version, &["none".to_owned()]).expect_err("nothing");
    assert!(missing.lasting && missing.reason.contains("MARTD_SCHEMAS"), "{missing:?}");
}

#[test]
fn what_a_crashed_writer_left_in_its_log_is_built() {
    let stage = Stage::new();
    let path = stage.path("legacy.duckdb");
    let writer = Connection::open(&path).expect("DuckDB");
    let sql = "PRAGMA disable_checkpoint_on_shutdown; CREATE SCHEMA mart; CREATE TABLE mart.a AS SELECT 7 AS a";
    writer.execute_batch(sql).expect(sql);
    drop(writer);
    assert!(stage.path("legacy.duckdb.wal").exists());
    let version = version(&stage, path);
    let (pool, _outcomes) = stage.start();
    let tables = pool.build_legacy(&version, &["mart".to_owned()]).expect("tables");
    assert_eq!(read(tables[0].outcome.as_ref().expect("built"), "SELECT a::VARCHAR FROM t"), "7");
}
