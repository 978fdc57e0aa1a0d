"""The old client, and what counts as the same answer."""

import datetime as dt
import math

import duckdb


def same(found, expected):
    """Equal in value and in type, through all levels."""
    if isinstance(expected, float) and math.isnan(expected):
        return isinstance(found, float) and math.isnan(found)
    if type(found) is not type(expected):
        return False
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, dict):
        return same(list(found.items()), list(expected.items()))
    if isinstance(expected, dt.datetime):
        return found == expected and repr(found) == repr(expected)  # the class of the time zone, too
    if isinstance(expected, dt.time):
        return found == expected and found.utcoffset() == expected.utcoffset()
    return repr(found) == repr(expected)  # 0.0 is not -0.0, nor is 1.0 the same Decimal as 1.00


def assert_same(found, expected):
    if not same(found, expected):
        for row, (left, right) in enumerate(zip(found, expected, strict=False)):
            assert same(left, right), f"row {row}: {left!r} is not {right!r}"
        assert len(found) == len(expected)
        raise AssertionError("differs")


class OldClient:
    """What an application had before: DuckDB's rows as dicts with lower-case keys, cut at `max_rows`."""

    def __init__(self, parquet_dir):
        self.connection = duckdb.connect()
        self.connection.execute("CREATE SCHEMA mart; SET GLOBAL TimeZone = 'UTC'")
        for file in (parquet_dir / "mart").glob("*.parquet"):
            self.connection.execute(f"CREATE TABLE mart.{file.stem} AS FROM '{file}'")

    def execute_query(self, query, params=None, max_rows=10_000):
        cursor = self.connection.execute(query, params)
        names = [column[0].lower() for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchmany(max_rows)]
