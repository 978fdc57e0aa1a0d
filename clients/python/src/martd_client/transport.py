"""HTTP connections that are kept, shared by threads, and never trusted to end an answer.

`http.client` tells when a body breaks off, but throws trailers away, and martd says in a trailer
whether a stream has all rows.
"""

import http.client
import io
import os
import select
import socket
import threading
import time
from email.message import Message
from types import TracebackType
from typing import Protocol, Self

from .errors import AnswerCut, QueryTimeout, Unreachable
from .settings import Network

CONNECT_TIMEOUT_S = 5.0
IDLE_CONNECTIONS = 16
"""Connections that are kept for the next calls."""
READ_BYTES = 256 << 10
TRAILER_LINES = 32


class Deadline(Protocol):
    """How long the next wait may take."""

    def left(self) -> float: ...


class Until:
    """A call that has to be over at a moment."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self.seconds = seconds

    def left(self) -> float:
        """Seconds that are left; raises when there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise QueryTimeout(f"no answer within {self.seconds:g} s", slug="client-timeout")
        return left


class Each:
    """A transfer that may take any time, but none of its waits longer than this."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def left(self) -> float:
        return self.seconds


class _WithTrailers(http.client.HTTPResponse):
    trailers: Message | None = None

    def _read_and_discard_trailer(self) -> None:
        # In its place http.client reads over trailers, and takes a cut there for the end.
        lines: list[bytes] = []
        for _ in range(TRAILER_LINES):
            line = self.fp.readline(READ_BYTES)
            if line in (b"\r\n", b"\n"):
                text = io.BytesIO(b"".join(lines) + b"\r\n")
                self.trailers = http.client.parse_headers(text)
                return
            if not line.endswith(b"\n"):
                raise http.client.IncompleteRead(b"")
            lines.append(line)
        raise http.client.HTTPException("too many trailers")


class _Connection(http.client.HTTPConnection):
    response_class = _WithTrailers

    def __init__(self, place: Network, timeout: float) -> None:
        super().__init__(place.host, place.port, timeout=timeout)
        self._socket_path = place.socket

    def connect(self) -> None:
        if self._socket_path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._socket_path)
        except OSError:
            self.close()
            raise

    def is_usable(self) -> bool:
        """Whether an idle connection is still open: there is nothing to read on it but its end."""
        if self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class Response(io.RawIOBase):
    """An answer whose body is read as it comes. Reading it to its end gives the connection back."""

    def __init__(
        self,
        transport: "Transport",
        connection: _Connection,
        response: _WithTrailers,
        sock: socket.socket,
        deadline: Deadline,
    ) -> None:
        self.status = response.status
        self.headers = response.headers
        self._transport = transport
        self._connection = connection
        self._response = response
        self._socket = sock
        self._deadline = deadline
        length = response.getheader("Content-Length", "")
        self._missing = int(length) if length.isdecimal() and not response.chunked else None
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._ended or not len(buffer):
            return 0
        try:
            self._socket.settimeout(self._deadline.left())
            data = self._response.read1(len(buffer))
        except TimeoutError as error:
            raise QueryTimeout("the answer stalled", slug="client-timeout") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._cut() from error
        if self._missing is not None:
            self._missing -= len(data)
        if data:
            buffer[: len(data)] = data
            return len(data)
        # Without a length or chunks, nothing tells an end from a cut.
        if self._missing or (self._missing is None and not self._response.chunked):
            raise self._cut()
        self._ended = True
        return 0

    def trailer(self, name: str) -> str | None:
        """A header that came after the body."""
        trailers = self._response.trailers
        return None if trailers is None else trailers.get(name)

    def close(self) -> None:
        if self.closed:
            return
        self._response.close()
        if self._ended and not self._response.will_close:
            self._transport.keep(self._connection)
        else:
            self._connection.close()
        super().close()

    def _cut(self) -> AnswerCut:
        request_id = self.headers.get("X-Request-Id")
        detail = "the answer broke off before its end; martd's log says why, for example MARTD_MAX_RESULT or its time limit"
        return AnswerCut(detail, slug="answer-cut", request_id=request_id)


class Transport:
    """Connections to one martd. Threads may share it, and so may a process and its forks."""

    def __init__(self, place: Network) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._pid = os.getpid()

    def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        deadline: Deadline,
    ) -> Response:
        """Sends a request and waits for the head of its answer.

        It may be sent twice: a kept connection can be closed by the other end at any time.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._send(kept, method, path, headers, body, deadline)
            except (ConnectionError, http.client.BadStatusLine):
                pass  # martd was restarted, or was tired of an idle connection
        connection = _Connection(self._place, min(CONNECT_TIMEOUT_S, deadline.left()))
        try:
            connection.connect()
            return self._send(connection, method, path, headers, body, deadline)
        except QueryTimeout:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self._name()} does not answer: {error}", slug="unreachable") from error

    def keep(self, connection: _Connection) -> None:
        """Takes back a connection whose answer was read to its end."""
        with self._lock:
            if self._pid == os.getpid() and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Closes the connections that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> _Connection | None:
        with self._lock:
            if self._pid != os.getpid():
                # A fork has the parent's connections: on one, two processes would mix their words.
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if connection.is_usable():
                    return connection
                connection.close()
        return None

    def _send(
        self,
        connection: _Connection,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        deadline: Deadline,
    ) -> Response:
        sock = connection.sock
        try:
            sock.settimeout(deadline.left())
            connection.request(method, path, body, headers)
            sock.settimeout(deadline.left())
            response = connection.getresponse()
        except TimeoutError as error:
            connection.close()
            if isinstance(error, QueryTimeout):
                raise
            raise QueryTimeout(f"{self._name()} did not answer in time", slug="client-timeout") from error
        except BaseException:
            connection.close()
            raise
        assert isinstance(response, _WithTrailers)
        return Response(self, connection, response, sock, deadline)

    def _name(self) -> str:
        place = self._place
        return f"martd at {place.socket or f'{place.host}:{place.port}'}"
