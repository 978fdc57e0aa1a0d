import json
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [
    str(ROOT / folder)
    for folder in ("examples/backend", "clients/python/src", "clients/python/tests", "dbt/checks")
]

from daemon import Martd  # noqa: E402 (found by the paths above)
from workspace import OLD_FILE, Workspace  # noqa: E402


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """Settings of whoever runs the tests must not reach the backend under test."""
    for name in list(os.environ):
        if name.startswith(("MARTD_", "DBT_", "ANALYTICS_")) and name != "MARTD_BIN" or name == "DUCKDB_PATH":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def new_workspace():
    """Makes copies of the dbt project, and removes them in the end."""

    class Cleanups(unittest.TestCase):
        pass

    yield lambda **variables: Workspace.new(Cleanups, **variables)
    Cleanups.doClassCleanups()


@pytest.fixture(scope="session")
def build(new_workspace):
    """A real build: phase 1 of the migration, with the old file and the Parquet files."""
    space = new_workspace(transactions=1000, users=3, marts_as="table")
    space.env = {"DUCKDB_PATH": OLD_FILE}
    space.dbt("build")
    return space


@pytest.fixture(scope="session")
def legacy_file(build):
    """The file as it was before martd."""
    newest = max(mart.stat().st_mtime_ns for mart in build.marts.glob("*.parquet"))
    os.utime(build.old_file, ns=(newest, newest))  # so that both ways say the same of their age
    return build.old_file.resolve()


@pytest.fixture(scope="session")
def nested_build(build):
    """The same build, of a project that has its filters under `meta.filters`."""
    twin = build.copy()
    for file in (twin.marts / "_builds").glob("*.json"):
        edit(file, lambda record: [nest(mart["meta"]) for mart in record["marts"]])
    edit(
        twin.project / "target/manifest.json",
        lambda manifest: [nest(meta) for node in manifest["nodes"].values() for meta in (node.get("meta"), node["config"].get("meta"))],
    )
    return twin


def edit(path, change):
    stat = path.stat()
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


def nest(meta):
    """Moves what is about filters."""
    if meta and "filters" not in meta:
        meta["filters"] = {key: meta.pop(key) for key in list(meta) if key.endswith(("_column", "_filters"))}


@pytest.fixture(scope="session")
def martd(build):
    with Martd(build.marts.parent) as daemon:
        yield daemon.ready()


@pytest.fixture(scope="session")
def martd_on_legacy(build, legacy_file):
    folder = Path(tempfile.mkdtemp(dir=build.root))
    (folder / "mart").mkdir()
    with Martd(folder, DUCKDB_PATH=str(legacy_file)) as daemon:
        yield daemon.ready()
    shutil.rmtree(folder)
