"""Asks martd with what openapi-python-client made of /openapi.json."""

import json
import sys

from martd import Client
from martd.api.default import dataset_schema, datasets, freshness, get_query, post_query
from martd.models import Problem, Query, QueryParamsType1

client = Client(base_url=sys.argv[1])

query = Query(sql="SELECT i, note FROM mart.sales WHERE i < $n ORDER BY i", params=QueryParamsType1.from_dict({"n": 2}))
rows = post_query.sync(client=client, body=query)
got = get_query.sync(client=client, sql="SELECT 1 + 1 AS n", limit=5)
wrong = post_query.sync(client=client, body=Query(sql="SELECT nope FROM mart.sales"))
assert isinstance(wrong, Problem)
listing = datasets.sync(client=client)
options = [each.options for dataset in listing.datasets for each in dataset.filters.enum_filters]
schema = dataset_schema.sync("sales", client=client)

print(json.dumps({
    "notes": [row["note"] for row in rows.data],
    "truncated": rows.truncated,
    "got": [row.to_dict() for row in got.data],
    "problem": wrong.type_.value,
    "options": options,
    "columns": [column.name for column in schema.columns],
    "status": freshness.sync(client=client).status.value,
}))  # fmt: skip
