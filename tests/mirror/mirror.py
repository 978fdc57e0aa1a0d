"""Starts `martd mirror`, publishes to a bucket, and asks the martd beside it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1] / "answers"))
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from martd import Martd, Question  # noqa: E402
from store import BUCKET  # noqa: E402

ROOT = Path(__file__).parents[2]
PROGRAM = os.environ.get("MARTD_BIN", str(ROOT / "target/debug/martd"))
MARTS = [f"m{number}" for number in range(8)]
ROWS = 100
WITHIN_S = 60.0
INTERVAL = "200ms"
T = TypeVar("T")

# All marts in one statement: from one build, the smallest and the largest number are one.
ALL = " UNION ALL ".join(f"SELECT build FROM mart.{name}" for name in MARTS)
WHOLE = f"SELECT min(build) AS low, max(build) AS high, count(*) AS n FROM ({ALL})"


def wait_for(what: str, look: Callable[[], T | None], within_s: float = WITHIN_S) -> T:
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.02)


def environment(credentials: Mapping[str, str] = {}) -> dict[str, str]:
    """Nothing of whoever runs the tests but the path; the writer's credentials when none are given."""
    writer = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "writer-secret"}
    return {"PATH": os.environ.get("PATH", ""), **(credentials or writer)}


def url(prefix: str) -> str:
    return f"s3://{BUCKET}/{prefix}"


def store_flags(endpoint: str) -> list[str]:
    return ["--endpoint", endpoint, "--allow-http"]


class Mirror:
    """A running mirror; killed when the `with` ends."""

    def __init__(
        self,
        endpoint: str,
        prefix: str,
        directory: Path,
        credentials: Mapping[str, str] = {},
        under: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.log: list[dict[str, Any]] = []
        command = [*under, PROGRAM, "mirror", url(prefix), "--dir", str(directory), "--interval", INTERVAL]
        self._process = subprocess.Popen(
            command + store_flags(endpoint), env=environment(credentials), stderr=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read_log(self) -> None:
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in lines:
                self.log.append(json.loads(line) if line.startswith("{") else {"message": line})

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ends it as a service manager would; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(10)

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        path = self.directory / "mart/_mirror.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def wait_until_equal(self) -> None:
        """Waits for a round that ends equal and begins after this."""
        begun = self.status().get("succeeded_at")
        wait_for("the mirror is equal", lambda: self.status().get("succeeded_at") not in (None, begun))


def once(
    endpoint: str, prefix: str, directory: Path, *flags: str, bucket: str = BUCKET
) -> tuple[int, str]:
    """One round: the exit code and what is said."""
    command = [PROGRAM, "mirror", f"s3://{bucket}/{prefix}", "--dir", str(directory), "--once", *flags]
    done = subprocess.run(
        command + store_flags(endpoint), env=environment(), capture_output=True, text=True, timeout=WITHIN_S
    )
    return done.returncode, done.stderr


class Project:
    """A writer's own directory, and what it publishes from there."""

    def __init__(self, directory: Path, endpoint: str, prefix: str) -> None:
        self.directory = directory
        self.marts = directory / "mart"
        self.marts.mkdir(parents=True)
        self._endpoint = endpoint
        self._prefix = prefix

    def write(self, number: int, marts: list[str] = MARTS) -> str:
        """Writes marts of a build, stamped with its id, which is returned."""
        build = f"build-{number:05}"
        for place, name in enumerate(marts):
            column = [number] * ROWS
            table = pa.table({"build": column, "row": list(range(ROWS)), "mart": [name] * ROWS})
            stamped = table.replace_schema_metadata({"dbt_invocation_id": build})
            temporary = self.marts / f"tmp_{place}"
            pq.write_table(stamped, temporary)
            temporary.rename(self.marts / f"{name}.parquet")
        return build

    def command(self, *arguments: str) -> list[str]:
        to = ["--to", url(self._prefix), *store_flags(self._endpoint)]
        return [PROGRAM, "publish", "--dir", str(self.directory), *arguments, *to]

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Publishes, whatever comes of it."""
        command = self.command(*arguments)
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=WITHIN_S)

    def publish(self, *arguments: str) -> Any:
        """Publishes, which must succeed."""
        done = self.attempt(*arguments)
        if done.returncode != 0:
            raise AssertionError(f"publish ended with {done.returncode}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def build(self, number: int) -> str:
        build = self.write(number)
        self.publish("--build", build)
        return build


def served_build(martd: Martd) -> int | None:
    """The one build of which the whole answer is; `None` while nothing is served."""
    snapshot = martd.snapshot()
    if {mart["name"] for mart in snapshot["marts"]} < set(MARTS):
        return None
    [row] = json.loads(martd.ask(Question(WHOLE), "json"))["data"]
    assert row["low"] == row["high"] and row["n"] == ROWS * len(MARTS), f"a torn answer: {row}"
    return int(row["low"])


def wait_for_build(martd: Martd, number: int, within_s: float = WITHIN_S) -> None:
    wait_for(f"build {number} is served", lambda: served_build(martd) == number, within_s)


class Case(unittest.TestCase):
    """A test with a directory for a mirror, and a prefix of its own in the bucket."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)
        self.place = self.directory / "mirror"
        self.marts = self.place / "mart"
        self.prefix = f"{self.id().rpartition('.')[2]}/mart"

    def certificate(self) -> tuple[Path, ssl.SSLContext]:
        """An authority, and what a server on loopback shows whom it trusts."""
        if shutil.which("openssl") is None:
            self.skipTest("openssl is not installed")

        def make(name: str, *arguments: str) -> tuple[Path, Path]:
            key, cert = self.directory / f"{name}-key.pem", self.directory / f"{name}.pem"
            command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
            command += ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert), *arguments]
            subprocess.run(command, check=True, capture_output=True)
            return key, cert

        authority_key, authority = make("authority")
        names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
        key, cert = make("server", *names, "-CA", str(authority), "-CAkey", str(authority_key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        return authority, context
