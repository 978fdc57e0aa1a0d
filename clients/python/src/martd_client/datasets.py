"""The datasets that a dbt project offers, from what the project says of its models.

Projects say what a dataset can be filtered by under `meta.filters` or in `meta` itself, and dbt keeps
`meta` beside a model's name or in its `config`. What is there and not understood is logged.
"""

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

Model = Mapping[str, Any]
"""`name`, `description`, `meta` or `config.meta`, and `columns`, as in the ledger or in dbt's manifest."""

_log = logging.getLogger(__name__)


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
    offered = [model for model in models if _meta(model).get("dataset") is True]
    return sorted(offered, key=lambda model: str(model["name"]))


def _meta(model: Model) -> dict[str, Any]:
    config = model.get("config") or {}
    return {**(config.get("meta") or {}), **(model.get("meta") or {})}


def _dataset(model: Model) -> dict[str, Any]:
    name, meta = model["name"], _meta(model)
    nested = meta.get("filters") or {}
    if not isinstance(nested, Mapping):
        _log.warning("dataset %s: meta.filters is %r; use a mapping", name, nested)
        nested = {}
    filters = {**meta, **nested}
    return {
        "id": dataset_id(name),
        "dataset_name": name,
        "friendly_name": _text(name, meta, "friendly_name") or name,
        "description": model.get("description") or "",
        "group": _text(name, meta, "group"),
        "time_grain": _text(name, meta, "time_grain"),
        "filters": {
            "date_column": _text(name, filters, "date_column"),
            "account_id_column": _text(name, filters, "account_id_column"),
            "tag_id_column": _text(name, filters, "tag_id_column"),
            "enum_filters": [
                {**_filter(each), "options": _list(name, each, "options")}
                for each in _named(name, filters, "enum_filters")
            ],
            "numeric_filters": [_filter(each) for each in _named(name, filters, "numeric_filters")],
        },
    }


def _named(dataset: str, given: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    filters = _list(dataset, given, key)
    named = [each for each in filters if isinstance(each, Mapping) and isinstance(each.get("name"), str)]
    if len(named) < len(filters):
        _log.warning("dataset %s: %s has filters without a name: %r", dataset, key, filters)
    return named


def _filter(given: Mapping[str, Any]) -> dict[str, Any]:
    name, label = given["name"], given.get("label")
    return {"name": name, "label": label if isinstance(label, str) else name}


def _text(dataset: str, given: Mapping[str, Any], key: str) -> str | None:
    value = given.get(key)
    if value is None or isinstance(value, str):
        return value
    _log.warning("dataset %s: %s is %r; use a text", dataset, key, value)
    return None


def _list(dataset: str, given: Mapping[str, Any], key: str) -> list[Any]:
    value = given.get(key) or []
    if isinstance(value, list):
        return value
    _log.warning("dataset %s: %s is %r; use a list", dataset, key, value)
    return []
