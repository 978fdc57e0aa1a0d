"""Asks martd whether a build is served: `MARTD_URL`, `MARTD_TOKEN`, and at most `MARTD_WAIT` seconds."""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request

# A connection that says nothing for longer may be cut by a proxy, so a long wait is many short ones.
LONGEST_REQUEST = 20


class Held(Exception):
    """martd has seen the build and does not serve it."""


class Unreachable(Exception):
    """martd did not answer, or did not see the build in time."""


class Martd:
    def __init__(self, url, token=None, wait=120):
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.patience = wait

    @classmethod
    def from_environment(cls):
        url = os.environ.get("MARTD_URL", "http://127.0.0.1:8321")
        return cls(url, os.environ.get("MARTD_TOKEN"), float(os.environ.get("MARTD_WAIT", 120)))

    def wait(self, build):
        """The snapshot that holds the build."""
        deadline = time.monotonic() + self.patience
        while True:
            left = deadline - time.monotonic()
            status, answer = self.ask(build, max(0, min(left, LONGEST_REQUEST)))
            if status == 200:
                return answer
            if status == 409:
                raise Held(f"martd holds the build {build}: {answer.get('detail')}")
            if status in (400, 401, 403, 404):
                raise Unreachable(f"martd at {self.url} answered {status}: {answer.get('detail')}. Look at MARTD_URL and MARTD_TOKEN.")
            if left <= 0:
                raise Unreachable(f"martd at {self.url} did not serve the build {build} within {self.patience:g} s: {answer.get('detail')}")
            if status != 504:
                time.sleep(min(1, left))

    def ask(self, build, wait):
        query = urllib.parse.urlencode({"build": build, "wait": int(wait)})
        request = urllib.request.Request(f"{self.url}/v1/snapshot?{query}", headers=self.headers)
        try:
            with urllib.request.urlopen(request, timeout=wait + 10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            try:
                return error.code, json.load(error)
            except ValueError:
                return error.code, {"detail": error.reason}
        except OSError as error:
            return None, {"detail": str(error)}
