"""PEP 249, as duckdb's Python package has it: a connection is a cursor, too.

A connection costs nothing: it is a view of a `Client`, which keeps the sockets.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from .errors import InterfaceError
from .parameters import Params
from .source import Answer

if TYPE_CHECKING:
    from .client import Consistent, Queries

apilevel = "2.0"
threadsafety = 1
"""Threads may share the module, and a `Client`, but not a connection."""
paramstyle = "qmark"
"""`$name` with a mapping, and `$1` with a list, work as well."""


class Cursor:
    """Runs statements, and hands out their rows with the values of duckdb's `fetchall()`."""

    rowcount = -1
    """As with duckdb: not known."""
    arraysize = 1

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._answer: Answer | None = None
        self._is_closed = False

    @property
    def description(self) -> list[tuple[str, str, None, None, None, None, None]] | None:
        """The columns: the name, DuckDB's type, and five times None."""
        if self._answer is None:
            return None
        return [(name, ty, None, None, None, None, None) for name, ty in self._answer.columns]

    def execute(self, query: str, parameters: Params = None) -> Self:
        """Runs a statement. All of its rows come at once; more than martd lets through are an error."""
        if self._is_closed or self._connection._is_closed:
            raise InterfaceError("the connection or cursor is closed")
        self._answer = None
        self._answer = self._connection._queries._ask(query, parameters, None, self._connection._scope)
        return self

    def executemany(self, query: str, parameters: Iterable[Params]) -> Self:
        """Runs a statement with each of several parameters. The rows are the last one's."""
        for each in parameters:
            self.execute(query, each)
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or none."""
        return next(self._asked().rows, None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next rows, `arraysize` of them unless `size` says it."""
        return list(islice(self._asked().rows, self.arraysize if size is None else size))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        return list(self._asked().rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._asked().rows

    def fetch_arrow_table(self) -> Any:
        """All rows as a `pyarrow.Table`."""
        return self._asked().table()

    def df(self) -> Any:
        """All rows as a `pandas.DataFrame`."""
        from .frames import pandas

        return pandas(self._asked().table())

    def pl(self) -> Any:
        """All rows as a `polars.DataFrame`."""
        from .frames import polars

        return polars(self._asked().table())

    def setinputsizes(self, sizes: object) -> None:
        """Does nothing: PEP 249 asks for it."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Does nothing: PEP 249 asks for it."""

    def close(self) -> None:
        """Lets go of the rows. A closed cursor cannot be used again."""
        self._answer = None
        self._is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self) -> Answer:
        if self._answer is None:
            raise InterfaceError("there is no result; call execute first")
        return self._answer


class Connection(Cursor):
    """A way to a `Client` by statements and rows. Each statement reads the snapshot that is current."""

    def __init__(self, queries: "Queries", scope: str | None, close: Callable[[], None] | None = None) -> None:
        super().__init__(self)
        self._current = self._queries = queries
        self._scope = scope
        self._on_close = close

    def cursor(self) -> Cursor:
        """Another cursor, which sees the same transaction."""
        return Cursor(self)

    def begin(self) -> Self:
        """From here to `commit` or `rollback` all statements read one snapshot."""
        self._queries = self._current._consistent()
        return self

    def commit(self) -> Self:
        """Ends what `begin` began; else does nothing, for nothing is written."""
        self._queries = self._current
        return self

    def rollback(self) -> Self:
        """As `commit`."""
        return self.commit()

    def close(self) -> None:
        """Ends the connection, and its cursors with it."""
        super().close()
        if self._on_close is not None:
            self._on_close()


class _Types:
    """Equal to the names of DuckDB's types that are of one kind."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __eq__(self, other: object) -> bool:
        return self is other or isinstance(other, str) and other.partition("(")[0] in self._names

    __hash__ = None  # type: ignore[assignment]


STRING = _Types("VARCHAR", "ENUM", "UUID", "JSON", "BIT")
BINARY = _Types("BLOB")
NUMBER = _Types(
    "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
    "UBIGINT", "UHUGEINT", "BIGNUM", "FLOAT", "DOUBLE", "DECIMAL",
)  # fmt: skip
DATETIME = _Types(
    "DATE", "TIME", "TIME_NS", "TIME WITH TIME ZONE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS",
    "TIMESTAMP WITH TIME ZONE", "INTERVAL",
)  # fmt: skip
ROWID = _Types()

Date, Time, Timestamp, Binary = dt.date, dt.time, dt.datetime, bytes


def DateFromTicks(ticks: float) -> dt.date:  # noqa: N802 (PEP 249's name)
    """The local date at a time since 1970."""
    return dt.date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> dt.time:  # noqa: N802
    """The local time of day at a time since 1970."""
    return dt.time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> dt.datetime:  # noqa: N802
    """The local time at a time since 1970."""
    return dt.datetime(*time.localtime(ticks)[:6])
