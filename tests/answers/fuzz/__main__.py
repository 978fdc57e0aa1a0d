"""Asks martd random statements over random files, and DuckDB over tables of the same files.

    python -m fuzz [--seed N] [--time 120s] [--restart] [--on-disk]

Ends with 1 at the first difference, with a statement made as small as it can be and the files kept.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import duckdb
from fuzz.schema import Table, make_table
from fuzz.statements import Generator, Statement, numbered
from martd import FORMATS, Martd, Question, Refused, error_kind
from values import Difference, Expected, ask_duckdb, compare_as_multisets, compare_in_order, decode

STATEMENTS_PER_WORLD = 60
ROUNDS = 3
SCOPES = [None, 3, 7]
# What a client may get after we have killed an engine, and asks again.
FOR_A_MOMENT = {"not-ready", "engine-failed", "overloaded"}
PATIENCE_S = 20


@dataclass
class World:
    """Files, a martd that serves all of their rows, one that scopes them, and the same tables in DuckDB."""

    directory: Path
    tables: list[Table]
    written: list[str]
    martds: dict[bool, Martd]
    duckdbs: dict[int | None, duckdb.DuckDBPyConnection]
    failed: bool = False  # whether the last statement did, as it should
    killed_at: float = -math.inf

    @classmethod
    def make(cls, rng: random.Random, directory: Path, settings: dict[str, str]) -> World:
        marts = directory / "mart"
        marts.mkdir()
        made = [make_table(rng, name, marts) for name in ("t0", "t1")]
        duckdbs = {scope: load(marts, scope) for scope in SCOPES}
        settings = {**settings, "MARTD_CACHE": rng.choice(["0", "64MiB"])}
        martds = {
            False: Martd(directory, settings),
            True: Martd(directory, {**settings, "MARTD_SCOPE_COLUMN": "user_id"}),
        }
        for martd in martds.values():
            martd.wait_for_marts(len(made))
        return cls(directory, [table for table, _ in made], [how for _, how in made], martds, duckdbs)

    def stop(self) -> None:
        for martd in self.martds.values():
            martd.stop()

    def kill_engines(self) -> int:
        engines = [pid for martd in self.martds.values() for pid in martd.engines()]
        for pid in engines:
            os.kill(pid, signal.SIGKILL)
            self.killed_at = time.monotonic()
        return len(engines)

    def ask(self, question: Question, format: str) -> bytes:
        while True:
            try:
                return self.martds[question.scope is not None].ask(question, format)
            except Refused as refused:
                is_over = time.monotonic() > self.killed_at + PATIENCE_S
                if refused.slug not in FOR_A_MOMENT or is_over:
                    raise
                time.sleep(0.05)

    def difference(self, statement: Statement, scope: int | None, rounds: int = ROUNDS) -> str | None:
        """What differs, if anything does."""
        part = statement.render()
        sql, parameters = numbered(part)
        values = [parameter.value for parameter in parameters]
        types = {str(n): p.type for n, p in enumerate(parameters, 1) if p.type}
        question = Question(sql, values or None, types or None, None if scope is None else f"user_id={scope}")
        kind = ""
        try:
            expected = Expected(ask_duckdb(self.duckdbs[scope], sql, values))
        except duckdb.Error as error:
            kind = error_kind(str(error))
        compare = compare_in_order if statement.order_by else compare_as_multisets
        for round in range(rounds):
            for format in FORMATS:
                where = f"{format}, asked {round + 1} times: "
                try:
                    body = self.ask(question, format)
                except Refused as refused:
                    if refused.kind != kind or not kind:
                        return where + f"expected {kind or 'rows'}, and it is {refused}"
                    continue
                if kind:
                    return where + f"expected {kind} Error, and there are rows"
                try:
                    compare(expected, format, decode(format, body, expected.kinds))
                except Difference as difference:
                    return where + str(difference)
        self.failed = bool(kind)
        return None


def load(marts: Path, scope: int | None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 1; CREATE SCHEMA mart")
    for path in sorted(marts.glob("*.parquet")):
        connection.execute(f"CREATE TABLE everyone AS FROM read_parquet('{path}')")
        where = "" if scope is None else f"WHERE user_id = {scope}"
        connection.execute(f"CREATE TABLE mart.{path.stem} AS FROM everyone {where}; DROP TABLE everyone")
    return connection


def shrink(world: World, statement: Statement, scope: int | None, problem: str) -> tuple[Statement, str]:
    """The smallest statement that differs, going one part at a time."""
    again = True
    while again:
        again = False
        for smaller in statement.smaller():
            if found := world.difference(smaller, scope, rounds=ROUNDS + 1):
                statement, problem, again = smaller, found, True
                break
    return statement, problem


def report(world: World, statement: Statement, scope: int | None, problem: str) -> None:
    kept = Path(tempfile.mkdtemp(prefix="martd-fuzz-"))
    shutil.copytree(world.directory / "mart", kept / "mart")
    sql, parameters = numbered(statement.render())
    names = set(re.findall(r"\w+", sql)) if "*" not in sql.replace("count(*)", "") else None
    print(f"\nDIFFERENCE {problem}\n\n{sql}")
    if parameters:
        print("parameters:", ", ".join(f"{p.value!r}{f' as {p.type}' if p.type else ''}" for p in parameters))
    if scope is not None:
        print(f"scope: user_id={scope}")
    for table, how in zip(world.tables, world.written):
        if f"mart.{table.name}" in sql:
            all_names = {column.name for column in table.columns}
            print(f"\n-- {table.name}: {how}\n{table.select_of(names or all_names)}")
    print(f"\nThe files are in {kept}: PARQUET_DIR={kept} martd")


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--time", type=seconds, default="60s", help="for example 120s or 10m")
    parser.add_argument("--restart", action="store_true", help="kill engines and restart martd now and then")
    parser.add_argument("--on-disk", action="store_true", help="with so little memory that tables are on disk")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    tables = tempfile.TemporaryDirectory()
    on_disk = {"MARTD_TABLE_MEMORY": "1KiB", "MARTD_TABLE_DIR": tables.name}
    settings = on_disk if arguments.on_disk else {}
    deadline = time.monotonic() + arguments.time
    counts: Counter[str] = Counter()
    for number in range(1_000_000):
        # A world depends on nothing but the seed and its number, so that it comes again.
        rng = random.Random(f"{arguments.seed}/{number}")
        with tempfile.TemporaryDirectory() as directory:
            world = World.make(rng, Path(directory), settings)
            try:
                generator = Generator(rng, world.tables)
                for _ in range(STATEMENTS_PER_WORLD):
                    if time.monotonic() > deadline:
                        print(summary(counts))
                        return 0
                    if arguments.restart and rng.random() < 0.1:
                        counts["engines killed"] += world.kill_engines()
                    if arguments.restart and rng.random() < 0.02:
                        rng.choice(list(world.martds.values())).restart()
                        counts["restarts"] += 1
                    statement, scope = generator.statement(), rng.choice(SCOPES)
                    problem = world.difference(statement, scope)
                    counts["statements"] += 1
                    if problem:
                        report(world, *shrink_with_scope(world, statement, scope, problem))
                        print(summary(counts))
                        return 1
                    counts["of them errors in both"] += world.failed
            finally:
                world.stop()
        counts["pairs of files"] += 1
    return 0


def shrink_with_scope(
    world: World, statement: Statement, scope: int | None, problem: str
) -> tuple[Statement, int | None, str]:
    small, problem = shrink(world, statement, scope, problem)
    if scope is not None and (found := world.difference(small, None, rounds=ROUNDS + 1)):
        return small, None, found
    return small, scope, problem


def summary(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
