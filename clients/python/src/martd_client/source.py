"""What a client asks, and of whom."""

from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from .parameters import Params


@dataclass(frozen=True)
class Question:
    """One statement."""

    query: str
    params: Params
    limit: int
    """The most rows of the answer."""
    snapshot: str | None = None
    scope: str | None = None


class Source(Protocol):
    """A martd, or files that are read in this process."""

    def rows(self, question: Question) -> tuple[list[dict[str, Any]], str | None]: ...

    def csv(self, question: Question, out: BinaryIO) -> None: ...

    def parquet(self, question: Question, out: BinaryIO) -> None: ...

    def datasets(self) -> dict[str, Any]: ...

    def dataset_schema(self, dataset: str) -> dict[str, Any]: ...

    def freshness(self, *, retry: bool = True) -> dict[str, Any]: ...

    def snapshot(self) -> str | None: ...

    def close(self) -> None: ...
