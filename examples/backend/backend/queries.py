"""The statements of the analytics endpoints, and their values as JSON."""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from .sources import Asks


class NotOwned(Exception):
    """Accounts or tags that the user does not have. Whether others have them is not told."""


@dataclass(frozen=True)
class Filters:
    """What a request narrows a dataset by."""

    start_date: dt.date | None = None
    end_date: dt.date | None = None
    account_ids: Sequence[UUID] = ()
    tag_ids: Sequence[UUID] = ()


def check_ownership(session: Asks, user_id: UUID, filters: Filters) -> None:
    """Raises unless the user owns all accounts and tags that are asked for."""
    for kind, ids in (("account", filters.account_ids), ("tag", filters.tag_ids)):
        if not ids:
            continue
        query = (
            f"SELECT {kind}_id AS id FROM mart.dim_{kind}s "
            f"WHERE user_id = $user_id AND {kind}_id IN (SELECT UNNEST($ids))"
        )
        rows = session.execute_query(query, {"user_id": user_id, "ids": list(ids)})
        if missing := sorted(str(each) for each in set(ids) - {row["id"] for row in rows}):
            raise NotOwned(f"no {kind} {', '.join(missing)}")


def query_dataset(
    session: Asks, dataset: dict[str, Any], user_id: UUID, filters: Filters, limit: int, offset: int
) -> dict[str, Any]:
    """A page of a dataset. A filter that the dataset has no column for is left out."""
    columns = dataset["filters"]
    date, account, tag = (columns[f"{kind}_column"] for kind in ("date", "account_id", "tag_id"))
    where = ["user_id = $user_id"]
    params: dict[str, Any] = {"user_id": user_id, "limit": limit, "offset": offset}
    applied: dict[str, Any] = {}
    for name, value, column, condition in (
        ("start_date", filters.start_date, date, "{} >= $start_date"),
        ("end_date", filters.end_date, date, "{} <= $end_date"),
        ("account_ids", list(filters.account_ids), account, "{} IN (SELECT UNNEST($account_ids))"),
        ("tag_ids", list(filters.tag_ids), tag, "{} IN (SELECT UNNEST($tag_ids))"),
    ):
        if value and column:
            where.append(condition.format(f'"{column}"'))
            params[name] = applied[name] = value
    # All columns after the date: pages of rows in no order would overlap.
    order = f'"{date}", COLUMNS(*)' if date else "COLUMNS(*)"
    query = (
        f'SELECT * FROM mart."{dataset["dataset_name"]}" WHERE {" AND ".join(where)} '
        f"ORDER BY {order} LIMIT $limit OFFSET $offset"
    )
    rows = session.execute_query(query, params, max_rows=limit)
    return {
        "dataset_id": dataset["id"],
        "dataset_name": dataset["dataset_name"],
        "rows": [{name: to_json(value) for name, value in row.items()} for row in rows],
        "row_count": len(rows),
        "filters_applied": applied,
    }


def to_json(value: Any) -> Any:
    """A DECIMAL is an integer when it is whole, else a float; what JSON has no number for is null."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case float() if not math.isfinite(value):
            return None
        case list() | tuple():
            return [to_json(item) for item in value]
        case dict():
            return {name: to_json(item) for name, item in value.items()}
    return value
