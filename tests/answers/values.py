"""Values of DuckDB and of martd's formats in one form, so that they can be compared.

A number is an int, a float, or for DECIMAL its text with every digit; a BLOB is bytes; dates, times and
what else has a text is that text, with the dates in ISO 8601. Nested values are tuples, of pairs for a MAP.
"""

from __future__ import annotations

import base64
import ctypes
import json
import math
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType

Row = tuple[Any, ...]

INTEGERS = {
    "tinyint", "smallint", "integer", "bigint", "hugeint",
    "utinyint", "usmallint", "uinteger", "ubigint", "uhugeint",
}  # fmt: skip
FLOATS = {"float", "double"}
TICKS_PER_SECOND = {
    "timestamp_s": 1,
    "timestamp_ms": 1_000,
    "timestamp": 1_000_000,
    "timestamp with time zone": 1_000_000,
    "timestamp_ns": 1_000_000_000,
}
REL_TOLERANCE = 1e-9
DAYS_OF_400_YEARS = 146_097


class Difference(Exception):
    """An answer that is not the expected one."""


@dataclass(frozen=True)
class Kind:
    """A type, as far as its values' form depends on it."""

    id: str
    children: tuple[Kind, ...] = ()
    names: tuple[str, ...] = ()
    size: int = 0

    @classmethod
    def of(cls, ty: DuckDBPyType) -> Kind:
        if ty.id in ("list", "struct", "map", "array"):
            children: dict[str, Any] = dict(ty.children)
            size = children.pop("size", 0) if ty.id == "array" else 0
            names = tuple(filter(None, children)) if ty.id == "struct" else ()
            return cls(ty.id, tuple(map(cls.of, children.values())), names, size)
        return cls(ty.id)

    def has(self, ids: set[str]) -> bool:
        return self.id in ids or any(child.has(ids) for child in self.children)


def as_text(ty: DuckDBPyType) -> str:
    """The type that has a VARCHAR in the place of everything that is not nested."""
    children: dict[str, Any] = dict(ty.children) if ty.id in ("list", "struct", "map", "array") else {}
    match ty.id:
        case "list":
            return as_text(children["child"]) + "[]"
        case "array":
            return f"{as_text(children['child'])}[{children['size']}]"
        case "struct":
            fields = (f'"{name}" {as_text(child)}' for name, child in children.items())
            return f"STRUCT({', '.join(fields)})"
        case "map":
            return f"MAP({as_text(children['key'])}, {as_text(children['value'])})"
    return "VARCHAR"


# DuckDB -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What DuckDB says of a statement."""

    kinds: list[Kind]
    types: list[str]
    rows: list[Row]


def ask_duckdb(
    connection: duckdb.DuckDBPyConnection, sql: str, params: Sequence[Any] | None = None
) -> Result:
    """Runs a statement over tables, in its order."""
    create = "CREATE OR REPLACE TEMP TABLE answer AS "
    if re.match(r"\s*(describe|summarize)\b", sql, re.IGNORECASE):
        sql = f"FROM ({sql})"
    try:
        connection.execute(create + sql, params or [])
    except UnicodeDecodeError as error:  # a message about a BLOB
        raise duckdb.Error(error.object.decode(errors="replace")) from None
    table = connection.table("answer")
    casts = (f"#{n}::{as_text(ty)} AS c{n}" for n, ty in enumerate(table.types, 1))
    texts = connection.execute(f"SELECT {', '.join(casts)} FROM answer ORDER BY rowid").fetchall()
    kinds = [Kind.of(ty) for ty in table.types]
    rows = [tuple(map(from_text, kinds, row)) for row in texts]
    return Result(kinds, [str(ty) for ty in table.types], rows)


def from_text(kind: Kind, value: Any) -> Any:
    """A value that DuckDB has cast to `as_text`."""
    if value is None:
        return None
    match kind.id:
        case "list" | "array":
            return tuple(from_text(kind.children[0], item) for item in value)
        case "struct":
            fields = value.values() if isinstance(value, dict) else value
            return tuple(map(from_text, kind.children, fields))
        case "map":
            key, item = kind.children
            return tuple((from_text(key, k), from_text(item, v)) for k, v in value.items())
        case "boolean":
            return value == "true"
        case "blob":
            return unescape(value)
    return from_scalar_text(kind, value)


# DuckDB's `12000-01-01`, and `0044-03-15 (BC)`, which is the year -43: there is a year 0.
_YEAR = re.compile(r"^\+?(\d+)(-\d\d-\d\d)( \(BC\))?")


def year_text(year: int) -> str:
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    return f"{sign}{abs(year):04}"


def from_scalar_text(kind: Kind, text: str) -> Any:
    if kind.id in INTEGERS:
        return int(text)
    if kind.id == "decimal":
        return re.sub(r"^(-?)\.", r"\g<1>0.", text)  # DuckDB has no digit before the point of DECIMAL(4, 4)
    if kind.id == "float":
        return ctypes.c_float(float(text)).value  # the text has no more digits than it needs
    if kind.id == "double":
        return float(text)
    if kind.id in TICKS_PER_SECOND.keys() | {"date"}:
        text = _YEAR.sub(lambda m: year_text(1 - int(m[1]) if m[3] else int(m[1])) + m[2], text)
    if kind.id in TICKS_PER_SECOND:
        text = text.replace(" ", "T").removesuffix("+00").removesuffix("Z")
        return text.rstrip("0").removesuffix(".") if "." in text else text
    return text


def unescape(text: str) -> bytes:
    """`\\xAA` of a BLOB's text."""
    escaped = re.sub(r"\\x(..)", lambda match: chr(int(match[1], 16)), text)
    return escaped.encode("latin-1")


# martd's formats ----------------------------------------------------------------------------------


class Number(str):
    """A number of JSON with every digit."""


def load_json(text: str | bytes) -> Any:
    def refuse(constant: str) -> None:
        raise Difference(f"{constant} is not JSON")

    return json.loads(
        text, parse_float=Number, parse_int=Number, parse_constant=refuse
    )


def from_json(kind: Kind, value: Any) -> Any:
    if value is None:
        return None
    match kind.id:
        case "list" | "array":
            return tuple(from_json(kind.children[0], item) for item in value)
        case "struct":
            fields = value.values() if isinstance(value, dict) else value
            return tuple(map(from_json, kind.children, fields))
        case "map":
            key, item = kind.children
            return tuple((from_json(key, e["key"]), from_json(item, e["value"])) for e in value)
        case "boolean":
            if not isinstance(value, bool):
                raise Difference(f"{value!r} is no truth value")
            return value
        case "blob":
            return base64.b64decode(value, validate=True)
    numeric = kind.id in INTEGERS | FLOATS | {"decimal"}
    if numeric != isinstance(value, Number):
        raise Difference(f"{value!r} is not how JSON has a {kind.id}")
    return from_scalar_text(kind, str(value))


def from_cell(kind: Kind, cell: str | None) -> Any:
    """A cell of CSV."""
    if cell is None:
        return None
    if kind.children:
        return from_json(kind, load_json(cell))
    match kind.id:
        case "boolean":
            return {"true": True, "false": False}[cell]
        case "blob":
            return base64.b64decode(cell, validate=True)
    return from_scalar_text(kind, cell)


_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\n]*))([,\n])')


def parse_csv(text: str) -> list[list[str | None]]:
    """Records; an empty cell without quotes is None."""
    records: list[list[str | None]] = []
    record: list[str | None] = []
    at = 0
    while at < len(text):
        match = _CELL.match(text, at)
        if match is None:
            raise Difference(f"no CSV: {text[at : at + 80]!r}")
        quoted, plain, end = match.groups()
        record.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        if end == "\n":
            records.append(record)
            record = []
        at = match.end()
    return records


def from_arrow(kind: Kind, array: pa.Array) -> list[Any]:
    """A column of Arrow, without what Python's classes cannot hold."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()

    def each(convert: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
        return [None if value is None else convert(value) for value in values]

    match kind.id:
        case "list" | "map":
            if kind.id == "map":
                parts = (from_arrow(k, a) for k, a in zip(kind.children, (array.keys, array.items)))
                items = list(zip(*parts))
            else:
                items = from_arrow(kind.children[0], array.values)
            ends = array.offsets.to_pylist()
            lists = (tuple(items[a:b]) for a, b in zip(ends, ends[1:]))
            return [v if valid else None for v, valid in zip(lists, array.is_valid().to_pylist())]
        case "array":
            items = from_arrow(kind.children[0], array.values)
            starts = range(array.offset * kind.size, len(items), kind.size)
            valid = array.is_valid().to_pylist()
            return [tuple(items[s : s + kind.size]) if v else None for s, v in zip(starts, valid)]
        case "struct":
            fields = [from_arrow(k, array.field(n)) for n, k in enumerate(kind.children)]
            valid = array.is_valid().to_pylist()
            return [row if v else None for row, v in zip(zip(*fields), valid)]
        case "date":
            return each(day_text, array.cast(pa.int32()).to_pylist())
        case "time" | "time_ns":
            ticks = 10**9 if array.type.unit == "ns" else 10**6
            return each(lambda value: time_text(value, ticks), array.cast(pa.int64()).to_pylist())
        case "interval":
            return each(lambda v: interval_text(**v), array.to_pylist())
        case "uuid":
            return each(lambda value: str(uuid.UUID(bytes=value)), array.to_pylist())
        case "decimal":
            return each(lambda value: format(value, "f"), array.to_pylist())
    if kind.id in TICKS_PER_SECOND:
        ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
        return each(lambda v: timestamp_text(v, ticks), array.cast(pa.int64()).to_pylist())
    values: list[Any] = array.to_pylist()
    return each(int, values) if kind.id in INTEGERS else values


def day_text(days: int) -> str:
    if abs(days) == (1 << 31) - 1:
        return "infinity" if days > 0 else "-infinity"
    # Python has no years before 1 or after 9999. All spans of 400 years are alike.
    spans, days = divmod(days, DAYS_OF_400_YEARS)
    day = date(1970, 1, 1) + timedelta(days)
    return f"{year_text(day.year + 400 * spans)}-{day.month:02}-{day.day:02}"


def time_text(ticks: int, per_second: int) -> str:
    seconds, part = divmod(ticks, per_second)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    fraction = f"{part:0{len(str(per_second)) - 1}}".rstrip("0") if part else ""
    return f"{text}.{fraction}" if fraction else text


def timestamp_text(ticks: int, per_second: int) -> str:
    if abs(ticks) == (1 << 63) - 1:
        return "infinity" if ticks > 0 else "-infinity"
    days, rest = divmod(ticks, 86_400 * per_second)
    return f"{day_text(days)}T{time_text(rest, per_second)}"


def interval_text(months: int, days: int, micros: int) -> str:
    years = int(months / 12)
    parts = ((years, "year"), (months - 12 * years, "month"), (days, "day"))
    words = [f"{count} {unit}{'s' if abs(count) != 1 else ''}" for count, unit in parts if count]
    if micros or not words:
        words.append("-" * (micros < 0) + time_text(abs(micros), 1_000_000))
    return " ".join(words)


def decode(format: str, body: bytes, kinds: list[Kind]) -> list[Row]:
    """The rows of an answer in one of martd's formats."""
    match format:
        case "json":
            answer = load_json(body)
            if answer["truncated"] or len(answer["data"]) != int(answer["rows"]):
                raise Difference("the answer is cut, or has another number of rows than it says")
            rows: Iterable[Any] = answer["data"]
            return [tuple(map(from_json, kinds, row.values())) for row in rows]
        case "ndjson":
            rows = map(load_json, body.decode().split("\n")[:-1])
            return [tuple(map(from_json, kinds, row.values())) for row in rows]
        case "csv":
            cells = parse_csv(body.decode())[1:]
            return [tuple(map(from_cell, kinds, row)) for row in cells]
    table = pa.ipc.open_stream(body).read_all()
    columns: list[list[Any]] = [[] for _ in kinds]
    for batch in table.to_batches():
        for kind, column, array in zip(kinds, columns, batch.columns):
            column.extend(from_arrow(kind, array))
    return list(zip(*columns))


def as_json_has_it(kind: Kind, value: Any) -> Any:
    """NULL in the place of what JSON has no number or text for."""
    if value is None or (kind.id in FLOATS and not math.isfinite(value)):
        return None
    if kind.id in ("list", "array"):
        return tuple(as_json_has_it(kind.children[0], item) for item in value)
    if kind.id == "struct":
        return tuple(map(as_json_has_it, kind.children, value))
    if kind.id == "map":
        return tuple(tuple(map(as_json_has_it, kind.children, pair)) for pair in value)
    if kind.id in TICKS_PER_SECOND.keys() | {"date"} and value in ("infinity", "-infinity"):
        return None
    return value


class Expected:
    """What DuckDB says of a statement, as each format has it."""

    def __init__(self, result: Result) -> None:
        self.kinds = result.kinds
        self._rows: dict[str, list[Row]] = {"arrow": result.rows}
        self._counts: dict[str, Counter[Row]] = {}

    def rows(self, format: str) -> list[Row]:
        if format not in self._rows:
            text_only = FLOATS | TICKS_PER_SECOND.keys() | {"date"}
            lossy = [
                (format != "csv" or bool(kind.children)) and kind.has(text_only)
                for kind in self.kinds
            ]
            self._rows[format] = self._rows["arrow"] if not any(lossy) else [
                tuple(as_json_has_it(k, v) if bad else v for k, v, bad in zip(self.kinds, row, lossy))
                for row in self._rows["arrow"]
            ]
        return self._rows[format]

    def counts(self, format: str) -> Counter[Row]:
        if format not in self._counts:
            self._counts[format] = Counter(map(_exact, self.rows(format)))
        return self._counts[format]


# Comparing ----------------------------------------------------------------------------------------


def is_close(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b) or math.isclose(a, b, rel_tol=REL_TOLERANCE)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(is_close, a, b))
    return type(a) is type(b) and bool(a == b)


def compare_in_order(expected: Expected, format: str, actual: list[Row]) -> None:
    rows = expected.rows(format)
    for number, (want, have) in enumerate(zip(rows, actual)):
        if not is_close(want, have):
            raise Difference(f"row {number}: expected {want}, and it is {have}")
    if len(rows) != len(actual):
        raise Difference(f"expected {len(rows)} rows, and there are {len(actual)}")


def compare_as_multisets(
    expected: Expected, format: str, actual: list[Row], count: int | None = None
) -> None:
    """All that is expected, in any order, or any so many of its rows."""
    count = len(expected.rows(format)) if count is None else count
    if len(actual) != count:
        raise Difference(f"expected {count} rows, and there are {len(actual)}")
    strangers = Counter(map(_exact, actual)) - expected.counts(format)
    if not strangers:
        return
    # What is left over may differ in the last digits of floats.
    left = list((expected.counts(format) - Counter(map(_exact, actual))).elements())
    for row in strangers.elements():
        near = next((other for other in left if is_close(other, row)), None)
        if near is None:
            example = f", but for example {left[0]}" if left else ""
            raise Difference(f"the row {row} is not expected{example}")
        left.remove(near)


def _exact(value: Any) -> Any:
    """The value with one NaN and one zero, so that equal ones are one key."""
    if isinstance(value, float):
        return math.nan if value != value else value + 0.0
    if isinstance(value, tuple):
        return tuple(map(_exact, value))
    return value
