"""The dbt package: what each kind of node leaves for martd, and what it says of those that martd does not serve."""

import json
import unittest

import duckdb

from shop import Shop, as_named, failed, marts

EXPORT = "post_hook='{{ martd.export() }}'"
PARTS = "select i, i % {{ var('parts', 3) }} as part from range(6) r(i)"
MODELS = {
    "models/aliased.sql": "{{ config(alias='renamed') }} select 1 as x",
    "models/custom.sql": "{{ config(schema='finance') }} select 1 as x",
    "models/deep/er/nested.sql": "select 1 as x",
    "models/python.py": "def model(dbt, session):\n    dbt.config(materialized='external')\n    return session.sql('select 41 + 1 as x')\n",
    "models/a_table.sql": "{{ config(materialized='table', %s) }} select 1 as x, 'it''s' as y" % EXPORT,
    "models/a_view.sql": "{{ config(materialized='view', %s) }} select 1 as x" % EXPORT,
    "models/a_table_alone.sql": "{{ config(materialized='table') }} select 1 as x",
    "models/growing.sql": "{{ config(materialized='incremental', %s) }} select {{ var('day', 1) }} as day" % EXPORT,
    "models/located.sql": "{{ config(location='../data/mart/elsewhere.parquet') }} select 1 as x",
    "models/outside.sql": "{{ config(location='../outside.parquet') }} select 1 as x",
    "models/below.sql": "{{ config(location='../data/mart/sub/below.parquet') }} select 1 as x",
    "models/hidden.sql": "{{ config(alias='_hidden') }} select 1 as x",
    "models/as_csv.sql": "{{ config(format='csv') }} select 1 as x",
    "models/as_json.sql": "{{ config(location='../data/mart/as_json.json') }} select 1 as x",
    "models/replaced.sql": "{{ config(options={'partition_by': 'part', 'overwrite': 'true'}) }} " + PARTS,
    "models/ignored.sql": "{{ config(options={'partition_by': 'part', 'overwrite_or_ignore': 'true'}) }} " + PARTS,
    "models/careless.sql": "{{ config(options={'partition_by': 'part', 'overwrite': 'false'}) }} " + PARTS,
    "models/kept.sql": "{{ config(options={'partition_by': 'part', 'append': true}) }} " + PARTS,
    "models/parted_table.sql": "{{ config(materialized='table', options={'partition_by': 'part', 'overwrite': 'true'}, %s) }} " % EXPORT + PARTS,
    "models/no_parts.sql": "{{ config(options={'partition_by': 'part', 'overwrite': 'true'}) }} select 1 as x, 2 as part where false",
    "snapshots/history.yml": json.dumps({
        "snapshots": [{
            "name": "history",
            "relation": "ref('raw_customers')",
            "config": {"unique_key": "id", "strategy": "check", "check_cols": "all", "post_hook": "{{ martd.export() }}"},
        }],
    }),
}
FILES = {"a_table", "a_view", "customers", "custom", "elsewhere", "growing", "history", "nested", "orders", "python", "raw_customers", "renamed"}
FOLDERS = {"replaced", "ignored", "careless", "kept", "parted_table", "no_parts"}
MEDDLE = """
import os, time
from pathlib import Path

def model(dbt, session):
    dbt.config(materialized="external")
    dbt.ref("orders")
    mart = Path("../data/mart/orders.parquet")
    %s
    return session.sql("select 1 as x")
"""


class Marts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shop = Shop.new(cls)
        for path, text in MODELS.items():
            cls.shop.write(path, text)
        with open(cls.shop.project / "dbt_project.yml", "a", encoding="utf-8") as file:
            file.write("seeds: {shop: {raw_customers: {+post-hook: '{{ martd.export() }}'}}}\n")
        (cls.shop.marts / "sub").mkdir(parents=True)
        cls.log = cls.shop.dbt("build")
        cls.record = cls.shop.last

    def test_each_kind_of_mart_is_recorded(self):
        self.assertEqual(failed(self.record), {})
        recorded = marts(self.record)
        self.assertEqual(set(recorded), FILES | FOLDERS)
        for name, mart in recorded.items():
            with self.subTest(name):
                self.assertTrue(as_named(self.shop, mart))
                paths = [file["path"] for file in mart["files"]]
                if name in FOLDERS:
                    self.assertTrue(all(path.startswith(f"{name}/part=") for path in paths), paths)
                else:
                    self.assertEqual(paths, [f"{name}.parquet"])
        self.assertEqual({recorded[name]["schema"] for name in ("custom", "renamed")}, {"main_finance", "main"})
        self.assertEqual(recorded["elsewhere"]["id"], "model.shop.located")
        self.assertEqual(recorded["history"]["id"], "snapshot.shop.history")
        self.assertEqual(len(recorded["replaced"]["files"]), 3)
        self.assertEqual(len(recorded["no_parts"]["files"]), 1, "the row of NULLs that stands for none")
        self.assertEqual(self.shop.rows("python.parquet"), [(42,)])
        self.assertEqual(self.shop.rows("a_table.parquet"), [(1, "it's")])
        self.assertEqual(self.shop.rows("raw_customers.parquet"), [(1, "Ada"), (2, "Grace"), (3, "Zoë")])

    def test_what_is_not_served_is_named_with_the_reason(self):
        for model, reason in {
            "outside": "martd serves what lies directly in ../data/mart/",
            "below": "martd serves what lies directly in ../data/mart/",
            "hidden": "martd serves no name that starts with",
            "as_csv": "martd serves Parquet",
            "as_json": "martd serves Parquet",
        }.items():
            with self.subTest(model):
                self.assertRegex(self.log, f"martd: model.shop.{model} writes \\S+, which is not served: {reason}")
        self.assertNotIn("a_table_alone writes", self.log)

    def test_a_rewritten_mart_has_the_parts_of_its_run(self):
        shop = self.shop.copy()
        shop.dbt("run", "--select", "replaced", "parted_table", "growing", variables={"parts": 2, "day": 2})
        recorded = marts(shop.last)
        for name in ("replaced", "parted_table"):
            with self.subTest(name):
                self.assertTrue(as_named(shop, recorded[name]))
                self.assertEqual({file["path"].split("/")[1] for file in recorded[name]["files"]}, {"part=0", "part=1"})
        # Only the database keeps the day before, and the file has what the table has.
        self.assertEqual(shop.rows("growing.parquet"), [(1,), (2,)])

    def test_parts_that_a_run_did_not_write_fail_it(self):
        """What reads the mart in dbt sees them, so what is built on it is of other rows than the mart would be."""
        shop = self.shop.copy()
        shop.write("models/total.sql", "select count(*) as rows from {{ ref('ignored') }}")
        said = shop.dbt("run", "--select", "ignored", "total", fails=True, variables={"parts": 2})
        self.assertEqual(shop.rows("total.parquet"), [(8,)], "six rows, and two of the part that was left")
        left = "ignored/part=2/data_0.parquet is not of this run"
        self.assertIn(left, said)
        self.assertIn("held: model.shop.ignored", said)
        self.assertEqual((set(marts(shop.last)), list(failed(shop.last))), ({"total"}, ["model.shop.ignored"]))
        self.assertIn(left, failed(shop.last)["model.shop.ignored"])
        self.assertIn("overwrite: true", failed(shop.last)["model.shop.ignored"])
        # With `append` they are meant to stay, and all parts are the mart.
        shop.replace("models/ignored.sql", "overwrite_or_ignore", "append")
        shop.dbt("run", "--select", "ignored", "total", variables={"parts": 2})
        named = [file["path"] for file in marts(shop.last)["ignored"]["files"]]
        self.assertEqual(sorted(named), sorted(path for path in shop.files() if path.startswith("ignored/")))
        shop.replace("models/ignored.sql", "append", "overwrite")
        shop.dbt("run", "--select", "ignored", "total", variables={"parts": 2})
        self.assertEqual((failed(shop.last), shop.rows("total.parquet")), ({}, [(6,)]))

    def test_options_that_go_wrong_later_are_said_first(self):
        self.assertRegex(self.log, "martd: model.shop.ignored has partition_by with overwrite_or_ignore, .*overwrite: true")
        self.assertRegex(self.log, "martd: model.shop.careless has partition_by without overwrite or append, .*overwrite: true")
        for name in ("replaced", "parted_table", "no_parts", "kept"):
            self.assertNotIn(f"{name} has partition_by", self.log)

    def test_a_file_beside_its_directory(self):
        """As when a model gets `partition_by`. The record is good, and martd serves it when one of the two is gone."""
        shop = self.shop.copy()
        (shop.marts / "replaced.parquet").write_bytes((shop.marts / "nested.parquet").read_bytes())
        said = shop.dbt("run", "--select", "replaced", fails=True)
        self.assertIn("replaced.parquet and replaced/ are both there: remove replaced.parquet", said)
        self.assertEqual((set(marts(shop.last)), failed(shop.last)), ({"replaced"}, {}))
        (shop.marts / "replaced.parquet").unlink()
        (shop.marts / "nested/x=1").mkdir(parents=True)
        (shop.marts / "nested/x=1/data_0.parquet").write_bytes((shop.marts / "nested.parquet").read_bytes())
        said = shop.dbt("run", "--select", "nested", fails=True)
        self.assertIn("nested.parquet and nested/ are both there: remove nested/", said)

    def test_upstream_of_every_kind_in_an_empty_database(self):
        shop = self.shop.copy()
        shop.in_memory()
        upstream = ["a_table", "growing", "replaced", "no_parts", "as_csv", "as_json", "outside", "history", "raw_customers", "orders"]
        counts = [f"(select count(*) from {{{{ ref('{name}') }}}}) as {name}" for name in upstream]
        shop.write("models/all_of_them.sql", f"select {', '.join(counts)}")
        (shop.project.parent / "outside.parquet").write_bytes((self.shop.project.parent / "outside.parquet").read_bytes())
        shop.dbt("run", "--select", "all_of_them")
        row = dict(zip(upstream, shop.rows("all_of_them.parquet")[0]))
        self.assertEqual(row, {"a_table": 1, "growing": 1, "replaced": 6, "no_parts": 0, "as_csv": 1, "as_json": 1, "outside": 1,
                               "history": 3, "raw_customers": 3, "orders": 4})


class Refusals(unittest.TestCase):
    """What must not be vouched for, and what makes a run worthless."""

    @classmethod
    def setUpClass(cls):
        cls.built = Shop.new(cls)
        cls.built.dbt("build")

    def setUp(self):
        self.shop = self.built.copy()

    def meddle(self, code):
        self.shop.write("models/meddle.py", MEDDLE % code)
        return self.shop.dbt("run", "--select", "orders", "meddle", fails=True)

    def test_a_file_that_changed_after_its_model_ended(self):
        said = self.meddle("mart.write_bytes(mart.read_bytes()); os.utime(mart, (time.time() + 2,) * 2)")
        record = self.shop.last
        self.assertIn("martd.on-run-end", said)
        self.assertIn("orders.parquet was changed after model.shop.orders had written it", said)
        self.assertEqual(set(failed(record)), {"model.shop.orders"})
        self.assertIn("build it again", failed(record)["model.shop.orders"])
        self.assertEqual((set(marts(record)), record["build"]["status"]), ({"meddle"}, "error"))

    def test_a_file_too_large_to_hash(self):
        said = self.meddle("os.truncate(mart, 2**30 + 1)")
        self.assertIn("martd publish", said)
        self.assertIn("has more than 1 GiB", failed(self.shop.last)["model.shop.orders"])

    def test_a_file_that_is_gone(self):
        said = self.meddle("mart.unlink()")
        self.assertIn("has left no new file at ../data/mart/orders.parquet", said)
        self.assertEqual(set(failed(self.shop.last)), {"model.shop.orders"})

    def test_a_record_that_cannot_be_written_fails_the_run(self):
        said = self.meddle("builds = mart.parent / '_builds'; builds.rename(mart.parent / 'away'); builds.touch()")
        self.assertIn("ERROR hook: martd.on-run-end", said)

    def test_a_hook_that_fails_before_it(self):
        self.shop.package("aaa", **{"on-run-end": "select error('not today')"})
        said = self.shop.dbt("run", "--select", "orders", fails=True)
        self.assertIn("not today", said)
        self.assertEqual(len(self.shop.records), 1)

    def test_a_hook_that_failed_before_the_models(self):
        self.shop.replace("dbt_project.yml", "profile: shop", "profile: shop\non-run-start: select error('no sources')")
        self.shop.dbt("run", "--select", "orders", fails=True)
        self.assertEqual(list(failed(self.shop.last)), ["operation.shop.shop-on-run-start-0"])
        self.assertIn("no sources", str(failed(self.shop.last)))

    def test_two_models_with_one_location(self):
        before = self.shop.files()
        self.shop.write("models/other/orders_too.sql", "{{ config(alias='Orders', schema='other') }} select 1 as x")
        said = self.shop.dbt("run", "--select", "orders_too", fails=True)
        self.assertRegex(said, "martd: model.shop.orders(_too)? and model.shop.orders(_too)? both write ../data/mart/[oO]rders.parquet")
        self.assertEqual(self.shop.files(), before)

    def test_targets_that_martd_does_not_hear_of(self):
        self.shop.dbt("run", "--select", "orders", variables={"martd_targets": ["dev", "prod"]})
        self.assertEqual(len(self.shop.records), 2)
        for targets in (["prod"], "prod", []):
            said = self.shop.dbt("run", "--select", "orders", variables={"martd_targets": targets})
            self.assertIn("martd_targets leaves out the target 'dev'", said)
        self.assertEqual(len(self.shop.records), 2)

    def test_settings_that_cannot_work_are_said_first(self):
        before = self.shop.files()
        self.assertIn("martd_untested is 'hold' or 'publish'", self.shop.dbt("run", fails=True, variables={"martd_untested": "maybe"}))
        self.shop.replace("profiles.yml", "external_root: ../data/mart", "external_root: s3://bucket/mart")
        self.assertIn("martd publish", self.shop.dbt("run", fails=True))
        self.shop.replace("profiles.yml", "      external_root: s3://bucket/mart\n", "")
        self.assertIn("has no external_root", self.shop.dbt("run", fails=True))
        self.assertEqual(self.shop.files(), before)
        # A target that martd does not hear of may do as it likes.
        self.shop.dbt("run", "--select", "stg_orders", variables={"martd_targets": []})


if __name__ == "__main__":
    unittest.main()
