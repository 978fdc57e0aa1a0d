"""Arrow tables and DataFrames: the same over HTTP and in process, and as duckdb's own."""

import importlib.util

import pandas
import polars
import polars.testing
import pytest
from martd_client import QueryError, frames
from martd_client.arrow import NOT_IN_ARROW
from values import MADE, STORED

SALES = "SELECT * FROM mart.sales ORDER BY i"
IN_ARROW = [n for n, expression in enumerate(STORED) if "INTERVAL" not in expression]


def shown(table):
    """NaN is not equal to itself; and it does not matter what the items of a list are called."""
    return str(table["x"].combine_chunks()).replace("list<l: ", "list<item: ")


@pytest.mark.parametrize("number", IN_ARROW, ids=[STORED[n] for n in IN_ARROW])
def test_stored_values(client, old, number):
    query = f"SELECT c{number} AS x FROM mart.kinds ORDER BY i"
    found, expected = client.query_arrow(query), old.connection.execute(query).to_arrow_table()
    assert found["x"].type == expected["x"].type
    assert shown(found) == shown(expected)


@pytest.mark.parametrize("expression", MADE)
def test_made_values(client, old, expression):
    """A type that Arrow has not is an error that says so, never something else in its place."""
    query = f"SELECT {expression} AS x"
    cursor = old.connection.execute(query)
    ty = str(cursor.description[0][1])
    if any(word in ty for word in NOT_IN_ARROW):
        with pytest.raises(QueryError, match="column x has the type .*; cast it") as caught:
            client.query_arrow(query)
        assert caught.value.slug == "unsupported-format"
        return
    if "1701411834604692317316873037158841057" in expression:
        try:  # exact, or an error
            found = client.query_arrow(query)
            assert str(found["x"].combine_chunks()) == str(cursor.to_arrow_table()["x"].combine_chunks())
        except QueryError as error:
            assert "column x has a HUGEINT of more than 38 digits" in error.detail
        return
    found, expected = client.query_arrow(query), cursor.to_arrow_table()
    if ty == '"NULL"':
        assert found["x"].to_pylist() == [None]
    elif not expression.startswith("row("):  # over HTTP, fields without a name are numbered
        assert found["x"].type == expected["x"].type
        assert shown(found) == shown(expected)


@pytest.mark.parametrize("query", [
    SALES,
    "SELECT day, sum(amount) AS total, sum(i) AS whole, avg(amount) AS mean, count(*) AS n FROM mart.sales GROUP BY day ORDER BY day",
    "SELECT i, NULL::UUID AS u, md5(note)::UUID AS id, [md5(note)::UUID] AS ids, {'u': md5(note)::UUID} AS s FROM mart.sales ORDER BY i",
    "SELECT * FROM mart.sales WHERE false",
])  # fmt: skip
def test_whole_tables(client, old, query):
    expected = old.connection.execute(query).to_arrow_table()
    assert client.query_arrow(query).equals(expected)
    assert client.connection().execute(query).fetch_arrow_table().equals(expected)
    polars.testing.assert_frame_equal(client.query_df(query, library="polars"), polars.from_arrow(expected))


@pytest.mark.parametrize("query", [
    SALES,
    "SELECT day, sum(amount) AS total, sum(i) AS whole, user_id, TIMESTAMPTZ '2026-01-31 12:00:00+00' AS at FROM mart.sales GROUP BY ALL ORDER BY ALL",
    "SELECT (i * 7919 / 100)::DECIMAL(18, 2) AS d, (i * 7919 / 1000)::DECIMAL(38, 3) AS e FROM mart.sales ORDER BY i",
    "SELECT if(i % 2 = 0, day, NULL) AS d, if(i % 3 = 0, amount, NULL) AS a, if(i % 5 = 0, note, NULL) AS n FROM mart.sales ORDER BY i",
])  # fmt: skip
def test_pandas_frames_are_duckdbs(client, old, query):
    expected = old.connection.execute(query).df()
    pandas.testing.assert_frame_equal(client.query_df(query), expected, check_exact=True)
    pandas.testing.assert_frame_equal(client.connection().execute(query).df(), expected, check_exact=True)


def test_parameters_and_the_library(client):
    query, params = "SELECT i FROM mart.sales WHERE i < $n ORDER BY i", {"n": 3}
    assert list(client.query_df(query, params).i) == [0, 1, 2]
    assert client.query_df(query, params, library="polars")["i"].to_list() == [0, 1, 2]
    assert client.connection().execute(query, params).pl()["i"].to_list() == [0, 1, 2]
    with pytest.raises(ValueError, match="library is 'dask'; use pandas or polars"):
        client.query_df(query, params, library="dask")


def test_without_one_of_the_libraries(client, monkeypatch):
    missing = set()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(frames, "find_spec", lambda name: None if name in missing else find_spec(name))
    missing |= {"pandas"}
    assert isinstance(client.query_df("SELECT 1 AS a"), polars.DataFrame)
    with pytest.raises(ImportError, match="pandas is not installed: pip install pandas"):
        client.query_df("SELECT 1 AS a", library="pandas")
    missing |= {"polars"}
    with pytest.raises(ImportError, match="pip install pandas"):
        client.query_df("SELECT 1 AS a")
