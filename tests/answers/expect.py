"""Writes what the files in `sql/` expect, as DuckDB's tables give it.

    python expect.py [FILE.slt ...]

martd is not asked. Read the difference (`git diff`) before you commit it.
"""

from __future__ import annotations

import base64
import ctypes
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
from values import FLOATS, INTEGERS, Kind, ask_duckdb

ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def show(kind: Kind, value: Any) -> str:
    """A cell as martd's CSV has it, with what would break a line escaped."""
    if value is None:
        return "NULL"
    if kind.id in FLOATS:
        return float_text(float(f"{shortest(kind, value):.11e}"))
    if kind.id == "boolean" or kind.children:
        text = json_text(kind, value)
    elif isinstance(value, bytes):
        text = blob_text(value)
    else:
        text = iso_text(kind, value)
    return "".join(ESCAPES.get(c, c) for c in text) or "(empty)"


def iso_text(kind: Kind, value: Any) -> str:
    finite = kind.id == "timestamp with time zone" and not value.endswith("infinity")
    return f"{value}Z" if finite else str(value)


def shortest(kind: Kind, value: float) -> float:
    """The number with the fewest digits that is the same FLOAT."""
    if kind.id != "float" or not math.isfinite(value):
        return value
    numbers = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next(number for number in numbers if ctypes.c_float(number).value == value)


def float_text(value: float) -> str:
    return re.sub(r"e([+-]?)0*", lambda match: "e" + match[1].strip("+"), repr(value))


def blob_text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def json_text(kind: Kind, value: Any) -> str:
    """A nested value as JSON, with every digit."""
    if value is None:
        return "null"
    match kind.id:
        case "list" | "array":
            return f"[{','.join(json_text(kind.children[0], item) for item in value)}]"
        case "struct" if kind.names:
            fields = zip(kind.names, map(json_text, kind.children, value))
            return "{%s}" % ",".join(f"{quote(name)}:{text}" for name, text in fields)
        case "struct":
            return f"[{','.join(map(json_text, kind.children, value))}]"
        case "map":
            pairs = (map(json_text, kind.children, pair) for pair in value)
            return "[%s]" % ",".join('{"key":%s,"value":%s}' % tuple(pair) for pair in pairs)
        case "boolean":
            return "true" if value else "false"
        case "blob":
            return quote(blob_text(value))
    if kind.id in FLOATS:
        return float_text(shortest(kind, value)) if abs(value) < float("inf") else "null"
    if kind.id in INTEGERS | {"decimal"}:
        return str(value)
    return quote(iso_text(kind, value))


def quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def letter(kind: Kind) -> str:
    return "I" if kind.id in INTEGERS else "R" if kind.id in FLOATS | {"decimal"} else "T"


def blocks(script: str) -> Iterator[list[str]]:
    """Lines between empty lines."""
    for block in re.split(r"\n{2,}", script.strip("\n")):
        yield block.split("\n")


def make_tables(script: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA mart")
    scope = re.search(r"^# scope: (\w+)=(.*)$", script, re.MULTILINE)
    marts = re.findall(r"^# mart (\w+): (.*(?:\n#  .*)*)", script, re.MULTILINE)
    for name, select in marts:
        select = re.sub(r"\n#  ", "\n", select)
        connection.execute(f"CREATE TABLE mart.{name} AS {select}")
        columns = {column for column, *_ in connection.execute(f"DESCRIBE mart.{name}").fetchall()}
        if scope and scope[1] in columns:
            connection.execute(f"DELETE FROM mart.{name} WHERE {scope[1]} IS DISTINCT FROM '{scope[2]}'")
            connection.execute(f"CREATE OR REPLACE TABLE mart.{name} AS FROM mart.{name}")
    return connection


def with_result(connection: duckdb.DuckDBPyConnection, block: list[str]) -> list[str]:
    """A record with what DuckDB says."""
    start = next((n for n, line in enumerate(block) if not line.startswith("#")), len(block))
    comments, record = block[:start], block[start:]
    if not record or record[0].split()[0] not in ("query", "statement"):
        return block
    end = record.index("----") if "----" in record else len(record)
    sql = "\n".join(record[1:end])
    options = record[0].split()[2:] if record[0].startswith("query") else []
    sort = [option for option in options if option in ("rowsort", "nosort")]
    try:
        result = ask_duckdb(connection, sql)
    except duckdb.Error as error:
        kind = str(error).partition(" Error")[0]
        return [*comments, f"statement error {kind} Error", *record[1:end]]
    rows = [list(map(show, result.kinds, row)) for row in result.rows]
    if "rowsort" in sort:
        rows.sort()
    types = "".join(map(letter, result.kinds))
    head = " ".join(["query", types, *sort])
    return [*comments, head, *record[1:end], "----", *("\t".join(row) for row in rows)]


def main(paths: list[Path]) -> None:
    for path in paths:
        script = path.read_text()
        connection = make_tables(script)
        records = (with_result(connection, block) for block in blocks(script))
        path.write_text("\n\n".join("\n".join(record) for record in records) + "\n")


if __name__ == "__main__":
    folder = Path(__file__).parent / "sql"
    main([Path(name) for name in sys.argv[1:]] or sorted(folder.glob("*.slt")))
