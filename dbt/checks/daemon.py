"""A real martd over a directory of marts."""

import json
import os
import subprocess
import threading
import urllib.request


class Daemon:
    def __init__(self, parquet_dir, command=None, **settings):
        binary = os.environ.get("MARTD_BIN")
        if not binary:
            raise AssertionError("MARTD_BIN names no martd: run make test-dbt")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MARTD_", "DUCKDB_PATH", "RUST_LOG"))}
        self.process = subprocess.Popen(
            command or [binary, "serve"], env=env | {"PARQUET_DIR": str(parquet_dir), "MARTD_LISTEN": "127.0.0.1:0"} | settings,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        said = []
        for line in self.process.stdout:
            said.append(line)
            if '"message":"serving"' in line:
                self.url = f"http://{json.loads(line)['address']}"
                # A pipe that nobody empties would stop it.
                self.log = threading.Thread(target=self.process.stdout.read)
                self.log.start()
                return
        raise AssertionError(f"martd did not start:\n{''.join(said)}")

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as response:
            return json.load(response)

    def query(self, sql):
        request = urllib.request.Request(f"{self.url}/v1/query", sql.encode(), {"Content-Type": "text/plain"})
        with urllib.request.urlopen(request) as response:
            return json.load(response)["data"]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.join()
        self.process.stdout.close()
