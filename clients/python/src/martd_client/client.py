"""A client of martd, and the default one behind the functions of the module."""

import contextlib
import dataclasses
import datetime as dt
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .errors import MartdError, QueryError
from .parameters import Params
from .remote import Remote
from .settings import Folder, Settings
from .source import Question, Source

MAX_ROWS = 10_000
EXPORT_MAX_ROWS = 10_000_000
"""martd's own maximum, unless MARTD_MAX_ROWS says otherwise."""

Format = Literal["csv", "parquet"]


class Client:
    """Asks one martd, or files. It keeps connections, and threads may share it."""

    def __init__(self, url: str | None = None, **settings: Any) -> None:
        """Takes what is not given from the environment; see `Settings`."""
        given = settings if url is None else {"url": url, **settings}
        self.settings = dataclasses.replace(Settings.from_environment(), **given)
        place = self.settings.place()
        self._source: Source
        if isinstance(place, Folder):
            from .local import Local

            self._source = Local(place, self.settings)
        else:
            self._source = Remote(place, self.settings)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes idle connections."""
        self._source.close()

    def execute_query(
        self,
        query: str,
        params: Params = None,
        max_rows: int = MAX_ROWS,
        *,
        snapshot: str | None = None,
        scope: str | None = None,
    ) -> list[dict[str, Any]]:
        """The first `max_rows` rows, as dicts with lower-case keys.

        `snapshot` asks a snapshot by its id; `scope` is the value of the header `Martd-Scope`, in
        place of the one that the scope parameter gives.
        """
        question = self._question(query, params, max_rows, snapshot, scope)
        return self._source.rows(question)[0]

    @contextlib.contextmanager
    def consistent(self, snapshot: str | None = None) -> Iterator["Consistent"]:
        """Several queries of one state: of `snapshot`, or of what the first of them saw."""
        yield Consistent(self, snapshot)

    def export(
        self,
        query: str,
        target: str | os.PathLike[str] | BinaryIO,
        params: Params = None,
        *,
        format: Format = "csv",
        max_rows: int = EXPORT_MAX_ROWS,
        snapshot: str | None = None,
        scope: str | None = None,
    ) -> None:
        """Writes all rows to a file, without holding them in memory.

        A path is replaced when the file is whole, and never has half of one. More than `max_rows`
        rows are an error.
        """
        if format not in ("csv", "parquet"):
            raise ValueError(f"format is {format!r}; use csv or parquet")
        question = self._question(query, params, max_rows, snapshot, scope)
        write = self._source.csv if format == "csv" else self._source.parquet
        if not isinstance(target, str | os.PathLike):
            write(question, target)
            return
        path = Path(target)
        part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            with part.open("wb") as out:
                write(question, out)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def check_connection(self) -> bool:
        """Whether queries can be answered now."""
        try:
            return self._source.freshness(retry=False)["snapshot"] is not None
        except MartdError:
            return False

    def last_refresh_time(self) -> dt.datetime | None:
        """When the newest of the data was written; none as long as there is none."""
        text = self._source.freshness()["last_refresh"]
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

    def _question(
        self, query: str, params: Params, limit: int, snapshot: str | None, scope: str | None
    ) -> Question:
        if scope is None and self.settings.scope_param is not None:
            name = self.settings.scope_param
            value = params.get(name) if isinstance(params, Mapping) else None
            if value is None:
                detail = f"params has no {name}, which says whose rows to read (MARTD_SCOPE_PARAM)"
                raise QueryError(detail, slug="scope-required")
            scope = f"{name}={value}"
            if isinstance(params, Mapping) and not re.search(rf"\${re.escape(name)}\b", query):
                # It says whose rows to read, whether the statement says so once more or not.
                params = {key: each for key, each in params.items() if key != name}
        return Question(query, params, limit, snapshot, scope)


class Consistent:
    """Queries of one snapshot. martd keeps a replaced one for a while (`MARTD_RETAIN`)."""

    def __init__(self, client: Client, snapshot: str | None) -> None:
        self._client = client
        self.snapshot = snapshot
        """The snapshot's id; none before the first query."""

    def execute_query(
        self, query: str, params: Params = None, max_rows: int = MAX_ROWS, *, scope: str | None = None
    ) -> list[dict[str, Any]]:
        """As `Client.execute_query`."""
        question = self._client._question(query, params, max_rows, self.snapshot, scope)
        rows, snapshot = self._client._source.rows(question)
        self.snapshot = self.snapshot or snapshot
        return rows


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
    """The first `max_rows` rows, as dicts with lower-case keys."""
    return default_client().execute_query(query, params, max_rows)


def check_connection() -> bool:
    """Whether queries can be answered now."""
    return default_client().check_connection()


def last_refresh_time() -> dt.datetime | None:
    """When the newest of the data was written; none as long as there is none."""
    return default_client().last_refresh_time()


def _moment(text: str) -> dt.datetime:
    """martd has nanoseconds, Python has not."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = dt.datetime.fromisoformat(whole)
    micros = int(fraction[:6].ljust(6, "0")) if fraction else 0
    return moment.replace(microsecond=micros, tzinfo=dt.timezone.utc)
