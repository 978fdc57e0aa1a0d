"""The datasets in dbt's manifest.json."""

import json
from pathlib import Path
from typing import Any

from martd_client import datasets


class Manifest:
    """A manifest that is read again when it has changed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read: tuple[tuple[int, int], list[dict[str, Any]]] | None = None

    def is_there(self) -> bool:
        return self._path is not None and self._path.is_file()

    def datasets(self) -> dict[str, Any]:
        return datasets.listing(self._models())

    def schema(self, dataset: str) -> dict[str, Any] | None:
        return datasets.schema(self._models(), dataset)

    def _models(self) -> list[dict[str, Any]]:
        if self._path is None or not self._path.is_file():
            return []
        stat = self._path.stat()
        state = (stat.st_mtime_ns, stat.st_size)
        if self._read is None or self._read[0] != state:
            nodes = json.loads(self._path.read_text(encoding="utf-8"))["nodes"].values()
            models = [_model(node) for node in nodes if node["resource_type"] == "model"]
            self._read = (state, models)
        return self._read[1]


def _model(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": node["alias"],
        "description": node["description"],
        "meta": node.get("meta"),
        "config": node["config"],
        "columns": list(node["columns"].values()),
    }
