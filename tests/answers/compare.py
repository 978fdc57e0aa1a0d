"""Asks martd the published query sets, and DuckDB over tables of the same files.

    python compare.py [--scale 0.01] [SET ...]

What a LIMIT leaves open is not compared: the rows must be among those of the statement without it, and the
statement is asked once more with an order that leaves nothing open.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
from data import clickbench, ssb, tpch
from martd import FORMATS, Martd, Question, Refused
from values import (
    Difference,
    Expected,
    Result,
    Row,
    ask_duckdb,
    compare_as_multisets,
    compare_in_order,
    decode,
)

SETS: dict[str, Callable[[Path, float], None]] = {
    "tpch": tpch.write,
    "clickbench": clickbench.write,
    "ssb": ssb.write,
}
QUERIES = Path(__file__).parent / "queries"
# From more rows on, what a LIMIT left out is not looked at: Python takes too long.
MOST_ROWS = 5_000
LIMIT = re.compile(r"\s+LIMIT\s+\d+(\s+OFFSET\s+\d+)?\s*$", re.IGNORECASE)
ORDER = re.compile(r"\bORDER\s+BY\b(?!.*\bORDER\s+BY\b)[^()]*(\([^()]*\)[^()]*)*$", re.IGNORECASE | re.DOTALL)


def load(directory: Path) -> duckdb.DuckDBPyConnection:
    """Tables of the files, in DuckDB."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2; CREATE SCHEMA mart")
    for path in sorted((directory / "mart").glob("*.parquet")):
        connection.execute(f"CREATE TABLE mart.{path.stem} AS FROM read_parquet('{path}')")
    return connection


def with_total_order(sql: str, columns: int) -> str:
    """The same statement with all of its columns at the end of its ORDER BY."""
    limit = LIMIT.search(sql)
    body, tail = (sql[: limit.start()], limit[0]) if limit else (sql, "")
    by_columns = ", ".join(map(str, range(1, columns + 1)))
    return f"{body}{', ' if ORDER.search(body) else ' ORDER BY '}{by_columns}{tail}"


def check(
    martd: Martd, sql: str, result: Result, times: int, compare: Callable[[Expected, str, list[Row]], None]
) -> None:
    expected = Expected(result)
    for _ in range(times):
        for format in FORMATS:
            actual = decode(format, martd.ask(Question(sql), format), expected.kinds)
            try:
                compare(expected, format, actual)
            except Difference as difference:
                raise Difference(f"{format}: {difference}") from None


def check_query(martd: Martd, connection: duckdb.DuckDBPyConnection, sql: str, times: int) -> int:
    """Returns the number of rows."""
    limited = ask_duckdb(connection, sql)
    count = len(limited.rows)
    body = LIMIT.sub("", sql)
    [(rows,)] = connection.execute(f"SELECT count(*) FROM ({body})").fetchall()
    if rows <= MOST_ROWS:
        unlimited = ask_duckdb(connection, body)
        check(martd, sql, unlimited, times, partial(compare_as_multisets, count=count))
    ordered = with_total_order(sql, len(limited.kinds))
    check(martd, ordered, ask_duckdb(connection, ordered), times, compare_in_order)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--scale", type=float, default=0.01)
    parser.add_argument("--times", type=int, default=3, help="how often each is asked in each format")
    arguments = parser.parse_args()
    failures = 0
    for name in arguments.sets or SETS:
        started = time.monotonic()
        paths = sorted((QUERIES / name).glob("*.sql"))
        empty: list[str] = []
        with tempfile.TemporaryDirectory() as directory:
            SETS[name](Path(directory), arguments.scale)
            connection = load(Path(directory))
            with Martd(Path(directory), {"MARTD_CACHE": "0"}) as martd:
                martd.wait_for_marts(len(list(Path(directory, "mart").glob("*.parquet"))))
                for path in paths:
                    try:
                        if not check_query(martd, connection, path.read_text(), arguments.times):
                            empty.append(path.stem)
                    except (Difference, Refused) as error:
                        failures += 1
                        print(f"{name}/{path.name}: {error}")
        print(
            f"{name}: {len(paths)} queries in {time.monotonic() - started:.1f} s,"
            f" without rows: {', '.join(empty) or 'none'}"
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
