"""Parameters: bound with the type and the value that Python's duckdb binds."""

import datetime as dt
import enum
import uuid
from decimal import Decimal

import duckdb
import pytest
from comparison import assert_same
from martd_client import QueryError

UTC = dt.timezone.utc
ONE = uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")


class Text(str, enum.Enum):
    A = "x"


class Number(enum.IntEnum):
    A = 1


VALUES = [
    None, True, False, 0, 1, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1,
    2**64, 2**127 - 1, -(2**127), 2**127, 2**128 - 1, 1.5, 1.0, -0.0, 1e300, 5e-324, float("nan"), float("inf"),
    float("-inf"), "x", "", "it's $p größe 🦆\n\0", Decimal("1.50"), Decimal("0"), Decimal("-0.01"), Decimal("0.5"),
    Decimal("1e-3"), Decimal("9" * 38), Decimal("-" + "9" * 20 + "." + "1" * 18), Decimal("1" * 39), Decimal("1e-40"),
    Decimal("NaN"), Decimal("Infinity"), ONE, b"", b"\x00a\\x\xff'", bytearray(b"x"), memoryview(b"xy"),
    dt.date(2026, 1, 2), dt.date.max, dt.date.min, dt.datetime(2026, 1, 2, 3, 4, 5, 6), dt.datetime(2026, 1, 2),
    dt.datetime.max, dt.datetime.min, dt.datetime(2026, 1, 2, 3, tzinfo=UTC),
    dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    dt.time(1, 2, 3, 4), dt.time(0),
    dt.timedelta(days=400, seconds=5, microseconds=7), dt.timedelta(days=-1, seconds=5), dt.timedelta(0),
    Text.A, Number.A,
    [], [None], [1, 2], [1, None], [1, 2.5], [1, 2**40], [2**63], [2**63, -1], [2**100, 1], [True, 1], [True, False, None],
    ["a", None, ""], ["a", 1], ["it's", "a, b]"], [Decimal("1.5"), Decimal("1.25")], [Decimal("100"), Decimal("0.001")],
    [Decimal("1"), 1], [Decimal("1.5"), 2.5], [1.5, None, float("inf")], [ONE, None], [ONE, str(ONE)], [b"x\\", b""],
    [dt.date(2026, 1, 2), None], [dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3)],
    [dt.datetime(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=UTC)], [dt.time(1, 2)], [dt.timedelta(days=2)],
    ["2026-01-01", dt.date(2026, 1, 2)], (1, 2), (), list(range(5000)),
]  # fmt: skip

CONTEXTS = [
    ("SELECT DATE '2026-01-01' + $p AS x", 3),
    ("SELECT DATE '2026-01-31' + $p AS x", dt.timedelta(days=400, seconds=1)),
    ("SELECT DATE '2026-01-01' >= $p AS x", "2026-01-01"),
    ("SELECT $p / 2 AS x, $p // 2 AS y", 7),
    ("SELECT i FROM mart.sales WHERE day = $p ORDER BY i LIMIT 5", dt.date(2026, 1, 5)),
    ("SELECT i FROM mart.sales WHERE day >= $p ORDER BY i LIMIT 5", dt.datetime(2026, 1, 5, 12)),
    ("SELECT i FROM mart.sales WHERE amount = $p", Decimal("12.50")),
    ("SELECT i FROM mart.sales WHERE i IN (SELECT unnest($p)) ORDER BY i", [1, 2, None]),
    ("SELECT i FROM mart.sales WHERE day IN (SELECT unnest($p)) AND i < 200 ORDER BY i", [dt.date(2026, 1, 2)]),
    ("SELECT count(*) AS n FROM mart.sales WHERE i = ANY($p)", []),
    ("SELECT i FROM mart.sales ORDER BY i LIMIT $p", 3),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_type_and_value(client, old, value):
    query = "SELECT typeof($p) AS t, $p AS v"
    assert_same(client.execute_query(query, {"p": value}), old.execute_query(query, {"p": value}))


@pytest.mark.parametrize(("query", "value"), CONTEXTS, ids=lambda part: repr(part)[:50])
def test_in_a_statement(client, old, query, value):
    assert_same(client.execute_query(query, {"p": value}), old.execute_query(query, {"p": value}))


def test_by_number(client, old):
    query = "SELECT $1 + $2 AS x, typeof($2) AS t"
    assert_same(client.execute_query(query, [1, dt.date(2026, 1, 2)]), old.execute_query(query, [1, dt.date(2026, 1, 2)]))
    query = "SELECT ? AS x"
    assert client.execute_query(query, ["a"]) == [{"x": "a"}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("1E+3"), Decimal("1000")),
        (Decimal("-Infinity"), float("-inf")),
    ],
)
def test_what_duckdb_binds_wrong(remote, value, expected):
    """1.000 and +inf it is there."""
    assert_same(remote.execute_query("SELECT $p AS x", {"p": value}), [{"x": expected}])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"\$p is a object; use None"),
        ({"a": 1}, r"\$p is a dict"),
        ({1, 2}, r"\$p is a set"),
        (dt.time(1, tzinfo=UTC), r"\$p is a time with a time zone"),
        ([[1]], r"\$p is a list in a list"),
        ([1, dt.date(2026, 1, 2)], r"\$p is a list of different types, INTEGER and DATE"),
        (2**128, r"\$p is an integer of more than 128 bits"),
    ],
    ids=repr,
)
def test_what_cannot_be_a_parameter(remote, value, message):
    with pytest.raises(QueryError, match=message) as caught:
        remote.execute_query("SELECT $p", {"p": value})
    assert caught.value.slug == "bad-request"


@pytest.mark.parametrize("params", [None, {}, {"p": 1, "q": 2}])
def test_missing_and_superfluous(client, params):
    with pytest.raises(QueryError, match="p|q"):
        client.execute_query("SELECT $p", params)


def test_one_text_is_not_a_list_of_parameters(remote):
    with pytest.raises(TypeError, match="params must be"):
        remote.execute_query("SELECT $1", "x")


def test_the_table_has_every_scalar_type_of_duckdb():
    bound = {duckdb.execute("SELECT typeof($p)", {"p": value}).fetchall()[0][0] for value in VALUES}
    scalars = {name.partition("(")[0] for name in bound if not name.endswith("[]")}
    assert scalars == {
        '"NULL"', "BOOLEAN", "INTEGER", "BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "DOUBLE", "FLOAT", "VARCHAR", "DECIMAL",
        "UUID", "BLOB", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIME", "INTERVAL",
    }  # fmt: skip
