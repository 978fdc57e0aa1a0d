"""What can go wrong, as the application sees it.

Each error is also the built-in one that code written for a DuckDB file expects: no data is a
`FileNotFoundError`, a martd that does not answer a `ConnectionError`.
"""

import re


class MartdError(Exception):
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


class QueryError(MartdError):
    """The statement, its parameters, or what it asks for is wrong or not allowed."""


class AnswerTooLarge(MartdError):
    """There are more rows than were asked for, or than martd's limits let through."""


class QueryTimeout(MartdError, TimeoutError):
    """There was no answer in time."""


class Unavailable(MartdError):
    """martd cannot answer now, and could not within the time for retries."""


class NotReady(Unavailable, FileNotFoundError):
    """There is nothing to read yet."""


class Unreachable(MartdError, ConnectionError):
    """martd does not answer."""


class AnswerCut(MartdError, ConnectionError):
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
