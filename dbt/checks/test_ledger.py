"""The ledger, told by a small project that has the real one's macros and settings: `b` reads `a`, and `c` stands alone."""

import json
import shutil
import unittest

import duckdb
from workspace import OLD_FILE, Workspace

NASTY = 'it\'s "quoted" \\ a back\\slash,\na new line, Zoë 😀, {{ x }} {% y %} {# z #}, $1 ? %s; --'

RAW_NASTY = "{% raw %}" + NASTY + "{% endraw %}"

A, B, C, SEED = "model.finance.a", "model.finance.b", "model.finance.c", "seed.finance.s"
POSITIVE, UNIT = "test.finance.a_is_positive", "unit_test.finance.b.copies_a"
NOT_NULL = "test.finance.not_null_a_x.91d513270e"

PASSING_TEST = "select * from {{ ref('a') }} where x < 0"
FAILING_TEST = "select * from {{ ref('a') }} where x > 0"

# JSON is YAML too.
PROPERTIES = {
    "models": [
        {
            "name": "a",
            "description": RAW_NASTY,
            "config": {"meta": {"label": RAW_NASTY}},
            "columns": [{"name": "x", "description": "o'clock", "data_type": "INTEGER", "data_tests": ["not_null"]}],
        },
        {"name": "c", "config": {"schema": "elsewhere", "alias": "c_too"}},
    ],
    "seeds": [{"name": "s", "config": {"column_types": {"k": "integer"}}}],
    "unit_tests": [
        {
            "name": "copies_a",
            "model": "b",
            "given": [{"input": "ref('a')", "rows": [{"x": 2}]}],
            "expect": {"rows": [{"x": 2}]},
        }
    ],
    "exposures": [
        {"name": "dashboard", "type": "dashboard", "owner": {"name": "someone"}, "depends_on": ["ref('b')"]},
    ],
}


class Ledger(unittest.TestCase):
    VARS = {}
    ENV = {}
    SCHEMAS = {"a": "mart", "b": "mart", "c_too": "elsewhere"}
    ROWS_OF_AN_EMPTY_MART = [(None,)]

    @classmethod
    def setUpClass(cls):
        cls.built = Workspace.new(cls, transactions=300, **cls.VARS)
        cls.built.env = cls.ENV
        for folder in ("models", "tests"):
            shutil.rmtree(cls.built.project / folder)
        cls.built.write("models/3_mart/a.sql", "select 1 as x")
        cls.built.write("models/3_mart/b.sql", "select x from {{ ref('a') }}")
        cls.built.write("models/3_mart/c.sql", "select 3 as x")
        cls.built.write("seeds/s.csv", "k,v\n1,a\n")
        cls.built.write("tests/a_is_positive.sql", PASSING_TEST)
        cls.built.write("models/3_mart/marts.yml", json.dumps(PROPERTIES, ensure_ascii=False))
        cls.built.dbt("build")
        cls.first = cls.built.ledger["invocation_id"]

    def setUp(self):
        self.space = self.built.copy()

    def test_a_clean_build(self):
        self.assertEqual(self.space.outstanding, {})
        self.assertEqual(self.space.invocations, dict.fromkeys(["a", "b", "c_too"], self.first))
        self.assertEqual(self.space.invocations, self.space.stamps())
        models = {model["name"]: model for model in self.space.ledger["models"]}
        self.assertEqual({name: model["schema"] for name, model in models.items()}, self.SCHEMAS)
        self.assertEqual(models["a"]["description"], NASTY)
        self.assertEqual(models["a"]["meta"]["label"], NASTY)
        self.assertEqual(models["a"]["columns"], [{"name": "x", "description": "o'clock", "data_type": "INTEGER"}])

    def test_a_failed_test_is_outstanding_until_it_passes(self):
        self.space.write("tests/a_is_positive.sql", FAILING_TEST)
        self.space.dbt("build", fails=True)
        failed = self.space.ledger
        self.assertEqual(failed["status"], "error")
        # The test's model is on disk as this run wrote it; what depends on it was skipped and is as it was.
        self.assertEqual(self.space.invocations, {"a": failed["invocation_id"], "b": self.first, "c_too": failed["invocation_id"]})
        self.assertEqual(self.space.invocations, self.space.stamps())
        self.assertEqual(set(self.space.outstanding), {POSITIVE, B, UNIT})
        self.assertIn("Got 1 result", self.space.outstanding[POSITIVE]["message"])
        self.assertEqual(self.space.outstanding[POSITIVE]["since"], failed["finished_at"])

        for others in (["run", "--select", "c"], ["test", "--select", "not_null_a_x"]):
            self.space.dbt(*others)
            self.assertEqual(self.space.ledger["status"], "success")
            self.assertEqual(self.space.ledger["outstanding"], failed["outstanding"])

        self.space.write("tests/a_is_positive.sql", PASSING_TEST)
        self.space.dbt("test", "--select", "a_is_positive")
        self.assertEqual(set(self.space.outstanding), {B, UNIT})
        # `a` is only a file by now: the database of the run that built it is gone.
        self.space.dbt("build", "--select", "b")
        self.assertEqual(self.space.outstanding, {})

    def test_a_failed_mart_keeps_the_build_before_and_is_forgotten_with_its_model(self):
        self.space.write("models/3_mart/c.sql", "select error('o''hara said \"{{ '{{' }}\" \\ é') as x")
        self.space.dbt("run", "--select", "c", fails=True)
        self.assertEqual(set(self.space.outstanding), {C})
        self.assertIn("o'hara said \"{{\" \\ é", self.space.outstanding[C]["message"])
        self.assertEqual(self.space.invocations, dict.fromkeys(["a", "b", "c_too"], self.first))
        self.assertEqual(self.space.invocations, self.space.stamps())

        (self.space.project / "models/3_mart/c.sql").unlink()
        self.space.dbt("run", "--select", "b")
        self.assertEqual(self.space.outstanding, {})
        self.assertEqual(set(self.space.invocations), {"a", "b"})
        self.assertTrue(self.space.mart("c_too").exists())

    def test_retry_clears_what_failed(self):
        self.space.write("models/3_mart/a.sql", "select error('no') as x")
        self.space.dbt("build", "--exclude", "s", fails=True)
        self.assertLessEqual({A, B, POSITIVE, UNIT}, set(self.space.outstanding))
        self.space.write("models/3_mart/a.sql", "select 1 as x")
        self.space.dbt("retry")
        self.assertEqual(self.space.outstanding, {})
        self.assertEqual(self.space.invocations, self.space.stamps())

    def test_seeds_and_unit_tests_count(self):
        self.space.write("seeds/s.csv", "k,v\nx,a\n")
        marts = self.space.project / "models/3_mart/marts.yml"
        text = marts.read_text()
        marts.write_text(text.replace('"expect": {"rows": [{"x": 2}]}', '"expect": {"rows": [{"x": 3}]}'))
        self.space.dbt("build", fails=True)
        self.assertEqual(set(self.space.outstanding), {SEED, UNIT, B})
        self.assertIn(UNIT, {result["unique_id"] for result in self.space.ledger["results"] if result["resource_type"] == "test"})

        marts.write_text(text)
        self.space.write("seeds/s.csv", "k,v\n1,a\n")
        self.space.dbt("build")
        self.assertEqual(self.space.outstanding, {})

    def test_after_damage_everything_has_to_prove_itself(self):
        self.space.ledger_file.write_bytes(b'{"build": {"\xff\xfe')  # no text
        self.assertIn("Cannot understand", self.space.dbt("run", "--select", "a"))
        self.assertEqual(set(self.space.invocations), {"a"})
        self.assertEqual(set(self.space.outstanding), {B, C, SEED, POSITIVE, NOT_NULL})

        self.space.ledger_file.write_text('{"build": {"outstanding": ["a_is_positive"], "models": []}}')  # no ledger
        self.assertIn("Cannot understand", self.space.dbt("build"))
        self.assertEqual(self.space.outstanding, {})
        self.assertEqual(self.space.invocations, self.space.stamps())

    def test_a_file_without_an_entry_is_outstanding(self):
        self.space.ledger_file.unlink()
        self.space.dbt("run", "--select", "c")
        self.assertEqual(set(self.space.outstanding), {A, B})
        self.assertEqual(set(self.space.invocations), {"c_too"})

    def test_a_run_without_data_proves_nothing(self):
        self.space.dbt("build", "--empty")
        self.assertLessEqual({A, B, C, POSITIVE}, set(self.space.outstanding))
        self.assertEqual(self.space.invocations, self.space.stamps())

    def test_an_empty_mart_passes_its_tests_later_too(self):
        self.space.write("models/3_mart/a.sql", "select 1 as x where false")
        self.space.dbt("build", "--exclude", "s")
        self.assertEqual(duckdb.sql(f"from '{self.space.mart('a')}'").fetchall(), self.ROWS_OF_AN_EMPTY_MART)
        self.space.dbt("test", "--select", "a")
        self.assertEqual(self.space.outstanding, {})

    def test_what_builds_nothing_leaves_the_ledger_alone(self):
        before = self.space.ledger_file.stat()
        self.space.dbt("docs", "generate")
        self.space.dbt("build", fails=True, transactions=1)
        self.assertEqual(self.space.ledger_file.stat(), before)
        self.assertEqual(set(self.space.stamps().values()), {self.first})


class LedgerOfTables(Ledger):
    """All of it again for phase 1 of the migration, in which a mart is a table of the old file that a post-hook exports."""

    VARS = {"marts_as": "table"}
    ENV = {"DUCKDB_PATH": OLD_FILE}
    SCHEMAS = {"a": "main_mart", "b": "main_mart", "c_too": "main_elsewhere"}
    ROWS_OF_AN_EMPTY_MART = []

    def test_a_file_that_cannot_be_written_fails_its_table(self):
        self.space.write("models/3_mart/a.sql", "select 5 as x")
        self.space.mart("a").unlink()
        self.space.mart("a").mkdir()
        self.space.dbt("run", "--select", "a", fails=True)
        self.assertEqual(set(self.space.outstanding), {A})
        self.assertEqual(self.space.invocations, dict.fromkeys(["a", "b", "c_too"], self.first))
        with duckdb.connect(self.space.old_file, read_only=True) as old:
            self.assertEqual(old.sql("from main_mart.a").fetchall(), [(1,)])

    def test_a_table_that_is_not_exported_is_no_mart(self):
        self.space.write("models/d.sql", "{{ config(materialized='table') }} select 4 as x")
        self.space.dbt("build", "--select", "d")
        self.assertEqual(self.space.invocations, dict.fromkeys(["a", "b", "c_too"], self.first))
        self.assertEqual(self.space.outstanding, {})


if __name__ == "__main__":
    unittest.main()
