"""What the sets of queries come to: geometric means, their spread, and a table of all queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math
import statistics

from sets import MARTD, TABLES, VIEWS, Measured

#: What a statement may cost for being asked over HTTP.
HTTP_MS = 0.3
#: What is left of a statement at least, so that a mean can be had.
LEAST_MS = 0.01

Times = dict[str, float]
Ratio = Callable[[Times], float]


def to_views(ms: Times) -> float:
    return ms[MARTD] / ms[VIEWS]


def to_tables(ms: Times) -> float:
    return ms[MARTD] / ms[TABLES]


def to_tables_without_http(ms: Times) -> float:
    return max(ms[MARTD] - HTTP_MS, LEAST_MS) / ms[TABLES]


RATIOS: dict[str, Ratio] = {
    "martd / DuckDB over the files": to_views,
    "martd / DuckDB's tables": to_tables,
    f"(martd - {HTTP_MS} ms) / DuckDB's tables": to_tables_without_http,
}


@dataclass(frozen=True)
class Summary:
    #: The geometric mean over the queries, of the ratio of their medians.
    mean: float
    #: The least and the greatest geometric mean of a single turn.
    turns: tuple[float, float]
    #: The queries with the least and the greatest ratio.
    least: tuple[str, float]
    greatest: tuple[str, float]


def medians(measured: Measured, query: str) -> Times:
    return {who: statistics.median(times) for who, times in measured.ms[query].items()}


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def summary(measured: Measured, ratio: Ratio) -> Summary:
    by_query = {query: ratio(medians(measured, query)) for query in measured.ms}
    turns = len(next(iter(measured.ms.values()))[MARTD])
    means = [
        geometric_mean([ratio({who: ms[turn] for who, ms in times.items()}) for times in measured.ms.values()])
        for turn in range(turns)
    ]
    ordered = sorted(by_query.items(), key=lambda item: item[1])
    return Summary(geometric_mean(list(by_query.values())), (min(means), max(means)), ordered[0], ordered[-1])


def in_short(measured: Measured) -> str:
    means = (f"{text}: {summary(measured, ratio).mean:.2f}" for text, ratio in RATIOS.items())
    return f"{measured.of.title}: " + "; ".join(means)


def markdown(measured: Measured) -> str:
    turns = len(next(iter(measured.ms.values()))[MARTD])
    lines = [
        f"## {measured.of.title}, {len(measured.ms)} queries\n",
        f"{measured.of.about[0].upper()}{measured.of.about[1:]}. {turns} turns, one client, martd's cache off. The spread"
        " is the least and the greatest geometric mean of a single turn.\n",
        "| | geometric mean | spread | least | greatest |",
        "|---|---|---|---|---|",
    ]
    for text, ratio in RATIOS.items():
        it = summary(measured, ratio)
        lines.append(
            f"| {text} | {it.mean:.2f} | {it.turns[0]:.2f} to {it.turns[1]:.2f} |"
            f" {it.least[1]:.2f} ({it.least[0]}) | {it.greatest[1]:.2f} ({it.greatest[0]}) |"
        )
    below = sum(medians(measured, query)[MARTD] < HTTP_MS + LEAST_MS for query in measured.ms)
    if below:
        lines.append(f"\nOf {below} queries, less than {LEAST_MS} ms was left without the {HTTP_MS} ms; they count as {LEAST_MS} ms.")
    lines += [
        "\nThe p50 in milliseconds:\n",
        "| query | rows | martd | DuckDB over the files | DuckDB's tables | martd / files | martd / tables |",
        "|---|---|---|---|---|---|---|",
    ]
    for query, rows in measured.rows.items():
        ms = medians(measured, query)
        lines.append(
            f"| {query} | {rows:,} | {ms[MARTD]:.2f} | {ms[VIEWS]:.2f} | {ms[TABLES]:.2f} |"
            f" {to_views(ms):.2f} | {to_tables(ms):.2f} |"
        )
    return "\n".join(lines) + "\n"
