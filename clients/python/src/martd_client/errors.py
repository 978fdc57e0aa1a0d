"""What can go wrong, as the application sees it.

Each error has its place among PEP 249's, and is also the built-in one that code written for a DuckDB
file expects: whenever there is nothing to read at the moment, a `FileNotFoundError`.
"""

import re


class Warning(Exception):  # noqa: A001 (PEP 249's name)
    """Never raised: PEP 249 asks for it."""


class Error(Exception):
    """All errors of this package."""


class InterfaceError(Error):
    """The client is used wrongly: a cursor that is closed, or fetched from before it was asked."""


class DatabaseError(Error):
    """All that is not the client's own."""


class DataError(DatabaseError):
    """Never raised: PEP 249 asks for it. A value that DuckDB cannot compute is a `QueryError`."""


class OperationalError(DatabaseError):
    """Not the statement's fault."""


class IntegrityError(DatabaseError):
    """Never raised: PEP 249 asks for it, and nothing is written."""


class InternalError(DatabaseError):
    """Never raised: PEP 249 asks for it. A failure inside of martd is a plain `MartdError`."""


class ProgrammingError(DatabaseError):
    """The statement's fault."""


class NotSupportedError(DatabaseError):
    """Never raised: PEP 249 asks for it. What is not supported is a `QueryError`."""


class MartdError(DatabaseError):
    """An error that martd reported, or one in reaching it.

    `slug` is the last part of martd's problem type, for example `sql-error`; `position` is where in
    the statement it is, as an index, if that is known; `request_id` finds it in martd's log.
    """

    def __init__(
        self,
        detail: str,
        *,
        slug: str,
        status: int | None = None,
        position: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.slug = slug
        self.status = status
        self.position = position
        self.request_id = request_id

    def __str__(self) -> str:
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.detail}{request}"


class QueryError(MartdError, ProgrammingError):
    """The statement, its parameters, or what it asks for is wrong or not allowed."""


class AnswerTooLarge(MartdError, ProgrammingError):
    """There are more rows than `max_rows`, or than martd's limits let through."""


class QueryTimeout(MartdError, OperationalError, TimeoutError):
    """There was no answer in time."""


class Unavailable(MartdError, OperationalError, FileNotFoundError):
    """There is nothing to read at the moment."""


class NotReady(Unavailable):
    """There is nothing to read yet."""


class Unreachable(Unavailable, ConnectionError):
    """martd does not answer."""


class AnswerCut(MartdError, OperationalError, ConnectionError):
    """The answer broke off in the middle. What came of it is thrown away."""


def from_problem(status: int, problem: dict[str, object], query: str) -> MartdError:
    """The error that a problem document of martd's (RFC 9457) stands for."""
    slug = str(problem.get("type", "")).rpartition(":")[2] or "unknown"
    detail = str(problem.get("detail") or problem.get("title") or f"martd answered {status}")
    given = problem.get("position")
    position = given if isinstance(given, int) else position_in(query, detail)
    request_id = problem.get("request_id")
    kind: type[MartdError] = MartdError
    if slug == "not-ready":
        kind = NotReady
    elif slug == "answer-too-large":
        kind = AnswerTooLarge
    elif status == 503:
        kind = Unavailable
    elif status in (408, 504):
        kind = QueryTimeout
    elif 400 <= status < 500 or status == 507:
        kind = QueryError
    return kind(
        detail,
        slug=slug,
        status=status,
        position=position,
        request_id=request_id if isinstance(request_id, str) else None,
    )


def position_in(query: str, detail: str) -> int | None:
    """Where DuckDB's message points to: it shows the line, and under it a caret."""
    shown = re.search(r"^LINE (\d+): (.*)\n( *)\^", detail, re.MULTILINE)
    lines = query.splitlines(keepends=True)
    if shown is None or int(shown[1]) > len(lines):
        return None
    number = int(shown[1]) - 1
    caret = len(shown[3]) - len(f"LINE {shown[1]}: ")
    text = shown[2]
    if text.startswith("..."):
        text, caret = text[3:], caret - 3
    start = lines[number].find(text.removesuffix("..."))
    if start < 0 or caret < 0:
        return None
    return sum(map(len, lines[:number])) + start + caret
