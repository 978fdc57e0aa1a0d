"""Asks martd, with the three functions that a client of a DuckDB file has.

    from martd_client import execute_query
    execute_query("SELECT * FROM mart.dim_tags WHERE user_id = $user_id", {"user_id": user})
"""

from .client import Client, Consistent, check_connection, default_client, execute_query, last_refresh_time
from .errors import (
    AnswerCut,
    AnswerTooLarge,
    MartdError,
    NotReady,
    QueryError,
    QueryTimeout,
    Unavailable,
    Unreachable,
)
from .settings import Settings

__all__ = [
    "AnswerCut",
    "AnswerTooLarge",
    "Client",
    "Consistent",
    "MartdError",
    "NotReady",
    "QueryError",
    "QueryTimeout",
    "Settings",
    "Unavailable",
    "Unreachable",
    "check_connection",
    "default_client",
    "execute_query",
    "last_refresh_time",
]
