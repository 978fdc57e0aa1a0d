"""The two places that analytics can come from. The rest of the backend does not know which it is."""

import datetime as dt
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import duckdb
from martd_client import Client, QueryError, Unavailable

from .manifest import Manifest
from .settings import Settings

Row = dict[str, Any]


class Asks(Protocol):
    """Several queries of one state of the data."""

    def execute_query(self, query: str, params: dict[str, Any], max_rows: int = 10_000) -> list[Row]: ...


class Source(Protocol):
    """Where analytics come from."""

    def session(self) -> AbstractContextManager[Asks]: ...

    def datasets(self) -> dict[str, Any]: ...

    def schema(self, dataset: str) -> Row | None: ...

    def check_connection(self) -> bool: ...

    def manifest_available(self) -> bool: ...

    def last_refresh_time(self) -> dt.datetime | None: ...


def source(settings: Settings) -> Source:
    """The source that the settings ask for."""
    return MartdSource(settings) if settings.source == "martd" else DuckDBSource(settings)


class DuckDBSource:
    """The old way: each request opens the file that dbt builds into. While dbt has it, none can."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.duckdb_path
        self._manifest = Manifest(settings.manifest)

    @contextmanager
    def session(self) -> Iterator["DuckDBSession"]:
        if not self._path.is_file():
            raise FileNotFoundError(f"{self._path} is not there: has dbt been run?")
        with duckdb.connect() as connection:
            path = str(self._path).replace("'", "''")
            connection.execute(f"ATTACH '{path}' AS analytics (READ_ONLY)")
            connection.execute("CREATE SCHEMA mart")
            # dbt-duckdb's default name of the schema is main_mart; the statements say mart.
            tables = connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables "
                "WHERE table_catalog = 'analytics' AND table_schema IN ('mart', 'main_mart')"
            ).fetchall()
            for schema, table in tables:
                connection.execute(f'CREATE OR REPLACE VIEW mart."{table}" AS FROM analytics.{schema}."{table}"')
            yield DuckDBSession(connection)

    def datasets(self) -> dict[str, Any]:
        return self._manifest.datasets()

    def schema(self, dataset: str) -> Row | None:
        return self._manifest.schema(dataset)

    def check_connection(self) -> bool:
        try:
            with self.session() as session:
                return session.execute_query("SELECT 1 AS one", {}) == [{"one": 1}]
        except (OSError, duckdb.Error):
            return False

    def manifest_available(self) -> bool:
        return self._manifest.is_there()

    def last_refresh_time(self) -> dt.datetime | None:
        if not self._path.is_file():
            return None
        seconds, nanos = divmod(self._path.stat().st_mtime_ns, 10**9)
        return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).replace(microsecond=nanos // 1000)


class DuckDBSession:
    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def execute_query(self, query: str, params: dict[str, Any], max_rows: int = 10_000) -> list[Row]:
        cursor = self._connection.execute(query, params)
        names = [column[0].lower() for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchmany(max_rows)]


class MartdSource:
    """martd, or with a URL of `file://` the files themselves."""

    def __init__(self, settings: Settings) -> None:
        self._client = Client(settings.martd_url)
        self._manifest = Manifest(settings.manifest)

    def session(self) -> AbstractContextManager[Asks]:
        return self._client.consistent()

    def datasets(self) -> dict[str, Any]:
        return self._known() or self._manifest.datasets()

    def schema(self, dataset: str) -> Row | None:
        if self._known() is None:
            return self._manifest.schema(dataset)
        try:
            return self._client.schema(dataset)
        except QueryError as error:
            if error.slug != "not-found":
                raise
            return None

    def _known(self) -> dict[str, Any] | None:
        """The datasets that martd knows of; none without a ledger, as with a legacy file.

        While martd is away the manifest says the same, if there is one.
        """
        try:
            known = self._client.datasets()
        except Unavailable:
            if not self._manifest.is_there():
                raise
            return None
        return known if known["total"] else None

    def check_connection(self) -> bool:
        return self._client.check_connection()

    def manifest_available(self) -> bool:
        try:
            return bool(self.datasets()["total"])
        except Unavailable:
            return False

    def last_refresh_time(self) -> dt.datetime | None:
        return self._client.last_refresh_time()
