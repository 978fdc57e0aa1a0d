//! Marts of several files: what DuckDB makes of a directory, from what a builder is given of it.

use super::*;

/// A mart of the Parquet files that are below this folder now.
fn pin_parts(stage: &Stage, folder: &Path) -> Arc<MartPin> {
    fn visit(stage: &Stage, folder: &Path, path: &str, files: &mut Vec<PinnedFile>) {
        for entry in fs::read_dir(folder).expect("readable") {
            let entry = entry.expect("readable");
            let path = format!("{path}/{}", entry.file_name().to_str().expect("UTF-8"));
            match entry.path().is_dir() {
                true => visit(stage, &entry.path(), &path, files),
                false => files.push(PinnedFile { path, pin: stage.pin_one(&entry.path()) }),
            }
        }
    }
    let mut files = Vec::new();
    visit(stage, folder, "mart", &mut files);
    Arc::new(MartPin::new(files))
}

/// Everything that DuckDB says of a relation, as one text.
fn told(connection: &Connection, from: &str) -> String {
    let columns =
        format!("SELECT string_agg(column_name || ' ' || column_type) FROM (DESCRIBE FROM {from})");
    let columns: String = connection.query_row(&columns, [], |row| row.get(0)).expect(from);
    let rows = format!("SELECT string_agg(t::VARCHAR, chr(10) ORDER BY t::VARCHAR) FROM {from} t");
    let rows: Option<String> = connection.query_row(&rows, [], |row| row.get(0)).expect(from);
    format!("{columns}\n{}", rows.unwrap_or_default())
}

/// Writes this as a partitioned mart with DuckDB, and builds it.
fn as_duckdb_reads_it(select: &str, keys: &str) -> String {
    let stage = Stage::new();
    let folder = stage.path("g=0 is no column");
    let shown = folder.display();
    let duckdb = connect();
    let copy = format!("COPY ({select}) TO '{shown}' (FORMAT parquet, PARTITION_BY ({keys}))");
    duckdb.execute_batch(&copy).expect(select);
    let verdict = stage.build(&pin_parts(&stage, &folder));
    let engine = connect();
    let path = format!("/proc/self/fd/{}", table(&verdict).as_fd().as_raw_fd());
    engine.execute_batch(&format!("ATTACH '{path}' AS v (READ_ONLY); USE v")).expect("attached");
    let built = told(&engine, "t");
    // The paths as they are in the directory: what leads there must not matter.
    let pattern = format!("read_parquet('{shown}/**/*.parquet', hive_partitioning = true)");
    let columns = "* EXCLUDE (g)";
    let read = format!("(SELECT {columns} FROM {pattern})");
    assert_eq!(built, told(&duckdb, &read), "{select}");
    built
}

#[test]
fn hive_columns_are_what_duckdb_makes_of_them() {
    for (value, ty) in [
        ("DATE '2024-01-01' + (i % 3)::INTEGER", "DATE"),
        ("'2024-01-0' || (i % 3 + 1) || ' 10'", "VARCHAR"),
        ("'0' || i % 3", "VARCHAR"),
        ("TIMESTAMP '2024-01-01 10:00:00' + INTERVAL (i % 3) HOUR", "VARCHAR"),
        ("i % 3 - 1", "BIGINT"),
        ("9000000000 + i % 3", "BIGINT"),
        ("(i % 3)::HUGEINT * 100000000000000000000", "VARCHAR"),
        ("i % 3 + 0.5", "VARCHAR"),
        ("i % 2 = 0", "VARCHAR"),
        ("'x' || i % 3", "VARCHAR"),
        ("CASE i % 3 WHEN 0 THEN '7' WHEN 1 THEN '2024-01-01' ELSE 'x' END", "VARCHAR"),
        ("CASE i % 3 WHEN 0 THEN NULL ELSE i % 3 END", "BIGINT"),
        ("CASE i % 3 WHEN 0 THEN NULL ELSE 'x' END", "VARCHAR"),
        ("CASE i % 3 WHEN 0 THEN 'a/b=c d' WHEN 1 THEN 'ä%41*' ELSE '[?]~' END", "VARCHAR"),
        ("uuid_from_int(i % 3)", "VARCHAR"),
        ("TIME '10:00:00' + INTERVAL (i % 3) HOUR", "VARCHAR"),
    ] {
        let value = value.replace(
            "uuid_from_int(i % 3)",
            "('00000000-0000-0000-0000-00000000000' || i % 3)::UUID",
        );
        let told = as_duckdb_reads_it(&format!("SELECT i, {value} AS k FROM range(9) t(i)"), "k");
        let columns = told.lines().next();
        assert_eq!(columns, Some(&*format!("i BIGINT,k {ty}")), "{value}");
    }
    let several = "SELECT i, 'x' AS t, i % 2 AS n, DATE '2024-01-01' AS d FROM range(9) t(i)";
    let told = as_duckdb_reads_it(several, "d, n");
    assert_eq!(told.lines().next(), Some("i BIGINT,t VARCHAR,d DATE,n BIGINT"));
}

#[test]
fn parts_without_keys_are_one_table() {
    let stage = Stage::new();
    let folder = stage.path("mart");
    fs::create_dir_all(folder.join("sub")).expect("mkdir");
    let write = |name: &str, select: &str| {
        let to = folder.join(name).display().to_string();
        connect()
            .execute_batch(&format!("COPY ({select}) TO '{to}' (FORMAT parquet)"))
            .expect(select);
    };
    write("sub/a[1]*.parquet", "SELECT 1 AS a, 'x' AS b");
    write("~b.parquet", "SELECT 'y' AS b, 2 AS a, 'left out' AS c");
    let verdict = stage.build(&pin_parts(&stage, &folder));
    assert_eq!(read(table(&verdict), "SELECT string_agg(a || b ORDER BY a) FROM t"), "1x,2y");
    assert!(!table(&verdict).report().is_null_row);

    fs::remove_dir_all(&folder).expect("removed");
    fs::create_dir_all(folder.join("g=__HIVE_DEFAULT_PARTITION__")).expect("mkdir");
    write("g=__HIVE_DEFAULT_PARTITION__/data_0.parquet", "SELECT NULL::INTEGER AS a");
    let verdict = stage.build(&pin_parts(&stage, &folder));
    assert!(table(&verdict).report().is_null_row && table(&verdict).report().columns.len() == 2);
}

#[test]
fn parts_that_do_not_fit_are_rejected_by_name() {
    let stage = Stage::new();
    for (one, other, part, word) in [
        ("g=1/a.parquet", "g=2/b.parquet", "g=2/b.parquet", "schema mismatch"),
        ("g=1/a.parquet", "b.parquet", "b.parquet", "Hive partition mismatch"),
        ("g=1/a.parquet", "h=1/b.parquet", "h=1/b.parquet", "Hive partition mismatch"),
    ] {
        let folder = stage.path("mart");
        for (name, select) in [(one, "SELECT 1 AS a, 2 AS b"), (other, "SELECT 1 AS a")] {
            let to = folder.join(name);
            fs::create_dir_all(to.parent().expect("a folder")).expect("mkdir");
            let copy = format!("COPY ({select}) TO '{}' (FORMAT parquet)", to.display());
            connect().execute_batch(&copy).expect(select);
        }
        let verdict = stage.build(&pin_parts(&stage, &folder));
        let FileRejection { reason, lasting } = rejection(&verdict);
        assert!(*lasting && reason.contains(word) && reason.contains(part), "{reason}");
        assert!(!reason.contains("/proc") && !reason.contains("scratch"), "{reason}");
        fs::remove_dir_all(folder).expect("removed");
    }
}

#[test]
fn a_mart_has_a_thousand_parts() {
    let mut stage = Stage::new();
    stage.pins = Budget::new(0); // each is held, and a builder has to be allowed to read it
    let folder = stage.path("mart");
    let one = stage.path("one.parquet");
    let copy = format!("COPY (SELECT 7 AS a) TO '{}' (FORMAT parquet)", one.display());
    connect().execute_batch(&copy).expect("written");
    for part in 0..1000 {
        let to = folder.join(format!("g={part}"));
        fs::create_dir_all(&to).expect("mkdir");
        fs::copy(&one, to.join("a.parquet")).expect("copied");
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("raised");
    let verdict = stage.build(&pin_parts(&stage, &folder));
    let sums = "SELECT (count(*) || ' ' || sum(a) || ' ' || sum(g)) FROM t";
    assert_eq!(read(table(&verdict), sums), "1000 7000 499500");
}
