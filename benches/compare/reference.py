"""The reference: a fresh in-memory DuckDB with a view per mart for every request, behind FastAPI."""

import os
from pathlib import Path

import duckdb
import pyarrow as pa
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

MARTS = Path(os.environ["BENCH_MARTS"])
app = FastAPI()


class Query(BaseModel):
    sql: str
    params: list = []


def run(query: Query) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    connection.execute("create schema mart")
    for path in MARTS.glob("*.parquet"):
        connection.execute(f"create view mart.{path.stem} as from read_parquet('{path}')")
    return connection.execute(query.sql, query.params)


@app.post("/query")
def query(query: Query, request: Request) -> Response:
    result = run(query)
    if "arrow" in request.headers.get("accept", ""):
        table = result.to_arrow_table()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Response(sink.getvalue().to_pybytes(), media_type="application/vnd.apache.arrow.stream")
    names = [column[0] for column in result.description]
    return {"data": [dict(zip(names, row)) for row in result.fetchall()]}
