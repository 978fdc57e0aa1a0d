"""What is measured of martd alone: how soon a change shows, many marts, memory, starting."""

from contextlib import closing
import http.client
import json
import os
from pathlib import Path
import random
import select
import shutil
import signal
import threading
import time

from cases import Case
import load
from marts import STAMP, STAMPED, Stamper
from servers import Asked, Martd, MartdCached, Server

#: How long a server may take to notice a change before it counts as one that does not.
PATIENCE = 5.0


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def newest(document) -> int:
    """The stamp in an answer; 40 rows have the same."""
    rows = document if isinstance(document, list) else document["data"]
    return int(rows[0][STAMP])


def staleness(server: Server, case: Case) -> float | None:
    """Seconds until an answer has what was written to a mart; `None` when none has it in time."""
    mart = server.marts / f"{STAMPED}.parquet"
    original = mart.read_bytes()
    written = Stamper(mart).write(1_000_000)
    server.replaced(STAMPED)
    seen = None
    while seen is None and time.monotonic() - written < PATIENCE:
        if newest(json.loads(server.ask(server.asked(case))[1])) == 1_000_000:
            seen = time.monotonic() - written
    mart.write_bytes(original)
    server.replaced(STAMPED)
    return seen


class Visible:
    """Replaces a mart again and again, each time when the last version has been seen."""

    def __init__(self, server: Martd, mart: str = STAMPED):
        self.server = server
        self.stamper = Stamper(server.marts / f"{mart}.parquet")
        self.sql = f"select {STAMP} from mart.{mart} where first_used_on >= cast(? as date) limit 1"
        self.stamp = 1_000_000
        self.ms: list[float] = []
        #: Answers that came after a newer one, or were no answers.
        self.wrong = 0

    def replace(self, count: int) -> None:
        asked = Asked("/v1/query", json.dumps({"sql": self.sql, "params": ["@DATE@"]}))
        with closing(self.server.connect()) as connection:
            for _ in range(count):
                before = self.stamp
                self.stamp += 1
                written = self.stamper.write(self.stamp)
                seen = before
                while seen != self.stamp:
                    status, body = self.server.ask(asked, connection=connection)
                    now = newest(json.loads(body)) if status == 200 else -1
                    self.wrong += now not in (before, self.stamp) and before != 1_000_000
                    seen = now
                    if time.monotonic() - written > PATIENCE:
                        raise SystemExit(f"martd does not show a change within {PATIENCE} s")
                self.ms.append((time.monotonic() - written) * 1e3)
                # At any point of whatever martd does at intervals.
                time.sleep(random.uniform(0.0, 0.02))


def many_marts(root: Path, source: Path, case: Case, count: int, replacements: int) -> dict:
    """One of `count` marts is replaced: when it shows, and what a request costs."""
    marts = root / "many"
    shutil.rmtree(marts, ignore_errors=True)
    shutil.copytree(source, marts)
    for number in range(count - len(list(marts.iterdir()))):
        shutil.copyfile(marts / f"{STAMPED}.parquet", marts / f"copy_{number:04}.parquet")
    server = Martd(root / "many-served", marts)
    try:
        visible = Visible(server)
        visible.replace(replacements)
        cost = publish_cost(server, replacements)
        p50 = load.run(server, server.asked(case), 1, 1).p50_ms
        return {"visible": visible.ms, "publish_ms": cost, "request_ms": p50, "start": server.start_seconds}
    finally:
        server.stop()


def publish_cost(server: Martd, replacements: int) -> float:
    """What martd itself spends on one replacement, in milliseconds of processor time: waiting for
    quiet is not part of it."""
    def spent() -> float:
        # Its own time, that of children that have ended, and that of those that live.
        pid = server.process.pid
        children = Path(f"/proc/{pid}").glob("task/*/children")
        living = [child for path in children for child in path.read_text().split()]
        return times(pid, 4) + sum(times(child, 2) for child in living)

    def times(pid: int | str, count: int) -> float:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:  # it ended just now
            return 0.0
        return sum(int(ticks) for ticks in fields[11 : 11 + count]) * 10.0

    stamper = Stamper(server.marts / f"{STAMPED}.parquet")
    published = generation(server)
    before = spent()
    for stamp in range(replacements):
        stamper.write(2_000_000 + stamp)
        while generation(server) == published:
            time.sleep(0.02)
        published = generation(server)
    return (spent() - before) / replacements


def generation(server: Martd) -> int:
    with closing(server.connect()) as connection:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        response.read()
        return response.getheader("Martd-Snapshot")


def growth(root: Path, source: Path, case: Case, publishes: int, requests: int) -> dict:
    """Memory when idle, and after so many publishes and requests."""
    server = MartdCached(root / "growth", source)
    try:
        time.sleep(1.0)
        idle = server.memory()
        start = server.start_seconds
        pins = sum(path.stat().st_size for path in server.marts.glob("*.parquet"))
        visible = Visible(server)
        visible.replace(publishes // 10)
        warm = sum(server.memory().values())
        done = [0]

        def ask() -> None:
            while done[0] < requests:
                done[0] += load.run(server, server.asked(case), 4, 2).requests

        asking = threading.Thread(target=ask)
        asking.start()
        visible.replace(publishes - publishes // 10)
        asking.join()
        time.sleep(1.0)
        return {
            "idle": idle, "pins": pins, "start": start, "warm": warm, "end": sum(server.memory().values()),
            "publishes": publishes, "requests": done[0], "visible": visible.ms, "wrong": visible.wrong,
        }
    finally:
        server.stop()


def engine_killed(root: Path, source: Path, case: Case, kills: int) -> list[float] | None:
    """Milliseconds from the end of the engine to an answer, each time; `None` when there is no engine of its own."""
    server = Martd(root / "killed", source)
    try:
        took = []
        for _ in range(kills):
            engine = server.engine()
            if engine is None:
                return None
            killed = time.monotonic()
            end(engine)
            while not answers(server, case):
                if time.monotonic() - killed > PATIENCE:
                    raise SystemExit(f"martd does not answer {PATIENCE} s after its engine was killed")
            took.append((time.monotonic() - killed) * 1e3)
        return took
    finally:
        server.stop()


def end(process: int) -> None:
    """Kills it, and waits until it has ended: an answer after that is of another."""
    watch = os.pidfd_open(process)
    try:
        os.kill(process, signal.SIGKILL)
        select.select([watch], [], [])
    finally:
        os.close(watch)


def answers(server: Server, case: Case) -> bool:
    try:
        return server.ask(server.asked(case))[0] == 200
    except (OSError, http.client.HTTPException):
        return False
