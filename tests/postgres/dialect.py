"""Compares what martd answers to PostgreSQL's dialect with a real PostgreSQL: dialect.py PORT

The statements and what is expected of each are those of dialect.sql; those of random_dialect.py follow, more of them
with a seed in TEST_SEED. Prints the list for docs/postgres.md, and to stderr what is not as expected; then it exits
with 1.
"""

import os
import random
import sys
import tempfile
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import psycopg
from random_dialect import Statements

ZONE = "Europe/Berlin"
SEED = os.environ.get("TEST_SEED", "1")
RANDOM = 5_000 if "TEST_SEED" in os.environ else 500
SQL = Path(__file__).with_name("dialect.sql").read_text(encoding="utf-8")


def groups():
    for group in SQL.split("\n-- @ ")[1:]:
        title, *lines = group.splitlines()
        yield title, [line for line in lines if line and not line.startswith("--")]


NUMBERS = (20, 21, 23, 26, 700, 701, 1700)
TIMESTAMPTZ = 1184


def plain(text, oid):
    """What is meant: 1.50 is 1.5, and 12:00+02 is 10:00+00."""
    if text is None:
        return None
    text = text.decode()
    if oid in NUMBERS and text not in ("NaN", "Infinity", "-Infinity"):
        return Decimal(text)
    if oid == TIMESTAMPTZ and not text.endswith("BC"):
        return datetime.fromisoformat(text).astimezone(timezone.utc)
    return text


def ask(connection, sql):
    """Names and rows, or the SQLSTATE and what is said."""
    try:
        cursor = connection.execute(sql)
        names = [column.name for column in cursor.description]
        result = cursor.pgresult
        cells = [
            [plain(result.get_value(row, column), result.ftype(column)) for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]
        return names, cells
    except psycopg.Error as error:
        return error.sqlstate, str(error).splitlines()[0]


def is_error(answer):
    return isinstance(answer[0], str)


def short(answer):
    if is_error(answer):
        return "an error"
    rows = answer[1]
    return f"`{rows[0][0]}`" if len(rows) == 1 else f"{len(rows)} rows"


def judge(line, martd, postgres):
    """The statement, what the list says of it, and what is wrong."""
    kind, sql = line.split(" ", 1)
    state = None
    if kind == "!":
        state, sql = sql.split(" ", 1)
    own, real = ask(martd, sql), ask(postgres, sql)
    match kind:
        case "=":
            wrong = is_error(own) or own != real
            said = "as PostgreSQL"
        case "!":
            wrong = own[0] != state
            said = f"refused ({state})" + (", as by PostgreSQL" if is_error(real) else "")
        case "~":
            wrong = is_error(own) or own == real
            said = f"{short(own)}; PostgreSQL: {short(real)}"
        case _:
            raise ValueError(line)
    return sql, said, f"{sql}\n  martd:      {own}\n  PostgreSQL: {real}" if wrong else None


def main():
    try:
        import pgserver
    except ImportError:
        print("skipped: no pgserver, which has a PostgreSQL to compare with", file=sys.stderr)
        return 77
    problems, count = [], 0
    with tempfile.TemporaryDirectory() as data:
        server = pgserver.get_server(data)
        try:
            martd = psycopg.connect(f"host=127.0.0.1 port={sys.argv[1]} user=anyone dbname=martd", autocommit=True)
            postgres = psycopg.connect(server.get_uri(), autocommit=True)
            postgres.execute(f"SET TimeZone = '{ZONE}'")
            sales = SQL.split("\n-- @ ")[0].split("can read it.\n")[1]
            postgres.execute("CREATE SCHEMA mart")
            postgres.execute(f"CREATE TABLE mart.sales AS {sales}")
            print("\n| what | written | answered |\n|---|---|---|")
            for title, lines in groups():
                for line in lines:
                    count += 1
                    sql, said, wrong = judge(line, martd, postgres)
                    problems += [wrong] if wrong else []
                    if said != "as PostgreSQL":
                        print(f"| {title} | `{sql.replace('|', chr(92) + '|')}` | {said} |")
            statements, answered = Statements(random.Random(SEED)), 0
            for sql in (statements.one() for _ in range(RANDOM)):
                own = ask(martd, sql)
                if not is_error(own):
                    answered += 1
                    real = ask(postgres, sql)
                    problems += [f"{sql}\n  martd:      {own}\n  PostgreSQL: {real}"] if own != real else []
            assert answered > RANDOM / 2, answered
            martd.close()
            postgres.close()
        finally:
            server.cleanup()
    print(f"{count} statements, {len(problems)} not as expected", *problems, sep="\n", file=sys.stderr)
    return bool(problems) or count < 100


sys.exit(main())
