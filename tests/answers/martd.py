"""Starts martd over a directory and asks it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMATS = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
}
PATIENCE_S = 60
IDLE_S = 20.0


class Refused(Exception):
    """martd's problem: its slug, and DuckDB's kind of error where it has one."""

    def __init__(self, status: int, slug: str, detail: str) -> None:
        super().__init__(f"{status} {slug}: {detail}")
        self.status = status
        self.slug = slug
        self.kind = error_kind(detail)


def error_kind(message: str) -> str:
    """`Conversion Error` of DuckDB's message."""
    head, colon, _ = message.partition(" Error:")
    return head if colon else ""


@dataclass(frozen=True)
class Question:
    """A statement with all that its answer depends on."""

    sql: str
    params: list[Any] | None = None
    types: Mapping[str, str] | None = None
    scope: str | None = None

    def body(self, limit: int) -> bytes:
        body = {"sql": self.sql, "params": self.params, "types": self.types, "limit": limit}
        return json.dumps({key: value for key, value in body.items() if value is not None}).encode()


class Martd:
    """A running martd; killed when the `with` ends."""

    MAX_ROWS = 1_000_000

    def __init__(self, directory: Path, settings: Mapping[str, str] = {}) -> None:
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "PARQUET_DIR": str(directory),
            "MARTD_LISTEN": "127.0.0.1:0",
            "MARTD_QUERY_TIMEOUT": "60s",
            "MARTD_TIMEZONE": "UTC",
            **settings,
        }
        self._start()

    def _start(self) -> None:
        program = os.environ.get("MARTD_BIN", "target/debug/martd")
        self._process = subprocess.Popen(
            [program], env=self._environment, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self._listening = threading.Event()
        threading.Thread(target=self._read_log, daemon=True).start()
        if not self._listening.wait(PATIENCE_S):
            raise RuntimeError("martd does not listen:\n" + "".join(self.log))
        self._connection: http.client.HTTPConnection | None = None
        self._used = time.monotonic()

    def _read_log(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self.log.append(line)
            if not self._listening.is_set() and '"serving"' in line:
                self._host, _, port = json.loads(line)["address"].rpartition(":")
                self._port = int(port)
                self._listening.set()

    def __enter__(self) -> Martd:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Ends it as an operator would, and starts it again."""
        marts = len(self.snapshot()["marts"])
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE_S)
        if code != 0:
            raise RuntimeError(f"martd ended with {code}:\n" + "".join(self.log[-20:]))
        self._start()
        self.wait_for_marts(marts)

    def engines(self) -> list[int]:
        """The ids of the processes in which DuckDB runs, if martd has such."""
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                parent = status.read_text().partition("PPid:\t")[2].partition("\n")[0]
                command = status.with_name("cmdline").read_text()
            except OSError:
                continue  # it has ended
            if parent == str(self._process.pid) and "engine" in command:
                found.append(int(status.parent.name))
        return found

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> tuple[int, bytes]:
        # martd closes a connection that has been idle for 30 s.
        if self._connection is not None and time.monotonic() - self._used > IDLE_S:
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE_S)
        try:
            self._connection.request(method, path, body, dict(headers))
            answer = self._connection.getresponse()
            body = answer.read()
            self._used = time.monotonic()
            return answer.status, body
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            raise

    def snapshot(self) -> Any:
        return json.loads(self.request("GET", "/v1/snapshot")[1])

    def wait_for_marts(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len((snapshot := self.snapshot())["marts"]) != count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{count} marts are not there: {snapshot}")
            time.sleep(0.02)

    def ask(self, question: Question, format: str) -> bytes:
        """The body of an answer."""
        headers = {"Content-Type": "application/json", "Accept": FORMATS[format]}
        if question.scope is not None:
            headers["Martd-Scope"] = question.scope
        body = question.body(self.MAX_ROWS)
        status, answer = self.request("POST", "/v1/query", body, headers)
        if status != 200:
            problem = json.loads(answer)
            slug = problem["type"].removeprefix("urn:martd:problem:")
            raise Refused(status, slug, problem["detail"])
        return answer
