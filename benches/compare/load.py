"""Load: wrk, one server at a time."""

from dataclasses import dataclass
import json
import os
from pathlib import Path
import statistics
import subprocess
import tempfile

from servers import Asked, Server

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Run:
    requests: int
    rate: float
    failed: int
    p50_ms: float
    p99_ms: float


def run(server: Server, asked: Asked, clients: int, seconds: int) -> Run:
    """Asks for so many seconds. A server whose cache is on is asked the same again and again."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as result:
        environment = os.environ | {
            "BENCH_PATH": asked.path, "BENCH_BODY": asked.body, "BENCH_TYPE": asked.type,
            "BENCH_ACCEPT": asked.accept, "BENCH_RESULT": result.name,
        }
        if server.cached:
            environment["BENCH_SAME"] = "1"
        command = [
            "wrk", "--threads", "1", "--connections", str(clients), "--duration", f"{seconds}s",
            "--timeout", "30s", "--script", str(SCRIPT), f"http://127.0.0.1:{server.port}",
        ]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        figures = json.load(result)
    requests = figures["requests"]
    return Run(
        requests, requests / figures["us"] * 1e6, figures["failed"], figures["p50"] / 1e3, figures["p99"] / 1e3
    )


def median(runs: list[Run]) -> Run:
    """The median of each figure; of failures the sum."""
    return Run(
        sum(run.requests for run in runs), statistics.median(run.rate for run in runs),
        sum(run.failed for run in runs), statistics.median(run.p50_ms for run in runs), statistics.median(run.p99_ms for run in runs),
    )
