"""Phase 1 of the migration: one build leaves the old file and the Parquet files, and they are the same."""

import shutil
import sys
import tempfile
import unittest

import duckdb
from daemon import Daemon
from workspace import OLD_FILE, PROJECT, Workspace

sys.path.insert(0, str(PROJECT / "postgres"))
import server  # noqa: E402


class PhaseOne(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.space = Workspace.new(cls, transactions=600)
        cls.space.env = {"DUCKDB_PATH": OLD_FILE}
        cls.space.dbt("build", marts_as="table")

    def test_the_old_file_equals_the_parquet_files(self):
        external = self.space.copy()
        external.env = {}
        external.dbt("build")
        self.assertEqual(self.space.built, external.built)
        with duckdb.connect(self.space.old_file, read_only=True) as old:
            # Nothing but the marts: the copies of the sources are gone.
            tables = old.sql("select schema_name, table_name from duckdb_tables()").fetchall()
            self.assertEqual(set(tables), {("main_mart", name) for name in self.space.built})
            for name in self.space.built:
                with self.subTest(name):
                    table = old.sql(f"from main_mart.{name}")
                    for space in (self.space, external):
                        file = duckdb.read_parquet(str(space.mart(name)))
                        self.assertEqual((table.columns, table.types), (file.columns, file.types))
                        self.assertEqual(table.fetchall(), file.fetchall())

                    query = "select distinct compression from parquet_metadata('{}')"
                    ours, theirs = (duckdb.sql(query.format(space.mart(name))).fetchall() for space in (self.space, external))
                    self.assertEqual(ours, theirs)

    def test_a_part_on_an_empty_file_and_backing_out(self):
        space = self.space.copy()
        space.old_file.unlink()
        space.dbt("build", "--select", "dim_tags", marts_as="table")
        self.assertEqual(space.built, {"dim_tags"})
        space.dbt("build", marts_as="external")
        self.assertEqual(space.built, self.space.built)
        space.dbt("build", "--select", "dim_tags", marts_as="table")
        self.assertEqual((space.built, space.failed), ({"dim_tags"}, {}))

    def test_a_file_that_cannot_be_written_fails_its_table(self):
        space = self.space.copy()
        with duckdb.connect(space.old_file, read_only=True) as old:
            before = old.sql("from main_mart.dim_tags").fetchall()
        space.mart("dim_tags").unlink()
        space.mart("dim_tags").mkdir()
        (space.mart("dim_tags") / "in the way").touch()
        space.write("models/3_mart/dim_tags.sql", "select 5 as x")
        space.dbt("run", "--select", "dim_tags", fails=True, marts_as="table")
        self.assertEqual((space.built, set(space.failed)), (set(), {"model.finance.dim_tags"}))
        with duckdb.connect(space.old_file, read_only=True) as old:
            self.assertEqual(old.sql("from main_mart.dim_tags").fetchall(), before)

    def test_another_materialization_is_refused(self):
        space = self.space.copy()
        before = space.records
        self.assertIn("marts_as is 'external' or 'table' (got 'view')", space.dbt("build", fails=True, marts_as="view"))
        self.assertEqual(space.records, before)


class FromPostgresToMartd(unittest.TestCase):
    def test_changed_rows_are_served_after_the_next_build(self):
        space = Workspace.new(type(self), transactions=300)
        directory = tempfile.mkdtemp(prefix="martd-pg-")
        self.addCleanup(shutil.rmtree, directory)
        database = server.Server(directory)
        database.start()
        self.addCleanup(database.stop)
        space.env = database.settings
        space.dbt("run-operation", "seed_postgres", "--target", "postgres")
        space.dbt("build", "--target", "postgres")

        daemon = Daemon(space.marts.parent)
        self.addCleanup(daemon.stop)
        query = "select sum(current_balance) as balance, count(*) as accounts from mart.dim_accounts"
        daemon.get(f"/v1/snapshot?build={space.build}&wait=60")
        before, = daemon.query(query)
        database.psql("update finance.accounts set opening_balance = opening_balance + 1")
        space.dbt("build", "--target", "postgres")
        daemon.get(f"/v1/snapshot?build={space.build}&wait=60")
        after, = daemon.query(query)
        self.assertAlmostEqual(after["balance"], before["balance"] + before["accounts"])


if __name__ == "__main__":
    unittest.main()
