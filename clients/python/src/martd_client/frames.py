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
    target = pa.schema([pa.field(field.name, _for_pandas(field.type)) for field in table.schema])
    return table.cast(target).to_pandas()


def polars(table: Any) -> Any:
    """A `polars.DataFrame`."""
    _need("polars")
    import polars as library

    return library.from_arrow(table)


def _for_pandas(ty: Any) -> Any:
    if pa.types.is_decimal(ty):
        return pa.float64()
    return pa.timestamp("us") if pa.types.is_date(ty) else ty


def _need(library: str) -> None:
    if find_spec(library) is None:
        raise ImportError(f"{library} is not installed: pip install {library}")
