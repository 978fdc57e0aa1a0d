"""Nothing to read from: both ways say the same of it, and recover."""

import subprocess
import sys
import uuid

import pytest
from backend.app import create_app
from backend.settings import Settings
from daemon import Martd
from fastapi.testclient import TestClient

USER = {"X-User-Id": str(uuid.uuid4())}


def answers(settings, monkeypatch):
    monkeypatch.setenv("MARTD_RETRY", "0")
    with TestClient(create_app(settings), raise_server_exceptions=False) as backend:
        calls = {path: backend.get(path, headers=USER) for path in ("/status", "/datasets", "/datasets/dim_tags/query")}
    return {path: (answer.status_code, answer.json()) for path, answer in calls.items()}


@pytest.fixture
def manifest(build):
    return build.project / "target/manifest.json"


def test_no_data_yet(tmp_path, monkeypatch, manifest):
    (tmp_path / "mart").mkdir()
    old = answers(Settings("duckdb", duckdb_path=tmp_path / "none.duckdb", manifest=manifest), monkeypatch)
    with Martd(tmp_path) as martd:
        new = answers(Settings("martd", martd_url=martd.url, manifest=manifest), monkeypatch)
    assert new == old
    assert old["/datasets/dim_tags/query"] == (503, {"detail": "analytics are not available at the moment"})
    assert old["/status"][1] | {"dataset_count": 0} == {
        "duckdb_available": False, "manifest_available": True, "dataset_count": 0, "last_refresh": None,
    }  # fmt: skip


NOTHING = {"duckdb_available": False, "manifest_available": False, "dataset_count": 0, "last_refresh": None}
AWAY = (503, {"detail": "analytics are not available at the moment"})


def gone(tmp_path):
    """The URL of a martd that was there."""
    (tmp_path / "mart").mkdir()
    with Martd(tmp_path) as martd:
        return martd.url


def test_a_martd_that_is_gone(tmp_path, monkeypatch, manifest):
    """Said as a DuckDB file that is gone."""
    old = answers(Settings("duckdb", duckdb_path=tmp_path / "none.duckdb", manifest=manifest), monkeypatch)
    new = answers(Settings("martd", martd_url=gone(tmp_path), manifest=manifest), monkeypatch)
    assert new == old
    assert new["/status"][0] == new["/datasets"][0] == 200 and new["/datasets/dim_tags/query"] == AWAY


def test_a_martd_that_is_gone_and_no_manifest(tmp_path, monkeypatch):
    new = answers(Settings("martd", martd_url=gone(tmp_path)), monkeypatch)
    assert new == {"/status": (200, NOTHING), "/datasets": AWAY, "/datasets/dim_tags/query": AWAY}


def test_a_file_that_dbt_has(tmp_path, monkeypatch, manifest):
    """What the move is for: the old way fails as long as dbt runs."""
    path = tmp_path / "analytics.duckdb"
    dbt = f"import duckdb; c = duckdb.connect({str(path)!r}); c.execute('CREATE SCHEMA main_mart'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", dbt], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        old = answers(Settings("duckdb", duckdb_path=path, manifest=manifest), monkeypatch)
        writer.communicate(b"\n")
    assert old["/datasets/dim_tags/query"][0] == 503
    assert old["/status"][1]["duckdb_available"] is False
