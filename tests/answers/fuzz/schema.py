"""Random tables: what is in them, and who writes them as Parquet."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

# Texts that DuckDB casts to a type. `$` stands for a number of the table's own.
VALUES: dict[str, list[str]] = {
    "BOOLEAN": ["true", "false"],
    "TINYINT": ["-128", "127", "0", "-1", "5", "$"],
    "SMALLINT": ["-32768", "32767", "0", "300", "$"],
    "INTEGER": ["-2147483648", "2147483647", "0", "40000", "$", "$"],
    "BIGINT": ["-9223372036854775808", "9223372036854775807", "0", "5000000000", "$", "$"],
    "UTINYINT": ["0", "255", "128", "$"],
    "USMALLINT": ["0", "65535", "300", "$"],
    "UINTEGER": ["0", "4294967295", "2147483648", "$"],
    "UBIGINT": ["0", "18446744073709551615", "9223372036854775808", "$"],
    "DECIMAL(4,1)": ["-999.9", "999.9", "0.0", "0.1", "$"],
    "DECIMAL(9,4)": ["-99999.9999", "0.0001", "12.5", "$"],
    "DECIMAL(18,2)": ["1234567890123456.78", "-0.01", "0.00", "$"],
    "DECIMAL(38,6)": ["99999999999999999999999999999999.999999", "-0.000001", "17.25", "$"],
    "FLOAT": ["nan", "-nan", "inf", "-inf", "-0.0", "0.0", "0.1", "3.4028235e38", "1e-45", "$"],
    "DOUBLE": ["nan", "-nan", "inf", "-inf", "-0.0", "0.0", "0.1", "1.7976931348623157e308", "5e-324", "$"],
    "VARCHAR": ["", "a", "A", "ab", "a,b", 'say "x"', "größe", "中文", "🦆", "two\nlines", "a\0b", "a\0", "ÿ",
                "text of more than twelve letters", "text of more than twelve lettres", "$", "10", "2"],
    "BLOB": ["", "a", r"\xFF", r"\xFF\x00", r"\x00", r"\x80\x81", "text of more than twelve bytes \\xFE", "$"],
    "DATE": ["1970-01-01", "2024-02-29", "0001-01-01", "9999-12-31", "infinity", "-infinity", "2024-03-01"],
    "TIME": ["00:00:00", "23:59:59.999999", "12:00:00.5", "24:00:00", "12:00:01"],
    "TIMESTAMP": ["1970-01-01 00:00:00", "1969-12-31 23:59:59.999999", "2024-01-01 00:00:59", "2024-01-01 00:01:00",
                  "0001-01-01 00:00:00", "9999-12-31 23:59:59", "infinity", "-infinity"],
    "TIMESTAMP_S": ["1970-01-01 00:00:00", "2024-01-01 00:00:59", "2024-01-01 00:01:00", "1900-02-28 12:00:00"],
    "TIMESTAMP_MS": ["1970-01-01 00:00:00.001", "2024-01-01 00:00:59.999", "1969-12-31 23:59:59.999"],
    "TIMESTAMP_NS": ["1970-01-01 00:00:00.000000001", "2024-01-01 00:00:59.999999999", "1969-12-31 23:59:59.5"],
    "TIMESTAMPTZ": ["1970-01-01 00:00:00+00", "2024-01-01 00:00:59+02", "2024-01-01 00:01:00.5+00", "infinity", "-infinity"],
    "UUID": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
             "7fffffff-ffff-ffff-ffff-ffffffffffff", "80000000-0000-0000-0000-000000000000"],
    "ENUM('sad', 'ok', 'happy')": ["sad", "ok", "happy"],
    "INTERVAL": ["1 month", "30 days", "1 day 01:00:00", "7 days", "00:00:00", "1 year 2 months"],
}  # fmt: skip
# Texts that are at the edge of some types, and nothing in others.
ODD = [
    "x", "", " 5 ", "300", "-129", "65536", "-1", "4294967296", "99999999999999999999999", "1e3", "1e400", "5.5",
    "nan", "-0.0", "2024-01-01 00:00:60", "2024-02-30", "24:00:00", "12:60:00", "infinity", "true", "2024-01-01",
    "294247-01-11 00:00:00", "1.23456789", "\\xFF",
]  # fmt: skip
INTEGERS = ["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"]
# What pyarrow has no Parquet type for.
NOT_FOR_PYARROW = {"INTERVAL"}


def literal(text: str, ty: str = "") -> str:
    sql = "'" + text.replace("'", "''") + "'"
    for control in "\0\n":
        sql = sql.replace(control, f"' || chr({ord(control)}) || '")
    sql = f"({sql})" if " || chr(" in sql else sql
    return f"{sql}::{ty}" if ty else sql


@dataclass(frozen=True)
class Column:
    """A column: its type in the table, and the texts of values that are in it."""

    name: str
    type: str
    values: tuple[str, ...]

    @property
    def is_integer(self) -> bool:
        return self.type in INTEGERS

    @property
    def is_nested(self) -> bool:
        return self.type.endswith("]") or self.type.startswith(("STRUCT", "MAP"))


@dataclass(frozen=True)
class Table:
    """A mart: `id` counts its rows, `k` has each value a few times, `user_id` says whose a row is."""

    name: str
    select: str
    columns: tuple[Column, ...]

    def select_of(self, names: set[str]) -> str:
        """The statement that makes it, with the columns that are looked at."""
        head, *columns = self.select.split("\n")
        *columns, tail = columns
        kept = [c for c in columns if c.rstrip(",").rsplit(" AS ", 1)[1] in names | {"id", "k", "user_id"}]
        return "\n".join([head, *kept, tail])


def make_values(rng: random.Random, ty: str) -> list[str]:
    values = rng.sample(VALUES[ty], rng.randint(2, len(VALUES[ty])))
    return [value.replace("$", str(rng.randint(1, 90))) for value in values]


def make_table(rng: random.Random, name: str, directory: Path) -> tuple[Table, str]:
    """Writes a table, and says how."""
    by_pyarrow = rng.random() < 0.5
    rows = rng.choice([1, 7, 100, 1_000, 2_048, 2_049, 5_000, 20_000])
    types = [ty for ty in VALUES if not (by_pyarrow and ty in NOT_FOR_PYARROW)]
    made: list[tuple[str, str, list[str]]] = []
    for number in range(rng.randint(4, 9)):
        ty = rng.choice(types)
        values = make_values(rng, ty)
        # Clustered, so that row groups differ, or not.
        place = rng.choice([f"i * {{n}} // {rows}", f"hash(hash(i, {number})) % {{n}}", "i // 3 % {n}"])
        items = [literal(value, ty) for value in values] + [f"NULL::{ty}"] * rng.choice([0, 1, 3])
        rng.shuffle(items)
        if rng.random() < 0.15:
            shape = rng.choice(["[{0}, {1}]", "[{0}]", "{{'a': {0}, 'b': {1}}}", "MAP {{'k': {0}, 'l': {1}}}"])
            items = [shape.format(item, rng.choice(items)) for item in items] + ["NULL"]
        sql = f"[{', '.join(items)}][1 + ({place.format(n=len(items))})::BIGINT]"
        made.append((f"c{number}", sql, values))
    columns = [
        "i AS id,",
        f"i % {max(rows // 3, 1)} AS k,",
        "(i % 10)::INTEGER AS user_id,",
        *(f"{sql} AS {name}," for name, sql, _ in made),
    ]
    select = "\n".join(["SELECT", *columns, f"FROM range({rows}) t(i)"])
    path = directory / f"{name}.parquet"
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    group = rng.choice([2_048, 4_096, 100_000])
    if by_pyarrow:
        options = {
            "row_group_size": rng.choice([100, 1_000, 5_000, 100_000]),
            "use_dictionary": rng.random() < 0.5,
            "compression": rng.choice(["snappy", "zstd", "none"]),
            "write_statistics": rng.random() < 0.8,
            "data_page_version": rng.choice(["1.0", "2.0"]),
        }
        pq.write_table(connection.execute(select).to_arrow_table(), path, **options)
        how = f"pyarrow.parquet.write_table(…, {options})"
    else:
        codec = rng.choice(["snappy", "zstd", "uncompressed"])
        version = rng.choice(["V1", "V2"])
        how = f"FORMAT parquet, ROW_GROUP_SIZE {group}, COMPRESSION {codec}, PARQUET_VERSION {version}"
        connection.execute(f"COPY ({select}) TO '{path}' ({how})")
    described = connection.execute(f"DESCRIBE FROM read_parquet('{path}')").fetchall()
    types_read = {column: ty for column, ty, *_ in described}
    found = tuple(Column(name, types_read[name], tuple(values)) for name, _, values in made)
    return Table(name, select, found), how
