"""The same answers without a martd: files read in this process, on the `duckdb` package.

For laptops, unit tests, and backing out. It has no snapshots: a query that runs while a build
replaces files can see some of each.
"""

import datetime as dt
import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from . import datasets, local_export
from .arrow import NOT_IN_ARROW, not_in_arrow, too_long_for_arrow
from .errors import MartdError, NotReady, QueryError, Unavailable, position_in
from .settings import Folder, Settings
from .source import Answer, Question
from .sql import identifier, literal

if TYPE_CHECKING:
    import duckdb

SCHEMAS = ("mart", "main_mart")
"""Both names work, whichever the files or the legacy file's tables have."""
SCOPE_VARIABLE = "martd_client_scope"
LOCKED_POLL_S = 0.1

T = TypeVar("T")


class Local:
    """A folder of marts, or a legacy DuckDB file as long as there are none."""

    def __init__(self, place: Folder, settings: Settings) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise ImportError("file:// needs duckdb: pip install 'martd-client[duckdb]'") from error
        self._duckdb = duckdb
        self._folder = place.path / "mart"
        self._legacy = place.path if place.path.is_file() else place.legacy
        self._settings = settings
        self._scratch = tempfile.TemporaryDirectory(prefix="martd-client-")
        self._lock = threading.Lock()
        self._opened: tuple[tuple[str, str | None], duckdb.DuckDBPyConnection] | None = None
        """The database of the last question, and what it shows: a state of the files, scoped by a column."""

    def ask(self, question: Question) -> Answer:
        """All rows. An Arrow table of them is asked for anew, of the same state of the files."""
        snapshot, connection = self._cursor(question)
        with connection:
            columns, rows = self._asked(question, lambda: self._fetch(connection, question))
        table = partial(self._table, replace(question, snapshot=snapshot))
        return Answer(columns, iter(rows), table, snapshot)

    def csv(self, question: Question, out: BinaryIO) -> str | None:
        """Writes the rows as CSV."""
        return self._export(question, out, local_export.csv)

    def parquet(self, question: Question, out: BinaryIO) -> str | None:
        """Writes the rows as a Parquet file."""
        scratch = Path(self._scratch.name)
        return self._export(question, out, partial(local_export.parquet, scratch=scratch))

    def datasets(self) -> dict[str, Any]:
        """As `/v1/datasets`, from the ledger."""
        return datasets.listing(self._models())

    def dataset_schema(self, dataset: str) -> dict[str, Any]:
        """As `/v1/datasets/{id}/schema`, from the ledger."""
        found = datasets.schema(self._models(), dataset)
        if found is None:
            raise QueryError(f"no dataset {dataset!r}", slug="not-found", status=404)
        return found

    def freshness(self, *, retry: bool = True) -> dict[str, Any]:
        """The part of `/v1/freshness` that the files tell."""
        files = self._marts() or self._legacy_files()
        newest = max((file.stat().st_mtime_ns for file in files), default=None)
        last = None if newest is None else _utc(newest)
        source = "parquet" if self._marts() else "duckdb" if files else None
        return {"snapshot": self.snapshot(), "source": source, "last_refresh": last}

    def snapshot(self) -> str | None:
        """Names the files as they are now. It can be asked for only as long as they stay so."""
        files = self._marts() or self._legacy_files()
        return _identity(files) if files else None

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            if self._opened is not None:
                self._opened[1].close()
            self._opened = None
        self._scratch.cleanup()

    def _marts(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(
            file
            for file in self._folder.glob("*.parquet")
            if file.is_file() and not file.name.startswith((".", "_", "tmp_"))
        )

    def _legacy_files(self) -> list[Path]:
        return [self._legacy] if self._legacy is not None and self._legacy.is_file() else []

    def _models(self) -> list[dict[str, Any]]:
        """What the ledger says last of each mart; without one, nothing, as with martd."""
        files = [self._folder / "_build.json", *self._folder.glob("_builds/*.json")]
        models: dict[str, dict[str, Any]] = {}
        for _, record in sorted(filter(None, map(_record, files)), key=lambda each: each[0]):
            models |= record
        return list(models.values())

    def _cursor(self, question: Question) -> "tuple[str, duckdb.DuckDBPyConnection]":
        """A connection to the files as they are now, and what they are."""
        files = self._marts()
        if not files:
            return self._legacy_cursor(question)
        snapshot = _identity(files)
        self._check_snapshot(question, snapshot)
        shown = (snapshot, _scope_column(question))
        with self._lock:
            # A new database for a new state: DuckDB's cache would take a replaced file for the old one.
            if self._opened is None or self._opened[0] != shown:
                connection = self._open()
                self._add_marts(connection, files, shown[1])
                self._lock_down(connection, files)
                self._opened = (shown, connection)
            cursor = self._opened[1].cursor()
        self._set_scope(cursor, question)
        return snapshot, cursor

    def _legacy_cursor(self, question: Question) -> "tuple[str, duckdb.DuckDBPyConnection]":
        """The legacy file is opened for one call only: nobody can write it meanwhile."""
        files = self._legacy_files()
        if not files:
            raise NotReady(f"there is no mart in {self._folder} yet", slug="not-ready")
        snapshot = _identity(files)
        self._check_snapshot(question, snapshot)
        connection = self._open()
        try:
            self._attach(connection, files[0])
            self._add_tables(connection, _scope_column(question))
            self._lock_down(connection, files)
            self._set_scope(connection, question)
        except BaseException:
            connection.close()
            raise
        return snapshot, connection

    def _open(self) -> "duckdb.DuckDBPyConnection":
        connection = self._duckdb.connect()
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # of its cursors, too
        for schema in SCHEMAS:
            connection.execute(f"CREATE SCHEMA {schema}")
        return connection

    def _attach(self, connection: "duckdb.DuckDBPyConnection", file: Path) -> None:
        patience = time.monotonic() + self._settings.retry
        while True:
            try:
                connection.execute(f"ATTACH {literal(str(file))} AS legacy (READ_ONLY)")
                return
            except self._duckdb.IOException as error:
                if "lock" not in str(error).lower():
                    raise MartdError(str(error), slug="internal") from error
                if time.monotonic() > patience:
                    detail = "a writer holds the DuckDB file; try again when it is done"
                    raise Unavailable(detail, slug="legacy-locked", status=503) from error
            time.sleep(LOCKED_POLL_S)

    def _add_marts(
        self, connection: "duckdb.DuckDBPyConnection", files: list[Path], column: str | None
    ) -> None:
        for file in files:
            source = f"read_parquet({literal(str(file))})"
            found = connection.execute(f"SELECT * FROM {source} LIMIT 2").fetchall()
            # dbt-duckdb writes a row of NULLs for a model without rows. Others mean their one row.
            lone = len(found) == 1 and all(value is None for value in found[0])
            empty = lone and (_is_stamped(connection, file) or file.stem in self._names())
            self._add_view(connection, file.stem, source, column, empty)

    def _names(self) -> set[str]:
        """The marts that the ledger names."""
        return {str(model["name"]) for model in self._models()}

    def _add_tables(self, connection: "duckdb.DuckDBPyConnection", column: str | None) -> None:
        names = ", ".join(map(literal, SCHEMAS))
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            f"WHERE table_catalog = 'legacy' AND table_schema IN ({names}) "
            "ORDER BY table_schema DESC"  # mart before main_mart
        ).fetchall()
        for name, schema in {name: schema for schema, name in reversed(tables)}.items():
            self._add_view(connection, name, f"legacy.{identifier(schema)}.{identifier(name)}", column, False)

    def _add_view(
        self,
        connection: "duckdb.DuckDBPyConnection",
        name: str,
        source: str,
        column: str | None,
        empty: bool,
    ) -> None:
        where = " WHERE false" if empty else ""
        if column is not None:
            described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
            types = {str(row[0]).lower(): row[1] for row in described}
            if column.lower() in types:
                value = f"TRY_CAST(getvariable('{SCOPE_VARIABLE}') AS {types[column.lower()]})"
                where += f"{' AND' if where else ' WHERE'} {identifier(column)} = {value}"
            elif name not in self._settings.unscoped:
                return  # a mart that cannot be scoped is not shown
        for schema in SCHEMAS:
            view = f"{schema}.{identifier(name)}"
            connection.execute(f"CREATE VIEW {view} AS SELECT * FROM {source}{where}")

    def _lock_down(self, connection: "duckdb.DuckDBPyConnection", files: list[Path]) -> None:
        paths = ", ".join(literal(str(file)) for file in files)
        connection.execute(
            f"SET allowed_paths = [{paths}]; "
            f"SET allowed_directories = [{literal(self._scratch.name)}]; "
            "SET enable_external_access = false; SET lock_configuration = true"
        )

    def _set_scope(self, connection: "duckdb.DuckDBPyConnection", question: Question) -> None:
        if question.scope is not None:
            value = question.scope.partition("=")[2]
            connection.execute(f"SET VARIABLE {SCOPE_VARIABLE} = {literal(value)}")

    def _fetch(
        self, connection: "duckdb.DuckDBPyConnection", question: Question
    ) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
        self._run(connection, question)
        columns = [(str(name), str(ty)) for name, ty, *_ in connection.description or []]
        if question.max_rows is None:
            return columns, connection.fetchall()
        rows = connection.fetchmany(question.max_rows + 1)
        if len(rows) > question.max_rows:
            raise question.too_large()
        return columns, rows

    def _table(self, question: Question) -> Any:
        _, connection = self._cursor(question)
        with connection:
            return self._asked(question, lambda: self._fetch_table(connection, question))

    def _fetch_table(self, connection: "duckdb.DuckDBPyConnection", question: Question) -> Any:
        self._run(connection, question)
        columns = connection.description or []
        for name, ty, *_ in columns:
            _check_arrow(str(name), ty)
        # duckdb 1.4 has only the second, which 1.5 warns of.
        table = getattr(connection, "to_arrow_table", connection.fetch_arrow_table)()
        for (name, ty, *_), column in zip(columns, table.columns, strict=True):
            if "HUGEINT" in str(ty):
                try:
                    column.validate(full=True)
                except ValueError as error:
                    raise too_long_for_arrow(str(name)) from error
        return table

    def _run(self, connection: "duckdb.DuckDBPyConnection", question: Question) -> None:
        self._check_statement(connection, question.query)
        connection.execute(question.query, question.params or None)

    def _check_statement(self, connection: "duckdb.DuckDBPyConnection", query: str) -> None:
        statements = connection.extract_statements(query)
        if [statement.type for statement in statements] != [self._duckdb.StatementType.SELECT]:
            detail = "only one SELECT is served" if statements else "the statement is empty"
            slug = "statement-not-allowed" if statements else "bad-request"
            raise QueryError(detail, slug=slug)

    def _asked(self, question: Question, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except self._duckdb.Error as error:
            detail = str(error)
            position = position_in(question.query, detail)
            raise QueryError(detail, slug="sql-error", position=position) from error

    def _check_snapshot(self, question: Question, snapshot: str) -> None:
        if question.snapshot not in (None, snapshot):
            detail = "the files have changed since; ask again without the snapshot"
            raise QueryError(detail, slug="snapshot-gone", status=410)

    def _export(
        self,
        question: Question,
        out: BinaryIO,
        export: "Callable[[duckdb.DuckDBPyConnection, Question, BinaryIO], None]",
    ) -> str:
        snapshot, connection = self._cursor(question)
        with connection:
            self._asked(question, lambda: self._check_statement(connection, question.query))
            self._asked(question, lambda: export(connection, question, out))
        return snapshot


def _scope_column(question: Question) -> str | None:
    """The column whose values say whose a row is; none when all rows are shown."""
    return None if question.scope in (None, "*") else str(question.scope).partition("=")[0]


def _is_stamped(connection: "duckdb.DuckDBPyConnection", file: Path) -> bool:
    stamps = connection.execute(
        f"SELECT count(*) FROM parquet_kv_metadata({literal(str(file))}) WHERE decode(key) = 'dbt_invocation_id'"
    ).fetchone()
    return stamps is not None and stamps[0] > 0


def _check_arrow(column: str, ty: Any) -> None:
    if str(ty).startswith(NOT_IN_ARROW):
        raise not_in_arrow(column, str(ty))
    if ty.id in ("list", "array", "struct", "map"):
        for _, child in ty.children:
            if not isinstance(child, int):  # the size of an array
                _check_arrow(column, child)


def _record(file: Path) -> tuple[tuple[dt.datetime, str], dict[str, dict[str, Any]]] | None:
    """When a file of the ledger was written, and what it says of which mart; none where it is no whole one."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        build = document["build"]
        finished = dt.datetime.fromisoformat(build["finished_at"])
        models = document["marts"] if "marts" in document else build["models"]
        return (finished, str(build.get("id", ""))), {model["name"]: model for model in models}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _identity(files: list[Path]) -> str:
    state = hashlib.sha256()
    for file in files:
        stat = file.stat()
        parts = (file.name, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        state.update(repr(parts).encode())
    return state.hexdigest()[:32]


def _utc(nanos: int) -> str:
    moment = dt.datetime.fromtimestamp(nanos // 10**9, dt.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos % 10**9:09}Z"
