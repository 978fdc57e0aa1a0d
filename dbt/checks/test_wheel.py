"""From the wheel to whole builds, as README and docs/dbt.md say: with dbt, with a Python script, with a shell script."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
from pathlib import Path

from daemon import Daemon
from shop import HERE, Shop

SOURCES = HERE.parents[1]
SINGULAR = "test.shop.orders_have_customers"
POLARS = """
import sys, polars
polars.DataFrame({"day": [1, 2], "visits": [int(sys.argv[2]), 5]}).write_parquet(f"{sys.argv[1]}/visits.parquet")
polars.DataFrame({"total": [int(sys.argv[2]) + 5]}).write_parquet(f"{sys.argv[1]}/totals.parquet")
"""


def output(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options).stdout


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not within a minute")
        time.sleep(0.05)


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = Path(tempfile.mkdtemp(prefix="martd-wheel-"))
        cls.addClassCleanup(shutil.rmtree, cls.place)
        binary = Path(os.environ["MARTD_BIN"]).resolve()
        # A debug build names the sources of its crates, and would be large with its symbols.
        variables = [f"MARTD={binary}", "STRIPPED=yes", f"BUILD_FOLDERS={SOURCES}", f"DIST_DIR={cls.place / 'dist'}", "LEVEL=1"]
        make = output("make", "--no-print-directory", "-C", SOURCES, "wheel-of-build", *variables)
        output(sys.executable, "-m", "venv", cls.place / "venv")
        output(cls.place / "venv/bin/pip", "install", "--quiet", "--no-index", make.splitlines()[-1])
        cls.martd = cls.place / "venv/bin/martd"

    def setUp(self):
        self.root = Path(tempfile.mkdtemp(dir=self.place))

    def serve(self, parquet_dir):
        daemon = Daemon(parquet_dir, [self.martd, "serve", parquet_dir], MARTD_STATE_DIR=str(self.root / "state"))
        self.addCleanup(daemon.stop)
        return daemon

    def ask(self, daemon, sql):
        return [tuple(row.values()) for row in daemon.query(sql)]

    def test_a_stock_dbt_project(self):
        shop = Shop(self.root)
        shutil.copytree(HERE / "shop", shop.project)
        patch = output(self.martd, "init", "--dbt", shop.project, "--parquet-dir", shop.marts.parent)
        output("patch", "-p1", "-d", shop.project, input=patch)
        shop.dbt("deps")
        shop.dbt("build")
        daemon = self.serve(shop.marts.parent)

        def build():
            return shop.last["build"]["id"]

        def wait(expected):
            self.assertEqual(daemon.get(f"/v1/snapshot?build={expected}&wait=60")["build"]["invocation_id"], expected)

        def total():
            [[total]] = self.ask(daemon, "SELECT sum(amount)::INT AS total FROM mart.orders")
            return total

        first = build()
        wait(first)
        before = total()
        # A failed test holds what was built, and is named first.
        shop.replace("models/orders.sql", "coalesce(sum(amount), 0)", "coalesce(sum(amount), 0) + 1000")
        test = (shop.project / "tests/orders_have_customers.sql").read_text()
        shop.write("tests/orders_have_customers.sql", "select * from {{ ref('orders') }}")
        shop.dbt("build", fails=True)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            daemon.get(f"/v1/snapshot?build={build()}&wait=60")
        with caught.exception as answer:
            self.assertIn(SINGULAR, json.load(answer)["detail"])
        self.assertEqual(daemon.get("/v1/snapshot")["held"]["outstanding"][0]["unique_id"], SINGULAR)
        self.assertEqual(total(), before)
        # The fix releases it.
        shop.write("tests/orders_have_customers.sql", test)
        shop.dbt("build")
        wait(build())
        after = total()
        self.assertGreater(after, before)
        # The tests passed, the data are wrong: back, and forth again.
        output(self.martd, "rollback", first, "--dir", shop.marts.parent)
        wait_for(lambda: total() == before)
        output(self.martd, "rollback", "--release", "--dir", shop.marts.parent)
        wait_for(lambda: total() == after)

    def test_a_polars_script(self):
        lake = self.root / "lake"
        lake.mkdir()
        daemon = None
        for visits in (10, 20):
            output(sys.executable, "-c", POLARS, lake, visits)
            said = json.loads(output(self.martd, "publish", "--dir", lake))
            self.assertEqual({mart["name"] for mart in said["vouched"]}, {"visits", "totals"})
            daemon = daemon or self.serve(lake)
            daemon.get(f"/v1/snapshot?build={said['build']}&wait=60")
            self.assertEqual(self.ask(daemon, "SELECT sum(visits), any_value(total) FROM mart.visits, mart.totals"), [(visits + 5, visits + 5)])
        # What is not published yet is not served.
        output(sys.executable, "-c", POLARS, lake, 30)
        self.assertEqual(self.ask(daemon, "SELECT total FROM mart.totals"), [(25,)])

    def test_copy_in_a_shell_script(self):
        lake = self.root / "lake"
        lake.mkdir()
        script = self.root / "nightly.sh"
        script.write_text(
            "set -e\n"
            f"duckdb() {{ {sys.executable} -c 'import duckdb, sys; duckdb.sql(sys.argv[1])' \"$1\"; }}\n"
            f"duckdb \"COPY (SELECT $1 AS n) TO '{lake}/numbers.parquet'\"\n"
            f"{self.martd} publish --dir {lake} --build night-$1\n"
        )
        output("sh", script, 1)
        daemon = self.serve(lake)
        for night in (1, 2):
            if night > 1:
                output("sh", script, night)
            daemon.get(f"/v1/snapshot?build=night-{night}&wait=60")
            self.assertEqual(self.ask(daemon, "SELECT n FROM mart.numbers"), [(night,)])


if __name__ == "__main__":
    unittest.main()
