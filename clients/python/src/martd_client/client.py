"""A client of martd, and the default one behind the functions of the module."""

import contextlib
import dataclasses
import datetime as dt
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

from .dbapi import Connection
from .errors import MartdError, QueryError
from .frames import Library, frame
from .parameters import Params
from .remote import Remote
from .settings import Folder, Settings
from .source import Answer, Question, Source

MAX_ROWS = 10_000

Format = Literal["csv", "parquet"]


class Queries:
    """What can be asked, of the current snapshot (`Client`) or of one (`Consistent`).

    `scope` is the value of the header `Martd-Scope`, in place of the one that the scope parameter gives.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self.settings = settings
        self._source = source

    def execute_query(
        self, query: str, params: Params = None, max_rows: int = MAX_ROWS, *, scope: str | None = None
    ) -> list[dict[str, Any]]:
        """The rows, as dicts with lower-case keys. More than `max_rows` are an error."""
        answer = self._ask(query, params, max_rows, scope)
        names = [name.lower() for name, _ in answer.columns]
        return [dict(zip(names, row, strict=True)) for row in answer.rows]

    def query_arrow(self, query: str, params: Params = None, *, scope: str | None = None) -> Any:
        """All rows as a `pyarrow.Table`, with the types of duckdb's own."""
        return self._ask(query, params, None, scope).table()

    def query_df(
        self, query: str, params: Params = None, *, library: Library | None = None, scope: str | None = None
    ) -> Any:
        """All rows as a DataFrame: of pandas, or of polars when that is asked for or alone is installed."""
        return frame(self.query_arrow(query, params, scope=scope), library)

    def export(
        self,
        query: str,
        target: str | os.PathLike[str] | BinaryIO,
        params: Params = None,
        *,
        format: Format = "csv",
        scope: str | None = None,
    ) -> None:
        """Writes all rows to a file, without holding them in memory.

        A path is replaced when the file is whole, and never has half of one.
        """
        if format not in ("csv", "parquet"):
            raise ValueError(f"format is {format!r}; use csv or parquet")
        question = self._question(query, params, None, scope)
        write = self._source.csv if format == "csv" else self._source.parquet
        if not isinstance(target, str | os.PathLike):
            self._saw(write(question, target))
            return
        path = Path(target)
        part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            with part.open("wb") as out:
                self._saw(write(question, out))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def connection(self, *, scope: str | None = None) -> Connection:
        """A connection as duckdb has it, with `execute` and the fetch methods; see `dbapi`."""
        return Connection(self, scope)

    def _ask(self, query: str, params: Params, max_rows: int | None, scope: str | None) -> Answer:
        answer = self._source.ask(self._question(query, params, max_rows, scope))
        self._saw(answer.snapshot)
        return answer

    def _question(self, query: str, params: Params, max_rows: int | None, scope: str | None) -> Question:
        if max_rows is not None and max_rows < 0:
            raise ValueError(f"max_rows is {max_rows}; use 0 or more")
        name = self.settings.scope_param
        if scope is None and name is not None:
            value = params.get(name) if isinstance(params, Mapping) else None
            if value is None:
                detail = f"params has no {name}, which says whose rows to read (MARTD_SCOPE_PARAM)"
                raise QueryError(detail, slug="scope-required")
            scope = f"{name}={value}"
            if isinstance(params, Mapping) and not re.search(rf"\${re.escape(name)}\b", query):
                # It says whose rows to read, whether the statement says so once more or not.
                params = {key: each for key, each in params.items() if key != name}
        return Question(query, params, max_rows, self._snapshot(), scope)

    def _consistent(self) -> "Consistent":
        return Consistent(self.settings, self._source, self._snapshot())

    def _snapshot(self) -> str | None:
        """The snapshot to ask; none: the current one."""
        return None

    def _saw(self, snapshot: str | None) -> None:
        """An answer came from this snapshot."""


class Consistent(Queries):
    """Queries of one snapshot. martd keeps a replaced one for a while (`MARTD_RETAIN`)."""

    def __init__(self, settings: Settings, source: Source, snapshot: str | None) -> None:
        super().__init__(settings, source)
        self.snapshot = snapshot
        """The snapshot's id; none before the first query."""

    def _snapshot(self) -> str | None:
        return self.snapshot

    def _saw(self, snapshot: str | None) -> None:
        self.snapshot = self.snapshot or snapshot


class Client(Queries):
    """Asks one martd, or files. It keeps connections, and threads may share it."""

    def __init__(self, url: str | None = None, **settings: Any) -> None:
        """Takes what is not given from the environment; see `Settings`."""
        given = settings if url is None else {"url": url, **settings}
        chosen = dataclasses.replace(Settings.from_environment(), **given)
        place = chosen.place()
        source: Source
        if isinstance(place, Folder):
            from .local import Local

            source = Local(place, chosen)
        else:
            source = Remote(place, chosen)
        super().__init__(chosen, source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes idle connections."""
        self._source.close()

    @contextlib.contextmanager
    def consistent(self, snapshot: str | None = None) -> Iterator[Consistent]:
        """Several queries of one state: of `snapshot`, or of what the first of them saw."""
        yield Consistent(self.settings, self._source, snapshot)

    def check_connection(self) -> bool:
        """Whether queries can be answered now."""
        try:
            return self._source.freshness(retry=False)["snapshot"] is not None
        except MartdError:
            return False

    def last_refresh_time(self) -> dt.datetime | None:
        """When the newest of the data was written; none whenever `check_connection` is False.

        `freshness` says why there is none.
        """
        try:
            text = self._source.freshness(retry=False)["last_refresh"]
        except MartdError:
            return None
        return None if text is None else _moment(str(text))

    def snapshot(self) -> str | None:
        """The id of the current snapshot."""
        return self._source.snapshot()

    def freshness(self) -> dict[str, Any]:
        """How old the marts are: martd's `/v1/freshness`."""
        return self._source.freshness()

    def datasets(self) -> dict[str, Any]:
        """What the dbt project offers: martd's `/v1/datasets`."""
        return self._source.datasets()

    def schema(self, dataset: str) -> dict[str, Any]:
        """A dataset and its columns, by id or name."""
        return self._source.dataset_schema(dataset)


_default: Client | None = None
_default_lock = threading.Lock()


def default_client() -> Client:
    """The client that the environment describes, made when it is first needed."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Client()
        return _default


def execute_query(query: str, params: Params = None, max_rows: int = MAX_ROWS) -> list[dict[str, Any]]:
    """The rows, as dicts with lower-case keys. More than `max_rows` are an error."""
    return default_client().execute_query(query, params, max_rows)


def get_connection() -> Connection:
    """A connection of the default client, as duckdb has it."""
    return default_client().connection()


def connect(url: str | None = None, *, scope: str | None = None, **settings: Any) -> Connection:
    """A connection with a client of its own, which closes with it: PEP 249's `connect`."""
    client = Client(url, **settings)
    return Connection(client, scope, client.close)


def check_connection() -> bool:
    """Whether queries can be answered now."""
    return default_client().check_connection()


def last_refresh_time() -> dt.datetime | None:
    """When the newest of the data was written; none whenever `check_connection` is False."""
    return default_client().last_refresh_time()


def _moment(text: str) -> dt.datetime:
    """martd has nanoseconds, Python has not."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = dt.datetime.fromisoformat(whole)
    micros = int(fraction[:6].ljust(6, "0")) if fraction else 0
    return moment.replace(microsecond=micros, tzinfo=dt.timezone.utc)
