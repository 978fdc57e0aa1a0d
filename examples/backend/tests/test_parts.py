"""What the comparison of both ways cannot see, because they share it."""

import re
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from backend.app import create_app
from backend.queries import to_json
from backend.settings import Settings
from backend.sources import source
from daemon import Martd
from fastapi.testclient import TestClient


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("12.00"), 12), (Decimal("-0.50"), -0.5), (Decimal("0"), 0), (1.0, 1.0), (float("nan"), None), (float("-inf"), None),
        ([Decimal("1.0"), None], [1, None]), ({"a": Decimal("1.5")}, {"a": 1.5}), ("x", "x"), (True, True), (None, None),
    ],
)  # fmt: skip
def test_values_in_json(value, expected):
    found = to_json(value)
    assert found == expected and type(found) is type(expected)


def test_the_queries_of_a_request_see_one_state(tmp_path):
    (tmp_path / "mart").mkdir()

    def land(value):
        duckdb.sql(f"COPY (SELECT {value} AS a) TO '{tmp_path}/mart/x.parquet' (USE_TMP_FILE true)")

    land(1)
    with Martd(tmp_path) as martd:
        first = martd.ready().get("/v1/snapshot")["id"]
        analytics = source(Settings("martd", martd_url=martd.url))
        with analytics.session() as session:
            assert session.execute_query("SELECT a FROM mart.x", {}) == [{"a": 1}]
            land(2)
            martd.wait_for(lambda served: served["id"] != first)
            assert session.execute_query("SELECT a + 10 AS a FROM mart.x", {}) == [{"a": 11}]
        with analytics.session() as session:
            assert session.execute_query("SELECT a FROM mart.x", {}) == [{"a": 2}]


@pytest.mark.parametrize("schema", ["mart", "main_mart"])
def test_an_old_file_with_either_schema(tmp_path, schema):
    path = tmp_path / "analytics.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.x AS SELECT 1 AS a")
    with source(Settings("duckdb", duckdb_path=path)).session() as session:
        assert session.execute_query("SELECT a FROM mart.x", {}) == [{"a": 1}]


def test_the_images_health_check_needs_no_user_or_data(tmp_path):
    dockerfile = (Path(__file__).parents[1] / "Dockerfile").read_text()
    (path,) = re.findall(r"HEALTHCHECK .*\n.*urlopen\('http://127\.0\.0\.1:8000(/\w+)'", dockerfile)
    with TestClient(create_app(Settings("duckdb", duckdb_path=tmp_path / "none.duckdb"))) as backend:
        assert backend.get(path).status_code == 200


def test_a_source_that_is_not_known():
    with pytest.raises(ValueError, match="ANALYTICS_SOURCE is 'postgres'; use duckdb or martd"):
        Settings.from_environment({"ANALYTICS_SOURCE": "postgres"})
