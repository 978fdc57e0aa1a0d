"""Connections and cursors: as duckdb's own, over HTTP and in process."""

import datetime as dt
import warnings

import duckdb
import martd_client
import pandas
import pytest
from comparison import assert_same
from conftest import write_mart
from daemon import Martd
from martd_client import Client, InterfaceError, QueryError, connect, get_connection
from values import MADE, STORED

SALES = "SELECT * FROM mart.sales ORDER BY i"
TYPES = ", ".join(f"c{n}" for n in range(len(STORED)))


@pytest.fixture
def connection(client):
    with client.connection() as opened:
        yield opened


@pytest.mark.parametrize("fetch", [
    lambda cursor: cursor.fetchall(),
    lambda cursor: [cursor.fetchone(), cursor.fetchmany(), cursor.fetchmany(3), cursor.fetchall(), cursor.fetchone(), cursor.fetchmany(2)],
    lambda cursor: [cursor.fetchmany(0), cursor.fetchmany(29_999), cursor.fetchmany(5), cursor.fetchall()],
    lambda cursor: [column[0] for column in cursor.description],
    lambda cursor: [(column[0], str(column[1]), *column[2:]) for column in cursor.description],
    lambda cursor: cursor.rowcount,
    lambda cursor: (lambda df: [df.shape, int(df.i.sum()), list(df.columns)])(cursor.df()),
])  # fmt: skip
@pytest.mark.parametrize("query", [SALES, f"SELECT {TYPES} FROM mart.kinds ORDER BY i", 'SELECT 1 AS i, 2 AS "B" WHERE false'])
def test_what_a_cursor_gives(connection, old, query, fetch):
    """The application does not see which of the two it has."""
    results = []
    for each in (connection, old.connection.cursor()):
        try:
            results.append(fetch(each.execute(query)))
        except (AttributeError, duckdb.Error, QueryError) as error:  # no column i, an infinite date
            results.append(type(error) is AttributeError)
    assert_same([results[0]], [results[1]])


@pytest.mark.parametrize("expression", MADE)
def test_types_by_name(connection, old, expression):
    query = f"SELECT {expression} AS x"
    expected = old.connection.execute(query).description[0][1]
    assert connection.execute(query).description[0][1] == str(expected)


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT count(*) FROM mart.sales WHERE user_id = $user AND day >= $since", {"user": "1", "since": dt.date(2026, 2, 1)}),
        ("SELECT count(*) FROM mart.sales WHERE user_id = ? AND day >= ?", ["1", dt.date(2026, 2, 1)]),
        ("SELECT count(*) FROM mart.sales WHERE user_id = $1 AND day >= $2", ("1", dt.date(2026, 2, 1))),
    ],
)
def test_parameters(connection, old, query, params):
    assert connection.execute(query, params).fetchall() == old.connection.execute(query, params).fetchall()


def test_cursors_do_not_share_rows(connection):
    one, other = connection.cursor(), connection.cursor()
    one.execute("SELECT unnest([1, 2])")
    other.execute("SELECT unnest([3, 4])")
    assert (one.fetchone(), other.fetchone(), list(one), list(other)) == ((1,), (3,), [(2,)], [(4,)])
    assert connection.executemany("SELECT $1 + 1", [[1], [2]]).fetchall() == [(3,)]


def test_a_cursor_without_a_result(client):
    opened = client.connection()
    assert opened.description is None
    for fetch in (opened.fetchone, opened.fetchmany, opened.fetchall, opened.df, lambda: list(opened)):
        with pytest.raises(InterfaceError, match="call execute first"):
            fetch()
    opened.execute("SELECT 1")
    with pytest.raises(QueryError):
        opened.execute("selec")
    with pytest.raises(InterfaceError):
        opened.fetchall()  # what was before the error is gone
    cursor = opened.cursor()
    opened.close()
    for each in (opened, cursor):
        with pytest.raises(InterfaceError, match="closed"):
            each.execute("SELECT 1")


def test_a_transaction_reads_one_snapshot(tmp_path):
    write_mart(tmp_path, "x", "SELECT 1 AS a")
    with Martd(tmp_path) as daemon, connect(daemon.ready().url) as opened:
        first = daemon.get("/v1/snapshot")["id"]
        ask = lambda: opened.cursor().execute("SELECT a FROM mart.x").fetchone()  # noqa: E731
        opened.begin()
        assert ask() == (1,)
        write_mart(tmp_path, "x", "SELECT 2 AS a")
        daemon.wait_for(lambda served: served["id"] != first)
        assert ask() == (1,)
        opened.commit()
        assert ask() == (2,)
        opened.begin().rollback()


def test_what_pep_249_asks_for(martd):
    assert (martd_client.apilevel, martd_client.paramstyle, martd_client.threadsafety) == ("2.0", "qmark", 1)
    for child, parent in (
        ("Warning", "Exception"), ("Error", "Exception"), ("InterfaceError", "Error"), ("DatabaseError", "Error"),
        ("DataError", "DatabaseError"), ("OperationalError", "DatabaseError"), ("IntegrityError", "DatabaseError"),
        ("InternalError", "DatabaseError"), ("ProgrammingError", "DatabaseError"), ("NotSupportedError", "DatabaseError"),
        ("QueryError", "ProgrammingError"), ("Unavailable", "OperationalError"), ("AnswerCut", "OperationalError"),
    ):  # fmt: skip
        parents = {"Exception": Exception, **vars(martd_client)}
        assert issubclass(getattr(martd_client, child), parents[parent])
    with connect(martd.url) as opened, opened.cursor() as cursor:
        opened.commit()
        cursor.setinputsizes([1])
        cursor.setoutputsize(1)
        cursor.execute("SELECT 'x', 1.5, DATE '2026-01-31', '\\x00'::BLOB")
        kinds = [martd_client.STRING, martd_client.NUMBER, martd_client.DATETIME, martd_client.BINARY]
        assert [column[1] for column in cursor.description] == kinds
        assert cursor.description[0][1] != martd_client.NUMBER
        assert cursor.fetchall()[0][2] == martd_client.Date(2026, 1, 31)
    moment = martd_client.TimestampFromTicks(0)
    assert (martd_client.DateFromTicks(0), martd_client.TimeFromTicks(0)) == (moment.date(), moment.time())


def test_pandas_reads_sql(connection, old):
    query = "SELECT user_id, day, amount, note FROM mart.sales WHERE user_id = ? AND i < 100 ORDER BY i"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy", UserWarning)
        found, expected = (pandas.read_sql(query, each, params=["1"]) for each in (connection, old.connection))
        pandas.testing.assert_frame_equal(found, expected)
        chunks = list(pandas.read_sql("SELECT i FROM mart.sales ORDER BY i", connection, chunksize=8_000))
        assert [len(chunk) for chunk in chunks] == [8_000] * 3 + [6_000]
        with pytest.raises(QueryError, match="nothing does not exist"):
            pandas.read_sql("SELECT * FROM mart.nothing", connection)


def test_the_scope_of_a_connection(parquet_dir):
    count = "SELECT count(*), max(user_id) FROM mart.sales"
    with Martd(parquet_dir, MARTD_SCOPE_COLUMN="user_id") as daemon:
        for url in (daemon.ready().url, f"file://{parquet_dir}"):
            with connect(url, scope="user_id=1") as opened:
                assert opened.execute(count).fetchone() == (10_000, "1")
            with connect(url, scope_param="user_id") as opened:
                assert opened.execute(count, {"user_id": "2"}).fetchone() == (10_000, "2")
                with pytest.raises(QueryError, match="whose rows"):
                    opened.execute(count, ["2"])


def test_a_connection_of_the_default_client(martd, monkeypatch):
    monkeypatch.setenv("MARTD_URL", martd.url)
    monkeypatch.setattr("martd_client.client._default", None)
    with get_connection() as opened:
        assert opened.execute("SELECT $a AS \"A\"", {"a": 1}).fetchall() == [(1,)]
        assert opened.description[0][0] == "A"
    with get_connection() as again:  # the first one's end did not end the client
        assert again.execute("SELECT 1").fetchone() == (1,)


def test_no_data_is_a_file_that_is_not_there(tmp_path):
    (tmp_path / "mart").mkdir()
    with Martd(tmp_path) as daemon:
        for url in (daemon.url, f"file://{tmp_path}"):
            with Client(url) as asked, asked.connection() as opened, pytest.raises(FileNotFoundError):
                opened.execute("SELECT 1")
