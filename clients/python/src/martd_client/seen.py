"""What a client has seen, so that it does not go back in time where replicas answer, of which one is behind."""

import threading
import time

from .errors import MartdError, Unavailable

FORGET_AFTER_S = 60.0
"""After so long without any answer, because nobody had them, builds are forgotten: they may be gone for good."""


class Seen:
    """The newest builds of the answers that came. Threads may share it.

    An answer is of a snapshot that was decided with all builds in view that its request carried, so its own take
    their place. Those of an answer to another request, under way at the same time, stay beside them: their ids do
    not tell which are newer, and need not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._builds: frozenset[str] = frozenset()
        self._refused_since: float | None = None

    def builds(self) -> frozenset[str]:
        """What the next request is to carry."""
        with self._lock:
            return self._builds

    def answered(self, carried: frozenset[str], shown: str | None) -> None:
        """An answer came to a request that carried builds; `shown` is its header `Martd-Build`."""
        builds = frozenset(filter(None, (shown or "").replace(" ", "").split(",")))
        with self._lock:
            self._refused_since = None
            if builds:
                self._builds = self._builds - carried | builds

    def refused(self, error: MartdError) -> Unavailable:
        """Nobody who could be reached had the builds. The error for whoever asked."""
        detail = f"{error.detail} (read_your_builds: this client has seen it already"
        with self._lock:
            now = time.monotonic()
            if self._refused_since is None:
                self._refused_since = now
            if now - self._refused_since >= FORGET_AFTER_S:
                self._builds, self._refused_since = frozenset(), None
                detail += f", and forgets it now, after {FORGET_AFTER_S:g} s without an answer"
        return Unavailable(f"{detail})", slug=error.slug, status=error.status, request_id=error.request_id)
