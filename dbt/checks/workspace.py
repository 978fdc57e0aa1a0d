"""A copy of the dbt project in a directory of its own, and real dbt runs over it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DBT = Path(sys.executable).with_name("dbt")
# As seen from the project, where dbt runs: the same for every copy, because dbt parses all anew when a setting changes.
PARQUET_DIR, OLD_FILE = "../parquet", "../analytics.duckdb"


class Workspace:
    def __init__(self, root, variables):
        self.root = root
        self.env = {}
        self.project = root / "project"
        self.marts = root / "parquet" / "mart"
        self.vars = variables

    @classmethod
    def new(cls, test_class, **variables):
        space = cls(Path(tempfile.mkdtemp(prefix="martd-dbt-")), variables)
        test_class.addClassCleanup(shutil.rmtree, space.root)
        for folder in ("macros", "models", "orchestration", "package", "plugins", "postgres", "tests"):
            shutil.copytree(PROJECT / folder, space.project / folder)
        for file in ("dbt_project.yml", "packages.yml", "profiles.yml"):
            shutil.copy(PROJECT / file, space.project)
        space.dbt("deps")
        return space

    def copy(self):
        """The same state elsewhere, so that one first build serves many tests."""
        twin = Workspace(Path(tempfile.mkdtemp(dir=self.root)), self.vars)
        twin.env = self.env
        shutil.copytree(self.project, twin.project)
        shutil.copytree(self.marts, twin.marts)
        if self.old_file.exists():
            shutil.copy(self.old_file, twin.old_file)
        return twin

    @property
    def old_file(self):
        """What phase 1 of the migration keeps beside the marts, with `env` {"DUCKDB_PATH": OLD_FILE}."""
        return self.project / OLD_FILE

    def dbt(self, *arguments, fails=False, **variables):
        run = subprocess.run(
            [DBT, "--no-use-colors", *arguments, "--vars", json.dumps(self.vars | variables)],
            cwd=self.project, env=self.environment(), capture_output=True, text=True,
        )
        if (run.returncode != 0) != fails:
            raise AssertionError(f"dbt {' '.join(arguments)} ended with {run.returncode}:\n{run.stdout}\n{run.stderr}")
        return run.stdout

    def environment(self):
        """Settings of whoever runs the tests must not reach the project under test."""
        foreign = ("DBT_", "DAGSTER_", "DUCKDB_PATH", "MARTD_", "PARQUET_DIR", "PG", "POSTGRES_")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return ours | {"PARQUET_DIR": PARQUET_DIR} | self.env

    def write(self, path, text):
        target = self.project / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def mart(self, name):
        return self.marts / f"{name}.parquet"

    @property
    def records(self):
        """What the package has written, from the first to the last."""
        records = [json.loads(file.read_text(encoding="utf-8")) for file in (self.marts / "_builds").glob("*.json")]
        return sorted(records, key=lambda record: record["build"]["finished_at"])

    @property
    def last(self):
        return self.records[-1]

    @property
    def build(self):
        """The id of the last build."""
        return self.last["build"]["id"]

    @property
    def built(self):
        """The names of the marts that the last run built."""
        return {mart["name"] for mart in self.last["marts"]}

    @property
    def failed(self):
        """What did not succeed in the last run, and why."""
        passing = ("success", "pass", "warn", "no-op")
        return {result["id"]: result["message"] for result in self.last["results"] if result["status"] not in passing}
