"""Many builds, published as fast as possible with killed uploads and torn objects among them, and two mirrors with a
martd each that are asked all the time.

    BUILDS=500 python -m unittest test_mirror.Histories
"""

from __future__ import annotations

import http.client
import json
import random
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from mirror import MARTS, ROWS, WHOLE, Mirror, Project, environment, wait_for, wait_for_build
from martd import Martd, Question, Refused
from store import Store

# Of the builds, how many are killed while they are uploaded, and after how many an object is torn.
KILLED, TORN = 0.15, 0.15
# No upload takes longer.
UPLOAD_S = 0.6


@dataclass
class Watcher:
    """Asks a martd all the time: what was served when."""

    name: str
    martd: Martd
    # When it was first seen, the snapshot's id, and the build.
    seen: list[tuple[float, str, int]] = field(default_factory=list)
    answers: int = 0
    problems: list[str] = field(default_factory=list)

    def ask(self, ends: threading.Event) -> None:
        while not ends.is_set():
            try:
                document = json.loads(self.martd.ask(Question(WHOLE), "json"))
            except (Refused, OSError, http.client.HTTPException) as error:
                self.problems.append(f"{self.name} failed: {type(error).__name__} {error}")
                return
            self.answers += 1
            [row] = document["data"]
            if row["low"] != row["high"] or row["n"] != ROWS * len(MARTS):
                self.problems.append(f"{self.name} gave a torn answer: {row}")
            if not self.seen or self.seen[-1][1] != document["snapshot"]:
                self.seen.append((time.monotonic(), document["snapshot"], row["low"]))

    def visible(self, build: int) -> float:
        """When a build, or one after it, was served."""
        return next(when for when, _, seen in self.seen if seen >= build)


@dataclass
class Figures:
    builds: int
    killed: int
    torn: int
    seconds: float
    answers: int
    shown: list[int]
    delays: list[float]

    def __str__(self) -> str:
        quantiles = statistics.quantiles(self.delays, n=100)
        return (
            f"{self.builds} builds of {len(MARTS)} marts in {self.seconds:.0f} s "
            f"({self.killed} uploads killed, {self.torn} objects torn); {self.answers} answers, each of one build; "
            f"builds shown: {self.shown}; from uploaded to visible: median {quantiles[49]:.2f} s, "
            f"95 % {quantiles[94]:.2f} s, longest {max(self.delays):.2f} s"
        )


def publish_all(project: Project, store: Store, prefix: str, builds: int, chance: random.Random) -> tuple[dict[int, float], int, int]:
    """Publishes builds 2 to `builds`; the last one succeeds. Returns when each was uploaded."""
    uploaded: dict[int, float] = {}
    killed = torn = 0
    for number in range(2, builds + 1):
        build = project.write(number)
        is_last = number == builds
        process = subprocess.Popen(
            project.command("--build", build), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            after = chance.uniform(0, UPLOAD_S) if chance.random() < KILLED and not is_last else 60
            _, problem = process.communicate(timeout=after)
            if process.returncode != 0:
                raise AssertionError(f"publish ended with {process.returncode}: {problem.decode()}")
            uploaded[number] = time.monotonic()
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
        if chance.random() < TORN and not is_last:
            name = chance.choice(MARTS)
            whole = (project.marts / f"{name}.parquet").read_bytes()
            store.put(f"{prefix}/{name}.parquet", whole[: chance.randrange(len(whole))])
            torn += 1
    return uploaded, killed, torn


def run(store: Store, directory: Path, builds: int, seed: int) -> Figures:
    """Runs it, and checks what must be."""
    prefix = "history/mart"
    chance = random.Random(seed)
    project = Project(directory / "writer", store.endpoint, prefix)
    project.build(1)
    places = [directory / name for name in ("one", "two")]
    with (
        Mirror(store.endpoint, prefix, places[0]) as first,
        Mirror(store.endpoint, prefix, places[1]) as second,
        Martd(places[0]) as one,
        Martd(places[1]) as two,
    ):
        watchers = [Watcher("one", one), Watcher("two", two)]
        for watcher in watchers:
            wait_for_build(watcher.martd, 1)
        ends = threading.Event()
        threads = [threading.Thread(target=watcher.ask, args=(ends,)) for watcher in watchers]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        try:
            uploaded, killed, torn = publish_all(project, store, prefix, builds, chance)
            seconds = time.monotonic() - begun
            last = lambda: all(w.problems or w.seen and w.seen[-1][2] == builds for w in watchers)  # noqa: E731
            wait_for("the last build is shown by both", last)
        finally:
            ends.set()
            for thread in threads:
                thread.join()
        for mirror in (first, second):
            wait_for("the mirror is equal", lambda: mirror.status()["error"] is None)
    check(watchers)
    delays = [w.visible(number) - when for w in watchers for number, when in uploaded.items()]
    shown = [len(watcher.seen) for watcher in watchers]
    answers = sum(watcher.answers for watcher in watchers)
    return Figures(builds, killed, torn, seconds, answers, shown, delays)


def check(watchers: list[Watcher]) -> None:
    problems = [problem for watcher in watchers for problem in watcher.problems]
    assert not problems, problems[:5]
    builds: dict[str, int] = {}
    for watcher in watchers:
        numbers = [build for _, _, build in watcher.seen]
        assert numbers == sorted(set(numbers)), f"{watcher.name} went back: {numbers}"
        for _, id, build in watcher.seen:
            assert builds.setdefault(id, build) == build, f"{id} is of build {builds[id]} and of {build}"
    assert len(builds) == len(set(builds.values())), "one build has two ids"
    # So both have shown the ids that both have shown in one order: that of the builds.
    orders = [[id for _, id, _ in watcher.seen] for watcher in watchers]
    common = set(orders[0]) & set(orders[1])
    assert [id for id in orders[0] if id in common] == [id for id in orders[1] if id in common]
    assert orders[0][-1] == orders[1][-1]
