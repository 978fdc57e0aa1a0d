"""Published sets of queries: martd over HTTP and DuckDB in process, asked in turn.

The data and the queries are those with which tests/answers checks martd. The data comes from hashes of row
numbers: it has no other seed, and is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
import json
from pathlib import Path
import shutil
import subprocess
import sys
import time
from typing import Protocol

from servers import Asked, Martd

ANSWERS = Path(__file__).parents[2] / "tests" / "answers"
sys.path.append(str(ANSWERS))

from data import clickbench, tpch

MARTD, VIEWS, TABLES = "martd", "views", "tables"
#: More than any of the answers has.
MOST_ROWS = 1_000_000
#: Turns that do not count.
WARM_UP = 2


@dataclass(frozen=True)
class QuerySet:
    name: str
    title: str
    write: Callable[[Path, float], None]
    scale: float
    about: str

    def queries(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in sorted((ANSWERS / "queries" / self.name).glob("*.sql"))}


SETS = {
    "tpch": QuerySet("tpch", "TPC-H", tpch.write, 0.1, "scale 0.1: 150,000 orders with about 600,000 lines"),
    "clickbench": QuerySet("clickbench", "ClickBench", clickbench.write, 0.01, "100,000 rows of 105 columns"),
}


@dataclass
class Measured:
    """One set: for each query, how many rows and what each turn of each contestant took, in milliseconds."""

    of: QuerySet
    rows: dict[str, int] = field(default_factory=dict)
    ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)


class Contestant(Protocol):
    def ask(self, sql: str) -> tuple[int, float]:
        """How many rows the answer has, and in how many milliseconds all of it was there."""


class OverHttp:
    def __init__(self, server: Martd) -> None:
        self.server = server
        self.connection = server.connect()

    def ask(self, sql: str) -> tuple[int, float]:
        asked = Asked("/v1/query", json.dumps({"sql": sql, "limit": MOST_ROWS}))
        began = time.perf_counter()
        status, body = self.server.ask(asked, connection=self.connection)
        took = time.perf_counter() - began
        if status != 200:
            raise SystemExit(f"martd answers with {status}: {body[:500]!r} to {sql}")
        return len(json.loads(body)["data"]), took * 1e3

    def close(self) -> None:
        self.connection.close()


class InProcess:
    """DuckDB in a process that does nothing else, and that measures itself."""

    def __init__(self, program: str, marts: Path, what: str) -> None:
        self.process = subprocess.Popen(
            [program, str(marts), what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, sql: str) -> tuple[int, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(sql) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"DuckDB in process ended, asked {sql}")
        answer = json.loads(line)
        return answer["rows"], answer["us"] / 1e3

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def measure(queries: QuerySet, root: Path, program: str, turns: int) -> Measured:
    """Makes the data when it is not there, and asks each query in so many turns."""
    source = prepare(queries, root)
    server = Martd(root / "served", source)
    try:
        with (
            closing(OverHttp(server)) as martd,
            closing(InProcess(program, source, VIEWS)) as views,
            closing(InProcess(program, source, TABLES)) as tables,
        ):
            return in_turns(queries, {MARTD: martd, VIEWS: views, TABLES: tables}, turns)
    finally:
        server.stop()


def prepare(queries: QuerySet, root: Path) -> Path:
    """The directory of marts; made anew when what makes it has changed."""
    directory = root / f"{queries.name}-{queries.scale}"
    complete = directory / "complete"
    newest = max(path.stat().st_mtime for path in (ANSWERS / "data").glob("*.py"))
    if not complete.exists() or complete.stat().st_mtime < newest:
        shutil.rmtree(directory, ignore_errors=True)
        queries.write(directory, queries.scale)
        complete.touch()
    return directory / "mart"


def in_turns(queries: QuerySet, contestants: dict[str, Contestant], turns: int) -> Measured:
    """One after the other is asked the same, so that what slows the machine slows all; who begins changes."""
    measured = Measured(queries)
    order = list(contestants)
    for name, sql in queries.queries().items():
        rows: set[int] = set()
        times: dict[str, list[float]] = {who: [] for who in order}
        for turn in range(WARM_UP + turns):
            first = turn % len(order)
            for who in order[first:] + order[:first]:
                count, ms = contestants[who].ask(sql)
                rows.add(count)
                if turn >= WARM_UP:
                    times[who].append(ms)
        if len(rows) != 1:
            raise SystemExit(f"{queries.name} {name}: answers have different numbers of rows: {sorted(rows)}")
        measured.rows[name], measured.ms[name] = rows.pop(), times
    return measured
