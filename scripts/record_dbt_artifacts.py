"""Keeps what `martd publish --dbt-target` reads of dbt's artifacts: python3 scripts/record_dbt_artifacts.py FROM TO"""

import json
import sys
from pathlib import Path

NODE = ["resource_type", "name", "alias", "schema", "description", "meta", "columns", "depends_on"]
CONFIG = ["enabled", "materialized", "severity", "meta", "location", "format", "partition_by"]


def node(full):
    kept = {key: full[key] for key in NODE if key in full}
    kept["config"] = {key: value for key, value in full["config"].items() if key in CONFIG}
    kept["depends_on"] = {"nodes": full["depends_on"]["nodes"]} if "nodes" in full["depends_on"] else {}
    return kept


source, target = map(Path, sys.argv[1:])
target.mkdir(parents=True, exist_ok=True)
for path in sorted(source.glob("*.json")):
    full = json.loads(path.read_text())
    if path.name == "manifest.json":
        kept = {
            "metadata": {key: full["metadata"].get(key) for key in ["dbt_schema_version", "dbt_version", "project_name"]},
            "nodes": {id: node(full) for id, full in full["nodes"].items()},
            "unit_tests": {},
        }
    else:
        keep = ["metadata", "elapsed_time"]
        kept = {key: full[key] for key in keep}
        kept["args"] = {key: full["args"][key] for key in ["which", "empty", "sample", "vars"] if key in full["args"]}
        dropped = ["compiled_code", "compiled", "relation_name", "thread_id", "adapter_response"]
        kept["results"] = [{key: value for key, value in result.items() if key not in dropped} for result in full["results"]]
        kept["metadata"].pop("env", None)
    (target / path.name).write_text(json.dumps(kept, indent=1) + "\n")
