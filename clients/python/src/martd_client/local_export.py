"""Whole answers as CSV and Parquet, in process. The CSV is martd's: ISO 8601, NULL is empty and an
empty text is `""`."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .errors import QueryError
from .source import Question
from .sql import literal

if TYPE_CHECKING:
    import duckdb

ROWS_AT_ONCE = 10_000
PLAIN = {
    "boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint",
    "uinteger", "ubigint", "uhugeint", "decimal", "bignum", "date", "time", "time_ns",
    "time with time zone", "interval", "uuid", "bit", "float", "double", '"null"',
}  # fmt: skip
TEXTS = {"varchar", "json", "enum"}
MOMENTS = {"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"}
ZONED = "timestamp with time zone"


def csv(connection: "duckdb.DuckDBPyConnection", question: Question, out: BinaryIO) -> None:
    """Writes CSV, whose lines DuckDB makes."""
    columns = _columns(connection, question)
    header = ",".join(_quoted(name) for name, _ in columns)
    out.write(f"{header}\n".encode())
    names = ", ".join(f"c{n}" for n in range(len(columns)))
    line = " || ',' || ".join(_field(f"c{n}", name, ty) for n, (name, ty) in enumerate(columns))
    statement = f"SELECT {line} FROM ({_bare(question.query)}) AS answer({names})"
    cursor = connection.execute(statement, question.params or None)
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        out.write("".join(f"{text}\n" for (text,) in rows).encode())


def parquet(
    connection: "duckdb.DuckDBPyConnection", question: Question, out: BinaryIO, scratch: Path
) -> None:
    """Writes a Parquet file by DuckDB's own COPY."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        file = Path(folder) / "answer.parquet"
        statement = f"COPY ({_bare(question.query)}) TO {literal(str(file))} (FORMAT parquet)"
        connection.execute(statement, question.params or None)
        with file.open("rb") as whole:
            shutil.copyfileobj(whole, out)


def _columns(
    connection: "duckdb.DuckDBPyConnection", question: Question
) -> list[tuple[str, str]]:
    """The name of each column, with a number where it is repeated, and DuckDB's type."""
    statement = f"DESCRIBE {_bare(question.query)}"
    described = connection.execute(statement, question.params or None).fetchall()
    taken = {str(name) for name, *_ in described}
    seen: set[str] = set()
    columns = []
    for name, ty, *_ in described:
        unique = next(each for each in _numbered(str(name)) if each not in seen and (each == name or each not in taken))
        seen.add(unique)
        columns.append((unique, str(ty)))
    return columns


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{count}" for count in itertools.count(1))


def _field(column: str, name: str, ty: str) -> str:
    """An expression for the field of a line."""
    kind = "enum" if ty.startswith("ENUM(") else ty.partition("(")[0].lower()
    text = f"{column}::VARCHAR"
    if ty.endswith("]") or kind not in {*PLAIN, *TEXTS, *MOMENTS, ZONED, "blob"}:
        raise QueryError(
            f"column {name} has the type {ty}, which file:// does not write to CSV; cast it",
            slug="unsupported-format",
        )
    if kind == "blob":
        text = f"base64({column})"
    elif kind in MOMENTS:
        text = f"replace({text}, ' ', 'T')"
    elif kind == ZONED:
        text = f"regexp_replace(replace({text}, ' ', 'T'), '[+]00$', 'Z')"
    elif kind in ("float", "double"):
        text = rf"regexp_replace({text}, 'e[+]?(-?)0*', 'e\1')"  # 1e-7, not 1e-07
    elif kind == "decimal":
        text = rf"regexp_replace({text}, '^(-?)[.]', '\1' || '0.')"  # -0.1, not -.1
    if kind in TEXTS or kind == "blob":
        quoted = f"""'"' || replace({text}, '"', '""') || '"'"""
        needs_quotes = f"""{text} = '' OR regexp_matches({text}, '[",\\r\\n]')"""
        text = f"CASE WHEN {needs_quotes} THEN {quoted} ELSE {text} END"
    return f"coalesce({text}, '')"


def _quoted(text: str) -> str:
    if text and not set(text) & set('",\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def _bare(query: str) -> str:
    """The statement as a part of another: without its semicolon, before a line of its own in case it
    ends in a comment."""
    return f"{query.rstrip().removesuffix(';')}\n"
