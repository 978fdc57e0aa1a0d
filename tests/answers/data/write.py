"""What the data scripts have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb


def pick(values: Sequence[str], hash: str) -> str:
    """SQL that picks one of some texts."""
    texts = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"[{texts}][1 + {hash} % {len(values)}]"


def write_marts(directory: Path, tables: Mapping[str, str]) -> None:
    """Writes each table as a mart. Each statement may read the tables before it."""
    marts = directory / "mart"
    marts.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    # A random number from 0 on that only depends on a row's key and on what it is for.
    connection.execute("CREATE MACRO h(key, what) AS (hash(hash(key, what)) >> 11)::BIGINT")
    for name, select in tables.items():
        connection.execute(f"CREATE TABLE {name} AS {select}")
        connection.execute(f"COPY {name} TO '{marts / name}.parquet' (FORMAT parquet, ROW_GROUP_SIZE 20480)")
