"""A store that does what a real one does only when it is broken: it damages what it sends, lists what cannot be, and keeps no
condition."""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.sax.saxutils import escape

from store import BUCKET

CLAIM = "x-amz-meta-sha256"


@dataclass
class Stored:
    content: bytes
    # What its writer says of it.
    claim: str | None
    modified: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # who asked was killed


class Fake:
    """Keeps objects in memory. Asks nobody who they are."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        # Method and key of each request but listings, in order.
        self.asked: list[tuple[str, str]] = []
        self.listings = 0
        # What becomes of a content that is downloaded.
        self.damage: Callable[[str, bytes], bytes] = lambda _, content: content
        # What is listed as a size, in the place of the true one.
        self.sizes: dict[str, str] = {}
        # The tokens that pages end with, in turn, for ever.
        self.tokens: list[str] = []
        self.refuses_conditions = False
        # Told before a request is answered; what it returns is the status of a refusal.
        self.before: Callable[[str, str], int | None] = lambda _, __: None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.answer(self)

            do_HEAD = do_PUT = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, key: str, content: bytes, claim: str | None = None) -> None:
        """Writes an object as any program does."""
        self.objects[key] = Stored(content, claim, datetime.now(UTC))

    def get(self, key: str) -> bytes:
        return self.objects[key].content

    def sent(self, *ends: str) -> list[str]:
        """The keys that were written since this was asked before, with one of these ends."""
        written = [key for method, key in self.asked if method == "PUT" and key.endswith(ends or ("",))]
        self.asked.clear()
        return written

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        url = urllib.parse.urlsplit(request.path)
        key = urllib.parse.unquote(url.path).removeprefix(f"/{BUCKET}").lstrip("/")
        query = dict(urllib.parse.parse_qsl(url.query))
        if "list-type" in query:
            self.listings += 1
            return self._reply(request, 200, self._page(query))
        self.asked.append((request.command, key))
        if refusal := self.before(request.command, key):
            return self._reply(request, refusal, b"<Error><Code>Refused</Code></Error>")
        found = self.objects.get(key)
        if request.command == "PUT":
            if found and request.headers.get("If-None-Match") == "*":
                return self._reply(request, 412)
            self.put(key, body, request.headers.get(CLAIM))
            return self._reply(request, 200, headers={"ETag": self.objects[key].etag})
        if found is None:
            return self._reply(request, 404, b"<Error><Code>NoSuchKey</Code></Error>")
        condition = request.headers.get("If-Match")
        if condition and (self.refuses_conditions or condition != found.etag):
            return self._reply(request, 412)
        headers = {"ETag": found.etag, "Last-Modified": format_datetime(found.modified, usegmt=True)}
        if found.claim:
            headers[CLAIM] = found.claim
        is_head = request.command == "HEAD"
        return self._reply(request, 200, found.content if is_head else self.damage(key, found.content), headers)

    def _page(self, query: dict[str, str]) -> bytes:
        prefix = query.get("prefix", "")
        text = "<ListBucketResult>"
        for key, stored in sorted(self.objects.items()):
            if key.startswith(prefix):
                size = self.sizes.get(key, len(stored.content))
                when = stored.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z")
                text += f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified>"
                text += f"<ETag>{escape(stored.etag)}</ETag><Size>{size}</Size></Contents>"
        if self.tokens:
            token = self.tokens[self.listings % len(self.tokens)]
            text += f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        return (text + "</ListBucketResult>").encode()

    @staticmethod
    def _reply(
        request: BaseHTTPRequestHandler, status: int, body: bytes = b"", headers: dict[str, str] = {}
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
