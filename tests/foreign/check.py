"""Has martd serve a folder of Parquet files, and compares with what DuckDB reads in them.

    python check.py DIR [--verbose]

Each `*.parquet*` below DIR is copied as a mart beside the others. What DuckDB reads must be served, with the same
columns and rows in every format, and the same counts for `column = value`; what it does not read must be rejected
with a reason. Prints what became of the files, and ends with 1 when there is a difference.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "answers"))
import duckdb  # noqa: E402
from martd import FORMATS, Martd, Question, Refused  # noqa: E402
from values import Difference, Expected, Kind, Result, ask_duckdb, compare_in_order, decode  # noqa: E402

DIFFERENT = "DIFFERENT"
READ_WITHIN_S = 60
# A file that may be half written is given 30 s until it is rejected; others are judged as they are read.
JUDGED_WITHIN_S = 180
# Values of a column that are asked for with `=`, and columns of a file that they are asked of.
VALUES, COLUMNS = 2, 50
# Conditions that one statement asks.
CONDITIONS = 20
# What martd rejects although DuckDB reads it: DuckDB reads it wrongly, or only at times.
STRICTER = re.compile(r"has a DECIMAL of|names \d+ columns otherwise|nests its columns|, but claims ")
# DuckDB before 1.5.6 cuts nanoseconds off a TIME.
HAS_TIME_NS = tuple(map(int, duckdb.__version__.split(".")[:3])) >= (1, 5, 6)


@dataclass
class Read:
    """What DuckDB says of a file."""

    result: Result | None = None
    columns: list[tuple[str, str]] = field(default_factory=list)
    # A column, SQL of a condition on it, and how many rows of a table it has.
    conditions: list[tuple[str, str, int]] = field(default_factory=list)
    error: str = ""


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def select(columns: list[tuple[str, str]], of_martd: bool) -> str:
    """Everything; what no format has is cast, and for DuckDB what its Python package has no values of."""
    casts = []
    for name, ty in columns:
        column = quoted(name)
        if "VARIANT" in ty:
            casts.append(f"{column}::JSON AS {column}")
        elif ty.startswith("GEOMETRY") and not of_martd:
            casts.append(f"ST_AsWKB({column}) AS {column}")
        elif ty == "TIME_NS" and of_martd and not HAS_TIME_NS:
            casts.append(f"{column}::TIME AS {column}")
    return f"SELECT * REPLACE ({', '.join(casts)})" if casts else "SELECT *"


def read(path: Path) -> Read:
    """Reads a whole file into a table, so that no statistics of the file's have a say."""
    try:
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        connection.execute("CREATE TABLE t AS FROM read_parquet(?, hive_partitioning = false)", [str(path)])
        columns = [(row[0], row[1]) for row in connection.execute("DESCRIBE t").fetchall()]
        conditions = []
        for name, _ in columns[:COLUMNS]:
            try:
                sql = f"SELECT DISTINCT {quoted(name)}::VARCHAR FROM t ORDER BY ALL LIMIT {VALUES}"
                for [value] in connection.execute(sql).fetchall():
                    if value is None:
                        condition = f"{quoted(name)} IS NULL"
                    else:
                        text = value.replace("'", "''")
                        condition = f"{quoted(name)} = '{text}'"
                    [[count]] = connection.execute(f"SELECT count(*) FROM t WHERE {condition}").fetchall()
                    conditions.append((name, condition, count))
            except (duckdb.Error, UnicodeDecodeError):
                pass  # no such comparison, or a BLOB's text
        return Read(ask_duckdb(connection, f"{select(columns, of_martd=False)} FROM t"), columns, conditions)
    except Exception as error:
        return Read(error=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")


def read_apart(path: Path) -> Read:
    """Reads a file in a process that it may take down with it."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(read(path)))
    child.start()
    sender.close()
    try:
        if not receiver.poll(READ_WITHIN_S):
            return Read(error=f"DuckDB reads for longer than {READ_WITHIN_S} s")
        answer: Read = receiver.recv()
        return answer
    except EOFError:
        return Read(error="DuckDB crashes")
    finally:
        child.kill()
        child.join()
        receiver.close()


def lay_out(folder: Path, marts: Path) -> dict[str, Path]:
    """Copies the files to where martd serves them; returns them by the names of their marts."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.parquet*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        name = " ".join(path.relative_to(folder).parts).replace(".parquet", "", 1)
        while name.lower() in (known.lower() for known in files):
            name += "'"
        files[name] = path
        (marts / f"{name}.parquet").write_bytes(path.read_bytes())
    return files


def judge(martd: Martd, count: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Waits until martd has an opinion of every file: the marts, and reasons for what it rejects."""
    deadline = time.monotonic() + JUDGED_WITHIN_S
    while True:
        snapshot = martd.snapshot()
        marts = {mart["name"]: mart for mart in snapshot.get("marts", [])}
        rejected = {
            fault["file"].removesuffix(".parquet"): fault["reason"] for fault in snapshot["rejected"]
        }
        if len(marts) + len(rejected) == count:
            return marts, rejected
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all files are judged: {snapshot['landing']} are landing")
        time.sleep(0.1)


def compare(martd: Martd, name: str, mart: Any, expected: Read) -> None:
    """Asks for all rows in every format, and for the counts of conditions."""
    assert expected.result is not None
    columns = [(column["name"], column["type"]) for column in mart["columns"]]
    if [same(*column) for column in columns] != expected.columns:
        differ = next(pair for pair in zip(columns + [None], expected.columns + [None]) if pair[0] != pair[1])
        raise Difference(f"column {differ[0]}, and DuckDB has {differ[1]}")
    table = f"mart.{quoted(name)}"
    rows = Expected(expected.result)
    variants = [name for name, ty in columns if "VARIANT" in ty]
    for format in FORMATS:
        try:
            if variants:
                refused(martd, f"FROM {table}", format, variants[0])
            answer = martd.ask(Question(f"{select(columns, of_martd=True)} FROM {table}"), format)
            compare_in_order(rows, format, decode(format, answer, rows.kinds))
        except (Difference, Refused) as error:
            raise Difference(f"{format}: {error}") from None
    cut = {name for name, ty in columns if ty == "TIME_NS" and not HAS_TIME_NS}
    conditions = [(sql, count) for name, sql, count in expected.conditions if name not in cut]
    for at in range(0, len(conditions), CONDITIONS):
        batch = conditions[at : at + CONDITIONS]
        sql = " UNION ALL ".join(f"SELECT count(*) FROM {table} WHERE {condition}" for condition, _ in batch)
        answers = decode("json", martd.ask(Question(sql), "json"), [Kind("bigint")])
        for (condition, count), [answer] in zip(batch, answers):
            if answer != count:
                raise Difference(f"{answer} rows have {condition}, and in DuckDB's table {count}")


def same(name: str, ty: str) -> tuple[str, str]:
    """A column as this DuckDB would have it."""
    return name, "TIME" if ty == "TIME_NS" and not HAS_TIME_NS else ty


def refused(martd: Martd, sql: str, format: str, column: str) -> None:
    """A statement that answers what no format has is told which column that is."""
    try:
        martd.ask(Question(sql), format)
    except Refused as problem:
        if problem.slug == "unsupported-type" and quoted(column) in str(problem):
            return
        raise
    raise Difference(f"{sql} is answered, and column {column} has no form")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--verbose", action="store_true", help="tell of every file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="martd-foreign-") as directory:
        marts = Path(directory, "mart")
        marts.mkdir()
        files = lay_out(arguments.folder, marts)
        if not files:
            print(f"{arguments.folder} has no Parquet files", file=sys.stderr)
            return 2
        expected = {name: read_apart(path) for name, path in files.items()}
        with Martd(Path(directory), {"MARTD_CACHE": "0", "MARTD_PUBLISH": "file"}) as martd:
            served, rejected = judge(martd, len(files))
            counts: Counter[str] = Counter()
            for name, path in files.items():
                shown = str(path.relative_to(arguments.folder))
                outcome, detail = check(martd, name, served.get(name), rejected.get(name), expected[name])
                counts[outcome] += 1
                if arguments.verbose or outcome == DIFFERENT:
                    print(f"{outcome}: {shown}: {detail}")
            if len(martd.snapshot()["marts"]) != len(served):
                counts[DIFFERENT] += 1
                print(f"{DIFFERENT}: other marts are served at the end than at the beginning")
    print(f"{len(files)} files: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return 1 if counts[DIFFERENT] else 0


def check(martd: Martd, name: str, mart: Any, reason: str | None, expected: Read) -> tuple[str, str]:
    """What became of a file, and details."""
    if reason is not None:
        if expected.error and reason:
            return "rejected", f"{reason} (DuckDB: {expected.error})"
        if STRICTER.search(reason):
            return "rejected on purpose", reason
        return DIFFERENT, f"rejected ({reason}), and DuckDB reads it"
    if expected.error:
        return DIFFERENT, f"served, and DuckDB does not read it ({expected.error})"
    try:
        compare(martd, name, mart, expected)
    except (Difference, Refused) as error:
        return DIFFERENT, str(error)
    assert expected.result is not None
    return "served", f"{len(expected.result.rows)} rows"


if __name__ == "__main__":
    sys.exit(main())
