"""Whole datasets as CSV and Parquet: the same as DuckDB's own, and never half a file."""

import io
import subprocess
import sys

import duckdb
import pytest
from conftest import write_mart
from daemon import Martd
from martd_client import Client, QueryError

MILLION = 1_000_000
WIDE = (
    "SELECT i, md5(i::VARCHAR)::UUID AS id, DATE '2020-01-01' + (i % 2000)::INTEGER AS day, (i * 0.01)::DECIMAL(18, 2) AS amount, "
    "CASE WHEN i % 7 <> 0 THEN 'note, \"' || i || e'\\n' END AS note, CASE WHEN i % 11 = 0 THEN '' ELSE 'x' END AS mark, "
    "i / 7 AS ratio, i % 2 = 0 AS even, TIMESTAMP '2026-01-01' + to_microseconds(i * 1000003) AS at "
    f"FROM range({MILLION}) t(i)"
)


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    folder = tmp_path_factory.mktemp("million")
    write_mart(folder, "facts", WIDE)
    return folder


@pytest.fixture(scope="module", params=["remote", "local"])
def exporter(request, million):
    if request.param == "local":
        with Client(f"file://{million}") as client:
            yield client
        return
    with Martd(million, MARTD_QUERY_TIMEOUT="300s") as daemon, Client(daemon.ready().url, timeout=300) as client:
        yield client


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_million_rows(exporter, million, tmp_path, format):
    target = tmp_path / f"facts.{format}"
    exporter.export("SELECT * FROM mart.facts", target, format=format)
    mart = f"'{million}/mart/facts.parquet'"
    exported = f"'{target}'" if format == "parquet" else (
        f"read_csv('{target}', header = true, nullstr = '', allow_quoted_nulls = false, quote = '\"', escape = '\"', "
        "columns = {'i': 'BIGINT', 'id': 'UUID', 'day': 'DATE', 'amount': 'DECIMAL(18,2)', 'note': 'VARCHAR', 'mark': 'VARCHAR', "
        "'ratio': 'DOUBLE', 'even': 'BOOLEAN', 'at': 'TIMESTAMP'})"
    )
    assert duckdb.sql(f"SELECT count(*) FROM {exported}").fetchall() == [(MILLION,)]
    for one, other in ((mart, exported), (exported, mart)):
        assert duckdb.sql(f"SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other})").fetchall() == [(0,)]
    described = [duckdb.sql(f"DESCRIBE FROM {each}").fetchall() for each in (mart, exported)]
    assert [row[:2] for row in described[0]] == [row[:2] for row in described[1]]
    assert list(tmp_path.iterdir()) == [target]


def test_both_ways_write_the_same_csv(remote, local):
    columns = [
        "i", "c0", "c4", "c9", "c11", "c13", "c14", "c17", "c18", "c20", "c21", "c22", "c23", "c24", "c31", "c32", "c33",
        "c36", "c37", "c39", "c40", "c42", "c43", "i::HUGEINT AS h", "i AS i", 'i AS "a,b"', "1e16 AS e", "1e-7 AS f", "1e300 AS g",
    ]  # fmt: skip
    for query, params in (
        (f"SELECT {', '.join(columns)} FROM mart.kinds ORDER BY i -- with a comment", None),
        ("SELECT * FROM mart.sales WHERE day = $day ORDER BY i;", {"day": "2026-01-05"}),
        ("SELECT i FROM mart.sales WHERE false", None),
    ):
        written = []
        for client in (remote, local):
            out = io.BytesIO()
            client.export(query, out, params)
            written.append(out.getvalue().decode())
        assert written[0] == written[1]


def test_both_ways_write_parquet_as_duckdb_does(client, old, tmp_path):
    query = "SELECT * EXCLUDE (c42), i::HUGEINT AS h, [i::HUGEINT, NULL] AS l, [1, 2]::INTEGER[2] AS a FROM mart.kinds ORDER BY i"
    old.connection.execute(f"COPY ({query}) TO '{tmp_path}/old.parquet'")
    client.export(query, tmp_path / "new.parquet", format="parquet")
    before, after = (duckdb.read_parquet(f"{tmp_path}/{name}.parquet") for name in ("old", "new"))
    assert after.columns == before.columns
    assert list(map(str, after.types)) == list(map(str, before.types))
    assert str(after.fetchall()) == str(before.fetchall())


def test_parquet_of_an_interval_says_what_to_do(remote, tmp_path):
    with pytest.raises(QueryError, match="column c42 has the type INTERVAL.* cast it"):
        remote.export("SELECT c42 FROM mart.kinds", tmp_path / "x.parquet", format="parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_statement_leaves_what_was_there(client, tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("old")
    for query in ("SELECT nope FROM mart.sales", "SELECT 1) TO 'x'; --"):
        with pytest.raises(QueryError):
            client.export(query, target)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(ValueError, match="csv or parquet"):
        client.export("SELECT 1", target, format="xlsx")


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_an_export_does_not_fit_in_memory(million, tmp_path, format):
    """A process that may have little more memory than it starts with writes an answer many times as large."""
    script = f"""
import resource
import pyarrow.parquet
from martd_client import Client
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (160 << 20),) * 2)
Client(MARTD, timeout=300).export(
    "SELECT a.*, repeat(md5(b.i::VARCHAR), 8) AS text FROM mart.facts a, range(2) b(i)", {str(tmp_path / 'x')!r}, format={format!r})
"""
    with Martd(million, MARTD_QUERY_TIMEOUT="300s") as daemon:
        script = script.replace("MARTD", repr(daemon.ready().url))
        subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=300)
    assert (tmp_path / "x").stat().st_size > (400 << 20 if format == "csv" else 1 << 20)
