"""The servers: how each is started, asked and stopped."""

from contextlib import closing
from dataclasses import dataclass
import http.client
import json
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import time

from cases import Case

HERE = Path(__file__).parent
PATIENCE = 60.0


@dataclass(frozen=True)
class Asked:
    """A request; `@DATE@` in its body stands for the date."""

    path: str
    body: str
    type: str = "application/json"
    accept: str = "application/json"

    def at(self, date: str) -> bytes:
        return self.body.replace("@DATE@", date).encode()


ARROW = "application/vnd.apache.arrow.stream"


class Server:
    name = ""
    #: DataFusion takes a UUID for bytes, which it neither compares with a text nor writes as JSON.
    text_ids = True
    #: Whether it has a cache of answers that is on.
    cached = False

    def __init__(self, root: Path, source: Path):
        """Over a copy of the marts in `source`, which it has to itself."""
        self.marts = root / type(self).__name__.lower() / "mart"
        shutil.rmtree(self.marts.parent, ignore_errors=True)
        shutil.copytree(source, self.marts)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.log = self.marts.parent / "log"
        began = time.monotonic()
        with open(self.log, "wb") as log:
            command, environment = self.command()
            self.process = subprocess.Popen(
                command, env=os.environ | environment, stdout=log, stderr=log, cwd=self.marts.parent
            )
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise SystemExit(f"{self.name} does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.002)
        self.start_seconds = time.monotonic() - began

    def command(self) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError

    def asked(self, case: Case) -> Asked | None:
        """The case as this server takes it; `None` when it cannot be said."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether something listens and a request is answered."""
        try:
            return self.probe() == 200
        except OSError:
            return False

    def probe(self) -> int:
        raise NotImplementedError

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, asked: Asked, date: str = "1900-01-01", connection=None) -> tuple[int, bytes]:
        connection = connection or self.connect()
        headers = {"Content-Type": asked.type, "Accept": asked.accept}
        connection.request("POST", asked.path, asked.at(date), headers)
        response = connection.getresponse()
        return response.status, response.read()

    def get(self, path: str) -> tuple[int, bytes]:
        with closing(self.connect()) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def replaced(self, mart: str) -> None:
        """Called when a mart's file was replaced; for those who do not look at it themselves."""

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Martd(Server):
    name = "martd, cache off"
    text_ids = False
    program = ""
    settings = {"MARTD_CACHE": "0"}

    def command(self):
        # The comparison replaces files without dbt, so no ledger vouches for them.
        settings = {"PARQUET_DIR": str(self.marts.parent), "MARTD_PUBLISH": "file", "RUST_LOG": "info"}
        listen = {"MARTD_LISTEN": f"127.0.0.1:{self.port}"}
        return [self.program, "serve"], settings | listen | self.settings

    def asked(self, case):
        body = {"sql": case.sql, "params": ["@DATE@"], "limit": max(case.rows, 1_000)}
        return Asked("/v1/query", json.dumps(body), accept=ARROW if case.arrow else "application/json")

    def probe(self):
        return self.get("/readyz")[0]

    def engine(self) -> int | None:
        """The id of its child that has DuckDB, if there is one."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                parent = status.read_text().partition("PPid:\t")[2].partition("\n")[0]
                arguments = status.with_name("cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if parent == str(self.process.pid) and b"engine" in arguments:
                return int(status.parent.name)
        return None

    def memory(self) -> dict[str, int]:
        """Resident bytes of its processes."""
        processes = {"front": self.process.pid, "engine": self.engine()}
        return {name: resident(pid) for name, pid in processes.items() if pid is not None}


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


class MartdCached(Martd):
    name = "martd, cache on"
    settings = {}
    cached = True


class Reference(Server):
    name = "FastAPI + DuckDB"
    text_ids = False

    def command(self):
        uvicorn = [sys.executable, "-m", "uvicorn", "reference:app", "--app-dir", str(HERE)]
        workers = ["--workers", str(os.cpu_count()), "--port", str(self.port), "--no-access-log"]
        return uvicorn + workers, {"BENCH_MARTS": str(self.marts)}

    def asked(self, case):
        body = json.dumps({"sql": case.sql, "params": ["@DATE@"]})
        return Asked("/query", body, accept=ARROW if case.arrow else "application/json")

    def probe(self):
        return self.get("/docs")[0]


class Roapi(Server):
    name = "ROAPI"

    options: list[str] = []

    def command(self):
        tables = [f"{path.stem}={path}" for path in sorted(self.marts.glob("*.parquet"))]
        options = [option for table in tables for option in ("--table", table)]
        roapi = str(Path(sys.executable).with_name("roapi"))
        listen = ["--addr-http", f"127.0.0.1:{self.port}", "--addr-postgres", "127.0.0.1:0"]
        return [roapi, *listen, *self.options, *options], {}

    def asked(self, case):
        body = case.with_date("@DATE@").replace("mart.", "")
        return Asked("/api/sql", body, "text/plain", ARROW if case.arrow else "application/json")

    def probe(self):
        return self.get("/api/schema")[0]


class RoapiReloading(Roapi):
    """Looks at its files again when what it has is older than a second, the least that can be set.

    It only does so when its tables may be written to, too."""

    name = "ROAPI, reloading"
    options = ["--disable-read-only", "--reload-interval", "1"]


class DataPress(Server):
    name = "DataPress"
    options: list[str] = []

    def command(self):
        return [sys.executable, str(HERE / "datapress.py"), str(self.marts), str(self.port), *self.options], {}

    def asked(self, case):
        if case.query is None:
            return None
        path = f"/api/v1/datasets/{case.dataset}/query"
        return Asked(path, json.dumps(case.query), accept=ARROW if case.arrow else "application/json")

    def probe(self):
        return self.get("/readyz")[0]


class DataPressReloading(DataPress):
    """Is told of each replaced file."""

    name = "DataPress, told to reload"
    token = "reload"
    options = [token]

    def replaced(self, mart):
        with closing(self.connect()) as connection:
            connection.request("POST", f"/api/v1/datasets/{mart}/reload", headers={"X-Admin-Token": self.token})
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f"{self.name}: {response.status} {response.read()[:500]!r}")


PEERS = [Reference, Roapi, DataPress]
EVERYONE = [Martd, MartdCached, *PEERS]
#: The peers as they show changes.
RELOADING = [RoapiReloading, DataPressReloading]
