"""Settings, from environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCES = ("duckdb", "martd")


@dataclass(frozen=True)
class Settings:
    """Where analytics come from."""

    source: str = "duckdb"
    """`ANALYTICS_SOURCE`: `duckdb` opens the file; `martd` asks martd, as its client's variables say."""
    duckdb_path: Path = Path("analytics.duckdb")
    """`DUCKDB_PATH`"""
    manifest: Path | None = None
    """`DBT_MANIFEST`: dbt's manifest.json, which describes the datasets."""
    martd_url: str | None = None
    """`MARTD_URL`; without it, the client's own default."""

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"ANALYTICS_SOURCE is {self.source!r}; use {' or '.join(SOURCES)}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        manifest = environ.get("DBT_MANIFEST")
        return cls(
            source=environ.get("ANALYTICS_SOURCE") or "duckdb",
            duckdb_path=Path(environ.get("DUCKDB_PATH") or "analytics.duckdb"),
            manifest=Path(manifest) if manifest else None,
            martd_url=environ.get("MARTD_URL") or None,
        )
