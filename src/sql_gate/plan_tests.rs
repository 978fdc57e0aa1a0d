//! Which prepared plans this version of DuckDB executes again with the same answer: the validator's
//! `keep_prepared` is false for all others.

use duckdb::Connection;
use duckdb::types::Value;

use super::Validator;
use super::tests::on_a_large_stack;

const ROWS: &str = "
    SET threads = 2;
    CREATE SCHEMA mart;
    CREATE TABLE mart.a AS SELECT i::INT AS id, (i % 7)::INT AS k, (i * 37 % 100)::INT AS v,
        'n' || (i % 11) AS s, DATE '2024-01-01' + (i % 50)::INT AS d,
        TIMESTAMP '2024-01-01' + INTERVAL (i) HOUR AS ts, [i % 3, i % 5] AS l,
        CASE WHEN i % 5 > 0 THEN i % 13 END AS n FROM range(400) t(i);
    CREATE TABLE mart.b AS SELECT i::INT AS id, (i % 5)::INT AS k, (i * 31 % 90)::INT AS v,
        'n' || (i % 9) AS s, DATE '2024-01-03' + (i % 40)::INT AS d,
        TIMESTAMP '2024-01-02' + INTERVAL (i * 2) HOUR AS ts,
        CASE WHEN i % 4 > 0 THEN i % 17 END AS n FROM range(200) t(i);
";

/// Statements of every shape that DuckDB plans in its own way. `$1` is given as 3, `$2` as 40.
fn plans() -> Vec<String> {
    const KEYS: &[&str] = &[
        "a.id = b.id",
        "a.id % 7 = b.id % 7",
        "a.k is not distinct from b.n",
        "a.id > b.id",
        "a.v < b.v and a.id > b.id",
        "a.id <> b.id",
        "a.d = b.d and a.id > b.id",
        "a.id % 7 = b.id % 7 and a.id > b.id",
        "a.ts between b.ts and b.ts + interval 3 hour",
        "a.id = b.id or a.s = b.s",
    ];
    const WINDOWS: &[&str] = &[
        "row_number()",
        "rank()",
        "dense_rank()",
        "ntile(4)",
        "percent_rank()",
        "cume_dist()",
        "first_value(v)",
        "last_value(n ignore nulls)",
        "lead(v, 2, 0)",
        "lag(v)",
        "nth_value(v, 2)",
        "sum(v)",
        "count(distinct k)",
        "median(v)",
        "list(v)",
        "max(v) filter (where k > $1)",
        "max_by(id, v, 3)",
        "mode(k)",
    ];
    const FRAMES: &[&str] = &[
        "",
        "order by id",
        "partition by k order by id",
        "partition by k % $1 order by id",
        "order by id rows between 2 preceding and $1 following",
        "order by ts range between interval 2 hour preceding and current row",
        "order by id groups between 1 preceding and current row exclude ties",
    ];
    const OTHERS: &[&str] = &[
        "select * from mart.a positional join mart.b",
        "select count(*) from mart.a natural join mart.b",
        "select count(*) from mart.a join mart.b using (k)",
        "select a.id, x.mv from mart.a a, lateral (select max(v) mv from mart.b b where b.k = a.k) x",
        "select a.id, x.v from mart.a a left join lateral \
         (select v from mart.b b where b.id = a.id order by v limit $1) x on true",
        "select a.id, u.x from mart.a a, unnest(a.l) u(x)",
        "select a.id, r.x from mart.a a, lateral (select * from range(a.k)) r(x)",
        "with recursive t(n) as (select $1::int union all select n + 1 from t where n < $2) from t",
        "with recursive t(n) as (select 1 union select (n * 3) % 17 from t) from t",
        "with recursive t(a, b) using key (a) as \
         (select 1, 1 union select a, b + 1 from t where b < 5) from t",
        "with recursive t as (select id, k from mart.a where id = 1 union all \
         select a.id, a.k from mart.a a join t on a.id = t.id * 2) from t",
        "with x as materialized (select k, sum(v) s from mart.a group by k) \
         select * from x y join x z on y.k = z.k + 1",
        "with x as not materialized (select k, sum(v) s from mart.a where v > $1 group by k) \
         select * from x y join x z using (k)",
        "select unnest(l), unnest([1, 2, $1]) from mart.a",
        "select unnest([{'a': 1, 'b': [2]}], recursive := true)",
        "from mart.a pivot (sum(v) for k in (1, 2, 3) group by s)",
        "from (select id, v, k from mart.a) unpivot (x for name in (v, k))",
        "from (select id, v, n from mart.a) unpivot include nulls (x for name in (v, n))",
        "select count(*) from (from mart.a using sample 10 rows)",
        "select count(*) from mart.a tablesample reservoir (20 rows)",
        "select count(*) >= 0 from mart.a using sample 10% (bernoulli)",
        "select list_transform(l, x -> x + $1), list_filter(l, lambda x: x > 1) from mart.a",
        "select list_reduce(l, (x, y) -> x + y), [x + k for x in l if x > 1] from mart.a",
        "select list_transform(l, x -> list_transform(l, y -> x * y + v)) from mart.a",
        "from mart.a where v in (select v from mart.b where b.k = a.k)",
        "from mart.a where k not in (select n from mart.b where v > $1)",
        "from mart.a where v > any (select v from mart.b where v < $2)",
        "from mart.a where v > all (select v from mart.b where v < $1)",
        "from mart.a where exists (from mart.b where b.id = a.id and b.v > a.v)",
        "from mart.a where not exists (from mart.b where b.k = a.k and b.v > $1)",
        "from mart.a where (k, v) in (select k, v from mart.b)",
        "from mart.a where v = (select max(v) from mart.b where b.k = a.k)",
        "select id, (select count(*) from mart.b where b.k = a.k and b.v < a.v) from mart.a",
        "select id, (select list(v order by v) from mart.b where b.k = a.k) from mart.a",
        "select id, array(select v from mart.b where b.k = a.k order by v limit $1) from mart.a",
        "select k, s, count(*) from mart.a group by grouping sets ((k), (s), ())",
        "select k, s, sum(v), grouping(k) from mart.a group by rollup (k, s)",
        "select k, s, count(distinct v) from mart.a group by cube (k, s)",
        "select k, median(v), mode(s order by s), approx_top_k(k, 3) from mart.a group by k",
        "select k, list(distinct v order by v), histogram(k) from mart.a group by all",
        "select k, sum(v) filter (where v > $1) from mart.a group by k having count(*) > $1",
        "select distinct on (k) k, id from mart.a order by k, v, id",
        "select distinct k, s from mart.a",
        "select k from mart.a qualify row_number() over (partition by k order by id) <= $1",
        "from mart.a order by v desc, id limit $1 offset $2",
        "from mart.a order by id limit 10%",
        "from mart.a order by id limit $1%",
        "from mart.a order by id limit (select max(k) from mart.b)",
        "from mart.a where k in ($1, $2, 5)",
        "from mart.a where id in ($1, $2, 5, 6, 7, 8, 9)",
        "from mart.a where list_contains([$1, $2], id)",
        "from mart.a where v between $1 and $2 and s like 'n1%'",
        "select min(columns(* exclude (l))) from mart.a",
        "from mart.a a join mart.b b on a.id = b.id join mart.a c on c.id = b.v where a.k = $1",
        "values (1, 2), (3, $1)",
        "select $1::int + $2::int",
        "from range($1) t(i) join mart.a on a.id = i",
        "describe mart.a",
        "summarize mart.a",
        "select a.id, j.key from mart.a a, json_each('{\"a\":' || a.id || '}') j",
    ];
    let mut all: Vec<String> = OTHERS.iter().map(|&sql| sql.to_owned()).collect();
    for join in ["join", "left join", "right join", "full join", "semi join", "anti join"] {
        for asof in ["", "asof "] {
            for on in KEYS {
                all.push(format!("select count(*) from mart.a a {asof}{join} mart.b b on {on}"));
                all.push(format!(
                    "select a.k, count(*) from mart.a a {asof}{join} \
                     (from mart.a where v > $1) b on {on} group by all"
                ));
            }
        }
    }
    for window in WINDOWS {
        for frame in FRAMES {
            all.push(format!("select id, {window} over ({frame}) from mart.a"));
        }
    }
    for operation in ["union", "union all", "union by name", "except", "except all", "intersect"] {
        all.push(format!("select k, v from mart.a {operation} select k, v from mart.b"));
        all.push(format!(
            "select k, v from mart.a where v > $1 {operation} select k, v from mart.b \
             order by all limit $2"
        ));
    }
    all
}

/// The rows of one execution, in any order.
fn run(statement: &mut duckdb::Statement<'_>, parameters: usize) -> duckdb::Result<Vec<String>> {
    let values = [3, 40];
    let mut rows = statement.query(duckdb::params_from_iter(&values[..parameters]))?;
    let mut answer = Vec::new();
    while let Some(row) = rows.next()? {
        let columns = row.as_ref().column_count();
        let values = (0..columns).map(|column| row.get::<_, Value>(column));
        let values = values.collect::<duckdb::Result<Vec<_>>>()?;
        answer.push(format!("{values:?}"));
    }
    answer.sort();
    Ok(answer)
}

#[test]
fn kept_plans_give_the_same_answer_five_times() {
    on_a_large_stack(|| {
        let validator = Validator::new().unwrap();
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(ROWS).unwrap();
        let mut wrong = Vec::new();
        let mut kept = 0;
        for sql in plans() {
            let validated = validator.validate(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
            if !validated.keep_prepared {
                continue;
            }
            // What DuckDB does not support at all is not what this is about.
            let Ok(mut statement) = connection.prepare(&sql) else { continue };
            let Ok(first) = run(&mut statement, validated.parameters.len()) else { continue };
            kept += 1;
            for _ in 1..5 {
                match run(&mut statement, validated.parameters.len()) {
                    Ok(again) if again == first => {}
                    Ok(_) => wrong.push(format!("{sql}: another answer")),
                    Err(error) => wrong.push(format!("{sql}: {error}")),
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(kept > 250, "{kept}");
    });
}

#[test]
fn asof_joins_are_prepared_anew() {
    let validator = Validator::new().unwrap();
    let kept = |sql: &str| validator.validate(sql).unwrap().keep_prepared;
    for sql in [
        "from mart.a asof join mart.b on a.id % 7 = b.id % 7 and a.id > b.id",
        "from mart.a asof left join mart.b using (k, ts)",
        "select (select count(*) from mart.a asof join mart.b on a.d = b.d and a.id > b.id)",
        "with x as (from mart.a asof join mart.b on a.id > b.id) select 1 union from x",
        "describe from mart.a asof join mart.b on a.id > b.id",
    ] {
        assert!(!kept(sql), "{sql}");
    }
    assert!(kept("from mart.a join mart.b on a.id % 7 = b.id % 7 and a.id > b.id"));
    assert!(kept("select 1 as asof"));
}

#[test]
fn computed_window_frames_are_not_remembered() {
    let validator = Validator::new().unwrap();
    for (frame, fixed) in [
        ("rows between n preceding and current row", false),
        ("rows between 1 preceding and n % 3 following", false),
        ("groups between n preceding and 1 following", false),
        ("rows between 2 preceding and $1 following", true),
        ("range between interval 2 hour preceding and current row", true),
        ("", true),
    ] {
        let sql = format!("select sum(v) over (order by ts {frame}) from mart.a");
        let validated = validator.validate(&sql).unwrap();
        assert_eq!(validated.keep_prepared, fixed, "{sql}");
        assert_eq!(validated.cacheable, fixed, "{sql}");
    }
}
