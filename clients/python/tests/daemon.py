"""A real martd on a port of its own."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[3]
MARTD = Path(os.environ.get("MARTD_BIN", ROOT / "target/debug/martd"))
WAIT_S = 60


class Martd:
    """Runs until the end of a `with`. `settings` are martd's environment variables."""

    def __init__(self, parquet_dir, listen="127.0.0.1:0", **settings):
        self.parquet_dir = Path(parquet_dir)
        self._listen = listen
        self._settings = settings
        self._log = tempfile.TemporaryFile(mode="w+")

    def __enter__(self):
        assert MARTD.exists(), f"{MARTD} is not there: run cargo build, or set MARTD_BIN"
        ours = ("MARTD_", "DUCKDB_PATH", "RUST_LOG", "PARQUET_DIR")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        environment |= {"PARQUET_DIR": str(self.parquet_dir), **self._settings}
        command = [MARTD, "serve", "--listen", self._listen]
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=subprocess.STDOUT, text=True
        )
        self.url = f"http://{self.until(self._address)}"
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def ready(self):
        """Waits until there is something to ask."""
        return self.until(lambda: self._is_ready() and self)

    def wait_for(self, condition):
        """Waits until `condition` is true of /v1/snapshot."""
        return self.until(lambda: condition(self.get("/v1/snapshot")) and self)

    def get(self, path):
        with urlopen(self.url + path) as answer:
            return json.load(answer)

    def until(self, look):
        """Waits until `look` gives something, and gives that."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            if found := look():
                return found
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self._log.seek(0)
        raise AssertionError(f"martd did not come so far:\n{self._log.read()}")

    def _address(self):
        self._log.seek(0)
        for line in self._log.read().splitlines():
            if '"message":"serving"' in line:
                return json.loads(line)["address"]
        return None

    def _is_ready(self):
        try:
            with urlopen(self.url + "/readyz"):
                return True
        except (HTTPError, URLError):
            return False
