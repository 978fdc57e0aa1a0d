"""The datasets that a dbt project offers, from what the project says of its models."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

Model = Mapping[str, Any]
"""`name`, `description`, `meta` and `columns`, as in the ledger or in dbt's manifest."""


def listing(models: Iterable[Model]) -> dict[str, Any]:
    """As martd's `/v1/datasets`."""
    datasets = [_dataset(model) for model in _offered(models)]
    return {"datasets": datasets, "total": len(datasets)}


def schema(models: Iterable[Model], dataset: str) -> dict[str, Any] | None:
    """As martd's `/v1/datasets/{id}/schema`; nothing when there is no such dataset."""
    for model in _offered(models):
        if dataset == model["name"] or dataset.lower() == dataset_id(model["name"]):
            columns = [
                {key: column.get(key) or "" for key in ("name", "description", "data_type")}
                for column in model.get("columns") or []
            ]
            return {**_dataset(model), "columns": columns}
    return None


def dataset_id(name: str) -> str:
    """The id of a model: the same everywhere."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def _offered(models: Iterable[Model]) -> list[Model]:
    offered = [model for model in models if (model.get("meta") or {}).get("dataset") is True]
    return sorted(offered, key=lambda model: str(model["name"]))


def _dataset(model: Model) -> dict[str, Any]:
    name, meta = model["name"], model["meta"]
    return {
        "id": dataset_id(name),
        "dataset_name": name,
        "friendly_name": meta.get("friendly_name") or name,
        "description": model.get("description") or "",
        "group": meta.get("group"),
        "time_grain": meta.get("time_grain"),
        "filters": {
            "date_column": meta.get("date_column"),
            "account_id_column": meta.get("account_id_column"),
            "tag_id_column": meta.get("tag_id_column"),
            "enum_filters": [
                {**_filter(each), "options": each.get("options") or []}
                for each in meta.get("enum_filters") or []
            ],
            "numeric_filters": [_filter(each) for each in meta.get("numeric_filters") or []],
        },
    }


def _filter(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": given["name"], "label": given.get("label") or given["name"]}
