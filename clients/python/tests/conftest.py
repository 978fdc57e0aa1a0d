import os

import duckdb
import pytest
from comparison import OldClient
from daemon import Martd
from martd_client import Client
from values import STORED


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """Settings of whoever runs the tests must not reach the clients under test."""
    for name in list(os.environ):
        if name.startswith("MARTD_") and name != "MARTD_BIN" or name == "DUCKDB_PATH":
            monkeypatch.delenv(name)


def write_mart(folder, name, query, options=""):
    """Writes a mart as DuckDB does."""
    (folder / "mart").mkdir(exist_ok=True, parents=True)
    duckdb.sql(f"COPY ({query}) TO '{folder}/mart/{name}.parquet' (USE_TMP_FILE true{options})")


@pytest.fixture(scope="session")
def parquet_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    columns = ", ".join(f"{expression} AS c{n}" for n, expression in enumerate(STORED))
    nulls = ", ".join(f"CASE WHEN i < 3 THEN c{n} END AS c{n}" for n in range(len(STORED)))
    write_mart(folder, "kinds", f"WITH v AS (SELECT {columns}) SELECT i, {nulls} FROM v, range(5) t(i)")
    write_mart(
        folder,
        "sales",
        "SELECT i, (i % 3)::VARCHAR AS user_id, DATE '2026-01-01' + (i % 100)::INTEGER AS day, "
        "(i * 1.25)::DECIMAL(18, 2) AS amount, 'note, \"' || i AS note FROM range(30000) t(i)",
    )
    nothing = "SELECT NULL::INTEGER AS a, NULL::VARCHAR AS user_id"
    write_mart(folder, "hollow", nothing, ", KV_METADATA {dbt_invocation_id: 'i1'}")
    write_mart(folder, "lone", nothing)
    return folder


@pytest.fixture(scope="session")
def martd(parquet_dir):
    with Martd(parquet_dir, MARTD_QUERY_TIMEOUT="60s") as daemon:
        yield daemon.ready()


@pytest.fixture(scope="session")
def remote(martd):
    with Client(martd.url) as client:
        yield client


@pytest.fixture(scope="session")
def local(parquet_dir):
    with Client(f"file://{parquet_dir}") as client:
        yield client


@pytest.fixture(scope="session")
def old(parquet_dir):
    return OldClient(parquet_dir)


@pytest.fixture(params=["remote", "local"])
def client(request):
    """Both ways: what is tested with it is the same over HTTP and in process."""
    return request.getfixturevalue(request.param)
