"""Endpoints that hand out credentials: a container's agent, a machine's metadata service, and STS."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.parse
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROLE = "a-role"
ARN = "arn:aws:iam::1:role/a-role"
# Of the credentials, which are so short-lived that they are fetched for each request.
LIVES = timedelta(seconds=2)


class Issuer:
    """Hands out `now`, or refuses with `refusal`: a status and a body. With a context it speaks TLS."""

    def __init__(self, key: str, secret: str, context: ssl.SSLContext | None = None) -> None:
        issuer = self
        self.now = (key, secret)
        self.token = "token-1"
        self.refusal: tuple[int, str] | None = None
        self.asked = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                status, body = issuer.answer(self.command, self.path, dict(self.headers))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_PUT = do_POST = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._scheme = "http" if context is None else "https"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        raise NotImplementedError

    def issue(self) -> dict[str, str]:
        self.asked += 1
        key, secret = self.now
        expires = (datetime.now(UTC) + LIVES).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"AccessKeyId": key, "SecretAccessKey": secret, "Token": "", "Expiration": expires}


class Agent(Issuer):
    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if self.refusal:
            return self.refusal
        if headers.get("authorization") != self.token and headers.get("Authorization") != self.token:
            return 401, "who are you?"
        return 200, json.dumps(self.issue())


class Metadata(Issuer):
    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if self.refusal:
            return self.refusal
        if (method, path) == ("PUT", "/latest/api/token"):
            return 200, self.token
        known = {name.lower(): value for name, value in headers.items()}
        if known.get("x-aws-ec2-metadata-token") != self.token:
            return 401, "who are you?"
        role = "/latest/meta-data/iam/security-credentials/"
        answers = {role: ROLE, role + ROLE: json.dumps(self.issue())}
        return (200, answers[path]) if path in answers else (404, "not found")


class Sts(Issuer):
    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
        asked = (query.get("Action"), query.get("RoleArn"), query.get("WebIdentityToken"))
        if self.refusal:
            return self.refusal
        if asked != ("AssumeRoleWithWebIdentity", ARN, self.token):
            error = "<Code>InvalidIdentityToken</Code><Message>No such token.</Message>"
            return 400, f"<ErrorResponse><Error>{error}</Error></ErrorResponse>"
        issued = self.issue()
        issued["SessionToken"] = issued.pop("Token")
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in issued.items())
        name = "AssumeRoleWithWebIdentity"
        result = f"<{name}Result><Credentials>{fields}</Credentials></{name}Result>"
        return 200, f"<{name}Response>{result}</{name}Response>"
