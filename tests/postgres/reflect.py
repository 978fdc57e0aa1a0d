"""What SQLAlchemy, pandas and asyncpg learn of a running martd and read from it: reflect.py PORT"""

import asyncio
import datetime
import decimal
import sys

import asyncpg
import pandas
import sqlalchemy as sa

PORT = int(sys.argv[1])


def with_sqlalchemy():
    engine = sa.create_engine(f"postgresql+psycopg://anyone@127.0.0.1:{PORT}/martd")
    inspector = sa.inspect(engine)
    assert inspector.default_schema_name == "mart"
    assert inspector.get_schema_names() == ["information_schema", "mart"]
    assert sorted(inspector.get_table_names()) == ["big", "kinds"]
    assert inspector.get_view_names() == [] and inspector.get_sequence_names() == []
    columns = inspector.get_columns("big")
    assert [(c["name"], str(c["type"])) for c in columns] == [
        ("id", "INTEGER"), ("name", "TEXT"), ("amount", "NUMERIC(12, 2)"), ("day", "DATE"),
    ]
    types = {c["name"]: str(c["type"]) for c in inspector.get_columns("kinds", schema="mart")}
    assert types == {
        "b": "BOOLEAN", "s": "SMALLINT", "i": "INTEGER", "l": "BIGINT", "f": "REAL", "d": "DOUBLE PRECISION",
        "n": "NUMERIC(4, 2)", "t": "TEXT", "day": "DATE", "wall": "TIMESTAMP", "moment": "TIMESTAMP",
        "u": "UUID", "list": "ARRAY", "nested": "JSON", "raw": "BYTEA", "span": "INTERVAL",
    }, types
    assert inspector.get_pk_constraint("big")["constrained_columns"] == []
    assert inspector.get_foreign_keys("big") == [] and inspector.get_indexes("big") == []
    assert inspector.get_unique_constraints("big") == [] and inspector.get_check_constraints("big") == []
    assert inspector.get_table_comment("big") == {"text": None}
    assert inspector.has_table("big") and not inspector.has_table("nothing")

    metadata = sa.MetaData()
    metadata.reflect(engine)
    big = metadata.tables["big"]
    with engine.connect() as connection:
        rows = connection.execute(sa.select(big.c.id, big.c.amount).where(big.c.id > 199_997).order_by(big.c.id))
        assert rows.all() == [(199_998, decimal.Decimal("299997.00")), (199_999, decimal.Decimal("299998.50"))]
        streamed = connection.execution_options(stream_results=True, max_row_buffer=20_000)
        rows = streamed.execute(sa.select(big.c.id).order_by(big.c.id))
        assert sum(len(part) for part in rows.partitions(20_000)) == 200_000
    frame = pandas.read_sql("SELECT id, day FROM mart.big WHERE id < 3 ORDER BY id", engine)
    assert frame["id"].tolist() == [0, 1, 2] and frame["day"].iloc[2] == datetime.date(2026, 1, 3)
    frame = pandas.read_sql_query(
        sa.text("SELECT count(*) AS rows FROM mart.big WHERE amount < :most"), engine, params={"most": 30}
    )
    assert frame["rows"].tolist() == [20]
    assert len(pandas.read_sql_table("big", engine)) == 200_000


async def with_asyncpg():
    connection = await asyncpg.connect(host="127.0.0.1", port=PORT, user="anyone", database="martd")
    for sql, expected in [
        ("SELECT list FROM mart.kinds", [1, None, 3]),
        ("SELECT [1.5, 2.25]::DECIMAL(4,2)[]", [decimal.Decimal("1.50"), decimal.Decimal("2.25")]),
        ("SELECT [DATE '2026-01-31']", [datetime.date(2026, 1, 31)]),
    ]:
        assert await connection.fetchval(sql) == expected, sql
    count = await connection.fetchval("SELECT count(*) FROM mart.big WHERE id = ANY($1::INTEGER[])", [1, 2, 300_000])
    assert count == 2
    await connection.close()


with_sqlalchemy()
asyncio.run(with_asyncpg())
