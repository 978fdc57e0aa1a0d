"""What psycopg and asyncpg get of a running martd: check.py PORT"""

import asyncio
import datetime
import decimal
import json
import sys
import threading
import time
import uuid

import asyncpg
import psycopg

PORT = int(sys.argv[1])
DSN = f"host=127.0.0.1 port={PORT} user=anyone dbname=martd"

# DuckDB's literal, and what both clients make of it.
VALUES = [
    ("true", True),
    ("(-5)::TINYINT", -5),
    ("200::UTINYINT", 200),
    ("(-300)::SMALLINT", -300),
    ("60000::USMALLINT", 60000),
    ("(-70000)::INTEGER", -70000),
    ("4000000000::UINTEGER", 4000000000),
    ("(-9000000000)::BIGINT", -9000000000),
    ("18000000000000000000::UBIGINT", decimal.Decimal(18000000000000000000)),
    ("(-170141183460469231731687303715884105727)::HUGEINT", decimal.Decimal(-(2**127 - 1))),
    ("1.5::FLOAT", 1.5),
    ("-1e300::DOUBLE", -1e300),
    ("'inf'::DOUBLE", float("inf")),
    ("-0.05::DECIMAL(4,2)", decimal.Decimal("-0.05")),
    ("12345678901234567890.1234::DECIMAL(38,4)", decimal.Decimal("12345678901234567890.1234")),
    ("'größe, \"x\"'", 'größe, "x"'),
    ("'b'::ENUM('a', 'b')", "b"),
    ("'\\x00\\xFF'::BLOB", b"\x00\xff"),
    ("'1b671a64-40d5-491e-99b0-da01ff1f3341'::UUID", uuid.UUID("1b671a64-40d5-491e-99b0-da01ff1f3341")),
    ("DATE '1999-12-31'", datetime.date(1999, 12, 31)),
    ("TIME '12:34:56.789'", datetime.time(12, 34, 56, 789000)),
    ("TIMESTAMP '1969-12-31 23:59:59.999999'", datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)),
    ("TIMESTAMP_S '2026-01-31 12:00:00'", datetime.datetime(2026, 1, 31, 12)),
    ("TIMESTAMP_MS '2026-01-31 12:00:00.5'", datetime.datetime(2026, 1, 31, 12, 0, 0, 500000)),
    ("TIMESTAMP_NS '2026-01-31 12:00:00.123456789'", datetime.datetime(2026, 1, 31, 12, 0, 0, 123456)),
    ("TIMESTAMPTZ '2026-01-31 12:00:00+02'", datetime.datetime(2026, 1, 31, 10, tzinfo=datetime.timezone.utc)),
    ("INTERVAL '3 days 04:05:06.5'", datetime.timedelta(days=3, hours=4, minutes=5, seconds=6.5)),
    ("[1, NULL, 3]", [1, None, 3]),
    ("['a', 'b \"c\"', NULL]", ["a", 'b "c"', None]),
    ("[1.5, 2.25]::DECIMAL(4,2)[]", [decimal.Decimal("1.50"), decimal.Decimal("2.25")]),
    ("[DATE '2026-01-31']", [datetime.date(2026, 1, 31)]),
    ("[]::INTEGER[]", []),
    ("NULL", None),
]
# As JSON.
NESTED = [
    ("{'a': 1, 'b': [2]}", {"a": 1, "b": [2]}),
    ("MAP {'k': 1}", [{"key": "k", "value": 1}]),
    ("[[1], [2, 3]]", [[1], [2, 3]]),
]
# PostgreSQL's name of a type, and a value.
PARAMETERS = [
    ("bool", True), ("int2", -5), ("int4", -70000), ("int8", -9000000000), ("float4", 1.5),
    ("float8", -1e300), ("text", "grö'ße"), ("bytea", b"\x00\xff"),
    ("uuid", uuid.UUID("1b671a64-40d5-491e-99b0-da01ff1f3341")),
    ("date", datetime.date(1999, 12, 31)), ("time", datetime.time(12, 34, 56, 789000)),
    ("timestamp", datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)),
    ("timestamptz", datetime.datetime(2026, 1, 31, 10, tzinfo=datetime.timezone.utc)),
    ("interval", datetime.timedelta(days=3, seconds=6.5)),
]


def fails(state, ask):
    try:
        ask()
    except psycopg.Error as error:
        assert error.sqlstate == state, (state, error.sqlstate, str(error))
        return error
    raise AssertionError(f"{state} was expected")


def with_psycopg():
    with psycopg.connect(DSN, autocommit=True) as connection:
        for binary in (False, True):
            for sql, expected in VALUES + NESTED:
                row = connection.execute(f"SELECT {sql}", binary=binary).fetchone()
                assert row == (expected,), (sql, binary, row)
        for _, value in PARAMETERS:
            row = connection.execute("SELECT %s", [value]).fetchone()
            assert row == (value,), (value, row)
        row = connection.execute("SELECT %s, %b", [decimal.Decimal("12345.678"), decimal.Decimal("-0.001")])
        assert row.fetchone() == (decimal.Decimal("12345.678"), decimal.Decimal("-0.001"))
        row = connection.execute("SELECT count(*) FROM mart.big WHERE id = ANY(%s)", [[1, 2, 3]])
        assert row.fetchone() == (3,)
        for _ in range(8):  # from the fifth on it is prepared
            row = connection.execute("SELECT id FROM mart.big WHERE id = %s", [7]).fetchone()
            assert row == (7,), row
        rows = connection.execute("SELECT id, name FROM mart.big ORDER BY id").fetchall()
        assert len(rows) == 200_000 and rows[-1] == (199_999, "n199999")

        error = fails("42703", lambda: connection.execute("SELECT 1,\n ö FROM mart.big"))
        assert error.diag.statement_position == "12", error.diag.statement_position
        fails("42P01", lambda: connection.execute("SELECT 1 FROM mart.nothing"))
        fails("42601", lambda: connection.execute("SELEC 1"))
        fails("22P02", lambda: connection.execute("SELECT 'x'::INTEGER"))
        fails("0A000", lambda: connection.execute("DELETE FROM mart.big"))
        fails("42501", lambda: connection.execute("SELECT * FROM read_csv('/etc/passwd')"))
        assert connection.execute("SELECT 1").fetchone() == (1,)

        # Cancelled in the middle.
        slow = "SELECT count(*) FROM range(100000000) a, range(1000) b WHERE a.range + b.range = 1"
        timer = threading.Timer(0.3, connection.cancel)
        timer.start()
        began = time.monotonic()
        fails("57014", lambda: connection.execute(slow))
        assert time.monotonic() - began < 8
        timer.join()

    with psycopg.connect(DSN) as connection:
        connection.execute("SELECT 1")
        fails("42601", lambda: connection.execute("SELEC 1"))
        fails("25P02", lambda: connection.execute("SELECT 1"))
        connection.rollback()
        with connection.cursor(name="pages") as cursor:
            cursor.itersize = 30_000
            cursor.execute("SELECT id FROM mart.big WHERE id >= %s ORDER BY id", [0])
            assert [row[0] for row in cursor] == list(range(200_000))
        # One that is left before its end holds no slot.
        for number in range(20):
            cursor = connection.cursor(name=f"left{number}")
            cursor.execute("SELECT id FROM mart.big")
            assert len(cursor.fetchmany(10)) == 10
        assert connection.execute("SELECT count(*) FROM mart.big").fetchone() == (200_000,)


async def with_asyncpg():
    connection = await asyncpg.connect(host="127.0.0.1", port=PORT, user="anyone", database="martd")
    for sql, expected in VALUES:
        row = await connection.fetchrow(f"SELECT {sql}")
        assert row[0] == expected, (sql, row)
    for sql, expected in NESTED:
        row = await connection.fetchrow(f"SELECT {sql}")
        assert json.loads(row[0]) == expected, (sql, row)
    row = await connection.fetchrow("SELECT id, name FROM mart.big WHERE id = $1 AND day < $2", 7, datetime.date(2030, 1, 1))
    assert tuple(row) == (7, "n7"), row
    row = await connection.fetchrow("SELECT amount * $1::DECIMAL(12,2) FROM mart.big WHERE id = 2", decimal.Decimal("2"))
    assert row[0] == 6, row
    for ty, value in PARAMETERS:
        name = {"bytea": "BLOB", "int2": "SMALLINT"}.get(ty, ty)
        row = await connection.fetchrow(f"SELECT $1::{name}", value)
        assert row[0] == value, (ty, value, row)
    async with connection.transaction():
        ids = [row[0] async for row in connection.cursor("SELECT id FROM mart.big ORDER BY id", prefetch=50_000)]
    assert ids == list(range(200_000))
    await connection.close()


with_psycopg()
asyncio.run(with_asyncpg())
