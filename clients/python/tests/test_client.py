"""The client on a real martd, and the same in process."""

import datetime as dt
import subprocess
import sys
import threading
import time

import duckdb
import pytest
from comparison import assert_same
from conftest import write_mart
from daemon import Martd
from martd_client import AnswerCut, AnswerTooLarge, Client, NotReady, QueryError, Unavailable, client as module
from martd_client.errors import position_in

SALES = "SELECT * FROM mart.sales ORDER BY i"

# Statements as an analytics backend has them, which only DuckDB understands.
ANALYTIC = [
    (
        f"SELECT DATE_TRUNC('{granularity}', day) AS period, SUM(amount) AS total, COUNT(*) AS n FROM mart.sales "
        "WHERE user_id IN (SELECT UNNEST($users)) AND day BETWEEN $start AND $end GROUP BY period ORDER BY period",
        {"users": ["0", "2"], "start": dt.date(2026, 1, 10), "end": dt.date(2026, 3, 20)},
    )
    for granularity in ("day", "week", "month", "quarter", "year")
] + [
    (
        "SELECT day, amount, SUM(amount) OVER (PARTITION BY user_id ORDER BY i) AS running FROM mart.sales "
        "WHERE day = $day QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY i DESC) <= 3 ORDER BY i",
        {"day": dt.date(2026, 2, 1)},
    ),
    ("SELECT user_id, list(i ORDER BY i)[:5] AS first, arg_max(note, i) AS last FROM mart.sales GROUP BY ALL ORDER BY ALL", None),
    ("SELECT day, sum(amount) FILTER (user_id = $user_id) AS own FROM mart.sales GROUP BY day ORDER BY day", {"user_id": "1"}),
    ("FROM main_mart.sales SELECT COLUMNS('^(i|day)$') WHERE i < $n ORDER BY ALL", {"n": 5}),
    ("WITH x AS (FROM mart.sales WHERE day >= $since) SELECT count(*) AS n, median(amount) AS m FROM x", {"since": dt.datetime(2026, 2, 1, 12)}),
]


@pytest.mark.parametrize(("query", "params"), ANALYTIC)
def test_analytic_queries(client, old, query, params):
    expected = old.execute_query(query.replace("main_mart", "mart"), params)
    assert expected
    assert_same(client.execute_query(query, params), expected)


@pytest.mark.parametrize("max_rows", [30_000, 100_000])
def test_as_many_rows_as_there_are(client, old, max_rows):
    assert_same(client.execute_query(SALES, max_rows=max_rows), old.execute_query(SALES, max_rows=max_rows))


@pytest.mark.parametrize("max_rows", [0, 1, 9_999, 10_000, 29_999])
def test_more_rows_than_max_rows_are_an_error(client, max_rows):
    with pytest.raises(AnswerTooLarge, match=f"more than max_rows={max_rows} rows.*LIMIT"):
        client.execute_query(SALES, max_rows=max_rows)
    assert len(client.execute_query(f"FROM mart.sales LIMIT {max_rows}", max_rows=max_rows)) == max_rows


def test_ten_thousand_rows_unless_told_otherwise(client):
    with pytest.raises(AnswerTooLarge, match="max_rows=10000"):
        client.execute_query(SALES)
    assert len(client.execute_query("FROM mart.sales LIMIT 10000")) == 10_000


def test_a_negative_max_rows_is_wrong(client):
    with pytest.raises(ValueError, match="max_rows is -1; use 0 or more"):
        client.execute_query(SALES, max_rows=-1)


def test_a_martd_that_lets_through_less(parquet_dir, old, tmp_path):
    """Its maximum is not known to the client, and need not be."""
    with Martd(parquet_dir, MARTD_MAX_ROWS="5000") as daemon, Client(daemon.ready().url) as asked:
        query = "FROM mart.sales WHERE i < 5000 ORDER BY i"
        assert_same(asked.execute_query(query), old.execute_query(query))
        assert asked.query_arrow(query).num_rows == 5000
        for ask in (
            lambda: asked.execute_query(SALES),
            lambda: asked.execute_query(SALES, max_rows=5000),
            lambda: asked.query_arrow(SALES),
            lambda: asked.connection().execute(SALES),
            lambda: asked.export(SALES, tmp_path / "x.csv"),
            lambda: asked.export(SALES, tmp_path / "x.parquet", format="parquet"),
        ):
            with pytest.raises((AnswerTooLarge, AnswerCut)):
                ask()
        assert list(tmp_path.iterdir()) == []


def test_a_mart_without_rows_has_none(client):
    assert client.execute_query("SELECT * FROM mart.hollow") == []
    # Its writer is not dbt, and means its one row.
    assert client.execute_query("SELECT * FROM mart.lone") == [{"a": None, "user_id": None}]


@pytest.mark.parametrize(
    ("query", "slug", "position"),
    [
        ("selec", "sql-error", 0),
        ("SELECT 1,\n  x FROM mart.sales", "sql-error", 12),
        ("SELECT 'x'::DATE", "sql-error", None),
        ("CREATE TABLE x (a INTEGER)", "statement-not-allowed", None),
        ("SELECT 1; SELECT 2", "statement-not-allowed", None),
        ("", "bad-request", None),
    ],
)
def test_wrong_statements(client, query, slug, position):
    with pytest.raises(QueryError) as caught:
        client.execute_query(query)
    assert caught.value.slug == slug and caught.value.detail
    if position is not None:
        assert caught.value.position == position


def test_errors_of_martd_have_a_request(remote):
    with pytest.raises(QueryError, match="request") as caught:
        remote.execute_query("SELECT * FROM mart.nothing")
    assert caught.value.request_id and caught.value.status == 400


def test_positions_in_long_lines():
    query = "SELECT " + "1, " * 100 + "nope FROM range(1)"
    with pytest.raises(duckdb.Error) as caught:
        duckdb.connect().execute(query)
    assert position_in(query, str(caught.value)) == query.index("nope")


def test_check_and_refresh(client, parquet_dir):
    newest = max(file.stat().st_mtime_ns for file in (parquet_dir / "mart").glob("*.parquet"))
    assert client.check_connection() is True
    refreshed = client.last_refresh_time()
    assert refreshed.tzinfo is not None and int(refreshed.timestamp() * 1e6) == newest // 1000


def test_nothing_there_yet(tmp_path):
    (tmp_path / "mart").mkdir()
    with Martd(tmp_path) as daemon:
        for url in (daemon.url, f"file://{tmp_path}"):
            with Client(url, retry=60, timeout=60) as asked:
                start = time.monotonic()
                assert asked.check_connection() is False
                assert asked.last_refresh_time() is None and asked.snapshot() is None
                with pytest.raises(FileNotFoundError) as caught:
                    asked.execute_query("SELECT 1 FROM mart.x")
                assert type(caught.value) is NotReady and caught.value.slug == "not-ready"
                assert time.monotonic() - start < 30  # at once, as with a file that is not there


def test_one_snapshot_for_several_queries(tmp_path):
    write_mart(tmp_path, "x", "SELECT 1 AS a")
    with Martd(tmp_path) as daemon, Client(daemon.ready().url) as asked, asked.consistent() as view:
        assert view.snapshot is None
        assert view.execute_query("SELECT a FROM mart.x") == [{"a": 1}]
        first = asked.snapshot()
        assert view.snapshot == first
        write_mart(tmp_path, "x", "SELECT 2 AS a")
        daemon.wait_for(lambda served: served["id"] != first)
        assert view.execute_query("SELECT a + 10 AS a FROM mart.x") == [{"a": 11}]
        assert asked.execute_query("SELECT a FROM mart.x") == [{"a": 2}]
        with asked.consistent(first) as past, asked.consistent("f00") as none:
            assert past.execute_query("SELECT a FROM mart.x") == [{"a": 1}]
            assert past.query_arrow("SELECT a FROM mart.x")["a"].to_pylist() == [1]
            with pytest.raises(QueryError) as caught:
                none.execute_query("SELECT 1")
        assert caught.value.slug == "snapshot-gone"


def test_files_that_have_changed_are_another_snapshot(tmp_path):
    write_mart(tmp_path, "x", "SELECT 1 AS a")
    with Client(f"file://{tmp_path}") as asked, asked.consistent() as view:
        assert view.execute_query("SELECT a FROM mart.x") == [{"a": 1}]
        write_mart(tmp_path, "x", "SELECT 2 AS a")
        assert asked.execute_query("SELECT a FROM mart.x") == [{"a": 2}]
        write_mart(tmp_path, "y", "SELECT 3 AS a")
        assert asked.execute_query("SELECT a FROM mart.y") == [{"a": 3}]
        (tmp_path / "mart/x.parquet").unlink()
        with pytest.raises(QueryError, match="x does not exist"):
            asked.execute_query("SELECT a FROM mart.x")
        with pytest.raises(QueryError) as caught:
            view.execute_query("SELECT a FROM mart.x")
        assert caught.value.slug == "snapshot-gone"


@pytest.fixture(params=["remote", "local"])
def scoped(request, parquet_dir, tmp_path):
    if request.param == "local":
        with Client(f"file://{parquet_dir}", scope_param="user_id", unscoped=frozenset({"kinds"})) as asked:
            yield asked
        return
    tokens = tmp_path / "tokens"
    tokens.write_text("s3cret user_id=*\n")
    settings = {"MARTD_SCOPE_COLUMN": "user_id", "MARTD_UNSCOPED": "kinds", "MARTD_TOKEN_FILE": str(tokens)}
    with Martd(parquet_dir, **settings) as daemon, Client(daemon.url, scope_param="user_id", token="s3cret") as asked:
        daemon.ready()
        with pytest.raises(QueryError, match="token"):
            Client(daemon.url, scope_param="user_id", token="wrong").execute_query("SELECT 1", {"user_id": "1"})
        assert Client(daemon.url, token="wrong").check_connection() is False
        yield asked


def test_the_scope_is_a_parameter(scoped):
    count = "SELECT count(*) AS n, min(user_id) AS least, max(user_id) AS most FROM mart.sales"
    everyone = {"n": 10_000, "least": "1", "most": "1"}
    assert scoped.execute_query(count, {"user_id": "1"}) == [everyone]
    assert scoped.execute_query(f"{count} WHERE user_id = $user_id", {"user_id": "1"}) == [everyone]
    assert scoped.execute_query(f"{count} WHERE user_id <> $user_id", {"user_id": "1"})[0]["n"] == 0
    assert scoped.execute_query(count, {"user_id": "it's nobody"})[0]["n"] == 0
    assert scoped.execute_query(count, {"user_id": "2"})[0]["most"] == "2"
    assert scoped.execute_query("SELECT count(*) AS n FROM mart.kinds", {"user_id": "1"}) == [{"n": 5}]
    assert scoped.execute_query("SELECT * FROM mart.hollow", {"user_id": "1"}) == []


@pytest.mark.parametrize("params", [None, {}, {"user_id": None}, {"other": 1}, ["1"]])
def test_a_scope_that_is_missing_is_an_error(scoped, params):
    with pytest.raises(QueryError, match="no user_id, which says whose rows") as caught:
        scoped.execute_query("SELECT count(*) FROM mart.sales", params)
    assert caught.value.slug == "scope-required"


def test_threads_share_a_client(client):
    wrong = []

    def ask(n):
        for _ in range(5):
            rows = client.execute_query("SELECT i FROM mart.sales WHERE i >= $n ORDER BY i LIMIT 3000", {"n": n})
            if [row["i"] for row in rows] != list(range(n, n + 3000)):
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_fork_does_not_use_its_parents_connections(martd):
    script = f"""
import os, sys
from martd_client import Client
client = Client({martd.url!r})
ask = lambda n: client.execute_query("SELECT $n AS n FROM range(20)", {{"n": n}}) == [{{"n": n}}] * 20
assert ask(0)
child = os.fork()
good = all(ask(n) for n in range(os.getpid() % 1000, os.getpid() % 1000 + 200))
if child == 0:
    os._exit(0 if good else 1)
assert os.waitpid(child, 0)[1] == 0 and good
"""
    path = ":".join(sys.path)
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": path}, timeout=60)


@pytest.mark.parametrize("schema", ["mart", "main_mart"])
def test_the_legacy_file(tmp_path, schema):
    """Without a mart the DuckDB file is read; both names of the schema work, whichever it has."""
    path = tmp_path / "analytics.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.x AS SELECT 1 AS a, 'u' AS user_id")
    (tmp_path / "parquet/mart").mkdir(parents=True)
    with Martd(tmp_path / "parquet", DUCKDB_PATH=str(path)) as daemon:
        urls = [daemon.ready().url, f"file://{path}", f"file://{tmp_path}/parquet"]
        for url in urls:
            with Client(url, legacy=str(path)) as asked:
                for name in ("mart", "main_mart"):
                    assert asked.execute_query(f"SELECT a FROM {name}.x") == [{"a": 1}]
                assert asked.check_connection() and asked.last_refresh_time() is not None
                with duckdb.connect(path) as writer:  # nobody holds the file between calls
                    writer.execute("SELECT 1")


def test_a_writer_on_the_legacy_file_is_waited_for(tmp_path):
    path = tmp_path / "analytics.duckdb"
    holder = f"""
import duckdb
connection = duckdb.connect({str(path)!r})
connection.execute("CREATE SCHEMA main_mart; CREATE TABLE main_mart.x AS SELECT 1 AS a")
print("held", flush=True)
input()
connection.close()
"""
    (tmp_path / "parquet/mart").mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "held\n"
        with Martd(tmp_path / "parquet", DUCKDB_PATH=str(path)) as daemon:
            for url in (daemon.url, f"file://{path}"):
                with pytest.raises(Unavailable) as caught:
                    Client(url, retry=0).execute_query("SELECT a FROM mart.x")
                assert caught.value.slug == "legacy-locked"
            answers = []
            asks = [
                threading.Thread(
                    target=lambda url=url: answers.append(
                        Client(url, retry=60, timeout=60).execute_query("SELECT a FROM mart.x")
                    )
                )
                for url in (daemon.url, f"file://{path}")
            ]
            for ask in asks:
                ask.start()
            writer.stdin.write("\n")
            writer.stdin.close()
            for ask in asks:
                ask.join()
            assert answers == [[{"a": 1}]] * 2


def test_a_scope_of_files_does_not_stay(parquet_dir):
    """Each question says whose rows it reads, whatever the one before it did."""
    count = "SELECT count(*) AS n FROM mart.sales"
    with Client(f"file://{parquet_dir}", unscoped=frozenset({"sales"})) as asked:
        for scope, rows in ((None, 30_000), ("user_id=1", 10_000), ("*", 30_000), ("i=7", 1), ("user_id=2", 10_000)):
            assert asked.execute_query(count, scope=scope) == [{"n": rows}]


def test_the_time_zone_of_the_machine_does_not_matter(parquet_dir, martd):
    """Neither what a moment is truncated to nor how it comes."""
    query = "SELECT date_trunc('day', TIMESTAMPTZ '2026-01-31 23:00:00+00') AS d, TIMESTAMPTZ '2026-01-31 23:00:00+00'::DATE AS x"
    script = f"""
from martd_client import Client
print([Client(url).execute_query({query!r}) for url in ({martd.url!r}, "file://{parquet_dir}")])
"""
    environment = {"PYTHONPATH": ":".join(sys.path), "TZ": "Asia/Tokyo"}
    found = subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60, capture_output=True, text=True)
    row = "{'d': datetime.datetime(2026, 1, 31, 0, 0, tzinfo=<UTC>), 'x': datetime.date(2026, 1, 31)}"
    assert found.stdout.strip() == f"[[{row}], [{row}]]"


def test_martd_on_a_unix_socket(parquet_dir, tmp_path, old):
    path = tmp_path / "martd.sock"
    with Martd(parquet_dir, listen=f"unix:{path}") as daemon, Client(f"http+unix://{path}") as asked:
        daemon.until(asked.check_connection)
        assert_same(asked.execute_query(SALES, max_rows=30_000), old.execute_query(SALES, max_rows=30_000))


def test_the_functions_of_the_module(martd, monkeypatch):
    monkeypatch.setenv("MARTD_URL", martd.url)
    monkeypatch.setattr(module, "_default", None)
    assert module.execute_query("SELECT $a AS \"A\"", {"a": 1}) == [{"a": 1}]
    assert module.check_connection() is True
    assert isinstance(module.last_refresh_time(), dt.datetime)
    assert module.default_client() is module.default_client()
