"""Two martds with the same marts, one of which gets them later, behind a load balancer."""

import hashlib
import json
import threading
import time
from datetime import datetime, timezone

import pytest
from conftest import write_mart
from daemon import Martd
from fake import Fake
from martd_client import Client, Unavailable, seen
from martd_client.seen import Seen
from round_robin import RoundRobin
from test_transport import ARROW, problem, whole

MARTS = ("a", "b")
BOTH = "SELECT a.build AS a, b.build AS b FROM mart.a, mart.b"


class Replicas:
    """Builds are written to `first`, and come to `second` when `copy` is called: records last."""

    def __init__(self, folder):
        self.first, self.second = folder / "first", folder / "second"

    def build(self, number):
        for name in MARTS:
            write_mart(self.first, name, f"SELECT {number} AS build")
        now = datetime.now(timezone.utc).isoformat()
        build = {"id": f"build-{number}", "started_at": now, "finished_at": now, "status": "success"}
        marts = [{"name": name, "files": [self._file(f"{name}.parquet")]} for name in MARTS]
        record = json.dumps({"version": 2, "build": build, "marts": marts})
        self._put(self.first / f"mart/_builds/build-{number}.json", record.encode())

    def copy(self):
        for pattern in ("*.parquet", "_builds/*.json"):
            for path in sorted((self.first / "mart").glob(pattern)):
                copied = self.second / path.relative_to(self.first)
                if not copied.exists() or copied.read_bytes() != path.read_bytes():
                    self._put(copied, path.read_bytes())

    def _file(self, name):
        content = (self.first / "mart" / name).read_bytes()
        return {"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    @staticmethod
    def _put(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"tmp_{path.name}")
        part.write_bytes(content)
        part.rename(path)


@pytest.fixture
def replicas(tmp_path):
    """Both serve the first build."""
    replicas = Replicas(tmp_path)
    replicas.build(1)
    replicas.copy()
    with Martd(replicas.first) as ahead, Martd(replicas.second) as behind:
        for martd in (ahead, behind):
            martd.wait_for(lambda shown: (shown["build"] or {}).get("invocation_id") == "build-1")
        replicas.ahead, replicas.behind = ahead, behind
        with RoundRobin([ahead.url, behind.url]) as balancer:
            replicas.url = balancer.url
            yield replicas


def is_served(number):
    return lambda shown: shown["build"]["invocation_id"] == f"build-{number}"


def ask(client):
    """The build that an answer shows, over a connection of its own, which leads to the next replica."""
    client.close()
    rows = client.execute_query(BOTH)
    assert rows[0]["a"] == rows[0]["b"]
    return rows[0]["a"]


def test_without_read_your_builds_a_client_goes_back(replicas):
    replicas.build(2)
    replicas.ahead.wait_for(is_served(2))
    with Client(replicas.url) as client:
        shown = [ask(client) for _ in range(4)]
    assert sorted(shown) == [1, 1, 2, 2]
    assert shown != sorted(shown)


def test_with_read_your_builds_it_waits_for_a_replica(replicas):
    replicas.build(2)
    replicas.ahead.wait_for(is_served(2))
    with Client(replicas.url, read_your_builds=True) as client:
        shown = [ask(client)]
        if shown == [1]:  # the turn was that of the one behind
            shown.append(ask(client))
        assert shown[-1] == 2
        late = threading.Timer(0.5, replicas.copy)
        late.start()
        shown += [ask(client) for _ in range(4)]
        late.join()
    assert shown[-4:] == [2] * 4


def test_what_no_replica_shows_in_time_is_an_error(replicas, monkeypatch):
    replicas.build(2)
    replicas.ahead.wait_for(is_served(2))
    with Client(replicas.ahead.url, read_your_builds=True) as client:
        assert ask(client) == 2
        with Client(replicas.behind.url, read_your_builds=True, retry=0) as elsewhere:
            elsewhere._source._seen = client._source._seen
            for _ in range(2):
                with pytest.raises(Unavailable, match="MARTD_CATCH_UP.*read_your_builds") as caught:
                    ask(elsewhere)
                assert (caught.value.slug, caught.value.status) == ("snapshot-gone", 410)
            # They may be gone for good.
            monkeypatch.setattr(seen, "FORGET_AFTER_S", 0.0)
            with pytest.raises(Unavailable, match="forgets it now"):
                ask(elsewhere)
            assert ask(elsewhere) == 1


def test_another_connection_leads_to_a_current_replica(replicas):
    """Also when one is behind for good."""
    with Client(replicas.url, read_your_builds=True, retry=20) as client:
        replicas.build(2)
        replicas.ahead.wait_for(is_served(2))
        assert 2 in (ask(client), ask(client))
        assert [client.execute_query(BOTH)[0]["a"] for _ in range(3)] == [2] * 3
        assert [ask(client) for _ in range(2)] == [2] * 2


def test_no_client_goes_back_to_an_older_build(replicas):
    """Builds come as fast as they can be written, and to one replica late: whoever asks after somebody has got an
    answer gets none that is older. Of clients without the setting the same is not true."""
    answers = {True: [], False: []}
    done = threading.Event()
    failures = []

    def read(client, kept):
        try:
            while not done.is_set():
                begun = time.monotonic()
                build = ask(client)
                kept.append((begun, time.monotonic(), build))
        except Exception as error:
            failures.append(error)

    with Client(replicas.url, read_your_builds=True) as careful, Client(replicas.url) as careless:
        readers = [
            threading.Thread(target=read, args=(client, answers[client is careful]))
            for client in (careful, careful, careful, careless)
        ]
        for reader in readers:
            reader.start()
        for number in range(2, 32):
            replicas.build(number)
            if number % 3 == 0:
                time.sleep(0.2)  # what is being tested is a replica that is so much behind
                replicas.copy()
        replicas.copy()
        replicas.behind.wait_for(is_served(31))
        done.set()
        for reader in readers:
            reader.join()
    times = sorted(end - begun for begun, end, _ in answers[True])
    print(f"{len(times)} answers with read_your_builds, half within {times[len(times) // 2]:.3f} s, all within {times[-1]:.3f} s; "
          f"without it {len(answers[False])}, of which {len(backwards(answers[False]))} went back")  # fmt: skip
    assert not failures
    assert len({build for _, _, build in answers[True]}) > 5
    assert backwards(answers[True]) == []
    assert backwards(answers[False]) != []


def backwards(answers):
    """Pairs of answers of which the second was asked for after the first had come, and is older."""
    found, newest, ended = [], 0, sorted((end, build) for _, end, build in answers)
    ended = iter(ended)
    next_end = next(ended, None)
    for begun, _, build in sorted(answers):
        while next_end is not None and next_end[0] < begun:
            newest = max(newest, next_end[1])
            next_end = next(ended, None)
        if build < newest:
            found.append((newest, build))
    return found


def test_a_response_replaces_the_builds_of_its_request():
    kept = Seen()
    kept.answered(kept.builds(), None)
    assert kept.builds() == frozenset()
    first, second = kept.builds(), kept.builds()
    # Two requests at once: nobody knows which answer is newer.
    kept.answered(first, "b3")
    kept.answered(second, "b2,q1")
    assert kept.builds() == {"b2", "b3", "q1"}
    kept.answered(kept.builds(), "b3,q1")
    assert kept.builds() == {"b3", "q1"}
    # An answer of a martd that has no records says nothing.
    kept.answered(frozenset({"b3"}), None)
    assert kept.builds() == {"b3", "q1"}


def test_what_is_sent():
    answer = whole(ARROW, "Martd-Truncated: false", "Martd-Build: b2,q1")
    behind = problem("410 Gone", "snapshot-gone", "Retry-After: 0")
    with Fake(answer, behind, answer, answer) as server, Client(server.url, read_your_builds=True, timeout=20) as client:
        client.execute_query("SELECT 1")
        client.execute_query("SELECT 1")
        with client.consistent("f00") as view:
            view.execute_query("SELECT 1")
        lines = [request["line"] for request in server.requests]
        carried = "POST /v1/query?build=b2,q1 HTTP/1.1"
        assert lines == ["POST /v1/query HTTP/1.1", carried, carried, "POST /v1/query HTTP/1.1"]
        # The one that was behind is left, for another connection may lead elsewhere.
        assert server.connections == 2
