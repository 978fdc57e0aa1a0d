"""The whole way: rows in PostgreSQL, dbt, martd, the backend; and again after the rows have changed."""

import sys
import tempfile
import uuid

import httpx
import pytest
from backend.settings import Settings
from conftest import ROOT
from daemon import Martd
from serving import Backend

sys.path.insert(0, str(ROOT / "dbt/postgres"))
import server  # noqa: E402 (found by the path above)


@pytest.fixture
def postgres():
    # A socket's path has little room, less than pytest's directories take.
    with tempfile.TemporaryDirectory(prefix="martd-pg-") as directory:
        running = server.Server(directory)
        running.start()
        yield running
        running.stop()


def test_changed_rows_show_after_the_next_build(postgres, new_workspace):
    space = new_workspace(transactions=300, users=2)
    space.env = postgres.settings
    space.dbt("run-operation", "seed_postgres", "--target", "postgres")
    space.dbt("build", "--target", "postgres")
    user, account, tag = postgres.psql(
        "select user_id, account_id, tag_id from finance.transactions where kind = 'expense' order by id limit 1"
    ).split("\t")
    [count, balance] = postgres.psql(
        f"select count(*), sum(amount) + (select opening_balance from finance.accounts where id = '{account}') "
        f"from finance.transactions where account_id = '{account}'"
    ).split("\t")

    with Martd(space.marts.parent) as martd:
        martd.ready()
        settings = Settings("martd", martd_url=martd.url)
        with Backend(settings) as backend, backend.asks(user) as asks, httpx.Client(base_url=martd.url) as daemon:

            def query(dataset, **params):
                answer = asks.get(f"/datasets/{dataset}/query", params={"limit": 10_000, **params})
                assert answer.status_code == 200, answer.text
                return answer.json()

            def account_row():
                [row] = query("dim_accounts", account_ids=account)["rows"]
                return row

            before = account_row()
            assert (before["transaction_count"], before["current_balance"]) == (int(count), pytest.approx(float(balance)))
            assert query("fct_transactions", account_ids=account)["row_count"] == int(count)

            new = uuid.uuid4()
            postgres.psql(f"""
                update finance.accounts set name = 'Renamed, "Zoë''s"' where id = '{account}';
                insert into finance.transactions (id, user_id, account_id, tag_id, booked_at, amount, kind, counterparty)
                  select '{new}', '{user}', '{account}', '{tag}', max(booked_at), -12.34, 'expense', 'Corner shop'
                  from finance.transactions where account_id = '{account}';
            """)
            assert account_row() == before, "nothing changes before dbt has run"

            space.dbt("build", "--target", "postgres")
            waited = daemon.get("/v1/snapshot", params={"build": space.build, "wait": 30}, timeout=60)
            assert waited.status_code == 200, waited.text

            after = account_row()
            assert after["account_name"] == "Renamed, \"Zoë's\""
            assert after["transaction_count"] == before["transaction_count"] + 1
            assert after["current_balance"] == pytest.approx(before["current_balance"] - 12.34)
            [row] = [row for row in query("fct_transactions", account_ids=account)["rows"] if row["transaction_id"] == str(new)]
            assert (row["amount"], row["account_name"], row["tag_id"]) == (-12.34, after["account_name"], tag)
            history = query("fct_daily_balance_history", account_ids=account)["rows"]
            assert history[-1]["balance"] == after["current_balance"]
            assert asks.get("/status").json()["last_refresh"] is not None
