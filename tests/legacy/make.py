"""Writes a legacy file with the duckdb package at hand: make.py FILE. Run with each version that wrote files people still
have, then compressed: `zstd -19 --rm duckdb-1.0.duckdb`."""

import sys

import duckdb

database = duckdb.connect(sys.argv[1])
database.execute("""
    CREATE SCHEMA main_mart;
    CREATE SCHEMA main_staging;
    CREATE TABLE main_mart.fct_transactions AS
        SELECT i AS id, ('00000000-0000-0000-0000-' || lpad((i % 3)::text, 12, '0'))::uuid AS user_id,
            date '2024-01-01' + (i % 400)::int AS day, (i * 0.37)::decimal(18, 2) AS amount,
            'Café ' || i % 7 AS counterparty, [i, i + 1] AS list, {'a': i, 'b': i::text} AS struct,
            if(i % 5 = 0, null, i::hugeint) AS big, timestamp '2024-01-01 00:00:00' + to_seconds(i) AS booked
        FROM range(5000) t(i);
    CREATE TABLE main_mart.dim_empty (id INTEGER, name VARCHAR);
    CREATE TABLE main_staging.raw AS SELECT 1 AS secret;
""")
name = database.execute("SELECT current_database()").fetchone()[0]
database.execute(f"CREATE VIEW main_mart.dim_days AS SELECT DISTINCT day FROM {name}.main_mart.fct_transactions")
database.close()
