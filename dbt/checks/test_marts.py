"""The project itself: what its marts hold, and that equal vars give equal data."""

import shutil
import unittest

import duckdb
from workspace import Workspace

MARTS = {
    "dim_accounts", "dim_tags", "fct_budget_vs_actual", "fct_cash_flow_forecast", "fct_daily_balance_history",
    "fct_daily_spending_by_tag", "fct_goal_progress", "fct_monthly_trends", "fct_net_worth_history",
    "fct_recurring_patterns", "fct_transactions",
}


class Marts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.first = Workspace.new(cls, transactions=1000)
        cls.log = cls.first.dbt("build", "--show-all-deprecations")

    def test_build_is_clean(self):
        self.assertNotRegex(self.log, "(?i)warning:|deprecat")
        files = {file.name for file in self.first.marts.iterdir()}
        self.assertEqual(files, {f"{name}.parquet" for name in MARTS} | {"_builds"})

        record = self.first.last
        self.assertEqual((record["build"]["status"], record["build"]["project"]), ("success", "finance"))
        self.assertEqual(self.first.failed, {})
        self.assertEqual(self.first.built, MARTS)
        self.assertEqual({mart["schema"] for mart in record["marts"]}, {"mart"})
        self.assertTrue(all(mart["tests"] for mart in record["marts"]))

    def test_columns_are_as_documented(self):
        for model in self.first.last["marts"]:
            with self.subTest(model["name"]):
                actual = duckdb.sql(f"describe from '{self.first.mart(model['name'])}'").fetchall()
                documented = [(column["name"], column["data_type"]) for column in model["columns"]]
                self.assertEqual([(name, type) for name, type, *_ in actual], documented)
                self.assertIn(("user_id", "UUID"), documented)
                self.assertTrue(model["description"].strip())
                for column in model["columns"]:
                    self.assertTrue(column["description"].strip(), column["name"])

    def test_meta_describes_the_dataset(self):
        for model in self.first.last["marts"]:
            with self.subTest(model["name"]):
                meta = model["meta"]
                columns = {column["name"] for column in model["columns"]}
                self.assertIs(meta["dataset"], True)
                self.assertTrue(meta["friendly_name"] and meta["group"])
                self.assertIn(meta["time_grain"], {None, "transaction", "day", "month"})
                for key in ("date_column", "account_id_column", "tag_id_column"):
                    self.assertIn(meta[key], columns | {None})
                for column in filter(None, (meta["account_id_column"], meta["tag_id_column"])):
                    self.assertIn(column, {"account_id", "tag_id"})
                for filter_ in meta["enum_filters"]:
                    self.assertEqual(set(filter_), {"name", "label", "options"})
                    values = duckdb.sql(f"select distinct {filter_['name']} from '{self.first.mart(model['name'])}'").fetchall()
                    self.assertLessEqual({value for value, in values}, set(filter_["options"]))
                for filter_ in meta["numeric_filters"]:
                    self.assertEqual(set(filter_), {"name", "label"})
                    self.assertIn(filter_["name"], columns)
                for key in ("warn_after", "error_after"):
                    rule = meta["freshness"][key]
                    self.assertEqual(set(rule), {"count", "period"})
                    self.assertGreater(rule["count"], 0)
                    self.assertIn(rule["period"], {"minute", "hour", "day"})

    def test_marts_hold_what_was_asked_for(self):
        def rows(name):
            return duckdb.sql(f"select count(*) from '{self.first.mart(name)}'").fetchone()[0]

        self.assertEqual(rows("fct_transactions"), 1000)
        self.assertEqual(rows("dim_tags"), 40)
        for name in MARTS:
            users = duckdb.sql(f"select count(distinct user_id) from '{self.first.mart(name)}'").fetchone()[0]
            self.assertEqual(users, 5, name)

    def test_every_build_repeats_its_data(self):
        again = self.first.copy()
        again.dbt("build")
        self.assertNotEqual(again.build, self.first.build)
        self.assertEqual(again.built, MARTS)

        # Partial parsing keeps what a parse rendered: an id rendered there would be the parse's.
        again.dbt("parse")
        again.dbt("run", "--select", "dim_tags")
        self.assertEqual(again.built, {"dim_tags"})
        self.assertEqual(len({record["build"]["id"] for record in again.records}), 3)

        for name in MARTS:
            difference = duckdb.sql(f"""
                (from '{self.first.mart(name)}' except all from '{again.mart(name)}')
                union all
                (from '{again.mart(name)}' except all from '{self.first.mart(name)}')
            """).fetchall()
            self.assertEqual(difference, [], name)

    def test_one_mart_builds_alone_and_from_another_seed(self):
        alone = self.first.copy()
        shutil.rmtree(alone.marts.parent)
        alone.dbt("run", "--select", "fct_monthly_trends", seed=2)
        self.assertEqual((alone.built, alone.failed), ({"fct_monthly_trends"}, {}))

        query = "select sum(expenses) from '{}'"
        ours = duckdb.sql(query.format(self.first.mart("fct_monthly_trends"))).fetchone()
        theirs = duckdb.sql(query.format(alone.mart("fct_monthly_trends"))).fetchone()
        self.assertNotEqual(ours, theirs)


if __name__ == "__main__":
    unittest.main()
