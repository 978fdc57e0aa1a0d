"""The report: tables, and which of the promised ratios hold."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
import importlib.metadata
import os
import platform
import statistics
import subprocess

from cases import Case
from load import Run, median
from measure import percentile
import ratios
from servers import PEERS, DataPressReloading, Martd, MartdCached, Reference
from sets import Measured

OFF, ON = Martd.name, MartdCached.name
#: What was promised, what was measured, and whether it holds.
Line = Callable[[str, str, bool], None]
#: `QUIET` in src/refresh/burst.rs.
QUIET_MS = 25


@dataclass
class Part:
    """One size of data, quiet or changing."""

    size: int
    cases: list[Case]
    runs: dict[tuple[str, str, int], list[Run]] = field(default_factory=dict)
    in_process: list[dict] = field(default_factory=list)
    #: Replacements per second, by server.
    replaced: dict[str, list[float]] = field(default_factory=dict)

    def get(self, case: str, server: str, clients: int) -> Run | None:
        runs = self.runs.get((case, server, clients))
        return median(runs) if runs else None

    def limit(self, case: str, figure: str) -> float:
        """DuckDB's own figure in process, in milliseconds."""
        return statistics.median(run[case][figure] for run in self.in_process) / 1e3

    def names(self) -> list[str]:
        return list(dict.fromkeys(server for _, server, _ in self.runs))


@dataclass
class Results:
    quick: bool
    quiet: Part | None = None
    changing: Part | None = None
    #: martd with 8 clients, quiet, in the same minutes as `changing`.
    beside: Part | None = None
    #: The peers that show changes, while marts are replaced.
    reloading: Part | None = None
    large: Part | None = None
    #: martd with 8 clients, while marts are replaced and in the same minutes quiet.
    large_changing: Part | None = None
    large_beside: Part | None = None
    #: The same with marts of at most 1,000 rows.
    tiny_changing: Part | None = None
    tiny_beside: Part | None = None
    sets: list[Measured] = field(default_factory=list)
    staleness: dict[str, float | None] = field(default_factory=dict)
    many: dict[int, dict] = field(default_factory=dict)
    #: Milliseconds until an answer, for each time that the engine was killed; `None` without such a process.
    killed: list[float] | None = None
    growth: dict = field(default_factory=dict)
    seconds: float = 0.0

    def markdown(self) -> str:
        parts = [
            "# martd beside others\n",
            "Written by `make bench`" + (" with `QUICK=1`" if self.quick else "") + "; every figure is from one run, in which"
            " the servers were asked in turn. Compare the figures with each other, not with another machine's.\n",
            self.about(),
            "## What was promised\n" if self.quiet or self.growth else "",
            self.promises() if self.quiet or self.growth else "",
        ]
        parts += [ratios.markdown(measured) for measured in self.sets]
        if self.growth:
            parts += ["## martd alone\n", self.alone()]
        if self.quiet:
            parts += [
                "## Quiet, 100,000 transactions\n",
                "Requests per second (p50 / p99 in ms). Medians of the rounds.\n",
                self.table(self.quiet, 1) + "\n" + self.table(self.quiet, 8),
                "## While marts are replaced, ten a second, in turn\n",
                "`failed` counts answers that were no answers. ROAPI and DataPress do not look at files again here.\n",
                self.table(self.changing, 1) + "\n" + self.table(self.changing, 8),
                "The same with those that show changes: ROAPI looks for them each second, and DataPress is told after each"
                f" replacement; there were {self.rate(DataPressReloading.name):.1f} a second. They ran after the others. Answers that failed"
                " count as requests. Where one fails sooner than it would have been given, clients ask again at once: there are more"
                " requests and more failures, and the p50 is lower, than with clients that wait.\n",
                self.table(self.reloading, 8),
                "## Until a replaced mart shows\n",
                self.stale(),
            ]
        if self.large:
            parts += [
                "## Quiet, 1,000,000 transactions\n",
                self.table(self.large, 1) + "\n" + self.table(self.large, 8),
                "## While marts of 1,000,000 transactions are replaced, ten a second, in turn\n",
                self.table(self.large_changing, 8),
            ]
        if self.tiny_changing:
            parts += [
                "## martd while marts of 1,000 rows are replaced, ten a second, in turn\n",
                self.table(self.tiny_changing, 8),
            ]
        asked = self.quiet or self.tiny_changing
        if asked:
            parts += ["## What the cases are\n", self.statements(asked.cases), NOTES]
        if self.sets:
            parts += ["## How the sets are asked\n", SET_NOTES]
        return "\n".join(part for part in parts if part)

    def about(self) -> str:
        model = next(
            (line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?"
        )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], text=True, stdout=subprocess.PIPE).stdout.strip()
        packages = ["duckdb", "fastapi", "uvicorn", "roapi", "datap-rs", "pyarrow"]
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
        return (
            f"{datetime.now(timezone.utc):%Y-%m-%d}, {os.cpu_count()} × {model}, {memory:.0f} GiB, Linux"
            f" {platform.release().split('-')[0]}, Python {platform.python_version()}; martd at {commit} (DuckDB 1.5.6); {versions}; wrk."
            f" The servers, the load generator and whoever replaces files share the processors. {self.seconds / 60:.0f} minutes.\n"
        )

    def table(self, part: Part, clients: int) -> str:
        names = [name for name in part.names() if any((case.name, name, clients) in part.runs for case in part.cases)]
        if not names:
            return ""
        limit = part.in_process and clients == 1
        head = f"| {clients} client{'s' * (clients > 1)} | " + " | ".join(names) + (" | DuckDB in process" if limit else "") + " |"
        lines = [head, "|---" * (head.count("|") - 1) + "|"]
        for case in part.cases:
            cells = [self.cell(part.get(case.name, name, clients)) for name in names]
            if limit:
                p50, p99 = (part.limit(case.name, figure) for figure in ("p50_us", "p99_us"))
                cells.append(f"{1e3 / p50:,.0f} ({p50:.2f} / {p99:.2f})")
            lines.append(f"| {case.title} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    @staticmethod
    def cell(run: Run | None) -> str:
        if run is None:
            return "cannot be said"
        failed = f", {run.failed} failed" if run.failed else ""
        return f"{run.rate:,.0f} ({run.p50_ms:.2f} / {run.p99_ms:.2f}{failed})"

    def stale(self) -> str:
        lines = ["| server | a replaced mart shows after |", "|---|---|"]
        for name, seconds in self.staleness.items():
            lines.append(f"| {name} | {f'{seconds * 1e3:.0f} ms' if seconds is not None else 'not within 5 s'} |")
        return "\n".join(lines) + "\n"

    def rate(self, server: str) -> float:
        """How many marts were replaced in a second."""
        return statistics.median(self.reloading.replaced[server])

    def alone(self) -> str:
        lines = ["| | |", "|---|---|"]

        def visible(text: str, ms: list[float]) -> None:
            figures = f"{percentile(ms, 0.5):.0f} / {percentile(ms, 0.99):.0f} ms, over {len(ms):,} replacements"
            lines.append(f"| replaced to visible, {text}: p50 / p99 | {figures} |")

        visible("11 marts of 100,000 transactions", self.many[11]["visible"])
        visible("the same while it is asked by 4 clients", self.growth["visible"])
        visible("1,000 marts", self.many[1_000]["visible"])
        lines.append(f"| start to ready, 11 marts | {self.growth['start'] * 1e3:.0f} ms |")
        for process, resident in self.growth["idle"].items():
            lines.append(f"| idle, resident memory of the {process} | {resident / 2**20:.0f} MiB |")
        lines.append(f"| files that are held in memory, a part of it | {self.growth['pins'] / 2**20:.0f} MiB |")
        if self.killed:
            figures = f"{statistics.median(self.killed):.0f} / {max(self.killed):.0f} ms, over {len(self.killed)} times"
            lines.append(f"| engine killed to first answer: p50 / longest | {figures} |")
        return "\n".join(lines) + "\n"

    def promises(self) -> str:
        lines = ["| | measured | holds |", "|---|---|---|"]

        def line(text: str, measured: str, holds: bool) -> None:
            lines.append(f"| {text} | {measured} | {'yes' if holds else '**no**'} |")

        if self.quiet:
            self.promises_beside_others(line)
        self.promises_while_replacing(line)
        if self.growth:
            self.promises_alone(line)
        return "\n".join(lines) + "\n"

    def promises_beside_others(self, line: Line) -> None:
        for part in filter(None, (self.quiet, self.large)):
            for case in part.cases:
                run = part.get(case.name, OFF, 1)
                if case.rows > 1_000 or run is None:
                    continue
                own = part.limit(case.name, "p50_us")
                line(
                    f"{case.title}, {part.size:,}: p50 at most 1.25 × DuckDB in process + 0.15 ms",
                    f"{run.p50_ms:.2f} ms for {own:.2f} ms", run.p50_ms <= 1.25 * own + 0.15,
                )
        quiet = self.quiet
        own, reference = (quiet.get("aggregate", name, 8) for name in (OFF, Reference.name))
        line(
            "aggregate, 8 clients: at least 8 × FastAPI + DuckDB",
            f"{own.rate / reference.rate:.1f} ×", own.rate >= 8 * reference.rate,
        )
        for part in filter(None, (quiet, self.large)):
            for case in part.cases:
                own = part.get(case.name, OFF, 8)
                rates = {peer.name: run.rate for peer in PEERS if (run := part.get(case.name, peer.name, 8))}
                best = max(rates, key=rates.get)
                wanted = 2.0 if case.name == "rows" else 1.0
                line(
                    f"{case.title}, {part.size:,}, 8 clients: at least {wanted:g} × the best peer",
                    f"{own.rate / rates[best]:.2f} × {best}", own.rate >= wanted * rates[best],
                )
        arrow = quiet.get("arrow", OFF, 1)
        if arrow:
            own = quiet.limit("arrow", "p50_us")
            line(
                "100,000 rows as Arrow: at most 1.3 × DuckDB's fetch in process",
                f"{arrow.p50_ms / own:.2f} ×", arrow.p50_ms <= 1.3 * own,
            )
        cached, own = quiet.get("aggregate", ON, 8), quiet.get("aggregate", OFF, 8)
        line("aggregate repeated, cache on: at least 20 × uncached", f"{cached.rate / own.rate:.0f} ×", cached.rate >= 20 * own.rate)
        line("the same: p99 under 5 ms with 8 clients", f"{cached.p99_ms:.2f} ms", cached.p99_ms < 5)

    def promises_while_replacing(self, line: Line) -> None:
        failed = 0
        pairs = [
            (self.changing, self.beside), (self.large_changing, self.large_beside), (self.tiny_changing, self.tiny_beside),
        ]
        for changing, beside in pairs:
            if changing is None:
                continue
            failed += sum(run.failed for (_, name, _), runs in changing.runs.items() if name in (OFF, ON) for run in runs)
            for case in changing.cases:
                run, before = (part.get(case.name, OFF, 8) for part in (changing, beside))
                line(
                    f"{case.title}, {changing.size:,}, 8 clients, replacing: p99 at most 2 × quiet in the same minute",
                    f"{run.p99_ms / before.p99_ms:.2f} × ({run.p99_ms:.1f} ms for {before.p99_ms:.1f} ms)",
                    run.p99_ms <= 2 * before.p99_ms,
                )
        line("replacing: no failed answer of martd", f"{failed}", failed == 0)

    def promises_alone(self, line: Line) -> None:
        growth = self.growth
        line("no answer older than one before it", f"{growth['wrong']}", growth["wrong"] == 0)
        p99 = percentile(growth["visible"], 0.99)
        line("replaced to visible, 11 marts: p99 at most 150 ms", f"{p99:.0f} ms", p99 <= 150)
        few, many = self.many[11], self.many[1_000]
        line(
            "replacing one of 1,000 marts costs at most 5 × one of 11 (processor time)",
            f"{many['publish_ms']:.0f} ms for {few['publish_ms']:.0f} ms", many["publish_ms"] <= 5 * few["publish_ms"],
        )
        # martd waits that long for more changes, however many marts there are.
        few_ms, many_ms = (statistics.median(run["visible"]) - QUIET_MS for run in (few, many))
        line(
            f"the same by the clock, without the {QUIET_MS} ms in which further changes are waited for",
            f"{many_ms:.0f} ms for {few_ms:.0f} ms", many_ms <= 5 * few_ms,
        )
        line(
            "a request does not cost more with 1,000 marts",
            f"{many['request_ms']:.2f} ms for {few['request_ms']:.2f} ms", many["request_ms"] <= 1.2 * few["request_ms"],
        )
        idle = (sum(growth["idle"].values()) - growth["pins"]) / 2**20
        line("idle, all processes, beside the pins: at most 80 MiB resident", f"{idle:.0f} MiB", idle <= 80)
        line(
            f"no growth over {growth['requests']:,} requests and {growth['publishes']:,} publishes",
            f"{growth['warm'] / 2**20:.0f} MiB warm, {growth['end'] / 2**20:.0f} MiB at the end",
            growth["end"] <= 1.2 * growth["warm"],
        )
        line("start to ready, 11 marts: under 300 ms", f"{growth['start'] * 1e3:.0f} ms", growth["start"] < 0.3)

    @staticmethod
    def statements(asked: list[Case]) -> str:
        return "\n".join(f"- {case.title}: `{case.sql}`" for case in asked) + "\n"


NOTES = """\
`?` is a date that differs from request to request and leaves every row in, so that no server can answer from what it
has said before; only "cache on" asks the same again. DuckDB in process is a prepared statement on a warm connection over
views on sealed copies of the files, fetched as Arrow, in one thread that does nothing else. martd's cache is that of
answers. ROAPI and DataPress get the
same marts with UUIDs as text, which DataFusion neither compares nor writes as JSON otherwise; they hold all data in memory
and do not look at the files again unless told to: ROAPI by `--reload-interval`, DataPress by its endpoint `reload`. DataPress answers queries of one dataset, so it has no joins. Its
figures and ROAPI's are their defaults. A mart is replaced by a rename of a file that lies ready: who writes 27 MB a second,
wherever to, delays short answers, whatever the server does about it. Before anything was measured, all servers gave the same rows in every case.
"""

SET_NOTES = """\
martd is asked over one connection, and its answer is read whole as JSON. DuckDB in process is a prepared statement on a warm
connection, fetched as Arrow, in a process that does nothing else: over views on sealed copies of the files, and over tables
of its own that are in memory and compressed. martd keeps statements prepared, too. For each query the three are asked in
turn, and who begins changes from turn to turn; two turns are not counted. All have the same number of rows; `make
test-answers` checks that they are the same rows. The data is made from hashes of row numbers, without any other seed.
"""
