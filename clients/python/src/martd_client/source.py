"""What a client asks, and of whom."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from .errors import AnswerTooLarge
from .parameters import Params


@dataclass(frozen=True)
class Question:
    """One statement."""

    query: str
    params: Params
    max_rows: int | None
    """More rows than this are an error; none: all that martd lets through."""
    snapshot: str | None
    scope: str | None

    def too_large(self) -> AnswerTooLarge:
        """The error of an answer with more rows than that."""
        limits = "more rows than martd lets through (MARTD_MAX_ROWS, MARTD_MAX_RESULT)"
        if self.max_rows is None:
            detail = f"there are {limits}; ask for less"
        else:
            detail = (
                f"there are more than max_rows={self.max_rows} rows, or {limits}; "
                "say LIMIT in the statement, raise max_rows, or fetch from a cursor"
            )
        return AnswerTooLarge(detail, slug="answer-too-large")


@dataclass(frozen=True)
class Answer:
    """All rows of an answer."""

    columns: list[tuple[str, str]]
    """Names as the statement has them, and DuckDB's types."""
    rows: Iterator[tuple[Any, ...]]
    """With the values of duckdb's `fetchall()`, made as they are taken."""
    table: Callable[[], Any]
    """The same as an Arrow table."""
    snapshot: str | None


class Source(Protocol):
    """A martd, or files that are read in this process."""

    def ask(self, question: Question) -> Answer: ...

    def csv(self, question: Question, out: BinaryIO) -> str | None:
        """Writes the rows as CSV, and says of which snapshot they are."""

    def parquet(self, question: Question, out: BinaryIO) -> str | None:
        """Writes the rows as a Parquet file, and says of which snapshot they are."""

    def datasets(self) -> dict[str, Any]: ...

    def dataset_schema(self, dataset: str) -> dict[str, Any]: ...

    def freshness(self, *, retry: bool = True) -> dict[str, Any]: ...

    def snapshot(self) -> str | None: ...

    def close(self) -> None: ...
