"""A server that answers as a test says, byte by byte."""

import socket
import threading


class Fake:
    """Answers the requests that come with what `answers` has, in order; then closes connections.

    An answer is bytes, after which the connection is kept, or `Cut(bytes)`, after which it is
    closed, or an `Event`, which is waited for before the next answer.
    """

    def __init__(self, *answers, path=None):
        self._answers = list(answers)
        self._lock = threading.Lock()
        self.requests = []
        self.connections = 0
        family = socket.AF_INET if path is None else socket.AF_UNIX
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.bind(("127.0.0.1", 0) if path is None else str(path))
        self._socket.listen()
        if path is None:
            self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        else:
            self.url = f"http+unix://{path}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as reader:
            while (head := self._next(reader)) is not None:
                with self._lock:
                    self.requests.append(head)
                    answer = self._answers.pop(0) if self._answers else Cut(b"")
                if isinstance(answer, threading.Event):
                    answer.wait()
                    return
                try:
                    connection.sendall(answer)
                except OSError:
                    return
                if isinstance(answer, Cut):
                    connection.shutdown(socket.SHUT_RDWR)
                    return

    def _next(self, reader):
        try:
            return self._request(reader)
        except ConnectionError:  # the client has closed it, with something unread
            return None

    def _request(self, reader):
        lines = []
        while (line := reader.readline()).strip():
            lines.append(line.decode().strip())
        if not lines:
            return None
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        body = reader.read(int(headers.get("content-length", 0)))
        return {"line": lines[0], "headers": headers, "body": body}


class Cut(bytes):
    """An answer after which the connection is closed."""


def whole(body, *headers, status="200 OK"):
    """An answer with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stream(*chunks, trailer="Martd-Truncated: false"):
    """An answer in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    return head + body + b"0\r\n" + (f"{trailer}\r\n".encode() if trailer else b"") + b"\r\n"
