"""Every type of DuckDB: the same Python values as the `fetchall()` of the old client."""

import pytest
from comparison import assert_same
from values import MADE, STORED

STATEMENTS = [
    "SELECT * FROM mart.kinds ORDER BY i",
    "SELECT * FROM mart.kinds WHERE false",
    "SELECT * FROM mart.sales ORDER BY i",
    "SELECT [note, NULL] AS l, {'d': day, 'a': [amount]} AS s FROM mart.sales WHERE i % 7 = 1 ORDER BY i",
    "SELECT day, sum(amount) AS total, avg(amount) AS mean, count(*) AS n FROM mart.sales GROUP BY day ORDER BY day",
    "SELECT MAP {note: i} AS m, if(i % 2 = 0, [i], NULL) AS l FROM mart.sales ORDER BY i LIMIT 5000",
    "SELECT if(i % 3 = 0, INTERVAL (i) DAYS, NULL) AS x, if(i % 5 = 0, NULL, i::HUGEINT) AS h FROM mart.sales ORDER BY i",
    "SELECT 1 AS a, 2 AS a, 3 AS A, 4 AS a_1",
    'SELECT 1 AS "Größe", 2 AS "a b", 3',
    "FROM mart.sales SELECT max(i)",
    "DESCRIBE SELECT 1 AS a",
    "SUMMARIZE SELECT i FROM range(10) t(i)",
]


@pytest.mark.parametrize("number", range(len(STORED)), ids=STORED)
def test_stored_values(client, old, number):
    query = f"SELECT c{number} FROM mart.kinds ORDER BY i"
    expected = old.execute_query(query)
    assert expected[0] != expected[4]  # the fifth row is NULL
    assert_same(client.execute_query(query), expected)


@pytest.mark.parametrize("expression", MADE)
def test_made_values(client, old, expression):
    query = f"SELECT {expression} AS x"
    assert_same(client.execute_query(query), old.execute_query(query))


@pytest.mark.parametrize("query", STATEMENTS)
def test_statements(client, old, query):
    expected = old.execute_query(query, max_rows=40_000)
    assert_same(client.execute_query(query, max_rows=40_000), expected)
