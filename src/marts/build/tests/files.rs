//! What becomes a table, where it lies, and what does not.

use rustix::fs::SealFlags;

use super::*;

#[test]
fn a_file_becomes_a_sealed_table() {
    let stage = Stage::new();
    let rows = "SELECT i AS id, 'x' || i AS name FROM range(1000) t(i)";
    let verdict = stage.build(&stage.pin(rows));
    let table = table(&verdict);
    assert_eq!(read(table, "SELECT max(name) || count(*) || sum(id) FROM t"), "x9991000499500");
    let columns: Vec<_> =
        table.report().columns.iter().map(|c| (c.name.as_str(), c.ty.as_str())).collect();
    assert_eq!(columns, [("id", "BIGINT"), ("name", "VARCHAR")]);
    assert_eq!((table.report().rows, table.kind()), (1000, TableKind::Memory));
    let seals = rustix::fs::fcntl_get_seals(table.as_fd()).expect("a memfd");
    assert!(seals.contains(SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK), "{seals:?}");
    let path = format!("/proc/self/fd/{}", table.as_fd().as_raw_fd());
    assert!(fs::OpenOptions::new().write(true).open(path).and_then(|mut f| f.write(b"x")).is_err());
}

#[test]
fn what_duckdb_and_pyarrow_read_is_served() {
    let stage = Stage::new();
    let (pool, _outcomes) = stage.start();
    let names = [
        "converted-type-24",
        "empty-group",
        "empty-group-between",
        "empty-group-first",
        "empty-group-last",
        "fastparquet-empty",
        "list-of-i16",
        "metadata-not-utf8",
        "no-group",
    ];
    for file in names {
        let file = foreign(&format!("edges/{file}"));
        let pin = stage.pin_file(&file);
        let footer = Footer::read(pin.file().expect("one")).expect("a footer");
        let verdict = pool.build_all([&pin]).remove(&pin.hash()).expect("a verdict");
        let report = table(&verdict).report();
        assert_eq!((report.rows, report.columns.len()), (footer.rows, 2), "{}", file.display());
        let patched = footer.invocation_id.as_deref();
        assert!(footer.rows != 2 || patched.is_none_or(|id| id == "1234"), "{}", file.display());
    }
    assert_eq!(stage.runs(), 1);
}

/// A file of `tests/foreign`.
fn foreign(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/files");
    folder.join(format!("{name}.parquet"))
}

#[test]
fn damaged_statistics_and_filters_hide_no_row() {
    let stage = Stage::new();
    for (name, condition, rows) in [
        ("statistics-wrong", "a = 1", "1"),
        ("statistics-wrong", "a IS NULL", "1"),
        ("bloom-wrong", "r = 7", "80"),
        ("bloom-wrong", "t = 'text 7'", "80"),
        ("bloom-header-wrong", "r = 7", "80"),
    ] {
        let file = foreign(&format!("edges/{name}"));
        let duckdb = duckdb::Connection::open_in_memory().expect("DuckDB");
        let count = |from: &str| format!("SELECT count(*)::VARCHAR FROM {from} WHERE {condition}");
        let in_file = count(&format!("read_parquet('{}')", file.display()));
        let in_file = duckdb.query_row(&in_file, [], |row| row.get::<_, String>(0));
        assert_ne!(in_file.ok().as_deref(), Some(rows), "{name} is damaged");
        let verdict = stage.build(&stage.pin_file(&file));
        assert_eq!(read(table(&verdict), &count("t")), rows, "{name}, {condition}");
    }
}

#[test]
fn a_decimal_of_more_digits_than_duckdb_has_is_broken() {
    let stage = Stage::new();
    for (name, told) in [
        ("decimal-39", "39 digits in column d,"),
        ("decimal-50", "50 digits in column d,"),
        ("decimal-60-nested", "60 digits in column element,"),
        ("decimal-76", "76 digits in column d,"),
    ] {
        let pin = stage.pin_file(&foreign(&format!("pyarrow/{name}")));
        let Err(FooterError::Broken(reason)) = Footer::read(pin.file().expect("one")) else {
            panic!("{name} is read")
        };
        assert!(reason.contains(told), "{reason}");
        assert_eq!(rejection(&stage.build(&pin)), &FileRejection::lasting(reason));
    }
    assert_eq!(stage.runs(), 0);
}

#[test]
fn a_file_that_is_cut_is_still_landing() {
    let stage = Stage::new();
    let whole = stage.pin("SELECT 1 AS a");
    let mut bytes = vec![0; whole.size() as usize];
    whole.file().expect("one").read_exact_at(&mut bytes, 0).expect("readable");
    for end in 0..bytes.len() {
        let read = Footer::read(stage.pin_bytes(&bytes[..end]).file().expect("one"));
        assert!(matches!(read, Err(FooterError::Incomplete(_))), "cut at {end}: {read:?}");
    }
}

#[test]
fn a_footer_that_contradicts_itself_is_broken() {
    let stage = Stage::new();
    let pin = stage.pin_file(&foreign("edges/contradiction"));
    let Err(FooterError::Broken(reason)) = Footer::read(pin.file().expect("one")) else {
        panic!("read")
    };
    assert_eq!(reason, "names 1 columns otherwise in its schema than beside them");
    let verdict = stage.build(&pin);
    assert_eq!((rejection(&verdict), stage.runs()), (&FileRejection::lasting(reason), 0));
}

#[test]
fn one_row_of_nulls_is_told() {
    let stage = Stage::new();
    let verdict = stage.build(&stage.pin("SELECT NULL::INT AS a, NULL::VARCHAR[] AS b"));
    let table = table(&verdict);
    assert_eq!((table.report().rows, table.report().is_null_row), (1, true));
    let one = stage.build(&stage.pin("SELECT NULL::INT AS a, 1 AS b"));
    let report = super::table(&one).report();
    assert_eq!((report.rows, report.is_null_row), (1, false));
}

#[test]
fn every_type_of_a_file_becomes_a_column() {
    let stage = Stage::new();
    let pin = stage.pin(
        "SELECT {'a': i, 'b': [i]}::VARIANT AS v, MAP {'k': i} AS m, [[i]] AS l, {'x': {'y': i}} AS s,
                INTERVAL (i) DAY AS iv, i::DECIMAL(38, 4) AS d, uuid() AS u, 'x'::BLOB AS b, 1.5::FLOAT AS f,
                '12:00:00'::TIME AS t, TIMESTAMPTZ '2024-01-01' AS z, (ENUM_RANGE(NULL::ENUM('p', 'q')))[1] AS e,
                'POINT(1 2)'::GEOMETRY AS g
         FROM range(3000) r(i)",
    );
    let verdict = stage.build(&pin);
    let types: Vec<_> = table(&verdict).report().columns.iter().map(|c| c.ty.as_str()).collect();
    assert_eq!(
        types[..4],
        ["VARIANT", "MAP(VARCHAR, BIGINT)", "BIGINT[][]", "STRUCT(x STRUCT(y BIGINT))"]
    );
    assert_eq!(
        read(table(&verdict), "SELECT v.a || m['k']::VARCHAR FROM t LIMIT 1 OFFSET 2999"),
        "29992999"
    );
}

#[test]
fn a_damaged_file_is_rejected_once_and_for_all() {
    let stage = Stage::new();
    let good = stage.pin("SELECT i, 'text ' || i AS s FROM range(5000) t(i)");
    let mut bytes = vec![0; good.size() as usize];
    good.file().expect("one").read_exact_at(&mut bytes, 0).expect("readable");
    bytes[30..2000].fill(0xff);
    let bad = stage.pin_bytes(&bytes);
    let (pool, outcomes) = stage.start();
    for _ in 0..2 {
        pool.submit(Arc::clone(&bad), "bad");
        let BuildResult::Rejected(rejection) = next(&outcomes).result else { panic!("built") };
        assert!(rejection.lasting, "{rejection:?}");
        for shown in ["/proc", "fd/", "Stack", "scratch"] {
            assert!(!rejection.reason.contains(shown), "{rejection:?}");
        }
    }
    assert_eq!(stage.runs(), 1);
}

#[test]
fn the_same_bytes_are_built_once_for_two_names() {
    let stage = Stage::new();
    let pin = stage.pin("SELECT 1 AS a");
    let (pool, outcomes) = stage.start();
    for name in ["a", "b", "a"] {
        pool.submit(Arc::clone(&pin), name);
    }
    let tables: Vec<_> = (0..3)
        .map(|_| match next(&outcomes).result {
            BuildResult::Built(table) => table,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(tables.iter().all(|table| Arc::ptr_eq(table, &tables[0])));
    assert!(matches!(pool.verdict(&pin.hash()), Some(Ok(_))));
    drop(tables);
    assert!(pool.verdict(&pin.hash()).is_none(), "nobody has it any more");
    assert_eq!(stage.settings.budget.used(), 0);
}

#[test]
fn a_table_beyond_the_budget_lies_on_disk() {
    let mut stage = Stage::new();
    let folder = stage.path("tables");
    fs::create_dir(&folder).expect("mkdir");
    let rows = "SELECT i, md5(i::VARCHAR) AS s FROM range(20000) t(i)";
    let pin = stage.pin(rows);
    // Too little from the start, and too little for what came of a small estimate.
    let repeated =
        stage.pin("SELECT uuid() || j AS s FROM range(200) t(i), range(200) u(j) ORDER BY i % 7");
    stage.settings.budget = TableBudget::new(300 << 10, Some(folder.clone()));
    for pin in [&pin, &repeated] {
        let verdict = stage.build(pin);
        let table = table(&verdict);
        assert_eq!(table.kind(), TableKind::Disk);
        assert_eq!(stage.settings.budget.on_disk(), table.bytes());
        assert!(read(table, "SELECT count(*)::VARCHAR FROM t").ends_with("0000"));
        let path = format!("/proc/self/fd/{}", table.as_fd().as_raw_fd());
        assert!(rustix::io::write(table.as_fd(), b"x").is_err(), "{path} is for reading");
    }
    assert_eq!(fs::read_dir(&folder).expect("readable").count(), 0, "files have no names");
    assert_eq!((stage.settings.budget.used(), stage.settings.budget.on_disk()), (0, 0));

    stage.settings.budget = TableBudget::new(300 << 10, None);
    let verdict = stage.build(&pin);
    let rejection = rejection(&verdict);
    assert!(!rejection.lasting);
    for told in ["KiB", "MARTD_TABLE_MEMORY", "MARTD_TABLE_DIR"] {
        assert!(rejection.reason.contains(told), "{rejection:?}");
    }
}

#[test]
fn a_table_larger_than_it_seemed_lies_on_disk() {
    let mut stage = Stage::new();
    // One text, 40,000 times: nothing in Parquet. DuckDB writes 256 KiB at least for blocks of 16.
    let pin = stage.pin("SELECT md5((i % 3000)::VARCHAR) || i % 3000 AS s FROM range(60000) t(i)");
    let folder = stage.path("tables");
    fs::create_dir(&folder).expect("mkdir");
    stage.settings.budget = TableBudget::new(256 << 10, Some(folder));
    let verdict = stage.build(&pin);
    assert_eq!(table(&verdict).kind(), TableKind::Disk);
    assert_eq!(read(table(&verdict), "SELECT count(*)::VARCHAR FROM t"), "60000");
}

#[test]
fn a_held_file_is_built_and_a_rewrite_noticed() {
    let mut stage = Stage::with_script("[ ! -e rewrite ] || cat rewrite > made.parquet");
    stage.pins = Budget::new(0);
    let pin = stage.pin("SELECT 1 AS a");
    assert_eq!(pin.kind(), crate::pin::PinKind::Descriptor);
    assert_eq!(table(&stage.build(&pin)).report().rows, 1);

    fs::write(stage.path("rewrite"), "changed, and longer than it was").expect("write");
    let (pool, outcomes) = stage.start();
    pool.submit(Arc::clone(&pin), "a");
    assert!(matches!(next(&outcomes).result, BuildResult::Rewritten));
    assert!(pool.build_all([&pin]).is_empty());
}

#[test]
fn a_folder_for_scratch_must_be_writable() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(choose_scratch(Some(dir.path()), None).expect("writable"), dir.path());
    assert_eq!(choose_scratch(None, Some(dir.path())).expect("writable"), dir.path());
    let nowhere = dir.path().join("nowhere");
    let error = choose_scratch(Some(&nowhere), None).expect_err("not there");
    assert!(error.to_string().contains("MARTD_SCRATCH_DIR"), "{error}");
    assert_ne!(choose_scratch(None, Some(&nowhere)).expect("another"), nowhere);
}
