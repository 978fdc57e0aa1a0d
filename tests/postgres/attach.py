"""What DuckDB's own extension `postgres` gets of a running martd: attach.py PORT"""

import sys
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[2] / "dbt/plugins"))
import postgres_sources  # noqa: E402


def main():
    connection = duckdb.connect()
    try:
        connection.load_extension(str(postgres_sources.extension()))
    except (duckdb.Error, ImportError, OSError) as error:
        print(f"skipped: no extension `postgres` of DuckDB's: {error}", file=sys.stderr)
        return 77
    connection.execute("SET pg_use_text_protocol = true")  # there is no COPY
    connection.execute(f"ATTACH 'host=127.0.0.1 port={sys.argv[1]} user=anyone dbname=martd' AS m (TYPE postgres, READ_ONLY)")
    tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'm'").fetchall()
    assert sorted(tables) == [("mart", "big"), ("mart", "kinds")], tables
    sql = "SELECT count(*), sum(amount), max(day)::VARCHAR FROM m.mart.big WHERE id < 1000 AND name <> 'n7'"
    found = connection.execute(sql).fetchone()
    assert str(found[:2]) == "(999, Decimal('749239.50'))" and found[2] == "2026-03-31", found
    assert connection.execute("SELECT count(*) FROM m.mart.big").fetchone() == (200_000,)
    kinds = connection.execute("SELECT b, s, l, d, n, t, day::VARCHAR, wall::VARCHAR, u::VARCHAR, list FROM m.mart.kinds").fetchone()
    expected = (True, -300, -9000000000, -1e300, "größe", [1, None, 3])
    assert (*kinds[:4], kinds[5], kinds[9]) == expected, kinds
    own = connection.execute("FROM postgres_query('m', 'SELECT to_char(day, ''YYYY-MM'') AS m FROM mart.big WHERE id = 0')")
    assert own.fetchone() == ("2026-01",)
    return 0


sys.exit(main())
