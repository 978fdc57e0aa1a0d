"""Datasets: what dbt projects say of their models, in all the places where they say it."""

import json
import logging

import pytest
from conftest import write_mart
from daemon import Martd
from martd_client import Client, QueryError, datasets

FILTERS = {
    "date_column": "day", "account_id_column": "account_id", "tag_id_column": "tag_id",
    "enum_filters": [{"name": "kind", "label": "Kind", "options": ["a", "b"]}, {"name": "mark"}],
    "numeric_filters": [{"name": "amount", "label": "Amount"}],
}  # fmt: skip
PLAIN = {"dataset": True, "friendly_name": "The Xs", "group": "g", "time_grain": "day", **FILTERS}
NESTED = {"dataset": True, "friendly_name": "The Xs", "group": "g", "time_grain": "day", "filters": FILTERS}


def model(**parts):
    columns = [{"name": "day", "description": "A day.", "data_type": "DATE"}, {"name": "amount"}]
    return {"name": "x", "description": "Xs.", "columns": columns, **parts}


@pytest.mark.parametrize(
    "parts",
    [
        {"meta": PLAIN}, {"meta": NESTED}, {"config": {"meta": PLAIN}}, {"config": {"meta": NESTED}},
        {"meta": {}, "config": {"meta": NESTED}}, {"meta": NESTED, "config": {"meta": NESTED}},
        {"meta": {"filters": FILTERS}, "config": {"meta": {**PLAIN, "date_column": "other"}}},
        {"meta": {**NESTED, "date_column": "other"}},
    ],
    ids=str,
)  # fmt: skip
def test_filters_wherever_they_are(parts):
    listing = datasets.listing([model(**parts), model(name="y", meta={"dataset": False}), model(name="z")])
    expected = {
        "id": datasets.dataset_id("x"), "dataset_name": "x", "friendly_name": "The Xs", "description": "Xs.", "group": "g",
        "time_grain": "day",
        "filters": FILTERS | {
            "enum_filters": [FILTERS["enum_filters"][0], {"name": "mark", "label": "mark", "options": []}],
        },
    }  # fmt: skip
    assert listing == {"datasets": [expected], "total": 1}
    columns = [{"name": "day", "description": "A day.", "data_type": "DATE"}, {"name": "amount", "description": "", "data_type": ""}]
    for name in ("x", expected["id"], expected["id"].upper()):
        assert datasets.schema([model(**parts)], name) == {**expected, "columns": columns}
    assert datasets.schema([model(**parts)], "y") is None


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ("day", "meta.filters is 'day'; use a mapping"),
        ({"date_column": ["day"]}, "date_column is ['day']; use a text"),
        ({"enum_filters": {"name": "x"}}, "enum_filters is {'name': 'x'}; use a list"),
        ({"enum_filters": [{"name": "k", "options": "a"}]}, "options is 'a'; use a list"),
        ({"numeric_filters": ["amount", {"label": "A"}]}, "numeric_filters has filters without a name"),
    ],
)
def test_what_is_not_understood_is_logged(caplog, filters, said):
    with caplog.at_level(logging.WARNING):
        assert datasets.listing([model(meta={"dataset": True, "filters": filters})])["total"] == 1
    assert f"dataset x: {said}" in caplog.text


def land(folder, name, document):
    path = folder / "mart" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))


def build(*models):
    return {"build": {
        "invocation_id": "i", "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:01Z",
        "status": "success", "results": [], "outstanding": [], "models": models,
    }}  # fmt: skip


def test_the_ledgers_over_http_and_in_process(tmp_path):
    write_mart(tmp_path, "x", "SELECT 1 AS a")
    described = {"schema": "mart", "invocation_id": "i", "meta": PLAIN, "columns": [{"name": "a", "description": "A.", "data_type": "INTEGER"}]}
    land(tmp_path, "_build.json", build(model(**described), model(**described | {"name": "y", "meta": {}})))
    with Martd(tmp_path, MARTD_PUBLISH="file") as daemon, Client(daemon.ready().url) as one, Client(f"file://{tmp_path}") as other:
        assert one.datasets() == other.datasets()
        [dataset] = one.datasets()["datasets"]
        assert dataset["filters"]["date_column"] == "day"
        for name in ("x", dataset["id"]):
            assert one.schema(name) == other.schema(name)
        assert one.schema("x")["columns"] == described["columns"]
        for each in (one, other):
            with pytest.raises(QueryError) as caught:
                each.schema("nope")
            assert caught.value.slug == "not-found"


def test_the_last_record_of_a_mart_counts(tmp_path):
    """In process; of files that are no records, nothing is known."""
    def record(number, finished_at, *marts):
        land(tmp_path, f"_builds/{number}.json", {"version": 2, "build": {"id": str(number), "finished_at": finished_at}, "marts": marts})

    land(tmp_path, "_build.json", build(model(meta=PLAIN), model(name="y", meta=NESTED)))
    record(3, "2026-01-02T00:00:00Z", model(meta={"dataset": True, "friendly_name": "second"}))
    record(2, "2026-01-02T00:00:00.5Z", model(meta={"dataset": True, "friendly_name": "third"}))
    record(1, "2026-01-02T00:00:00.5Z", model(meta={"dataset": True, "friendly_name": "tie"}))
    land(tmp_path, "_builds/half.json", {"version": 2})
    (tmp_path / "mart/_builds/torn.json").write_text('{"build": {')
    with Client(f"file://{tmp_path}") as client:
        assert [each["friendly_name"] for each in client.datasets()["datasets"]] == ["third", "The Xs"]
