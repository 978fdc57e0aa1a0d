"""The target `postgres`, on a real server: the same marts as from `embedded`, from one snapshot of the application's tables."""

import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import duckdb
from workspace import PROJECT, Workspace

sys.path.insert(0, str(PROJECT / "postgres"))
import server  # noqa: E402

NASTY_PASSWORD = "it's \"quoted\" \\ back\\slash {{ x }} %s Zoë"


class Postgres(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.space = Workspace.new(cls, transactions=600)
        directory = tempfile.TemporaryDirectory(prefix="martd-pg-")
        cls.addClassCleanup(directory.cleanup)
        cls.server = server.Server(directory.name)
        cls.server.start()
        cls.addClassCleanup(cls.server.stop)
        cls.space.env = cls.server.settings
        cls.space.dbt("run-operation", "seed_postgres", "--target", "postgres")
        cls.space.dbt("build", "--target", "postgres")

    def copied(self, space, query):
        with duckdb.connect(space.root / "build.duckdb", read_only=True) as build:
            return build.sql(query).fetchone()

    def test_both_targets_give_equal_marts(self):
        embedded = self.space.copy()
        embedded.env = {}
        embedded.dbt("build")
        self.assertEqual(self.space.built, embedded.built)
        for name in self.space.built:
            with self.subTest(name):
                ours, theirs = (duckdb.read_parquet(str(space.mart(name))) for space in (self.space, embedded))
                self.assertEqual(list(zip(ours.columns, ours.types)), list(zip(theirs.columns, theirs.types)))
                rows = ours.fetchall()
                self.assertTrue(rows)
                self.assertEqual(rows, theirs.fetchall())

    def test_a_writer_at_work_never_gives_a_torn_copy(self):
        """The copy stands still at `tags`, after `accounts` and before `goals`, while a transaction changes both."""
        psql = self.server.psql
        psql("""
            alter table finance.tags rename to tags_behind_a_gate;
            create view finance.tags as
              select tags.* from finance.tags_behind_a_gate tags, (select pg_advisory_xact_lock_shared(7)) as gate;
            -- So large that the scanner would share it among several connections.
            update pg_class set relpages = 100000 where oid = 'finance.transactions'::regclass;
            alter system set log_statement = 'all';
            select pg_reload_conf();
        """)
        self.addCleanup(psql, """
            drop view finance.tags;
            alter table finance.tags_behind_a_gate rename to tags;
            alter system reset log_statement;
            select pg_reload_conf();
            analyze finance.transactions;
        """)
        space = self.space.copy()
        space.env = self.server.settings | {"DUCKDB_PATH": "../build.duckdb"}
        log = (self.server.directory / "log").stat().st_size
        before = psql("select sum(opening_balance), sum(target_amount) from finance.accounts, finance.goals").split("\t")

        with self.server.session() as gate:
            gate.ask("select pg_advisory_lock(7)")
            run = subprocess.Popen(
                [sys.executable, "-m", "dbt.cli.main", "run", "--target", "postgres", "--select", "dim_accounts"],
                cwd=space.project, env=space.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            while run.poll() is None and gate.ask("select count(*) from pg_locks where locktype = 'advisory' and not granted") != "1":
                time.sleep(0.02)
            psql("""
                begin;
                update finance.accounts set opening_balance = opening_balance + 1;
                update finance.goals set target_amount = target_amount + 1;
                update finance.transactions set note = 'torn';
                commit;
            """)
            gate.ask("select pg_advisory_unlock(7)")
            output, _ = run.communicate()
        self.assertEqual(run.returncode, 0, output)

        query = "select sum(opening_balance), sum(target_amount) from finance.accounts, finance.goals"
        self.assertEqual([str(value) for value in self.copied(space, query)], before)
        self.assertNotEqual(psql(query).split("\t"), before)
        self.assertEqual(self.copied(space, "select count(*) from finance.transactions where note = 'torn'"), (0,))

        # All of it came through one transaction of one connection: nothing depends on how a snapshot is handed on.
        with (self.server.directory / "log").open(encoding="utf-8") as file:
            file.seek(log)
            said = file.read()
        self.assertEqual(said.count("ISOLATION LEVEL REPEATABLE READ READ ONLY"), 1, said)
        self.assertNotIn("SET TRANSACTION SNAPSHOT", said)
        self.assertNotIn("WHERE ctid", said)

    def test_rollback_reason_partial_builds(self):
        """One of four reasons why the first attempt was rolled back: a mart could not be built without the database before."""
        space = self.space.copy()
        for path in ("", "../build.duckdb"):
            with self.subTest(path or ":memory:"):
                space.env = self.server.settings | ({"DUCKDB_PATH": path} if path else {})
                space.dbt("build", "--target", "postgres", "--select", "fct_monthly_trends")
                self.assertEqual((space.built, space.failed), ({"fct_monthly_trends"}, {}))
        (space.root / "build.duckdb").unlink()
        space.dbt("test", "--target", "postgres")
        self.assertEqual(space.failed, {})

    def test_the_password_is_nowhere(self):
        space = self.space.copy()
        self.server.psql(f"create role nasty login superuser password '{NASTY_PASSWORD.replace(chr(39), chr(39) * 2)}'")
        space.env = self.server.settings | {"POSTGRES_USER": "nasty", "POSTGRES_PASSWORD": NASTY_PASSWORD}
        said = space.dbt("--debug", "run", "--target", "postgres", "--select", "dim_tags")
        space.env = space.env | {"POSTGRES_DB": "nowhere"}
        said += space.dbt("--debug", "run", "--target", "postgres", "--select", "dim_tags", fails=True)
        said += space.dbt("--debug", "debug", "--target", "postgres", fails=True)
        written = {path: path.read_bytes() for folder in ("target", "logs") for path in (space.project / folder).rglob("*") if path.is_file()}
        self.assertTrue(any(path.name == "dbt.log" for path in written))
        for secret in (NASTY_PASSWORD, NASTY_PASSWORD[5:20]):
            self.assertNotIn(secret, said)
            for path, content in written.items():
                self.assertNotIn(secret.encode(), content, path)

    def test_what_is_wrong_is_named(self):
        shadow = self.space.root / "shadow/duckdb_extension_postgres_scanner"
        shadow.mkdir(parents=True)
        (shadow / "__init__.py").touch()
        space = self.space.copy()
        before = space.records
        for env, expected in (
            ({"POSTGRES_HOST": "", "POSTGRES_USER": ""}, "needs POSTGRES_HOST, POSTGRES_USER:"),
            ({"POSTGRES_HOST": "/nowhere"}, 'socket "/nowhere/.s.PGSQL.5432" failed'),
            ({"POSTGRES_PASSWORD": "wrong"}, "password authentication failed"),
            ({"PYTHONPATH": str(shadow.parent)}, "run make bootstrap"),
        ):
            with self.subTest(expected):
                space.env = self.server.settings | env
                said = space.dbt("run", "--target", "postgres", "--select", "dim_tags", fails=True)
                self.assertIn(expected, said)
        self.assertEqual(space.records, before)

        self.server.psql("alter table finance.goals rename to targets")
        self.addCleanup(self.server.psql, "alter table finance.targets rename to goals")
        space.env = self.server.settings
        said = space.dbt("run", "--target", "postgres", "--select", "dim_tags", fails=True)
        self.assertIn('Table with name goals does not exist', said)
        self.assertEqual(space.records, before)

    def test_data_is_replaced_only_when_told(self):
        space = self.space.copy()
        self.server.psql("create database other template finance")
        space.env = self.server.settings | {"POSTGRES_DB": "other"}
        count = "select count(*) from finance.transactions"
        said = space.dbt("run-operation", "seed_postgres", "--target", "postgres", transactions=700)
        self.assertIn("{replace: true}", said)
        self.assertEqual(self.server.psql(count, database="other"), "600")
        space.dbt("run-operation", "seed_postgres", "--target", "postgres", "--args", "{replace: true}", transactions=700)
        self.assertEqual(self.server.psql(count, database="other"), "700")


if __name__ == "__main__":
    unittest.main()
