"""The marts: copies for each server, other versions of them, and one who replaces them."""

from collections.abc import Callable
import itertools
import os
from pathlib import Path
import shutil
import threading
import time

import duckdb
import pyarrow as pa
import pyarrow.parquet as parquet

STAMPED = "dim_tags"
STAMP = "transaction_count"


def prepare(dbt_marts: Path, to: Path) -> None:
    """Two versions of each mart with the same rows, as they are and with UUIDs as text."""
    complete = to / "complete"
    if complete.exists() and complete.stat().st_mtime > (dbt_marts / "_builds").stat().st_mtime:
        return
    shutil.rmtree(to, ignore_errors=True)
    marts = duckdb.connect()
    for kind, version in itertools.product(["uuid", "text"], ["a", "b"]):
        (to / kind / version).mkdir(parents=True)
        for path in sorted(dbt_marts.glob("*.parquet")):
            columns = marts.sql(f"describe from read_parquet('{path}')").fetchall()
            ids = [name for name, type, *_ in columns if type == "UUID" and kind == "text"]
            replaced = ", ".join(f"{name}::varchar as {name}" for name in ids)
            select = f"* replace ({replaced})" if ids else "*"
            marts.execute(
                f"copy (select {select} from read_parquet('{path}')) to '{to / kind / version / path.name}'"
                f" (compression zstd, kv_metadata {{version: '{version}'}})"
            )
    complete.touch()


def replace(mart: Path, versions: list[Path]) -> None:
    """Exchanges a file as writers do, by a rename, for the first of these versions that it is not.

    The bytes are on disk already, under another name: to write them takes processor time from whoever is
    measured, whatever the server does about it."""
    by = next(path for version in versions if not (path := version / mart.name).samefile(mart))
    beside = mart.with_name(f".{mart.name}.new")
    os.link(by, beside)
    os.replace(beside, mart)


class Replacer(threading.Thread):
    """Replaces one mart after the other, ten a second, by its other version, which has the same rows.

    `replaced` is called with the name of each. Where that takes longer, there are fewer replacements."""

    def __init__(self, marts: Path, versions: Path, replaced: Callable[[str], None]):
        super().__init__()
        self.marts, self.versions, self.replaced = marts, versions, replaced
        self.count, self.seconds = 0, 0.0
        self.stopping = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.replace_all()
        except Exception as error:
            self.error = error

    def replace_all(self) -> None:
        names = sorted(path.name for path in self.marts.glob("*.parquet"))
        versions = [self.versions / version for version in "ba"]
        began = due = time.monotonic()
        for name in itertools.cycle(names):
            replace(self.marts / name, versions)
            self.replaced(name.removesuffix(".parquet"))
            self.count += 1
            due = max(due + 0.1, time.monotonic())
            if self.stopping.wait(max(0.0, due - time.monotonic())):
                self.seconds = time.monotonic() - began
                return

    def __enter__(self) -> "Replacer":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopping.set()
        self.join()
        if self.error:  # or what was measured would be quiet
            raise self.error


class Stamper:
    """Writes versions of a small mart that can be told apart by one number."""

    def __init__(self, mart: Path):
        self.mart = mart
        self.table = parquet.read_table(mart)
        self.schema = self.table.schema

    def write(self, stamp: int) -> float:
        """Replaces the mart; returns when."""
        column = pa.array([stamp] * len(self.table), self.schema.field(STAMP).type)
        place = self.schema.get_field_index(STAMP)
        beside = self.mart.with_name(f".{self.mart.name}.new")
        parquet.write_table(self.table.set_column(place, self.schema.field(STAMP), column), beside)
        now = time.monotonic()
        os.replace(beside, self.mart)
        return now
