"""martd over HTTP."""

import io
import json
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import quote

import pyarrow as pa

from . import parameters, parquet
from .arrow import column_names, duckdb_type, rows, table
from .errors import AnswerCut, MartdError, NotReady, QueryError, from_problem
from .seen import Seen
from .settings import Network, Settings
from .source import Answer, Question
from .transport import READ_BYTES, Deadline, Each, Response, Transport, Until

ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"
MARTD_MAX_ROWS = 10_000_000
"""martd's own maximum, unless its settings say otherwise."""
BEHIND = (409, 410)
"""What a martd answers that does not show a build, or holds it."""
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""How an Arrow stream ends. One without it looks whole to pyarrow."""


class Remote:
    """A martd. Threads may share it."""

    def __init__(self, place: Network, settings: Settings) -> None:
        self._transport = Transport(place)
        self._settings = settings
        self._seen = Seen() if settings.read_your_builds else None

    def ask(self, question: Question) -> Answer:
        """All rows, kept in Arrow until they are taken."""
        with self._ask(question, ARROW, Until(self._settings.timeout)) as response:
            stream = ArrowAnswer(response)
            schema, batches = stream.schema, list(stream.batches())
            _check_whole(response, question)
        return Answer(
            columns=[(name, duckdb_type(field)) for name, field in zip(column_names(schema), schema, strict=True)],
            rows=rows(schema, batches),
            table=partial(table, schema, batches),
            snapshot=response.headers.get("Martd-Snapshot"),
        )

    def csv(self, question: Question, out: BinaryIO) -> str | None:
        """Writes the rows as CSV."""
        with self._ask(question, CSV, Each(self._settings.timeout)) as response:
            buffer = memoryview(bytearray(READ_BYTES))
            while size := response.readinto(buffer):
                out.write(buffer[:size])
            _check_whole(response, question)
            return response.headers.get("Martd-Snapshot")

    def parquet(self, question: Question, out: BinaryIO) -> str | None:
        """Writes the rows as a Parquet file."""
        with self._ask(question, ARROW, Each(self._settings.timeout)) as response:
            answer = ArrowAnswer(response)
            parquet.write(answer.schema, answer.batches(), out)
            _check_whole(response, question)
            return response.headers.get("Martd-Snapshot")

    def get(self, path: str, *, retry: bool = True) -> Any:
        """A JSON document of martd's."""
        deadline = Until(self._settings.timeout)
        headers = self._headers() | {"Accept": "application/json"}
        with self._answered("GET", path, headers, None, deadline, retry=retry) as response:
            try:
                return json.loads(response.readall())
            except ValueError as error:
                raise MartdError(f"{path} is not JSON: {error}", slug="bad-answer") from error

    def datasets(self) -> dict[str, Any]:
        """`/v1/datasets`"""
        return dict(self.get("/v1/datasets"))

    def dataset_schema(self, dataset: str) -> dict[str, Any]:
        """`/v1/datasets/{id}/schema`"""
        return dict(self.get(f"/v1/datasets/{quote(dataset, safe='')}/schema"))

    def freshness(self, *, retry: bool = True) -> dict[str, Any]:
        """`/v1/freshness`"""
        return dict(self.get("/v1/freshness", retry=retry))

    def snapshot(self) -> str | None:
        """The id of the current snapshot."""
        found = self.get("/v1/snapshot")["id"]
        return None if found is None else str(found)

    def close(self) -> None:
        """Closes idle connections."""
        self._transport.close()

    def _ask(self, question: Question, accept: str, deadline: Deadline) -> Response:
        params, types = parameters.encode(question.params)
        limit = MARTD_MAX_ROWS if question.max_rows is None else question.max_rows
        document: dict[str, Any] = {"sql": question.query, "limit": limit}
        if params:
            document["params"] = params
        if types:
            document["types"] = types
        headers = self._headers() | {
            "Accept": accept,
            "Content-Type": "application/json",
            "TE": "trailers",
            "Connection": "TE",
        }
        if question.snapshot is not None:
            headers["Martd-Snapshot"] = question.snapshot
        if question.scope is not None:
            headers["Martd-Scope"] = _scope_value(question.scope)
        # A snapshot that is named is that one, however old it is.
        carried = frozenset() if self._seen is None or question.snapshot is not None else self._seen.builds()
        path = f"/v1/query?build={','.join(sorted(carried))}" if carried else "/v1/query"
        while True:
            body = json.dumps(document, allow_nan=False).encode()
            try:
                response = self._answered("POST", path, headers, body, deadline, query=question.query, elsewhere=bool(carried))
                if self._seen is not None:
                    self._seen.answered(carried, response.headers.get("Martd-Build"))
                return response
            except QueryError as error:
                if self._seen is not None and carried and error.status in BEHIND:
                    raise self._seen.refused(error) from error
                if "limit" not in document or error.slug != "bad-request" or "MARTD_MAX_ROWS" not in error.detail:
                    raise
            # This martd lets through less. Without a limit it answers with all rows, or says that there are more.
            del document["limit"]

    def _headers(self) -> dict[str, str]:
        token = self._settings.token
        return {} if token is None else {"Authorization": f"Bearer {_header_value(token)}"}

    def _answered(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        deadline: Deadline,
        *,
        query: str = "",
        retry: bool = True,
        elsewhere: bool = False,
    ) -> Response:
        """A good answer. What goes away by itself is asked again, which is safe: all are reads.

        With `elsewhere`, so is what a replica that is behind does not have: another connection may lead to another.
        """
        patience = time.monotonic() + self._settings.retry if retry else 0.0
        while True:
            response = self._transport.request(method, path, headers, body, deadline)
            if response.status == 200:
                return response
            with response:
                error = _error(response, query)
                wait = _retry_after(response)
            is_behind = elsewhere and response.status in BEHIND
            if is_behind:
                self._transport.close()
            now = time.monotonic()
            if not (is_behind or response.status == 503) or isinstance(error, NotReady) or wait is None or now + wait > min(patience, now + deadline.left()):
                raise error
            # Not all clients at the same moment.
            time.sleep(min(wait * random.uniform(1.0, 1.25), patience - now))


class ArrowAnswer:
    """An answer in Arrow, a batch at a time."""

    def __init__(self, response: Response) -> None:
        self._tail = _Tail(response)
        try:
            self._stream = pa.ipc.open_stream(self._tail)
        except MartdError:
            raise  # from the connection, and an OSError like some of pyarrow's
        except (pa.ArrowInvalid, OSError) as error:
            raise _not_arrow(error) from error
        self.schema = self._stream.schema

    def batches(self) -> Iterator[Any]:
        """The batches; raises unless there are all of them."""
        while True:
            try:
                batch = self._stream.read_next_batch()
            except StopIteration:
                break
            except MartdError:
                raise  # from the connection, and an OSError like some of pyarrow's
            except (pa.ArrowInvalid, OSError) as error:
                raise _not_arrow(error) from error
            yield batch
        if self._tail.read(1) or self._tail.last != END_OF_STREAM:
            raise AnswerCut("the answer has no end", slug="answer-cut")


class _Tail(io.BufferedReader):
    """Remembers the last bytes that were read."""

    def __init__(self, raw: Response) -> None:
        super().__init__(raw, READ_BYTES)
        self.last = b""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if data:
            self.last = (self.last + data[-len(END_OF_STREAM) :])[-len(END_OF_STREAM) :]
        return data


def _check_whole(response: Response, question: Question) -> None:
    """Raises when rows were left out."""
    told = response.headers.get("Martd-Truncated") or response.trailer("Martd-Truncated")
    if told == "true":
        raise question.too_large()
    if told != "false":
        raise AnswerCut("martd did not say whether the answer is whole; is there a proxy?", slug="answer-cut")


def _not_arrow(error: Exception) -> AnswerCut:
    return AnswerCut(f"the answer is not a whole Arrow stream: {error}", slug="answer-cut")


def _error(response: Response, query: str) -> MartdError:
    try:
        problem = json.loads(response.readall())
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return MartdError(f"it is not martd that answered {response.status}", slug="bad-answer", status=response.status)
    return from_problem(response.status, problem, query)


def _retry_after(response: Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _header_value(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise QueryError("a token may have printable ASCII only", slug="bad-request")
    return text


def _scope_value(scope: str) -> str:
    """A header is ASCII; RFC 8187 has the form for other letters."""
    if scope.isascii() and scope.isprintable():
        return scope
    column, _, value = scope.partition("=")
    return _header_value(f"{column}*=UTF-8''{quote(value, safe='')}")
