"""dbt builds, and builds again, while the backend is asked: no call fails, and no answer is from two builds.

Each build has other data (another seed), so an answer tells which build it is from: it must be, byte for
byte, what one of the builds gives.
"""

import json
import os
import random
import shutil
import threading
import time
import uuid
from datetime import datetime, timezone

import httpx
import pytest
from backend.settings import Settings
from daemon import Martd
from martd_client import Client
from serving import Backend

DATASETS = ["dim_accounts", "fct_transactions", "fct_monthly_trends", "fct_daily_spending_by_tag", "fct_goal_progress"]
BUILDS = 3
REPLACEMENTS = 9
REAL_BUILDS = 2
THREADS = 3
PAUSE_S = 0.02
"""Between the calls of a reader, which share the machine with dbt."""
BETWEEN_FILES_S = 0.1
"""dbt makes one mart after the other: time enough for each to be seen alone."""
# Every mart counts the same money: equal only if all are from one build.
INVARIANT = """
    SELECT (SELECT sum(amount) FROM mart.fct_transactions)
         = (SELECT sum(current_balance - opening_balance) FROM mart.dim_accounts) AS balances,
      (SELECT sum(transaction_count) FROM mart.fct_monthly_trends) = (SELECT count(*) FROM mart.fct_transactions) AS trends,
      (SELECT sum(transaction_count) FROM mart.dim_tags) = (SELECT count(*) FROM mart.fct_transactions) AS tags,
      (SELECT sum(-amount) FROM mart.fct_transactions WHERE transaction_type = 'expense')
         = (SELECT sum(amount_spent) FROM mart.fct_daily_spending_by_tag) AS spending
"""
SUMS = {
    "transactions": "SELECT sum(amount) AS x FROM mart.fct_transactions",
    "balances": "SELECT sum(current_balance - opening_balance) AS x FROM mart.dim_accounts",
}


@pytest.fixture(scope="module")
def builds(new_workspace):
    """Builds of the same users with different histories, in one folder one after the other, each kept."""
    space = new_workspace(transactions=600, users=2)
    kept = []
    for seed in range(1, BUILDS + 1):
        space.dbt("build", seed=seed, transactions=600 + seed)
        kept.append(shutil.copytree(space.marts, space.root / f"build-{seed}" / "mart").parent)
    return space, kept


def answers_of(folder, user):
    """The bodies that the backend gives over a build that nobody touches."""
    with Martd(folder) as martd, Backend(Settings("martd", martd_url=martd.ready().url)) as backend:
        with backend.asks(user) as asks:
            return {name: asks.get(f"/datasets/{name}/query?limit=10000").content for name in DATASETS}


def replace(folder, build):
    """Puts a build's files in place, each atomically, and a record last, as dbt does."""
    marts = list((build / "mart").glob("*.parquet"))
    random.shuffle(marts)
    for file in marts:
        part = folder / "mart" / f"tmp_{file.name}"
        shutil.copy(file, part)
        os.replace(part, folder / "mart" / file.name)
        time.sleep(BETWEEN_FILES_S)
    records = [json.loads(file.read_text()) for file in (build / "mart/_builds").iterdir()]
    record = max(records, key=lambda record: record["build"]["finished_at"])
    now = datetime.now(timezone.utc).isoformat()
    record["build"] |= {"id": uuid.uuid4().hex, "started_at": now, "finished_at": now}
    part = folder / "mart/_builds/tmp_record"
    part.write_text(json.dumps(record))
    os.replace(part, folder / f"mart/_builds/{record['build']['id']}.json")


class Readers:
    """Threads that ask until they are stopped, and check every answer."""

    def __init__(self, backend, martd_url, user, known):
        self._stop = threading.Event()
        self._backend, self._martd_url, self._user, self._known = backend, martd_url, user, known
        self.wrong, self.counts, self.seen = [], {"api": 0, "one": 0, "several": 0}, set()
        readers = [self._api] * THREADS + [self._one_query, self._several_queries]
        self._threads = [threading.Thread(target=self._run, args=(reader,)) for reader in readers]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, reader):
        try:
            reader()
        except Exception as error:
            self.wrong.append(repr(error))

    def _api(self):
        with self._backend.asks(self._user) as asks:
            while not self._stop.wait(PAUSE_S) and not self.wrong:
                name = random.choice(DATASETS)
                answer = asks.get(f"/datasets/{name}/query?limit=10000")
                if answer.status_code != 200:
                    self.wrong.append(f"{name}: {answer.status_code} {answer.text}")
                elif self._known is not None:
                    build = self._known[name].get(answer.content)
                    if build is None:
                        self.wrong.append(f"{name}: an answer that no build has: {answer.text[:300]}")
                    self.seen.add(build)
                self.counts["api"] += 1

    def _one_query(self):
        with Client(self._martd_url) as client:
            while not self._stop.wait(PAUSE_S) and not self.wrong:
                [row] = client.execute_query(INVARIANT)
                if set(row.values()) != {True}:
                    self.wrong.append(f"one query over several builds: {row}")
                self.counts["one"] += 1

    def _several_queries(self):
        with Client(self._martd_url) as client:
            while not self._stop.wait(PAUSE_S) and not self.wrong:
                with client.consistent() as view:
                    sums = {view.execute_query(query)[0]["x"] for query in SUMS.values()}
                if len(sums) != 1:
                    self.wrong.append(f"queries of one snapshot over several builds: {sums}")
                self.counts["several"] += 1


def user_of(folder):
    with Client(f"file://{folder}") as client:
        return str(client.execute_query("SELECT min(user_id) AS id FROM mart.dim_accounts")[0]["id"])


def test_builds_that_replace_each_other(builds, tmp_path):
    """Prepared builds, one after the other without a pause."""
    _, kept = builds
    user = user_of(kept[0])
    known = {name: {} for name in DATASETS}
    for number, build in enumerate(kept):
        for name, content in answers_of(build, user).items():
            known[name][content] = number
    assert all(len(contents) == BUILDS for contents in known.values()), "the builds must differ in every dataset"

    folder = tmp_path / "parquet"
    shutil.copytree(kept[0], folder)
    with Martd(folder, MARTD_RETAIN="60s", MARTD_RETAIN_COUNT="64") as martd:
        martd.ready()
        with Backend(Settings("martd", martd_url=martd.url)) as backend:
            with Readers(backend, martd.url, user, known) as readers:
                for number in range(1, REPLACEMENTS + 1):
                    generation = martd.get("/v1/snapshot")["generation"]
                    replace(folder, kept[number % BUILDS])
                    martd.wait_for(lambda served: served["generation"] > generation)
            assert not readers.wrong, readers.wrong[0]
            assert readers.seen == set(range(BUILDS))
            print(readers.counts)


def test_dbt_builds_in_a_loop(builds):
    """dbt itself, while the backend is asked."""
    space, kept = builds
    folder = space.marts.parent
    with Martd(folder, MARTD_RETAIN="60s", MARTD_RETAIN_COUNT="64") as martd:
        martd.ready()
        with Backend(Settings("martd", martd_url=martd.url)) as backend:
            with Readers(backend, martd.url, user_of(kept[0]), None) as readers:
                for seed in range(11, 11 + REAL_BUILDS):
                    space.dbt("build", seed=seed)
                    build = space.build
                    with httpx.Client(base_url=martd.url, timeout=60) as asks:
                        assert asks.get("/v1/snapshot", params={"build": build, "wait": 30}).status_code == 200
            assert not readers.wrong, readers.wrong[0]
            assert min(readers.counts.values()) > 0
            print(readers.counts)
