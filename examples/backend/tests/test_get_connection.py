"""An application that uses `get_connection()` moves by its import alone."""

from functools import partial

import duckdb
import martd_client
import pytest
from daemon import Martd
from fastapi.testclient import TestClient
from reports import create_app

PATHS = ("/spending", "/spending?tags=1", "/transactions.csv", "/balances", "/ready")


def old_connection(path):
    """As the application had it: a connection of its own for each request, to the marts of the file."""
    if not path.is_file():
        raise FileNotFoundError(path)
    connection = duckdb.connect()
    connection.execute(f"ATTACH '{path}' AS analytics (READ_ONLY); CREATE SCHEMA mart")
    tables = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'main_mart'").fetchall()
    for (table,) in tables:
        connection.execute(f'CREATE VIEW mart."{table}" AS FROM analytics.main_mart."{table}"')
    return connection


def answers(get_connection, users):
    with TestClient(create_app(get_connection)) as application:
        calls = [application.get(path, params={"user_id": user}) for user in users for path in PATHS]
    return [(call.status_code, call.content) for call in calls]


def new_answers(monkeypatch, url, users):
    monkeypatch.setenv("MARTD_URL", url)
    monkeypatch.setattr("martd_client.client._default", None)
    return answers(martd_client.get_connection, users)


@pytest.fixture(scope="module")
def users(legacy_file):
    with duckdb.connect(legacy_file, read_only=True) as connection:
        return [str(user) for (user,) in connection.execute("SELECT DISTINCT user_id FROM main_mart.dim_accounts ORDER BY ALL").fetchall()]


@pytest.mark.parametrize("source", ["martd", "martd_on_legacy", "files"])
def test_every_answer_is_the_same(request, monkeypatch, build, legacy_file, users, source):
    old = answers(partial(old_connection, legacy_file), users)
    assert {status for status, _ in old} == {200} and min(len(body) for _, body in old) >= len("true")
    url = f"file://{build.marts.parent}" if source == "files" else request.getfixturevalue(source).url
    assert new_answers(monkeypatch, url, users) == old


def test_what_is_not_there_is_the_same(monkeypatch, tmp_path, users):
    """No data yet, and no martd: the application answers 503 to what it took for a missing file."""
    old = answers(partial(old_connection, tmp_path / "none.duckdb"), users)
    assert set(old) == {(503, b'{"detail":"no data yet"}')}
    (tmp_path / "mart").mkdir()
    with Martd(tmp_path) as martd:
        assert new_answers(monkeypatch, martd.url, users) == old
    assert new_answers(monkeypatch, martd.url, users) == old
    assert new_answers(monkeypatch, f"file://{tmp_path}", users) == old
