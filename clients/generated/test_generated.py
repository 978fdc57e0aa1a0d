"""The examples, with clients made anew of the description that martd serves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "clients/python/src"), str(ROOT / "clients/python/tests")]

from conftest import write_mart  # noqa: E402 (found by the path above)
from daemon import Martd  # noqa: E402

DESCRIPTION = ROOT / "src/http/openapi.json"
NODE_MODULES = ROOT / ".venv/generated/node_modules"
ANSWERS = {
    "notes": ["n0", "n1"], "truncated": False, "got": [{"n": 2}], "problem": "urn:martd:problem:sql-error",
    "options": [["a", 1]], "columns": ["i"], "status": "pass",
}  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    write_mart(folder, "sales", "SELECT i, 'n' || i AS note FROM range(10) t(i)")
    meta = {"dataset": True, "enum_filters": [{"name": "note", "options": ["a", 1]}]}
    model = {"name": "sales", "schema": "mart", "invocation_id": "i", "meta": meta, "columns": [{"name": "i"}]}
    build = {
        "invocation_id": "i", "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:01Z",
        "status": "success", "results": [], "outstanding": [], "models": [model],
    }  # fmt: skip
    (folder / "mart/_build.json").write_text(json.dumps({"build": build}))
    with Martd(folder, MARTD_PUBLISH="file") as daemon:
        yield daemon.ready().url


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def test_openapi_python_client(url, tmp_path):
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    generator = Path(sys.executable).with_name("openapi-python-client")
    assert generator.exists(), f"{generator} is not there: run make .venv/ready"
    arguments = ["--path", DESCRIPTION, "--output-path", tmp_path / "martd", "--meta", "none", "--config", tmp_path / "config.yml"]
    said = run(generator, "generate", *arguments, cwd=tmp_path)
    # It knows neither statements as plain text nor Parquet files nor SQL, and leaves those three out.
    warnings = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("WARNING") or "Unable to process" in line]
    not_json = ["POST /v1/query", "GET /v1/marts/{name}.parquet", "GET /v1/attach.sql"]
    left_out = {f"WARNING parsing {operation} within default." for operation in not_json}
    assert set(warnings) == left_out, said.stderr
    (tmp_path / "example.py").write_text((HERE / "example.py").read_text())
    assert json.loads(run(sys.executable, "example.py", url, cwd=tmp_path).stdout) == ANSWERS


def test_openapi_typescript(url, tmp_path):
    assert NODE_MODULES.exists(), f"{NODE_MODULES} is not there: run make .venv/generated/ready"
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    for name in ("package.json", "example.ts"):
        (tmp_path / name).write_text((HERE / name).read_text())
    run("node_modules/.bin/openapi-typescript", DESCRIPTION, "-o", "martd.ts", cwd=tmp_path)
    options = ["--strict", "--noUncheckedIndexedAccess", "--skipLibCheck", "--target", "es2022", "--module", "nodenext"]
    run("node_modules/.bin/tsc", *options, "example.ts", cwd=tmp_path)
    assert json.loads(run("node", "example.js", url, cwd=tmp_path).stdout) == ANSWERS


def test_nothing_is_described_as_less_than_it_is():
    """Generators drop an array of nobody knows what, and take an object of which nothing is said for an empty one."""

    def vague(part, path):
        if isinstance(part, dict):
            if part.get("type") == "array" and "items" not in part:
                yield f"{path}: an array without items"
            if part.get("type") == "object" and not {"properties", "additionalProperties"} & set(part):
                yield f"{path}: an object without properties"
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, value in items:
            yield from vague(value, f"{path}/{key}")

    assert list(vague(json.loads(DESCRIPTION.read_text()), "")) == []
