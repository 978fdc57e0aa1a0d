"""What is asked: each statement once for all servers, with a date that can differ from request to request."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
import json
import re
import uuid

import duckdb

COLUMNS = (
    "transaction_id, transaction_date, booked_at, account_name, tag_name, transaction_type,"
    " amount, balance_after, currency, counterparty"
)


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    #: `?` is the date; every row is younger, so that the answer is the same for all of them.
    sql: str
    rows: int
    arrow: bool = False
    ordered: bool = True
    #: For DataPress, which takes a query of one dataset as JSON: its dataset and the query.
    dataset: str | None = None
    query: dict | None = None

    def with_date(self, text: str) -> str:
        """For servers without parameters: the date in the text."""
        return self.sql.replace("cast(? as date)", f"date '{text}'")


def of(directory) -> list[Case]:
    """The cases over these marts, whose values some of them name."""
    marts = duckdb.connect()
    facts = f"read_parquet('{directory}/fct_transactions.parquet')"
    user = marts.sql(f"select min(user_id)::varchar from {facts}").fetchone()[0]

    def moment(rows: int) -> tuple[str, int]:
        """Before when there are this many rows, or as many as can be told apart."""
        found = marts.sql(f"select booked_at from {facts} order by booked_at limit 1 offset {rows}").fetchone()
        text = str(found[0]) if found else "2200-01-01 00:00:00"
        return text, marts.sql(f"select count(*) from {facts} where booked_at < timestamp '{text}'").fetchone()[0]

    few, few_rows = moment(10_000)
    many, many_rows = moment(100_000)
    since = {"col": "transaction_date", "op": "gte", "val": "@DATE@"}
    columns = COLUMNS.split(", ")
    rows = f"select {COLUMNS} from mart.fct_transactions where booked_at < timestamp '{{}}'" \
        " and transaction_date >= cast(? as date)"

    def part(moment: str, count: int) -> dict:
        before = {"col": "booked_at", "op": "lt", "val": moment}
        return {"columns": columns, "predicates": [before, since], "page_size": count}

    def of_user(name: str, title: str, order: dict[str, str]) -> Case:
        by = ", ".join(f"{column} {direction}" for column, direction in order.items())
        return Case(
            name, title,
            f"select {COLUMNS} from mart.fct_transactions where user_id = '{user}'"
            f" and transaction_date >= cast(? as date) order by {by} limit 1000",
            1_000,
            dataset="fct_transactions",
            query={
                "columns": columns, "predicates": [{"col": "user_id", "op": "eq", "val": user}, since],
                "order_by": [{"col": column, "dir": direction} for column, direction in order.items()],
                "limit": 1_000, "page_size": 1_000,
            },
        )

    return [
        Case(
            "aggregate", "aggregate over the fact table",
            "select tag_name, count(*) as transactions, sum(amount) as total from mart.fct_transactions"
            " where transaction_date >= cast(? as date) group by tag_name order by tag_name",
            marts.sql(f"select count(distinct tag_name) from {facts}").fetchone()[0],
            dataset="fct_transactions",
            query={
                "group_by": ["tag_name"], "predicates": [since], "order_by": [{"col": "tag_name"}],
                "aggregations": [
                    {"op": "count", "alias": "transactions"}, {"col": "amount", "op": "sum", "alias": "total"},
                ],
            },
        ),
        of_user(
            "dataset", "one user's rows, ordered as the analytics API does, 1,000 of them",
            {"transaction_date": "asc", "transaction_id": "asc"},
        ),
        of_user(
            "newest", "the same, newest first",
            {"transaction_date": "desc", "booked_at": "desc", "transaction_id": "asc"},
        ),
        Case(
            "rows", "10,000 rows × 10 columns", rows.format(few), few_rows, ordered=False,
            dataset="fct_transactions", query=part(few, few_rows),
        ),
        Case(
            "arrow", "100,000 rows × 10 columns as Arrow", rows.format(many), many_rows, arrow=True, ordered=False,
            dataset="fct_transactions", query=part(many, many_rows),
        ),
        Case(
            "dimension", "a dimension of 40 rows",
            "select tag_name, tag_type, has_budget, transaction_count, first_used_on, last_used_on"
            " from mart.dim_tags where first_used_on >= cast(? as date)",
            40, ordered=False,
            dataset="dim_tags",
            query={
                "columns": ["tag_name", "tag_type", "has_budget", "transaction_count", "first_used_on", "last_used_on"],
                "predicates": [{"col": "first_used_on", "op": "gte", "val": "@DATE@"}],
            },
        ),
        Case(
            "join", "a join of three marts",
            "select a.account_type, t.tag_type, count(*) as transactions, sum(f.amount) as total"
            " from mart.fct_transactions f join mart.dim_accounts a on a.account_id = f.account_id"
            " join mart.dim_tags t on t.tag_id = f.tag_id where f.transaction_date >= cast(? as date)"
            " group by a.account_type, t.tag_type order by a.account_type, t.tag_type",
            0,
        ),
    ]


def expected(case: Case, directory) -> list[tuple]:
    """DuckDB's own answer."""
    marts = duckdb.connect()
    marts.execute("create schema mart")
    for path in directory.glob("*.parquet"):
        marts.execute(f"create view mart.{path.stem} as from read_parquet('{path}')")
    return canonical(marts.execute(case.sql, ["1900-01-01"]).fetchall(), case.ordered)


def answered(case: Case, body: bytes) -> list[tuple]:
    """The rows of a server's answer, however it wraps and spells them."""
    if case.arrow:
        import pyarrow

        table = pyarrow.ipc.open_stream(body).read_all()
        columns = [column.to_pylist() for column in table.columns]
        return canonical(zip(*columns), case.ordered)
    document = json.loads(body, parse_float=Decimal)
    rows = document if isinstance(document, list) else document["data"]
    return canonical((tuple(row.values()) for row in rows), case.ordered)


def canonical(rows, ordered: bool) -> list[tuple]:
    rows = [tuple(_value(value) for value in row) for row in rows]
    return rows if ordered else sorted(rows, key=repr)


def _value(value):
    match value:
        case bool() | None:
            return value
        case int() | float() | Decimal():
            return Decimal(str(value)).normalize() + 0
        case datetime() | date():
            return _value(value.isoformat())
        case uuid.UUID():
            return str(value)
        case bytes():
            return str(uuid.UUID(bytes=value))
        case str() if re.fullmatch(r"-?\d+(\.\d+)?", value):
            return _value(Decimal(value))
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?", value):
            text = value.replace(" ", "T")
            return text.rstrip("0").rstrip(".") if "." in text else text
    return value
