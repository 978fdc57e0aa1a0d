"""The dbt package and a real martd: what each run comes to for readers."""

import json
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

    def test_a_run_without_data_and_a_failed_model_are_held(self):
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


if __name__ == "__main__":
    unittest.main()
