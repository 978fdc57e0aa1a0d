//! Marts that are asked for again and again are held decoded, and nobody can tell but by the time.

use std::thread;

use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root, wait_for};
use crate::metrics::Scrape;
use crate::writers::Writer;

/// More than two row groups, texts that lie in the vector and texts that do not, NULLs in every column,
/// and every kind of value that is not nested.
const FACTS: &str = "SELECT CASE WHEN i % 7 > 0 THEN i END AS id, i % 3 = 0 AS flag,
        (i % 100)::TINYINT AS tiny, i::UINTEGER AS u32, (i * 31)::HUGEINT AS huge, i / 8 AS real,
        (i % 1000 / 10)::DECIMAL(4, 1) AS d4, (i / 10)::DECIMAL(9, 2) AS d9,
        (i / 100)::DECIMAL(18, 3) AS d18, i::DECIMAL(30, 3) AS d30,
        CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'tag ' || i % 40 END AS tag,
        'a text of more than twelve bytes, number ' || i AS note, ('\\x' || 'AB' || '%')::BLOB AS blob,
        md5((i % 4)::VARCHAR)::UUID AS user_id, DATE '2020-01-01' + (i % 1000)::INTEGER AS day,
        TIMESTAMP '2020-01-01' + INTERVAL 1 MINUTE * i AS moment,
        TIMESTAMPTZ '2020-01-01 00:00:00+00' + INTERVAL 1 HOUR * (i % 99) AS tz,
        TIME '00:00:00' + INTERVAL 1 SECOND * (i % 86_400) AS clock,
        INTERVAL 1 DAY * (i % 9) AS span
    FROM range(300_000) t(i)";

const STATEMENTS: [&str; 20] = [
    "SELECT count(*) AS n FROM mart.facts",
    "SELECT count(id) AS ids, sum(id) AS sum, min(day) AS day, max(moment) AS moment FROM mart.facts",
    "FROM mart.facts LIMIT 5000",
    "SELECT note, id FROM mart.facts LIMIT 10 OFFSET 150000",
    "SELECT * FROM mart.facts WHERE id BETWEEN 122_870 AND 122_890",
    "SELECT * FROM mart.facts WHERE note LIKE '%number 29999_' ORDER BY ALL",
    "SELECT tag, count(*) AS n, sum(d18) AS sum FROM mart.facts GROUP BY tag ORDER BY tag",
    "SELECT DISTINCT flag, tiny FROM mart.facts ORDER BY ALL",
    "SELECT f.tag, t.label, count(*) AS n FROM mart.facts f JOIN mart.tags t USING (tag)
        GROUP BY ALL ORDER BY ALL",
    "SELECT a.id, b.note FROM mart.facts a JOIN mart.facts b ON a.id = b.u32
        WHERE a.id < 5_000 ORDER BY ALL",
    "SELECT tag, id, row_number() OVER (PARTITION BY tag ORDER BY u32) AS place FROM mart.facts
        QUALIFY place <= 2 ORDER BY ALL",
    "SELECT count(*) AS n FROM mart.facts WHERE day IN (DATE '2020-02-03', DATE '2021-02-03')",
    "SELECT max(u32) AS m FROM mart.facts WHERE tag IS NULL AND real > 1000.5",
    "SELECT list(u32 ORDER BY u32)[:9] AS l FROM mart.facts WHERE huge % 1009 = 0",
    "WITH \"martd:0\" AS (SELECT 1 AS id) SELECT count(*) AS n, sum(id) AS s FROM mart.facts",
    "SELECT moment, u32, note FROM mart.facts WHERE flag ORDER BY moment DESC, u32 LIMIT 500",
    "SELECT day FROM mart.facts ORDER BY day DESC LIMIT 500 OFFSET 1000",
    "DESCRIBE mart.facts",
    "SELECT column_name, min, max, count FROM (SUMMARIZE SELECT id, note, d30 FROM mart.facts)",
    "SELECT (SELECT count(*) FROM mart.tags) AS tags, span, count(*) AS n FROM mart.facts
        GROUP BY ALL ORDER BY ALL",
];

fn land(root: &Root, writer: &Writer) {
    writer.land(root, "facts", FACTS);
    writer.land(
        root,
        "tags",
        "SELECT 'tag ' || i AS tag, 'label ' || i AS label FROM range(40) t(i)",
    );
}

/// Asks for a mart until it is held decoded.
fn heat(martd: &Martd, root: &Root, mart: &str) {
    let before = Scrape::of(martd).value("martd_decoded_marts");
    assert!(root.mart(&format!("{mart}.parquet")).exists());
    wait_for("a decoded mart", || {
        assert_eq!(martd.query(&format!("SELECT count(*) AS n FROM mart.{mart}")).status, 200);
        (Scrape::of(martd).value("martd_decoded_marts") > before).then_some(())
    });
}

fn decoded_statements(martd: &Martd) -> f64 {
    Scrape::of(martd).value("martd_decoded_statements_total")
}

fn ask(martd: &Martd, sql: &str) -> Json {
    let answer = martd.post(&json!({ "sql": sql, "limit": 10_000 }));
    assert_eq!(answer.status, 200, "{sql}: {answer:?}");
    let answer = answer.json();
    json!({ "meta": answer["meta"], "data": answer["data"] })
}

#[test]
fn a_mart_that_is_held_decoded_gives_the_answers_that_its_file_gives() {
    let (root, writer) = (Root::new(), Writer::new());
    land(&root, &writer);
    let files = Martd::start_with(root.path(), &[("MARTD_DECODED_MEMORY", "0")]);
    let decoded = Martd::start_with(root.path(), &[("MARTD_CACHE", "0"), ("MARTD_THREADS", "3")]);
    files.wait_ready();
    decoded.wait_ready();
    heat(&decoded, &root, "facts");
    heat(&decoded, &root, "tags");
    assert!(Scrape::of(&decoded).value("martd_decoded_bytes") > 50e6);
    let expected = STATEMENTS.map(|sql| ask(&files, sql));
    let compare = || {
        for (sql, expected) in STATEMENTS.iter().zip(&expected) {
            let before = decoded_statements(&decoded);
            assert_eq!(ask(&decoded, sql), *expected, "{sql}");
            assert_eq!(decoded_statements(&decoded), before + 1.0, "{sql} reads a file");
        }
    };
    compare();
    wait_for("dictionaries of `tag`, of both marts' texts the only one that repeats", || {
        (Scrape::of(&decoded).value("martd_decoded_dictionaries") == 1.0).then_some(())
    });
    compare();
    for params in [json!([]), json!([1, 2]), json!({ "id": 1 }), json!(["one"]), json!([[1]])] {
        let body = json!({ "sql": "SELECT id FROM mart.facts WHERE id = ?", "params": params });
        let [own, expected] = [&decoded, &files].map(|martd| martd.post(&body));
        assert_eq!(own.status, 400, "{params}: {own:?}");
        assert_eq!(own.json()["detail"], expected.json()["detail"], "{params}");
    }
    // What fails while it runs shows the client's own text.
    for clause in ["CAST(note AS INTEGER) = 1", "id = 299998 AND CAST(tag AS INTEGER) = 1"] {
        let sql = format!("SELECT note, id FROM mart.facts WHERE {clause} ORDER BY u32");
        let [own, expected] = [&decoded, &files].map(|martd| martd.query(&sql));
        assert_eq!((own.status, expected.status), (400, 400), "{clause}: {own:?}");
        assert_eq!(own.json()["position"], expected.json()["position"], "{clause}");
        assert!(own.json()["detail"].to_string().contains("mart.facts WHERE"), "{own:?}");
    }
    // A page that is read from the other end once its order is known to be total.
    let page = "SELECT * FROM mart.facts ORDER BY moment DESC, u32 LIMIT 1000";
    let expected = ask(&files, page);
    for _ in 0..20 {
        assert_eq!(ask(&decoded, page), expected);
    }
    assert_eq!(Scrape::of(&files).value("martd_decoded_marts"), 0.0);
    assert_eq!(decoded_statements(&files), 0.0);
}

/// Conditions that compare a column with a value that it has, or has not, or cannot have.
fn condition(random: &mut fastrand::Rng, params: &mut Vec<Json>) -> String {
    let operator = *random.choice(&["=", "=", "<", "<=", ">", ">="]).expect("there are some");
    let row = random.u32(0..330_000);
    let user = ["cfcd208495d565ef66e7dff9f98764da", "c4ca4238a0b923820dcc509a6f75849b", "0"]
        [random.usize(0..3)];
    let user = format!("{user:0>32}");
    let user = [&user[..8], &user[8..12], &user[12..16], &user[16..20], &user[20..]].join("-");
    let day = format!("20{:02}-{:02}-{:02}", 19 + row % 5, 1 + row % 12, 1 + row % 28);
    let time = format!("{day} 0{}:{:02}:00", row % 10, row % 60);
    let (column, value, cast) = match random.u32(0..9) {
        0 => ("id", json!(row), ""),
        1 => ("tiny", json!(row % 130), ""),
        2 => ("u32", json!(row), ""),
        3 => ("tag", json!(format!("tag {}", row % 45)), ""),
        4 => ("note", json!(format!("a text of more than twelve bytes, number {row}")), ""),
        5 => ("user_id", json!(user), "UUID"),
        6 => ("day", json!(day), "DATE"),
        7 => ("moment", json!(time), "TIMESTAMP"),
        _ => ("moment", json!(day), "DATE"),
    };
    let column = if random.bool() { format!("f.{column}") } else { column.to_owned() };
    let written = value.as_str().map_or(value.to_string(), |text| format!("'{text}'"));
    let operand = match random.u32(0..4) {
        0 if !cast.is_empty() => format!("CAST({written} AS {cast})"),
        1 if cast.is_empty() => {
            params.push(value);
            "?".to_owned()
        }
        1 => {
            params.push(value);
            format!("CAST(? AS {cast})")
        }
        _ => written.clone(),
    };
    match random.u32(0..8) {
        0 => format!("NOT {column} {operator} {operand}"),
        1 => format!("({column} {operator} {operand} OR f.tiny = 7)"),
        2 => format!("{operand} {operator} {column}"),
        3 => format!("{column} BETWEEN {written} AND {operand}"),
        _ => format!("{column} {operator} {operand}"),
    }
}

fn statement(random: &mut fastrand::Rng) -> Json {
    let mut params = Vec::new();
    let conditions: Vec<String> =
        (0..random.usize(1..4)).map(|_| condition(random, &mut params)).collect();
    let select = *random
        .choice(&[
            "*",
            "f.note, id, d18",
            "user_id, flag, huge, moment",
            "blob, tz, span, tag, tag",
        ])
        .expect("there are some");
    let clause = conditions.join(" AND ");
    let order = *random
        .choice(&["", "ORDER BY u32", "ORDER BY f.moment DESC, U32", "ORDER BY day DESC, u32"])
        .expect("there are some");
    let limit = ["", "LIMIT 700", "LIMIT 30 OFFSET 5000"][random.usize(0..3)];
    let totals = "count(*) AS n, sum(id) AS ids, max(note) AS note FROM mart.facts f";
    let sql = match random.u32(0..6) {
        0 => format!("SELECT {totals} WHERE {clause}"),
        1 => format!("SELECT tag, {totals} WHERE {clause} GROUP BY tag ORDER BY tag"),
        _ => format!("SELECT {select} FROM mart.facts f WHERE {clause} {order} {limit}"),
    };
    json!({ "sql": sql, "params": params, "limit": 10_000 })
}

#[test]
fn rows_that_are_passed_over_would_not_have_been_in_an_answer() {
    let (root, writer) = (Root::new(), Writer::new());
    land(&root, &writer);
    let files = Martd::start_with(root.path(), &[("MARTD_DECODED_MEMORY", "0")]);
    let decoded = Martd::start_with(root.path(), &[("MARTD_CACHE", "0")]);
    files.wait_ready();
    decoded.wait_ready();
    heat(&decoded, &root, "facts");
    wait_for("an index of each column that has values", || {
        for column in ["id", "tiny", "u32", "tag", "note", "user_id", "day"] {
            let value = match column {
                "user_id" => "'00000000-0000-0000-0000-000000000000'",
                "day" => "DATE '2020-01-01'",
                "tag" | "note" => "'x'",
                _ => "1",
            };
            let sql = format!("SELECT count(*) AS n FROM mart.facts WHERE {column} = {value}");
            assert_eq!(decoded.query(&sql).status, 200);
        }
        (Scrape::of(&decoded).value("martd_decoded_indexes") == 7.0).then_some(())
    });
    wait_for("a dictionary", || {
        let sql = "SELECT tag, count(*) AS n FROM mart.facts GROUP BY tag";
        assert_eq!(decoded.query(sql).status, 200);
        (Scrape::of(&decoded).value("martd_decoded_dictionaries") == 1.0).then_some(())
    });
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rows = 0;
    for _ in 0..250 {
        let body = statement(&mut random);
        // The second time it may be known what columns the statement gives.
        let answers = [&decoded, &decoded, &files].map(|martd| {
            let answer = martd.post(&body);
            assert!([200, 400].contains(&answer.status), "seed {seed}: {body}: {answer:?}");
            let answer = answer.json();
            json!([answer["meta"], answer["data"], answer["code"], answer["detail"]])
        });
        rows += answers[2][1].as_array().map_or(0, Vec::len);
        assert_eq!(answers[0], answers[2], "seed {seed}: {body}");
        assert_eq!(answers[1], answers[2], "seed {seed}: {body}");
    }
    assert!(rows > 1_000, "seed {seed}: these statements find {rows} rows");
    let lookups = Scrape::of(&decoded).value("martd_lookups_total");
    assert!(lookups > 5.0, "seed {seed}: {lookups} lookups");
}

#[test]
fn a_few_rows_are_found_while_every_slot_is_taken() {
    let (root, writer) = (Root::new(), Writer::new());
    writer.land(&root, "tags", "SELECT 'tag ' || i AS tag FROM range(40) t(i)");
    let martd = Martd::start_with(root.path(), &[("MARTD_QUERIES", "1"), ("MARTD_QUEUE", "0")]);
    martd.wait_ready();
    let few = |number: u32| {
        let params = json!([format!("tag {number}")]);
        martd.post(&json!({ "sql": "SELECT tag FROM mart.tags WHERE tag = ?", "params": params }))
    };
    let mut number = 100;
    wait_for("a lookup", || {
        number += 1;
        assert_eq!(few(number).rows(), json!([]));
        (Scrape::of(&martd).value("martd_lookups_total") > 1.0).then_some(())
    });
    let endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b";
    let body = json!({ "sql": endless });
    thread::scope(|scope| {
        // Without a queue it is refused where it meets one of those that look whether it runs.
        let blocker = scope.spawn(|| {
            wait_for("it runs", || {
                let answer = martd.post_with(&body, &[("x-request-id", "blocker")]);
                (answer.status != 503).then_some(answer)
            })
        });
        wait_for("the slot to be taken", || {
            (martd.query("SELECT random() AS x FROM mart.tags").status == 503).then_some(())
        });
        for number in 1..40 {
            assert_eq!(few(number).value(), format!("tag {number}"));
            // The second time it is in the cache.
            assert_eq!(few(number).header("cache-status"), "martd; hit");
        }
        let stopped = martd.delete_with("/v1/queries/blocker", &[]);
        assert_eq!(stopped.status, 204, "{stopped:?}");
        assert_eq!(blocker.join().expect("it ends").status, 504);
    });
}

#[test]
fn what_is_known_of_a_mart_is_known_of_the_one_that_replaces_it() {
    let (root, writer) = (Root::new(), Writer::new());
    let select = |version: u32| {
        format!("SELECT 'u' || (i * {version}) % 3 AS user_id, i AS x FROM range(10_000) t(i)")
    };
    writer.land(&root, "a", &select(1));
    let martd = Martd::start_with(root.path(), &[("MARTD_CACHE", "0")]);
    martd.wait_ready();
    heat(&martd, &root, "a");
    let sql = "SELECT x FROM mart.a WHERE user_id = 'u1' ORDER BY x LIMIT 2";
    let indexes = || Scrape::of(&martd).value("martd_decoded_indexes");
    let users = "SELECT user_id, min(x) AS x FROM mart.a GROUP BY user_id ORDER BY user_id";
    let dictionaries = || Scrape::of(&martd).value("martd_decoded_dictionaries");
    wait_for("the index and the dictionary", || {
        assert_eq!(martd.query(sql).rows(), json!([{ "x": 1 }, { "x": 4 }]));
        assert_eq!(martd.query(users).rows()[1], json!({ "user_id": "u1", "x": 1 }));
        (indexes() == 1.0 && dictionaries() == 1.0).then_some(())
    });
    let generation = martd.snapshot()["generation"].as_u64().expect("a number");
    writer.land(&root, "a", &select(2));
    martd.wait_snapshot("the new mart", |s| s["generation"] == generation + 1);
    assert_eq!((indexes(), dictionaries()), (1.0, 1.0));
    assert_eq!(martd.query(sql).rows(), json!([{ "x": 2 }, { "x": 5 }]));
    assert_eq!(martd.query(users).rows()[1], json!({ "user_id": "u1", "x": 2 }));
}

/// Replaces one of two marts that are held decoded. Returns the id of the snapshot before.
fn replace_one(martd: &Martd, root: &Root, writer: &Writer) -> String {
    writer.land(root, "a", "SELECT 1 AS x FROM range(10_000)");
    writer.land(root, "b", "SELECT 1 AS x FROM range(10_000)");
    let names = |s: &Json| s["marts"].as_array().map_or(0, Vec::len);
    let first = martd.wait_snapshot("both marts", |s| names(s) == 2);
    heat(martd, root, "a");
    heat(martd, root, "b");
    let generation = first["generation"].as_u64().expect("a number");
    writer.land(root, "a", "SELECT 2 AS x FROM range(10_000)");
    martd.wait_snapshot("the new snapshot", |s| s["generation"] == generation + 1);
    assert_eq!(Scrape::of(martd).value("martd_decoded_marts"), 2.0);
    first["id"].as_str().expect("an id").to_owned()
}

/// The sum of a mart's column, and whether it was read from what is held decoded.
fn sum(martd: &Martd, snapshot: Option<&str>) -> (Json, bool) {
    let before = decoded_statements(martd);
    let headers: Vec<(&str, &str)> =
        snapshot.map(|id| ("martd-snapshot", id)).into_iter().collect();
    let sql = "SELECT sum(x)::BIGINT AS x FROM mart.a";
    let answer = martd.post_with(&json!({ "sql": sql }), &headers);
    (answer.value(), decoded_statements(martd) > before)
}

#[test]
fn a_replaced_mart_is_decoded_before_it_is_served_and_the_others_are_shared() {
    let (root, writer) = (Root::new(), Writer::new());
    let settings = [("MARTD_CACHE", "0"), ("MARTD_RETAIN", "3s")];
    let martd = Martd::start_with(root.path(), &settings);
    let first = replace_one(&martd, &root, &writer);
    let with_both_versions = Scrape::of(&martd).value("martd_decoded_bytes");
    assert_eq!(sum(&martd, None), (json!(20_000), true));
    // Who still asks for the replaced snapshot is not slower for it.
    assert_eq!(sum(&martd, Some(&first)), (json!(10_000), true));
    wait_for("the memory of the replaced mart", || {
        let bytes = Scrape::of(&martd).value("martd_decoded_bytes");
        (bytes * 3.0 == with_both_versions * 2.0).then_some(())
    });
}

#[test]
fn where_memory_is_short_replaced_snapshots_are_read_from_their_files() {
    let (root, writer) = (Root::new(), Writer::new());
    // Two marts of five chunks of 2,048 values of four bytes, but not three.
    let settings = [("MARTD_CACHE", "0"), ("MARTD_DECODED_MEMORY", "100KB")];
    let martd = Martd::start_with(root.path(), &settings);
    let first = replace_one(&martd, &root, &writer);
    assert_eq!(sum(&martd, None), (json!(20_000), true));
    assert_eq!(sum(&martd, Some(&first)), (json!(10_000), false));
}

#[test]
fn a_statement_sees_the_rows_of_its_scope_alone() {
    let (root, writer) = (Root::new(), Writer::new());
    writer.land(&root, "notes", "SELECT 'u' || i % 2 AS user_id, i AS id FROM range(10_000) t(i)");
    let marks =
        "SELECT 'u' || i % 3 AS label, i AS id, 'u' || i % 2 AS user_id FROM range(10_000) t(i)";
    writer.land(&root, "marks", marks);
    let settings = [("MARTD_SCOPE_COLUMN", "user_id"), ("MARTD_CACHE", "0")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let ask = |scope: &str, sql: &str, params: Json| {
        let body = json!({ "sql": sql, "params": params });
        let answer = martd.post_with(&body, &[("martd-scope", &format!("user_id={scope}"))]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.rows()
    };
    wait_for("a decoded mart", || {
        ask("u0", "SELECT count(*) FROM mart.notes, mart.marks WHERE false", json!([]));
        (Scrape::of(&martd).value("martd_decoded_marts") == 2.0).then_some(())
    });
    wait_for("an index of the columns that have values", || {
        ask("u0", "SELECT count(*) FROM mart.notes, mart.marks WHERE false", json!([]));
        ask("u0", "SELECT count(*) FROM mart.marks WHERE label = 'u0'", json!([]));
        (Scrape::of(&martd).value("martd_decoded_indexes") == 3.0).then_some(())
    });
    let before = decoded_statements(&martd);
    // A plan over decoded marts is not bound anew, and may hold the value of the scope.
    for (turn, (scope, least)) in [("u0", 0), ("u1", 1), ("u0", 0), ("u2", -1)].iter().enumerate() {
        let sql = "SELECT min(id) AS least, count(*) AS n FROM mart.notes WHERE id % 1 = 0";
        let expected = match least {
            -1 => json!([{ "least": null, "n": 0 }]),
            least => json!([{ "least": least, "n": 5_000 }]),
        };
        assert_eq!(ask(scope, sql, json!([])), expected, "turn {turn}");
        let sql = "WITH \"martd:0\" AS (SELECT 'u9' AS user_id, 7 AS id) \
                   SELECT min(id) AS least, count(*) AS n FROM mart.notes WHERE id >= ?";
        assert_eq!(ask(scope, sql, json!([0])), expected, "turn {turn}");
        let sql = "SELECT min(n.id) AS least, count(*) AS n
                   FROM mart.notes n JOIN mart.marks m ON n.id = m.id";
        assert_eq!(ask(scope, sql, json!([])), expected, "turn {turn}");
        let sql = "SELECT id FROM mart.notes WHERE user_id = ? AND id >= 5000 ORDER BY id LIMIT 2";
        for other in ["u0", "u1"] {
            let rows = json!([{ "id": 5_000 + least }, { "id": 5_002 + least }]);
            let expected = if *scope == other { rows } else { json!([]) };
            assert_eq!(ask(scope, sql, json!([other])), expected, "turn {turn}");
        }
    }
    assert!(decoded_statements(&martd) >= before + 6.0, "these statements read decoded marts");
}

#[test]
fn a_scope_in_any_spelling_gives_the_rows_that_it_gives_of_the_file() {
    let id = "00112233-4455-6677-8899-aabbccddeeff";
    for (ty, other, values) in [
        ("BIGINT", "5", vec!["5", "05", " 5", "5.4", "-5", "1e1", "five", "99999999999999999999"]),
        ("UTINYINT", "200", vec!["200", "0200", "-1", "456"]),
        (
            "UUID",
            id,
            vec![
                id,
                "00112233-4455-6677-8899-AABBCCDDEEFF",
                "00112233445566778899aabbccddeeff",
                "x",
            ],
        ),
        ("VARCHAR", "five", vec!["five", "Five", "five "]),
        ("DATE", "2024-01-31", vec!["2024-01-31", "2024-1-31", "infinity"]),
        ("DECIMAL(9, 2)", "5", vec!["5", "5.00", "5.001"]),
        ("BOOLEAN", "true", vec!["true", "t", "1"]),
    ] {
        let (root, writer) = (Root::new(), Writer::new());
        let select = format!(
            "SELECT CASE WHEN i % 2 = 0 THEN '{other}'::{ty} END AS user_id, i AS id FROM range(5000) t(i)"
        );
        writer.land(&root, "notes", &select);
        let scoped = ("MARTD_SCOPE_COLUMN", "user_id");
        let files = Martd::start_with(root.path(), &[scoped, ("MARTD_DECODED_MEMORY", "0")]);
        let decoded = Martd::start_with(root.path(), &[scoped, ("MARTD_CACHE", "0")]);
        let ask = |martd: &Martd, scope: &str| {
            let body =
                json!({ "sql": "SELECT id FROM mart.notes WHERE id >= ?", "params": [4990] });
            let answer = martd.post_with(&body, &[("martd-scope", &format!("user_id={scope}"))]);
            assert_eq!(answer.status, 200, "{ty} {scope}: {answer:?}");
            answer.rows()
        };
        files.wait_ready();
        decoded.wait_ready();
        wait_for("a decoded mart", || {
            ask(&decoded, other);
            (Scrape::of(&decoded).value("martd_decoded_marts") == 1.0).then_some(())
        });
        assert_eq!(ask(&decoded, other).as_array().map(Vec::len), Some(5), "{ty}");
        for value in values {
            assert_eq!(ask(&decoded, value), ask(&files, value), "{ty} {value}");
        }
    }
}

#[test]
fn what_has_no_room_or_is_nested_is_read_from_its_file() {
    let (root, writer) = (Root::new(), Writer::new());
    writer.land(
        &root,
        "large",
        "SELECT i AS x, 'a rather long text ' || i AS t FROM range(300_000) t(i)",
    );
    writer.land(&root, "nested", "SELECT [i, i] AS l, {'a': i} AS s FROM range(1_000) t(i)");
    writer.land(&root, "small", "SELECT i AS x FROM range(1_000) t(i)");
    let settings = [("MARTD_CACHE", "0"), ("MARTD_DECODED_MEMORY", "4MiB"), ("RUST_LOG", "debug")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    for mart in ["large", "nested"] {
        for _ in 0..8 {
            assert_eq!(martd.query(&format!("SELECT count(*) FROM mart.{mart}")).status, 200);
        }
    }
    let nested = ("nested", "it has a column of a nested type");
    wait_declined(&martd, &[("large", "MARTD_DECODED_MEMORY is used up"), nested]);
    heat(&martd, &root, "small");
    let sql = "SELECT sum(l[1]) + (SELECT sum(x) FROM mart.small) AS s FROM mart.nested";
    assert_eq!(martd.query(sql).value(), 2 * 499_500);
    assert_eq!(
        martd.query("SELECT max(t) AS t FROM mart.large").value(),
        "a rather long text 99999"
    );
}

#[test]
fn a_file_that_is_not_copied_is_read_anew_by_each_statement() {
    let (root, writer) = (Root::new(), Writer::new());
    writer.land(&root, "held", "SELECT 1 AS x");
    let settings = [("MARTD_CACHE", "0"), ("MARTD_PIN_MEMORY", "0"), ("RUST_LOG", "debug")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    for _ in 0..8 {
        assert_eq!(martd.query("SELECT x FROM mart.held").value(), 1);
    }
    wait_declined(&martd, &[("held", "its file is not copied, or shown as empty")]);
}

/// Waits until these marts, in this order, were not held decoded for these reasons.
fn wait_declined(martd: &Martd, expected: &[(&str, &str)]) {
    wait_for("the reasons", || {
        let log = martd.log();
        let declined = log.iter().filter(|line| line["message"] == "not held decoded");
        let reasons: Vec<(&str, &str)> = declined
            .filter_map(|line| Some((line["mart"].as_str()?, line["reason"].as_str()?)))
            .collect();
        (reasons == expected).then_some(())
    });
}
