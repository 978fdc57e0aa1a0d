"""Parquet files of Arrow answers, with the types that DuckDB's own COPY gives them."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from .arrow import duckdb_type
from .errors import QueryError

ROW_GROUP_ROWS = 122_880
"""As in DuckDB's files."""
NOT_IN_PARQUET = ("INTERVAL", "BIT", "BIGNUM", "TIME WITH TIME ZONE", "UNION")
"""Types that martd sends as something else, which would pass for a text or a struct in a file."""


def write(schema: Any, batches: Iterator[Any], out: BinaryIO) -> None:
    """Writes a file, a row group at a time."""
    target = pa.schema([_field(field, field.name) for field in schema])
    with pq.ParquetWriter(out, target, store_schema=False) as writer:
        kept: list[Any] = []
        rows = 0
        for batch in batches:
            columns = [
                column if column.type == field.type else column.cast(field.type)
                for column, field in zip(batch.columns, target, strict=True)
            ]
            kept.append(pa.RecordBatch.from_arrays(columns, schema=target))
            rows += batch.num_rows
            if rows >= ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(kept), row_group_size=rows)
                kept, rows = [], 0
        if rows:
            writer.write_table(pa.Table.from_batches(kept), row_group_size=rows)


def _field(field: Any, column: str) -> Any:
    ty = duckdb_type(field)
    if ty.startswith(NOT_IN_PARQUET):
        raise QueryError(
            f"column {column} has the type {ty}, which Parquet files cannot have here; cast it",
            slug="unsupported-format",
        )
    return pa.field(field.name, _type(ty, field.type, column), field.nullable)


def _type(ty: str, arrow: Any, column: str) -> Any:
    if ty in ("HUGEINT", "UHUGEINT"):
        return pa.float64()
    if pa.types.is_dictionary(arrow):
        return arrow.value_type
    if pa.types.is_map(arrow):
        return pa.map_(_field(arrow.key_field, column), _field(arrow.item_field, column))
    if pa.types.is_fixed_size_list(arrow):
        return pa.list_(_field(arrow.value_field, column))  # Parquet has no size of lists
    if pa.types.is_list(arrow):
        return pa.list_(_field(arrow.value_field, column))
    if pa.types.is_struct(arrow):
        return pa.struct([_field(arrow.field(n), column) for n in range(arrow.num_fields)])
    return arrow
