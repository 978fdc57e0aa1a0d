"""Compares each value that martd sends, as text and in binary form, with a real PostgreSQL: values.py PORT

What PostgreSQL reads of martd's text, and of DuckDB's own, it must send in the very bytes that martd sends.
The values are those of the test of the formats. Prints what differs, and exits with 1 if anything does.
"""

import re
import sys
import tempfile
from pathlib import Path

import duckdb
import pgserver
import psycopg

PORT = int(sys.argv[1])
FORMATS = Path(__file__).parents[1] / "formats/check.py"
# What PostgreSQL cannot read: DuckDB's largest moments, "24:00:00" with an offset, and texts that are only DuckDB's.
BEYOND = ("5881580-07-10", "5877642-06-25 (BC)", "290309-12-22 (BC)", "294247-01-10")


def values():
    text = FORMATS.read_text(encoding="utf-8")
    table = re.search(r'^VALUES = """\n(.*?)"""', text, re.M | re.S).group(1)
    # Two backslashes in that text are one.
    for line in table.replace("\\\\", "\\").splitlines():
        yield from line.split(" | ")


def raw(connection, sql, binary):
    """The bytes of the only value, and the number of its type."""
    result = connection.pgconn.exec_params(sql.encode(), None, result_format=int(binary))
    assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, (sql, result.error_message)
    return result.get_value(0, 0), result.ftype(0)


def check(martd, postgres, duck, literal):
    literal = re.sub(r"::FLOAT\b", "::FLOAT4", literal)  # FLOAT is double precision here, as in PostgreSQL
    sql = f"SELECT {literal} AS x"
    text, oid = raw(martd, sql, False)
    binary, same = raw(martd, sql, True)
    assert oid == same, (oid, same)
    if text is None or binary is None:
        assert text is None and binary is None and duck.execute(sql).fetchone() == (None,), (text, binary)
        return
    if any(moment in literal for moment in BEYOND):
        return
    name = postgres.execute("SELECT format_type(%s, NULL)", [oid]).fetchone()[0]

    def sent(told):
        send = postgres.pgconn.exec_params(f"SELECT $1::{name}".encode(), [told], result_format=1)
        assert send.status == psycopg.pq.ExecStatus.TUPLES_OK, (told, send.error_message)
        return send.get_value(0, 0)

    assert sent(text) == binary, f"text {text!r} is {sent(text)!r}, and not {binary!r}"
    # DuckDB's own text, where PostgreSQL can read it: arrays, JSON and blobs are written in another way.
    if name not in ("json", "bytea") and not name.endswith("[]"):
        own = duck.execute(f"SELECT ({literal})::VARCHAR").fetchone()[0]
        if name.startswith(("date", "time")):
            own = re.sub(r"(\S+) \(BC\)(.*)", r"\1\2 BC", own)
            own = re.sub(r"(\.\d{6})\d+$", r"\1", own)  # nanoseconds
        assert sent(own.encode()) == binary, f"DuckDB says {own!r}: {sent(own.encode())!r}, and not {binary!r}"


def main():
    failed = count = 0
    with tempfile.TemporaryDirectory() as data:
        server = pgserver.get_server(data)
        try:
            duck = duckdb.connect()
            duck.execute("SET TimeZone = 'UTC'")
            martd = psycopg.connect(f"host=127.0.0.1 port={PORT} user=anyone dbname=martd", autocommit=True)
            postgres = psycopg.connect(server.get_uri(), autocommit=True)
            postgres.execute("SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'")
            for literal in values():
                count += 1
                try:
                    check(martd, postgres, duck, literal)
                except AssertionError as error:
                    failed += 1
                    print(literal[:100], error, sep=": ")
            martd.close()
            postgres.close()
        finally:
            server.cleanup()
    print(f"{count} values, {failed} differ")
    return failed > 0 or count < 150


sys.exit(main())
