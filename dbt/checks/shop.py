"""A stock dbt-duckdb project, `shop/`, to which docs/dbt.md's lines are added, and real dbt runs over it."""

import atexit
import functools
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import tempfile
from pathlib import Path

import duckdb
import jsonschema

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "package"
DOCUMENT = HERE.parent.parent / "docs/dbt.md"
SCHEMA = HERE.parent.parent / "docs/ledger.schema.json"
# As seen from the project, where dbt runs, so that a copy needs no new settings.
ROOT = "../data/mart"


def documented_lines():
    """What docs/dbt.md tells to change: for each file what stands there and what comes in its place."""
    block = re.search(r"```diff\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[1]
    changes = {}
    for line in block.splitlines():
        if line.startswith(" # "):
            old, new = changes.setdefault(line[3:], ([], []))
            continue
        for lines, marks in ((old, " -"), (new, " +")):
            if line[0] in marks:
                lines.append(line[1:])
    return changes


class Run:
    """dbt in a process of its own. It is forked from one that has imported dbt already, which is half of the work."""

    FORKS = multiprocessing.get_context("forkserver")
    FORKS.set_forkserver_preload(["dbt.cli.main", "dbt.adapters.duckdb"])

    def __init__(self, arguments, folder, env):
        self.output = tempfile.NamedTemporaryFile(prefix="martd-dbt-", suffix=".log")
        self.process = self.FORKS.Process(target=run_dbt, args=(arguments, folder, env, self.output.name))
        self.process.start()

    def wait(self):
        self.process.join()
        with self.output:
            return self.process.exitcode, self.output.read().decode()


def run_dbt(arguments, folder, env, output):
    log = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    from dbt.cli.main import cli

    cli(arguments)


class Shop:
    """The project in a directory of its own, its marts beside it."""

    def __init__(self, root):
        self.root = root
        self.project = root / "shop"
        self.marts = root / "data" / "mart"
        self.env = {}

    @classmethod
    def new(cls, test_class):
        shop = cls(Path(tempfile.mkdtemp(prefix="martd-shop-")))
        test_class.addClassCleanup(shutil.rmtree, shop.root)
        shutil.copytree(adopted().project, shop.project, symlinks=True)
        return shop

    def copy(self):
        """The same state elsewhere, so that one first build serves many tests."""
        twin = Shop(Path(tempfile.mkdtemp(dir=self.root)))
        twin.env = dict(self.env)
        shutil.copytree(self.project, twin.project, symlinks=True)
        if self.marts.exists():
            shutil.copytree(self.marts, twin.marts)
        return twin

    def in_memory(self):
        self.replace("profiles.yml", "path: shop.duckdb", 'path: ":memory:"')

    def write(self, path, text):
        target = self.project / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def replace(self, path, old, new):
        text = (self.project / path).read_text(encoding="utf-8")
        assert old in text, f"{path} has no {old!r}"
        self.write(path, text.replace(old, new))

    def package(self, name, **settings):
        """Another local package, with these lines in its dbt_project.yml."""
        self.write(f"../{name}/dbt_project.yml", json.dumps({"name": name, "version": "1.0", "config-version": 2} | settings))
        with open(self.project / "packages.yml", "a", encoding="utf-8") as file:
            file.write(f"  - local: ../{name}\n")
        self.dbt("deps")

    def start(self, *arguments):
        foreign = ("DBT_", "MARTD_", "PARQUET_DIR")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return Run(["--no-use-colors", "--no-send-anonymous-usage-stats", *arguments], self.project, ours | self.env)

    def dbt(self, *arguments, fails=False, variables=None):
        if variables:
            arguments = (*arguments, "--vars", json.dumps(variables))
        code, said = self.start(*arguments).wait()
        if (code != 0) != fails:
            raise AssertionError(f"dbt {' '.join(arguments)} ended with {code}:\n{said}")
        return said

    @property
    def records(self):
        """From the first to the last."""
        records = [json.loads(file.read_text(encoding="utf-8")) for file in (self.marts / "_builds").glob("*.json")]
        for record in records:
            jsonschema.validate(record, json.loads(SCHEMA.read_text(encoding="utf-8")))
        return sorted(records, key=lambda record: record["build"]["finished_at"])

    @property
    def last(self):
        return self.records[-1]

    def rows(self, name):
        return duckdb.sql(f"from '{self.marts / name}' order by all").fetchall()

    def files(self):
        """All files below the marts' directory, with their bytes."""
        return {str(path.relative_to(self.marts)): path.read_bytes() for path in self.marts.rglob("*") if path.is_file()}


@functools.cache
def adopted():
    """The stock project with the lines of docs/dbt.md, its package installed and parsed once."""
    shop = Shop(Path(tempfile.mkdtemp(prefix="martd-shop-")))
    atexit.register(shutil.rmtree, shop.root)
    shutil.copytree(HERE / "shop", shop.project)
    for path, (old, new) in documented_lines().items():
        new = "\n".join(new).replace("/srv/parquet/mart", ROOT).replace("/usr/local/share/martd/dbt", os.fspath(PACKAGE))
        if old:
            shop.replace(path, "\n".join(old), new)
        else:
            shop.write(path, new + "\n")
    shop.dbt("deps")
    shop.dbt("parse")
    return shop


def marts(record):
    return {mart["name"]: mart for mart in record["marts"]}


def failed(record):
    """What did not succeed, and why."""
    return {
        result["id"]: result["message"] for result in record["results"] if result["status"] not in ("success", "pass", "warn", "no-op")
    }


def as_named(shop, mart):
    """Whether the files are there with the bytes that the record names."""
    for file in mart["files"]:
        content = (shop.marts / file["path"]).read_bytes()
        if (len(content), hashlib.sha256(content).hexdigest()) != (file["bytes"], file["sha256"]):
            return False
    return bool(mart["files"])
