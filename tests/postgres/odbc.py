"""What Debian's odbc-postgresql gets of a running martd, in each of its ways to ask: odbc.py PORT"""

import datetime
import decimal
import sys

try:
    import pyodbc
except ImportError as error:
    print(f"skipped: no ODBC (Debian has it as odbc-postgresql): {error}", file=sys.stderr)
    sys.exit(77)

DRIVER = "PostgreSQL Unicode"
WAYS = ["", "UseDeclareFetch=1;Fetch=1000", "UseServerSidePrepare=0"]


def check(way):
    dsn = f"DRIVER={{{DRIVER}}};SERVER=127.0.0.1;PORT={sys.argv[1]};DATABASE=martd;UID=anyone;SSLmode=disable;{way}"
    connection = pyodbc.connect(dsn)
    cursor = connection.cursor()
    tables = [(row.table_schem, row.table_name, row.table_type) for row in cursor.tables(schema="mart")]
    assert tables == [("mart", "big", "TABLE"), ("mart", "kinds", "TABLE")], tables
    columns = [(row.column_name, row.type_name) for row in cursor.columns(table="big")]
    assert columns == [("id", "int4"), ("name", "text"), ("amount", "numeric"), ("day", "date")], columns
    assert cursor.primaryKeys("big").fetchall() == []
    sql = "SELECT id, amount, day, to_char(day, 'YYYY-MM') AS month FROM mart.big WHERE name = ? AND id < ? AND day >= ?"
    row = cursor.execute(sql, "n3", 9, datetime.date(2026, 1, 1)).fetchone()
    assert tuple(row) == (3, decimal.Decimal("4.50"), datetime.date(2026, 1, 4), "2026-01"), row
    rows = cursor.execute("SELECT id FROM mart.big ORDER BY id").fetchall()
    assert len(rows) == 200_000 and rows[-1][0] == 199_999, len(rows)
    try:
        cursor.execute("SELECT nothing FROM mart.big").fetchall()
        raise AssertionError("an error was expected")
    except pyodbc.Error as error:
        assert error.args[0] == "42703", error
    connection.rollback()
    assert cursor.execute("SELECT count(*) FROM mart.kinds").fetchone()[0] == 1
    connection.close()


if DRIVER not in pyodbc.drivers():
    print("skipped: no ODBC driver (Debian has it as odbc-postgresql)", file=sys.stderr)
    sys.exit(77)
for way in WAYS:
    check(way)
