"""DataFrames of Arrow tables, for those who have installed pandas or polars."""

from importlib.util import find_spec
from typing import Any, Literal

import pyarrow as pa

Library = Literal["pandas", "polars"]


def frame(table: Any, library: Library | None) -> Any:
    """A frame of the library that is asked for, else of pandas where there is one."""
    if library is None:
        library = "pandas" if find_spec("pandas") or not find_spec("polars") else "polars"
    if library not in ("pandas", "polars"):
        raise ValueError(f"library is {library!r}; use pandas or polars")
    return pandas(table) if library == "pandas" else polars(table)


def pandas(table: Any) -> Any:
    """A `pandas.DataFrame`: as with duckdb, numbers and moments are pandas's own, not objects."""
    _need("pandas")
    columns = [_for_pandas(column) for column in table.columns]
    return pa.table(columns, names=table.column_names).to_pandas()


def polars(table: Any) -> Any:
    """A `polars.DataFrame`."""
    _need("polars")
    import polars as library

    return library.from_arrow(table)


def _for_pandas(column: Any) -> Any:
    if pa.types.is_decimal(column.type):
        # By its text: Arrow's own cast is off by a bit in one value of seven.
        return column.cast(pa.string()).cast(pa.float64())
    return column.cast(pa.timestamp("us")) if pa.types.is_date(column.type) else column


def _need(library: str) -> None:
    if find_spec(library) is None:
        raise ImportError(f"{library} is not installed: pip install {library}")
