"""The dbt package and a real martd: what each run comes to for readers."""

import json
import threading
import unittest
import urllib.error

from daemon import Daemon
from shop import Shop

TEST = "tests/orders_have_customers.sql"
SINGULAR = "test.shop.orders_have_customers"


class Served(unittest.TestCase):
    def setUp(self):
        self.shop = Shop.new(type(self))
        self.shop.dbt("build")
        self.daemon = Daemon(self.shop.marts.parent)
        self.addCleanup(self.daemon.stop)
        self.assert_served()

    def last(self):
        return self.shop.last["build"]["id"]

    def assert_served(self):
        self.assertEqual(self.daemon.get(f"/v1/snapshot?build={self.last()}&wait=60")["build"]["invocation_id"], self.last())

    def held(self):
        """Why the last build is not served."""
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.daemon.get(f"/v1/snapshot?build={self.last()}&wait=60")
        with caught.exception as answer:
            self.assertEqual(answer.code, 409)
            return json.load(answer)["detail"]

    def served(self):
        return {mart["name"] for mart in self.daemon.get("/v1/snapshot")["marts"]}

    def amounts(self):
        return [row["amount"] for row in self.daemon.query("select amount::int as amount from mart.orders order by all")]

    def test_a_failed_test_holds_and_the_fix_releases(self):
        before = self.amounts()
        self.shop.replace("models/orders.sql", "coalesce(sum(amount), 0)", "coalesce(sum(amount), 0) + 1000")
        self.shop.write(TEST, "select * from {{ ref('orders') }}")
        self.shop.dbt("build", fails=True)
        self.assertIn(SINGULAR, self.held())
        failed = self.daemon.get("/v1/snapshot")["held"]["outstanding"]
        self.assertEqual(failed[0]["unique_id"], SINGULAR)
        for quiet in (["compile"], ["docs", "generate"], ["run", "--select", "stg_orders"]):
            self.shop.dbt(*quiet)
            self.assertIn(SINGULAR, self.held())
        self.assertEqual(self.amounts(), before)

        self.shop.write(TEST, "select * from {{ ref('orders') }} left join {{ ref('customers') }} using (customer_id) where name is null")
        self.shop.dbt("build")
        self.assert_served()
        self.assertEqual(self.amounts(), [amount + 1000 for amount in before])

    def test_what_has_not_been_tested_waits_for_its_tests(self):
        self.shop.dbt("run")
        self.assertIn("has not run since", self.held())
        self.shop.dbt("test")
        self.assert_served()
        self.shop.dbt("run", variables={"martd_untested": "publish"})
        self.assert_served()

    def test_a_run_without_data_or_that_failed_is_held(self):
        before = self.amounts()
        self.shop.dbt("build", "--empty")
        self.held()
        outstanding = self.daemon.get("/v1/snapshot")["held"]["outstanding"]
        self.assertEqual({node["message"] for node in outstanding}, {"ran with --empty or --sample"})
        self.shop.replace("models/customers.sql", "select customer_id", "select error('no luck') as e, customer_id")
        self.shop.dbt("build", fails=True)
        self.assertIn("model.shop.customers", self.held())
        self.assertEqual(self.amounts(), before)
        self.shop.replace("models/customers.sql", "error('no luck')", "1")
        self.shop.dbt("retry")
        self.assert_served()

    def test_files_of_no_record_are_not_served(self):
        """A hook that failed before the package's, a target that is left out."""
        before = self.amounts()
        self.shop.replace("models/orders.sql", "coalesce(sum(amount), 0)", "coalesce(sum(amount), 0) + 1000")
        self.shop.dbt("build", variables={"martd_targets": ["prod"]})
        self.shop.write("models/more.sql", "select 1 as x")
        self.shop.package("aaa", **{"on-run-end": "{{ 'select error(1)' if var('fails', false) }}"})
        self.shop.dbt("run", "--select", "more", fails=True, variables={"fails": True})
        # A later build has the versions that records name, whatever lies in their place by now.
        self.shop.write("models/last.sql", "select 1 as x")
        self.shop.dbt("build", "--select", "last")
        self.assert_served()
        self.assertEqual(self.amounts(), before)
        self.assertEqual(self.served(), {"orders", "customers", "last"})
        self.shop.dbt("build")
        self.assert_served()
        self.assertEqual(self.amounts(), [amount + 1000 for amount in before])
        self.assertEqual(self.served(), {"orders", "customers", "last", "more"})

    def test_partitioned_marts_are_never_torn(self):
        """Rewritten by dbt-duckdb with other partitions each time, while they are asked for."""
        rows = "select {{ var('generation') }} as generation, i, i % {{ var('parts') }} as part from range(12) r(i)"
        marts = {"replaced": "overwrite", "ignored": "overwrite_or_ignore"}
        for name, option in marts.items():
            config = f"options={{'partition_by': 'part', '{option}': 'true'}}"
            self.shop.write(f"models/{name}.sql", f"{{{{ config({config}) }}}} {rows}")
        self.shop.write("models/total.sql", "select count(*)::int as rows from {{ ref('ignored') }}")
        nothing = "{{ config(options={'partition_by': 'part', 'overwrite': 'true'}) }} select 1 as x, 2 as part where false"
        self.shop.write("models/nothing.sql", nothing)
        # The third has fewer parts than the one before, and leaves old ones where they are not overwritten.
        parts = {1: 2, 2: 3, 3: 2, 4: 1}
        summary = " union all ".join(
            f"select '{name}' as mart, min(generation)::int as low, max(generation)::int as high, count(*)::int as rows, "
            f"count(distinct part)::int as parts from mart.{name}"
            for name in marts
        ) + " union all select 'total', null, null, rows, null from mart.total"
        is_over, seen, torn = threading.Event(), [], []

        def read():
            while not is_over.is_set():
                answer = self.daemon.query(summary)
                first = answer[0]["low"]
                whole = [{"mart": name, "low": first, "high": first, "rows": 12, "parts": parts[first]} for name in marts]
                whole.append({"mart": "total", "low": None, "high": None, "rows": 12, "parts": None})
                if sorted(answer, key=str) != sorted(whole, key=str) or seen and first < seen[-1]:
                    torn.append(answer)
                seen.append(first)

        reader = threading.Thread(target=read)
        self.addCleanup(is_over.set)
        for generation, count in parts.items():
            leaves_some = generation == 3
            if generation == 4:
                self.shop.replace("models/ignored.sql", "overwrite_or_ignore", "overwrite")
            self.shop.dbt(
                "run", "--select", *marts, "total", "nothing", fails=leaves_some,
                variables={"generation": generation, "parts": count},
            )
            if leaves_some:
                self.assertIn("model.shop.ignored", self.held())
                message = self.daemon.get("/v1/snapshot")["held"]["outstanding"][0]["message"]
                self.assertIn("ignored/part=2/data_0.parquet is not of this run", message)
                self.assertIn("overwrite: true", message)
                continue
            self.assert_served()
            self.assertEqual({row["low"] for row in self.daemon.query(summary)}, {generation, None})
            if generation == 1:
                reader.start()
        is_over.set()
        reader.join()
        self.assertEqual(torn, [])
        self.assertEqual(set(seen), {1, 2, 4})
        self.assertEqual(self.daemon.query("select count(*)::int as n from mart.nothing"), [{"n": 0}])
        state = self.daemon.get("/v1/snapshot")
        self.assertEqual((state["held"], state["landing"], state["rejected"]), (None, [], []))

    def test_a_file_that_becomes_a_directory(self):
        self.shop.write("models/sales.sql", "select 1 as x, 1 as part")
        self.shop.dbt("run", "--select", "sales")
        self.assert_served()
        self.shop.write("models/sales.sql", "{{ config(options={'partition_by': 'part', 'overwrite': true}) }} select 2 as x, 1 as part")
        self.shop.dbt("run", "--select", "sales", fails=True)
        reason = "sales.parquet and sales/ are both there: remove the one that is not written any more"
        self.assertIn(reason, self.held())
        self.assertEqual(self.daemon.query("select x from mart.sales"), [{"x": 1}])
        (self.shop.marts / "sales.parquet").unlink()
        self.assert_served()
        self.assertEqual(self.daemon.query("select x from mart.sales"), [{"x": 2}])


if __name__ == "__main__":
    unittest.main()
