"""The dbt package: what each kind of run leaves in `_builds/`, told by a stock project."""

import json
import shutil
import subprocess
import unittest

from shop import Shop, as_named, documented_lines, failed, marts

ORDERS, CUSTOMERS = "model.shop.orders", "model.shop.customers"
SINGULAR = "test.shop.orders_have_customers"
NASTY = 'it\'s "quoted" \\ a back\\slash,\na new line, Zoë 😀, {{ x }} {% y %} {# z #}, $1 ? %s; --'
RAW_NASTY = "{% raw %}" + NASTY + "{% endraw %}"
FAILING_TEST = "select * from {{ ref('orders') }}"
UNIT_TEST = {
    "unit_tests": [
        {
            "name": "counts_orders",
            "model": "report",
            "given": [{"input": "ref('orders')", "rows": [{"order_id": 1}, {"order_id": 2}]}],
            "expect": {"rows": [{"orders": 2}]},
        }
    ]
}

FRESH = {"loaded_at_field": "ordered_on::timestamp", "freshness": {"warn_after": {"count": 1, "period": "day"}}}
# Nothing else makes dbt run hooks without building or testing.
SOURCE = {
    "sources": [
        {"name": "app", "schema": "main", "tables": [{"name": "raw_orders", **FRESH}]},
    ]
}


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.built = Shop.new(cls)
        cls.log = cls.built.dbt("build")

    def setUp(self):
        self.shop = self.built.copy()

    def test_at_most_six_lines_are_added_or_changed(self):
        lines = sum(len(set(new) - set(old)) for old, new in documented_lines().values())
        self.assertLessEqual(lines, 6)

    def test_a_build_is_recorded(self):
        record, = self.shop.records
        build = record["build"]
        self.assertEqual(record["version"], 2)
        self.assertEqual([file.name for file in (self.shop.marts / "_builds").iterdir()], [f"{build['id']}.json"])
        self.assertIn(f"build {build['id']} with 2 marts", self.log)
        self.assertEqual((build["project"], build["status"]), ("shop", "success"))
        self.assertRegex(build["writer"], r"^dbt 1\.\d+\.\d+")
        for time in ("started_at", "finished_at"):
            self.assertRegex(build[time], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        self.assertLess(build["started_at"], build["finished_at"])

        self.assertEqual(set(marts(record)), {"orders", "customers"})
        for name, mart in marts(record).items():
            self.assertEqual([file["path"] for file in mart["files"]], [f"{name}.parquet"])
            self.assertTrue(as_named(self.shop, mart), name)
        customers = marts(record)["customers"]
        self.assertEqual((customers["schema"], customers["description"]), ("main", "One row for each customer."))
        column = {"name": "customer_id", "description": "The customer's number.", "data_type": "integer"}
        self.assertEqual(customers["columns"], [column])

        results = {result["id"]: (result["kind"], result["status"]) for result in record["results"]}
        self.assertEqual(results["seed.shop.raw_orders"], ("seed", "success"))
        self.assertEqual(results["model.shop.stg_orders"], ("model", "success"))
        self.assertEqual(results[SINGULAR], ("test", "pass"))
        self.assertEqual(failed(record), {})
        self.assertEqual(set(record["nodes"]), set(results))
        # The tests of a mart are those that read it, whatever else they read.
        self.assertEqual(sum(SINGULAR in mart["tests"] for mart in record["marts"]), 2)
        self.assertEqual({len(mart["tests"]) for mart in record["marts"]}, {3})

    def test_run_then_test(self):
        self.shop.dbt("run")
        run = self.shop.last
        self.assertEqual({result["kind"] for result in run["results"]}, {"model"})
        self.assertEqual(len(marts(run)["orders"]["tests"]), 3)
        self.shop.dbt("test")
        test = self.shop.last
        self.assertEqual(test["marts"], [])
        self.assertEqual({(result["kind"], result["status"]) for result in test["results"]}, {("test", "pass")})
        self.assertLessEqual(set(marts(run)["orders"]["tests"]), {result["id"] for result in test["results"]})
        self.shop.dbt("run", variables={"martd_untested": "publish"})
        self.assertEqual([mart["tests"] for mart in self.shop.last["marts"]], [[], []])
        self.assertEqual(len(self.shop.records), 4)

    def test_what_neither_builds_nor_tests_changes_nothing(self):
        self.shop.write("models/sources.yml", json.dumps(SOURCE))
        before = self.shop.files()
        for command in (["compile"], ["docs", "generate"], ["parse"], ["list"], ["source", "freshness"], ["show", "--select", "orders"]):
            self.shop.dbt(*command)
        self.shop.dbt("build", "--select", "no_such_model")
        self.assertEqual(self.shop.files(), before)

    def test_a_failed_test_and_what_it_stopped(self):
        self.shop.write("tests/orders_have_customers.sql", FAILING_TEST)
        self.shop.dbt("build", fails=True)
        self.assertEqual(self.shop.last["build"]["status"], "error")
        self.assertLessEqual({SINGULAR, CUSTOMERS}, set(failed(self.shop.last)))
        self.assertEqual(set(marts(self.shop.last)), {"orders"})
        self.assertIn("Got 4 results", failed(self.shop.last)[SINGULAR])

        self.shop.write("tests/orders_have_customers.sql", "{{ config(severity='warn') }} " + FAILING_TEST)
        self.shop.dbt("build")
        self.assertEqual(failed(self.shop.last), {})
        self.assertNotIn(SINGULAR, marts(self.shop.last)["orders"]["tests"])

    def test_a_failed_model_and_retry(self):
        self.shop.write("models/orders.sql", "select error('o''hara said \"{{ '{{' }}\" \\ é') as order_id, 1 as customer_id, 1 as amount, 1 as ordered_on")
        self.shop.dbt("build", fails=True)
        record = self.shop.last
        self.assertIn("o'hara said \"{{\" \\ é", failed(record)[ORDERS])
        self.assertEqual(failed(record)[CUSTOMERS], "skipped, because another node failed")
        self.assertEqual(record["marts"], [])
        self.assertIn(CUSTOMERS, record["nodes"])

        self.shop.write("models/orders.sql", "select 1 as order_id, 1 as customer_id, 7 as amount, 1 as ordered_on")
        self.shop.dbt("retry")
        retried = self.shop.last
        self.assertEqual(set(marts(retried)), {"orders", "customers"})
        self.assertEqual({result["id"] for result in retried["results"]}, set(failed(record)))
        self.assertEqual(failed(retried), {})

    def test_the_log_says_that_a_build_is_held(self):
        self.assertNotIn("held", self.log)
        said = self.shop.dbt("run")
        self.assertRegex(said, r"build \S+ with 2 marts, held: 5 tests have not run since: run dbt test")
        self.shop.write("models/orders.sql", "select error('no') as order_id")
        said = self.shop.dbt("build", fails=True)
        self.assertRegex(said, rf"build \S+ with 0 marts, held: {ORDERS} has not succeeded \(and \d more\)")
        said = self.shop.dbt("build", "--empty", fails=True)
        self.assertRegex(said, r"held: \S+ has not succeeded")

    def test_fail_fast_tells_what_did_not_run(self):
        self.shop.write("models/orders.sql", "select error('no') as order_id")
        self.shop.dbt("build", "--fail-fast", fails=True)
        self.assertLessEqual({ORDERS, CUSTOMERS, SINGULAR}, set(failed(self.shop.last)))
        self.assertIn("no", failed(self.shop.last)[ORDERS])

    def test_a_part_in_an_empty_database(self):
        self.shop.in_memory()
        # Neither is there but as a file; `recent` is ephemeral, so what it reads has to be there too.
        self.shop.write("models/recent.sql", "{{ config(materialized='ephemeral') }} select * from {{ ref('orders') }}")
        self.shop.write("models/top.sql", "select max(amount) as amount from {{ ref('recent') }}")
        self.shop.dbt("build", "--select", "top")
        self.assertEqual(set(marts(self.shop.last)), {"top"})
        self.assertEqual([float(row[0]) for row in self.shop.rows("top.parquet")], [30.0])
        self.assertNotIn("model.shop.recent", {result["id"] for result in self.shop.last["results"]})
        self.shop.dbt("test", "--select", "orders", "customers")
        self.assertEqual(failed(self.shop.last), {})
        # The tests of a mart without rows pass as they did when its view was there.
        self.shop.write("models/orders.sql", "select 1 as order_id, 1 as customer_id, 7 as amount, 1 as ordered_on where false")
        self.shop.dbt("run", "--select", "orders")
        self.assertEqual(self.shop.rows("orders.parquet"), [(None,) * 4])
        self.shop.dbt("test", "--select", "orders")
        self.assertEqual(failed(self.shop.last), {})
        # An upstream file that is not there yet is dbt's to complain of, and only if it is read.
        (self.shop.marts / "orders.parquet").unlink()
        self.shop.dbt("test", "--select", "customers", "--exclude", "orders_have_customers")
        self.assertIn("orders does not exist", self.shop.dbt("run", "--select", "top", fails=True))

    def test_unit_tests_read_what_their_model_reads(self):
        self.shop.in_memory()
        self.shop.write("models/report.sql", "select count(*) as orders from {{ ref('orders') }}")
        self.shop.write("models/report.yml", json.dumps(UNIT_TEST))
        self.shop.dbt("test", "--select", "test_type:unit")
        entry, = self.shop.last["results"]
        self.assertEqual((entry["id"], entry["kind"], entry["status"]), ("unit_test.shop.report.counts_orders", "test", "pass"))

    def test_invocations_side_by_side_lose_nothing(self):
        self.shop.in_memory()
        self.shop.replace("dbt_project.yml", "+materialized: view", "+materialized: ephemeral")
        self.shop.write("models/staging/stg_orders.sql", "select 1 as order_id, 1 as customer_id, 1 as ordered_on, 'placed' as status")
        self.shop.write("models/staging/stg_payments.sql", "select 1 as order_id, 5 as amount")
        for name in ("a", "b"):
            self.shop.write(f"models/{name}.sql", f"select '{name}' as x, * from {{{{ ref('orders') }}}}")
        self.shop.dbt("parse")
        runs = [
            self.shop.start(command, "--select", name, "--target-path", f"target-{command}-{name}")
            for command, name in (("run", "a"), ("run", "b"), ("build", "orders"), ("test", "customers"))
        ]
        for run in runs:
            code, said = run.wait()
            self.assertEqual(code, 0, said)
        self.assertEqual(len(self.shop.records), 5)
        named = {name: mart for record in self.shop.records for name, mart in marts(record).items()}
        self.assertEqual(set(named), {"orders", "customers", "a", "b"})
        for name, mart in named.items():
            self.assertTrue(as_named(self.shop, mart), name)

    def test_any_text_and_any_meta_is_written_down(self):
        meta = f"{{label: {json.dumps(RAW_NASTY, ensure_ascii=False)}, since: 2024-01-31, of: {{7: [.nan, -.inf, 1.5, null, true]}}, at: 2024-01-31T10:00:00}}"
        self.shop.replace("models/schema.yml", "description: One row for each order.", f"description: {json.dumps(RAW_NASTY, ensure_ascii=False)}\n    config: {{meta: {meta}}}")
        self.shop.dbt("run", "--select", "orders")
        orders = marts(self.shop.last)["orders"]
        self.assertEqual(orders["description"], NASTY)
        expected = {"label": NASTY, "since": "2024-01-31", "of": {"7": ["nan", "-inf", 1.5, None, True]}, "at": "2024-01-31T10:00:00"}
        self.assertEqual(orders["meta"], expected)

    def test_a_run_without_data_proves_nothing(self):
        self.shop.dbt("build", "--empty")
        ran = {result["id"] for result in self.shop.last["results"]}
        self.assertEqual(set(failed(self.shop.last)), ran)
        self.assertEqual({result["status"] for result in self.shop.last["results"]}, {"empty"})
        self.assertEqual(self.shop.last["build"]["status"], "error")

    def test_the_package_comes_from_git_too(self):
        repository = self.shop.root / "repository"
        shutil.copytree(self.shop.project / "dbt_packages/martd", repository / "dbt/package")
        git(repository, "init", "--quiet")
        git(repository, "add", ".")
        git(repository, "commit", "--quiet", "--message", "the package")
        git(repository, "tag", "v2")
        shutil.rmtree(self.shop.project / "dbt_packages", ignore_errors=True)
        self.shop.write("packages.yml", f'packages: [{{git: "file://{repository}", subdirectory: dbt/package, revision: v2}}]')
        self.shop.dbt("deps")
        self.shop.dbt("run", "--select", "orders")
        self.assertEqual(set(marts(self.shop.last)), {"orders"})


def git(repository, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=repository, check=True, capture_output=True)


if __name__ == "__main__":
    unittest.main()
