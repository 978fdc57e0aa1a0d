"""Compares martd with what people would use instead, and with DuckDB in process.

`make bench` runs all parts and writes benches/RESULTS.md. `make bench ONLY=tpch` runs one part, QUICK=1 takes
fewer turns, and both can be combined; what they find goes to target/bench. The parts:

- `servers`: seven cases, asked of martd, of other servers and of DuckDB in process
- `tpch`, `clickbench`: a published set of queries, asked of martd and of DuckDB in process
- `alone`: how soon martd shows a change, starts and recovers, and the memory that it takes
"""

import argparse
from contextlib import ExitStack
import json
import math
from pathlib import Path
import subprocess
import sys
import time

import cases
import load
from marts import Replacer, prepare
import measure
import ratios
from report import Part, Results
from servers import EVERYONE, PEERS, RELOADING, Martd, MartdCached, Server
import sets

SECONDS = 1
#: The longest measurement, for what takes longer than a second to answer.
MOST_SECONDS = 3
#: Long enough for each mart to be replaced about twice, and as often as the p99 of a short answer needs to be told.
TURNS_SECONDS, TURNS_ROUNDS = 2, 5


#: Turns of each query of a set.
SET_TURNS, SET_TURNS_QUICK = 31, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--martd", required=True, help="the program")
    parser.add_argument("--in-process", type=lambda path: str(Path(path).resolve()), required=True, help="the example in_process")
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True, help="its folders 1000, 100000 and 1000000 hold what dbt wrote")
    parser.add_argument("--quick", action="store_true", help="less of everything, for a first look")
    parser.add_argument("--only", choices=["servers", *sets.SETS, "alone"], help="one part alone")
    parser.add_argument("--output", type=Path, required=True, help="where the report goes")
    options = parser.parse_args()
    Martd.program = str(Path(options.martd).resolve())
    began = time.monotonic()
    results = Results(options.quick)
    if options.only in (None, "servers"):
        servers(options, results)
    for name, queries in sets.SETS.items():
        if options.only in (None, name):
            turns = SET_TURNS_QUICK if options.quick else SET_TURNS
            results.sets.append(sets.measure(queries, options.data / "sets", options.in_process, turns))
            say(ratios.in_short(results.sets[-1]))
    if options.only in (None, "alone"):
        alone(options, results)
    results.seconds = time.monotonic() - began
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(results.markdown())
    print(f"{options.output} is written ({results.seconds:.0f} s)")


def servers(options: argparse.Namespace, results: Results) -> None:
    """The cases: martd, the peers, and DuckDB in process."""
    rounds = 1 if options.quick else 3
    small = Data(options.data, 100_000)
    everyone = [(kind, clients) for kind in EVERYONE for clients in (1, 8)]
    if options.quick:
        everyone = [(Martd, 1), (Martd, 8), (MartdCached, 8), *((kind, 8) for kind in PEERS)]
    dimension = small.case("dimension")
    with small.serve(EVERYONE) as running:
        small.check(running.values())
        results.quiet = small.measure("quiet", running, everyone, rounds, options.in_process)
        changing = [pair for pair in everyone if pair[0] in (Martd, MartdCached) or pair[1] == 8]
        changing.remove((Martd, 8))
        results.changing = small.measure("replacing", running, [] if options.quick else changing, 1, None)
        results.beside = small.pairs(results.changing, running[Martd], 8, *turns(options))
        staleness(results, running, dimension)
    # Not beside the others, from whom reloading would take the processors.
    with small.serve(RELOADING) as running:
        small.check(running.values())
        results.reloading = small.measure("replacing", running, [(kind, 8) for kind in RELOADING], 1, None)
        staleness(results, running, dimension)
    if not options.quick:
        large = Data(options.data, 1_000_000)
        with large.serve([Martd, *PEERS]) as running:
            large.check(running.values())
            pairs = [(kind, clients) for kind in (Martd, *PEERS) for clients in (1, 8)]
            results.large = large.measure("1,000,000 rows", running, pairs, rounds, options.in_process)
            results.large_changing = Part(large.rows, large.cases)
            results.large_beside = large.pairs(results.large_changing, running[Martd], 8, *turns(options))


def alone(options: argparse.Namespace, results: Results) -> None:
    """martd itself."""
    tiny = Data(options.data, 1_000)
    with tiny.serve([Martd]) as running:
        tiny.check(running.values())
        results.tiny_changing = Part(tiny.rows, tiny.cases)
        results.tiny_beside = tiny.pairs(results.tiny_changing, running[Martd], 8, *turns(options))
    small = Data(options.data, 100_000)
    source, dimension = small.versions("uuid") / "a", small.case("dimension")
    replacements = 10 if options.quick else 100
    say("many marts")
    for count in (11, 1_000):
        results.many[count] = measure.many_marts(small.root, source, dimension, count, replacements)
    say("engine killed")
    results.killed = measure.engine_killed(small.root, source, dimension, 3 if options.quick else 20)
    say("growth")
    publishes, requests = (30, 3_000) if options.quick else (1_000, 100_000)
    results.growth = measure.growth(small.root, source, dimension, publishes, requests)


def turns(options: argparse.Namespace) -> tuple[int, int]:
    return (1, SECONDS) if options.quick else (TURNS_ROUNDS, TURNS_SECONDS)


def staleness(results: Results, running: dict[type[Server], Server], case: cases.Case) -> None:
    for server in running.values():
        say(f"staleness: {server.name}")
        results.staleness[server.name] = measure.staleness(server, case)


class Data:
    """The marts of one size, and what is asked of them."""

    def __init__(self, data: Path, rows: int):
        self.rows = rows
        self.root = data / "served" / str(rows)
        self.prepared = data / "versions" / str(rows)
        prepare(data / str(rows) / "mart", self.prepared)
        self.cases = cases.of(self.versions("uuid") / "a")
        #: How long one answer takes, by case and server.
        self.took: dict[tuple[str, str], float] = {}

    def versions(self, kind: str) -> Path:
        return self.prepared / kind

    def case(self, name: str) -> cases.Case:
        return next(case for case in self.cases if case.name == name)

    def serve(self, kinds: list[type[Server]]) -> "Serving":
        return Serving({
            kind: (lambda kind=kind: kind(self.root, self.versions("text" if kind.text_ids else "uuid") / "a"))
            for kind in kinds
        })

    def check(self, servers) -> None:
        """Ends the comparison when a server gives another answer than DuckDB."""
        for case in self.cases:
            right = cases.expected(case, self.versions("uuid") / "a")
            for server in servers:
                asked = server.asked(case)
                if asked is None:
                    continue
                began = time.monotonic()
                status, body = server.ask(asked)
                self.took[case.name, server.name] = time.monotonic() - began
                if status != 200:
                    sys.exit(f"{server.name} answers {case.name} with {status}: {body[:500]!r}")
                given = cases.answered(case, body)
                if given != right:
                    pair = next(((a, b) for a, b in zip(given, right) if a != b), "one has more rows")
                    sys.exit(f"{server.name}: {case.name} has {len(given)} rows for {len(right)}: {pair}")
            say(f"{self.rows} {case.name}: all give the same {len(right)} rows")

    def pairs(self, changing: Part, server: Server, clients: int, rounds: int, seconds: int) -> Part:
        """A server while its marts are replaced, and quiet just before: what takes a moment's processor from
        all of them, here or on the machine's host, is in both. Adds the former, returns the latter."""
        quiet = Part(self.rows, self.cases)
        for case in self.cases:
            asked, key = server.asked(case), (case.name, server.name, clients)
            for _ in range(rounds):
                quiet.runs.setdefault(key, []).append(load.run(server, asked, clients, seconds))
                with self.replacer(server):
                    changing.runs.setdefault(key, []).append(load.run(server, asked, clients, seconds))
            say(f"quiet and replacing in turn: {case.name}")
        return quiet

    def replacer(self, server: Server) -> Replacer:
        versions = self.versions("text" if server.text_ids else "uuid")
        return Replacer(server.marts, versions, server.replaced)

    def measure(self, title, servers, pairs, rounds, in_process) -> Part:
        """Everyone in turn, and that several times."""
        part = Part(self.rows, self.cases)
        for turn in range(rounds):
            if in_process:
                part.in_process.append(self.limit(in_process))
            for case in self.cases:
                for kind, clients in pairs:
                    server = servers[kind]
                    asked = server.asked(case)
                    if asked is None:
                        continue
                    with ExitStack() as stack:
                        replacer = stack.enter_context(self.replacer(server)) if title == "replacing" else None
                        run = load.run(server, asked, clients, self.seconds(case, server, clients))
                    if replacer:
                        part.replaced.setdefault(kind.name, []).append(replacer.count / replacer.seconds)
                    part.runs.setdefault((case.name, kind.name, clients), []).append(run)
                say(f"{title}, round {turn + 1} of {rounds}: {case.name}")
        return part

    def seconds(self, case, server, clients) -> int:
        """Enough for each client to get an answer or two."""
        return min(max(SECONDS, math.ceil(1.5 * clients * self.took[case.name, server.name])), MOST_SECONDS)

    def limit(self, program: str) -> dict:
        statements = [{"name": case.name, "sql": case.sql} for case in self.cases]
        command = [program, str(self.versions("uuid") / "a"), str(SECONDS / 2)]
        done = subprocess.run(command, input=json.dumps(statements), text=True, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)


class Serving:
    """Servers that run side by side, and are stopped whatever happens."""

    def __init__(self, starts):
        self.starts = starts
        self.servers = {}

    def __enter__(self) -> dict[type[Server], Server]:
        try:
            for kind, start in self.starts.items():
                self.servers[kind] = start()
        except BaseException:
            self.__exit__()
            raise
        return self.servers

    def __exit__(self, *_) -> None:
        for server in self.servers.values():
            server.stop()


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
