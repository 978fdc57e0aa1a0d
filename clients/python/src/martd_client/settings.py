"""Where martd is and how it is asked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

DEFAULT_URL = "http://127.0.0.1:8321"
TIMEOUT_S = 30.0
RETRY_S = 5.0


@dataclass(frozen=True)
class Network:
    """A martd that listens on a port, or on a Unix socket."""

    host: str
    port: int
    socket: str | None = None


@dataclass(frozen=True)
class Folder:
    """Files that are read in this process, or a legacy DuckDB file."""

    path: Path
    legacy: Path | None = None


@dataclass(frozen=True)
class Settings:
    """How a `Client` works. `from_environment` reads the variables that are named here."""

    url: str = DEFAULT_URL
    """`MARTD_URL`: `http://host:port`, `http+unix:///path/of.sock`, or `file:///PARQUET_DIR`."""
    token: str | None = field(default=None, repr=False)
    """`MARTD_TOKEN`"""
    timeout: float = TIMEOUT_S
    """`MARTD_TIMEOUT`: seconds that a call may take, waits and retries included."""
    retry: float = RETRY_S
    """`MARTD_RETRY`: seconds in which a 503 is asked again, as its Retry-After says."""
    scope_param: str | None = None
    """`MARTD_SCOPE_PARAM`: the parameter whose value says whose rows to read."""
    legacy: str | None = None
    """`DUCKDB_PATH`: the DuckDB file that `file://` reads as long as there are no marts."""
    unscoped: frozenset[str] = frozenset()
    """`MARTD_UNSCOPED`: marts that `file://` shows as a whole although rows are scoped."""
    read_your_builds: bool = False
    """`MARTD_READ_YOUR_BUILDS`: never show data that are older than what this client has seen, whichever replica
    answers."""

    def __post_init__(self) -> None:
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"MARTD_TIMEOUT must be more than 0 seconds, not {self.timeout:g}")
        if not 0 <= self.retry < float("inf"):
            raise ValueError(f"MARTD_RETRY must be 0 seconds or more, not {self.retry:g}")
        self.place()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """The settings that the environment has; an empty variable is one that is not set."""
        return cls(
            url=environ.get("MARTD_URL") or DEFAULT_URL,
            token=environ.get("MARTD_TOKEN") or None,
            timeout=_seconds(environ, "MARTD_TIMEOUT", TIMEOUT_S),
            retry=_seconds(environ, "MARTD_RETRY", RETRY_S),
            scope_param=environ.get("MARTD_SCOPE_PARAM") or None,
            legacy=environ.get("DUCKDB_PATH") or None,
            unscoped=frozenset(filter(None, environ.get("MARTD_UNSCOPED", "").split(","))),
            read_your_builds=_switch(environ, "MARTD_READ_YOUR_BUILDS"),
        )

    def place(self) -> Network | Folder:
        """What the URL means."""
        parts = urlsplit(self.url)
        path = unquote(parts.path)
        wrong = ValueError(
            f"MARTD_URL is {self.url!r}; use http://host:port, http+unix:///path/of.sock "
            "or file:///folder"
        )
        if parts.query or parts.fragment or parts.username is not None:
            raise wrong
        if parts.scheme == "http" and parts.hostname and path in ("", "/"):
            try:
                return Network(parts.hostname, 80 if parts.port is None else parts.port)
            except ValueError:  # a port that is not a number
                raise wrong from None
        if parts.scheme == "http+unix" and not parts.netloc and len(path) > 1:
            return Network("localhost", 80, socket=path)
        if parts.scheme == "file" and parts.netloc in ("", "localhost") and path:
            return Folder(Path(path), Path(self.legacy) if self.legacy else None)
        raise wrong


def _switch(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name) or "off"
    if text not in ("on", "off"):
        raise ValueError(f"{name} is {text!r}; use on or off")
    return text == "on"


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        return float(text.removesuffix("s"))
    except ValueError:
        raise ValueError(f"{name} is {text!r}; use a number of seconds") from None
