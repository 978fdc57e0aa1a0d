"""Compares martd's answers in every format with what Python's duckdb says of the same data.

    python check.py URL PARQUET SEED

PARQUET is the file that martd serves as mart.kinds. Each statement is asked in all four formats.
The Python client turns Arrow back into values, which must be exactly those of fetchall(); JSON, NDJSON
and CSV must be the texts that follow from those values. Prints what differs, and exits with 1 if
anything does.
"""

import base64
import datetime as dt
import json
import math
import random
import re
import struct
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from urllib.request import Request, urlopen

import duckdb
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2] / "clients/python/src"))
from martd_client.arrow import converter  # noqa: E402

EPOCH = dt.datetime(1970, 1, 1)

# One column each: a value of every type, its edges, and NULL. {kinds} is the Parquet file.
VALUES = """
NULL
true | false | NULL::BOOLEAN
'-128'::TINYINT | 127::TINYINT | NULL::TINYINT
'-32768'::SMALLINT | 32767::SMALLINT
'-2147483648'::INTEGER | 2147483647 | NULL::INTEGER
'-9223372036854775808'::BIGINT | 9223372036854775807::BIGINT
0::UTINYINT | 255::UTINYINT | 65535::USMALLINT | 4294967295::UINTEGER | 18446744073709551615::UBIGINT
'-170141183460469231731687303715884105728'::HUGEINT | 170141183460469231731687303715884105727::HUGEINT
0::HUGEINT | '-1'::HUGEINT | NULL::HUGEINT
0::UHUGEINT | '340282366920938463463374607431768211455'::UHUGEINT | NULL::UHUGEINT
0.1::FLOAT | 3.4028234663852886e38::FLOAT | 1e-45::FLOAT | '-0.0'::FLOAT | 16777216::FLOAT
'nan'::FLOAT | 'inf'::FLOAT | '-inf'::FLOAT | NULL::FLOAT
0.1::DOUBLE | 1.7976931348623157e308::DOUBLE | 5e-324::DOUBLE | '-0.0'::DOUBLE | 1e16::DOUBLE | 1e-7::DOUBLE
'nan'::DOUBLE | 'inf'::DOUBLE | '-inf'::DOUBLE | NULL::DOUBLE
'-999.9'::DECIMAL(4,1) | 0.0001::DECIMAL(4,4) | 9999::DECIMAL(4,0) | NULL::DECIMAL(4,1)
'-99999.9999'::DECIMAL(9,4) | 0.00::DECIMAL(9,2) | 1234567890123456.78::DECIMAL(18,2) | '-0.01'::DECIMAL(18,2)
99999999999999999999999999999999999999::DECIMAL(38,0) | '-0.00000000000000000000000000000000000001'::DECIMAL(38,38)
123456789012345678.12345678901234567890::DECIMAL(38,20) | NULL::DECIMAL(38,2)
'' | 'plain' | 'größe 中文 🦆' | 'a,b' | 'say "x"' | e'two\\nlines' | e'cr\\r' | e'tab\\t' || chr(1) | ' spaces ' | 'null' | NULL::VARCHAR
repeat('ab€', 400000) | '12345678901' | '123456789012' | '1234567890123'
''::BLOB | '\\xAA\\x00\\xFF'::BLOB | 'twelve bytes+'::BLOB | NULL::BLOB
'1'::BIT | '0'::BIT | '101010101'::BIT | '00000000'::BIT | NULL::BIT
'00000000-0000-0000-0000-000000000000'::UUID | 'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID | '12345678-9abc-def0-1234-56789abcdef0'::UUID | NULL::UUID
DATE '1970-01-01' | DATE '0001-01-01' | DATE '9999-12-31' | DATE '2000-02-29' | NULL::DATE
DATE '0001-01-01 (BC)' | DATE '0044-03-15 (BC)' | DATE '12000-01-01' | DATE '5881580-07-10' | DATE '5877642-06-25 (BC)'
DATE 'infinity' | DATE '-infinity'
TIME '00:00:00' | TIME '23:59:59.999999' | TIME '12:00:00.5' | TIME '24:00:00' | NULL::TIME
'00:00:00.000000001'::TIME_NS | '23:59:59.999999999'::TIME_NS | '12:00:00'::TIME_NS | NULL::TIME_NS
'12:00:00+02'::TIMETZ | '00:00:00-15:59:59'::TIMETZ | '23:59:59.999999+05:30'::TIMETZ | '24:00:00+00'::TIMETZ | NULL::TIMETZ
TIMESTAMP '1970-01-01 00:00:00' | TIMESTAMP '1969-12-31 23:59:59.999999' | TIMESTAMP '2026-01-31 12:00:00.5' | NULL::TIMESTAMP
TIMESTAMP '0044-03-15 (BC) 01:02:03' | TIMESTAMP '294247-01-10 04:00:54.775806' | TIMESTAMP '290309-12-22 (BC) 00:00:00' | TIMESTAMP '12000-01-01 00:00:00.000001'
TIMESTAMP 'infinity' | TIMESTAMP '-infinity'
TIMESTAMP_S '2026-01-31 12:00:00' | TIMESTAMP_S '1900-01-01 00:00:01' | TIMESTAMP_S 'infinity' | TIMESTAMP_S '-infinity' | NULL::TIMESTAMP_S
TIMESTAMP_MS '2026-01-31 12:00:00.123' | TIMESTAMP_MS '1900-01-01 00:00:00.001' | TIMESTAMP_MS 'infinity' | NULL::TIMESTAMP_MS
TIMESTAMP_NS '2026-01-31 12:00:00.123456789' | TIMESTAMP_NS '1900-01-01 00:00:00.000000001' | TIMESTAMP_NS 'infinity' | TIMESTAMP_NS '-infinity' | NULL::TIMESTAMP_NS
TIMESTAMPTZ '2026-01-31 12:00:00+02' | TIMESTAMPTZ '1900-01-01 00:00:00.000001+00' | TIMESTAMPTZ '12000-01-01 00:00:00+00' | NULL::TIMESTAMPTZ
TIMESTAMPTZ 'infinity' | TIMESTAMPTZ '-infinity'
INTERVAL 1 YEAR | INTERVAL '14 months 3 days 04:05:06.7' | INTERVAL '-1 month -1 day -00:00:01.5' | INTERVAL 0 SECONDS | INTERVAL 3000000 HOURS | NULL::INTERVAL
INTERVAL '-14 months' | INTERVAL '1 month -1 day' | to_microseconds(9223372036854775807) | INTERVAL '-1 microsecond'
123456789012345678901234567890::VARCHAR::BIGNUM | '-1'::BIGNUM | '0'::BIGNUM | repeat('9', 300)::BIGNUM | ('-' || repeat('123456789', 30))::BIGNUM | NULL::BIGNUM
'happy'::ENUM('sad', 'happy', 'it''s') | 'it''s'::ENUM('sad', 'happy', 'it''s') | NULL::ENUM('sad', 'happy')
'{"a": [1, null]}'::JSON | '"x"'::JSON | NULL::JSON
[]::INTEGER[] | [1, NULL, 3] | [[1], NULL, [], [2, 3]] | ['a', '', NULL] | NULL::INTEGER[]
[1, 2]::INTEGER[2] | [NULL, 2]::INTEGER[2] | [['a', 'b'], NULL]::VARCHAR[2][2] | NULL::INTEGER[2] | [[1, 2]::INTEGER[2], NULL]
{'a': 1, 'B b': 'x', 'größe': NULL} | {'a': {'b': [1, 2]}} | NULL::STRUCT(a INTEGER) | row(1, 'x') | row(1) | row(NULL, row(2))
MAP {1: 'a', 2: NULL} | MAP {}::MAP(INTEGER, VARCHAR) | MAP {'x': [1, 2]} | MAP {[1]: 2} | MAP {{'a': 1}: 'x'} | NULL::MAP(INTEGER, VARCHAR)
union_value(n := 1) | 'x'::UNION(n INTEGER, s VARCHAR) | NULL::UNION(n INTEGER, s VARCHAR) | [1::UNION(n INTEGER, s VARCHAR), 'x', NULL, ''] | {'a': 2.5::UNION(n DECIMAL(3, 1), s VARCHAR)}
[170141183460469231731687303715884105727::HUGEINT, NULL, -1] | {'u': 'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID, 'd': 1.50::DECIMAL(9, 2)} | ['101'::BIT, NULL]
['a'::ENUM('a', 'b'), NULL, 'b'] | MAP {'b'::ENUM('a', 'b'): 'a'::ENUM('a', 'b')} | {'e': 'b'::ENUM('a', 'b')} | array_value('b'::ENUM('a', 'b'))
[DATE '2026-01-31', NULL] | [TIMESTAMP '2026-01-31 12:00:00.5'] | {'t': TIMETZ '12:00:00+02'} | [TIMESTAMPTZ '2026-01-31 12:00:00+00'] | [INTERVAL '3 days 04:05:06'] | ['\\xAA'::BLOB] | ['nan'::DOUBLE, 1.5, '-0.0']
['99999999999999999999'::BIGNUM] | ['{"a": 1}'::JSON] | [TIME '12:00:00', NULL] | [{'m': MAP {'k': [{'x': 1}, NULL]}}] | [TIMESTAMP_NS '2026-01-31 12:00:00.123456']
"""

# Whole statements. Many make vectors that are not flat inside of others.
STATEMENTS = [
    "SELECT * FROM {kinds} ORDER BY i",
    "SELECT * FROM {kinds} WHERE i % 3 = 1 ORDER BY i",
    "SELECT * FROM {kinds} WHERE false",
    "SELECT i, texts, pairs FROM {kinds} WHERE i > 2000 ORDER BY i",
    "SELECT 1 AS a, 2 AS a, 3 AS \"größe \"\"x\"\"\", 4 AS a_1, 5 AS \"a,b\"",
    "SELECT i FROM range(2047) t(i)", "SELECT i FROM range(2048) t(i)",
    "SELECT i, [i] AS l, {{'a': [i, i]}} AS s FROM range(2049) t(i)",
    "SELECT i % 2 = 0 AS b, if(i % 5 = 0, NULL, i) AS n FROM range(4097) t(i)",
    "SELECT list_slice(texts, 2, 3) AS x, texts[:1] AS y FROM {kinds} ORDER BY i",
    "SELECT list_filter(numbers, lambda x: x % 2 = 0) AS x FROM {kinds} ORDER BY i",
    "SELECT list_transform(numbers, lambda x: {{'n': x, 't': texts}}) AS x FROM {kinds} WHERE i % 7 = 2 ORDER BY i",
    "SELECT list_transform(numbers, lambda x: [x, i]) AS x FROM {kinds} WHERE i % 2 = 0 ORDER BY i",
    "SELECT i, unnest(numbers) AS n FROM {kinds} ORDER BY i, n",
    "SELECT unnest([[i], [], NULL, [i, i]]) AS l FROM range(700) t(i)",
    "SELECT struct_extract({{'a': [1, 2], 'b': 'x'}}, 'a') AS a, i FROM range(3000) t(i)",
    "SELECT {{'c': 'constant', 'i': i}} AS s, [7, 7] AS l, MAP {{'k': 'constant'}} AS m FROM range(3000) t(i)",
    "SELECT pair.name AS name, pair AS pair, [pair, pair] AS both FROM {kinds} WHERE pair.name <> 'name 1' ORDER BY i",
    "SELECT [texts, texts] AS l, [i, i] AS n FROM {kinds} WHERE i % 5 = 0 ORDER BY i",
    "SELECT if(i % 2 = 0, texts, NULL) AS l, if(i % 3 = 0, pair, NULL) AS s FROM {kinds} ORDER BY i",
    "SELECT CASE WHEN i % 2 = 0 THEN texts ELSE ['other'] END AS l FROM {kinds} ORDER BY i",
    "SELECT array_value(i, NULL, i + 1) AS a, [texts, NULL]::VARCHAR[][2] AS b FROM {kinds} WHERE i % 3 = 0 ORDER BY i",
    "SELECT map_entries(pairs) AS e, map_keys(pairs) AS k, map_values(pairs) AS v, pairs['k0'] AS x FROM {kinds} ORDER BY i",
    "SELECT MAP(texts, texts) AS m FROM {kinds} WHERE len(list_distinct(texts)) = len(texts) ORDER BY i",
    "SELECT list(i ORDER BY i) AS l, i % 10 AS g FROM {kinds} GROUP BY g ORDER BY g",
    "SELECT list(texts ORDER BY i) AS l, max(pair) AS s FROM {kinds} GROUP BY i % 10 ORDER BY i % 10",
    "SELECT a.texts, b.pair FROM {kinds} a LEFT JOIN {kinds} b ON a.i = b.i + 1250 ORDER BY a.i",
    "SELECT list_zip(numbers, texts) AS z, list_sort(texts, 'DESC') AS s, flatten([numbers, numbers]) AS f FROM {kinds} ORDER BY i",
    "SELECT list_concat(texts, ['x']) AS l, list_reverse(numbers) AS r FROM {kinds} ORDER BY i",
    "SELECT CASE i % 3 WHEN 0 THEN i::UNION(n BIGINT, s VARCHAR) WHEN 1 THEN ('t' || i)::UNION(n BIGINT, s VARCHAR) END AS u FROM range(5000) t(i)",
    "SELECT [CASE i % 3 WHEN 0 THEN i::UNION(n BIGINT, s VARCHAR) WHEN 1 THEN ('t' || i)::UNION(n BIGINT, s VARCHAR) END] AS u FROM range(5000) t(i) WHERE i % 4 < 3",
    "SELECT (['x', 'y', 'z'])[1 + i % 3]::ENUM('z', 'y', 'x') AS e, [e, NULL, 'x'] AS l FROM range(5000) t(i)",
    "SELECT row(i, 'x') AS r, [row(i, NULL)] AS l FROM range(10) t(i)",
    "SELECT repeat('x', (i * 997 % 5000)::BIGINT) AS x FROM range(2500) t(i)",
    "SELECT NULL AS n, [NULL] AS l, {{'a': NULL}} AS s FROM range(3)",
    # An index of one byte, of two, of four: ENUMs are as wide as they need to be.
    *(
        f"SELECT (('v' || i % {size})::ENUM({', '.join(repr(f'v{v}') for v in range(size))})) AS e,"
        " [e] AS l FROM range(600) t(i)"
        for size in (255, 256)
    ),
    "DESCRIBE SELECT 1 AS a, 'x' AS b",
    "SUMMARIZE SELECT i, i::DOUBLE AS d FROM range(10) t(i)",
]

FORMATS = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
}


class Martd:
    def __init__(self, url):
        self.url = url

    def ask(self, sql, format):
        body = json.dumps({"sql": sql, "limit": 100_000}).encode()
        headers = {"Content-Type": "application/json", "Accept": FORMATS[format]}
        try:
            with urlopen(Request(f"{self.url}/v1/query", body, headers)) as answer:
                assert answer.headers["Content-Type"].split(";")[0] == FORMATS[format]
                return answer.read()
        except OSError as error:
            reason = error.read().decode() if hasattr(error, "read") else error
            raise AssertionError(f"martd: {reason}") from error


# What the texts have to be, from the values of fetchall().

class Number(str):
    """A number as it is written in JSON."""


def to_json(value, ty, text=None):
    """The JSON of a value; `text` is DuckDB's own, for what Python has no value for."""
    if value is None or ty.id == '"null"':
        return None
    match ty.id:
        case "boolean":
            return value
        case "float" | "double":
            return Number(repr(value)) if math.isfinite(value) else None
        case "bignum":
            return Number(value)
        case "decimal":
            return Number(f"{value:f}")
        case "blob":
            return base64.b64encode(value).decode()
        case "date" | "timestamp" | "timestamp_s" | "timestamp_ms" | "timestamp_ns" \
                | "timestamp with time zone":
            return iso(text or duckdb_text(value))
        case "time" | "time_ns" | "time with time zone":
            return text or str_time(value)
        case "interval":
            return text or interval_text(value)
        case "uuid":
            return str(value)
        case "list" | "array":
            child = ty.children[0][1]
            return [to_json(item, child) for item in value]
        case "map":
            (_, key), (_, item) = ty.children
            pairs = value.items() if key.id not in ("list", "struct") \
                else zip(value["key"], value["value"])
            return [{"key": to_json(k, key), "value": to_json(v, item)} for k, v in pairs]
        case "struct":
            types = [child for _, child in ty.children]
            if isinstance(value, tuple):
                return [to_json(item, child) for item, child in zip(value, types)]
            items = zip(value.items(), types)
            return {name: to_json(item, child) for (name, item), child in items}
        case "union":
            # fetchall() does not tell the member; those used here tell it by their Python type.
            members = {int: ("bigint", "integer"), str: ("varchar",), Decimal: ("decimal",)}
            ids = members[type(value)]
            return to_json(value, next(t for _, t in ty.children if t.id in ids))
        case "varchar" | "enum" | "bit" | "json":
            return value
    assert isinstance(value, int), (value, ty.id)
    return Number(value)


def str_time(value):
    if isinstance(value, str):
        return value
    return iso_time(value)


def iso_time(time):
    text = time.strftime("%H:%M:%S")
    if time.microsecond:
        text += f".{time.microsecond:06}".rstrip("0")
    if time.tzinfo:
        text += re.sub(r"^(.\d\d):00$", r"\1", time.isoformat()[-6:])
    return text


def duckdb_text(value):
    if isinstance(value, dt.datetime):
        return f"{value.date()} {iso_time(value.time())}" + ("+00" if value.tzinfo else "")
    return str(value)


def iso(text):
    """ISO 8601 from DuckDB's text; null for an infinity."""
    if "infinity" in text:
        return None
    year, rest, era, clock, zone = re.fullmatch(
        r"(\d+)(-\d\d-\d\d)( \(BC\))?( [\d:.]+)?(\+00)?", text
    ).groups()
    year = 1 - int(year) if era else int(year)
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    clock = "T" + clock[1:] if clock else ""
    return f"{sign}{abs(year):04}{rest}{clock}{'Z' if zone else ''}"


def interval_text(value):
    days = f"{value.days} day{'' if value.days == 1 else 's'}" if value.days else ""
    rest = value - dt.timedelta(days=value.days)
    clock = iso_time((EPOCH + rest).time()) if rest or not days else ""
    return f"{days} {clock}".strip()


def to_csv(value, ty, text):
    """The field of a CSV, unquoted; None for NULL."""
    if value is None:
        return None
    if ty.id in ("float", "double") and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if ty.id in ("list", "array", "struct", "map"):
        return dump(to_json(value, ty, text))
    if isinstance(text, str) and "infinity" in text and ty.id.startswith(("date", "timestamp")):
        return text
    value = to_json(value, ty, text)
    return {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value


def dump(value):
    """JSON without spaces, in which numbers keep their digits."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{dump(k)}:{dump(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def parse(text):
    return json.loads(text, parse_int=Number, parse_float=Number, object_pairs_hook=pairs)


def pairs(items):
    assert len({key for key, _ in items}) == len(items), f"a key twice: {items}"
    return dict(items)


def same_json(found, expected, ty):
    """Floats are compared by value, their digits may differ; all else as text."""
    if ty.id == "double" and None not in (found, expected):
        return struct.pack("d", float(found)) == struct.pack("d", float(expected))
    if ty.id == "float" and None not in (found, expected):
        return struct.pack("f", float(found)) == struct.pack("f", float(expected))
    if isinstance(found, list) and isinstance(expected, list) and ty.id in ("list", "array"):
        child = ty.children[0][1]
        return len(found) == len(expected) and all(
            same_json(a, b, child) for a, b in zip(found, expected)
        )
    if isinstance(found, dict) and isinstance(expected, dict) and ty.id == "struct":
        return list(found) == list(expected) and all(
            same_json(found[name], expected[name], child) for name, child in ty.children
        )
    if ty.id == "map" and isinstance(found, list) and isinstance(expected, list):
        (_, key), (_, item) = ty.children
        return len(found) == len(expected) and all(
            same_json(a["key"], b["key"], key) and same_json(a["value"], b["value"], item)
            for a, b in zip(found, expected)
        )
    return type(found) is type(expected) and found == expected


def same_csv(found, expected, ty):
    if ty.id in ("float", "double") and None not in (found, expected):
        return same_json(found, expected, ty)
    if ty.id in ("list", "array", "struct", "map") and None not in (found, expected):
        return same_json(parse(found), parse(expected), ty)
    return found == expected


def read_csv(text):
    """Rows of a CSV, in which None is what stands there without quotes and without text."""
    rows, row, position = [], [], 0
    pattern = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\n)')
    while position < len(text):
        match = pattern.match(text, position)
        assert match, f"not CSV at {position}: {text[position:position + 40]!r}"
        quoted, plain, end = match.groups()
        row.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        if end == "\n":
            rows.append(row)
            row = []
        position = match.end()
    assert not row, "the last line has no end"
    return rows


def canonical(value):
    """Something that differs whenever the type or a bit of a value differs."""
    match value:
        case float():
            return "nan" if math.isnan(value) else struct.pack("d", value)
        case Decimal():
            return value.as_tuple()
        case dt.datetime():
            return "datetime", value.replace(tzinfo=None), value.utcoffset()
        case dt.time():
            return "time", value.replace(tzinfo=None), value.utcoffset()
        case dict():
            return "dict", [(canonical(k), canonical(v)) for k, v in value.items()]
        case list() | tuple():
            return type(value), [canonical(item) for item in value]
    return type(value), value


class Check:
    def __init__(self, martd, path):
        self.martd = martd
        self.path = path
        self.duckdb = duckdb.connect()
        self.duckdb.execute("SET TimeZone = 'UTC'")
        self.differences = 0
        self.values = 0

    def statement(self, template, texts=None):
        """Asks both. `texts` is a statement for DuckDB's own text of the same values."""
        statement = template.format(kinds="mart.kinds")
        reference = template.format(kinds=f"read_parquet('{self.path}')")
        cursor = self.duckdb.execute(reference)
        names = [column[0] for column in cursor.description]
        types = [column[1] for column in cursor.description]
        types = self.duckdb.sql(reference).types if reference.startswith("SELECT") else types
        rows = self.duckdb.execute(reference).fetchall()
        if texts is None:
            texts = [[None] * len(names)] * len(rows)
        else:
            texts = self.duckdb.execute(texts).fetchall()
        expected = [
            [to_json(*cell) for cell in zip(row, types, text)] for row, text in zip(rows, texts)
        ]
        fields = [
            [to_csv(*cell) for cell in zip(row, types, text)] for row, text in zip(rows, texts)
        ]

        document = parse(self.martd.ask(statement, "json"))
        assert document["truncated"] is False
        names = [column["name"] for column in document["meta"]]
        kinds = [column["type"] for column in document["meta"]]
        self.compare(statement, "meta", [kinds], [[str(ty) for ty in types]])
        found = [list(row.values()) for row in document["data"]]
        self.compare(statement, "json", found, expected, types, same_json)

        lines = self.martd.ask(statement, "ndjson").decode()
        assert lines.endswith("\n") or not rows
        found = [parse(line) for line in lines.split("\n")[:-1]]
        assert all(list(row) == names for row in found)
        self.compare(statement, "ndjson", [list(row.values()) for row in found], expected, types,
                     same_json)

        header, *found = read_csv(self.martd.ask(statement, "csv").decode())
        assert header == names, (header, names)
        self.compare(statement, "csv", found, fields, types, same_csv)

        table = pa.ipc.open_stream(self.martd.ask(statement, "arrow"))
        assert table.schema.names == names
        columns = [[] for _ in names]
        for batch in table:
            # DuckDB's TIME may be 24:00:00, which Arrow's rules do not foresee.
            batch.validate(full="24:00:00" not in statement)
            for column, array, field in zip(columns, batch.columns, batch.schema):
                column.extend(converter(field)(array))
        found = [field.metadata[b"duckdb.type"].decode() for field in table.schema]
        self.compare(statement, "arrow types", [found], [[str(ty) for ty in types]])
        self.compare(statement, "arrow", list(map(list, zip(*columns))), list(map(list, rows)),
                     types, lambda a, b, _: canonical(a) == canonical(b))

    def compare(self, statement, what, found, expected, types=None, same=None):
        self.values += sum(map(len, expected))
        if len(found) != len(expected):
            return self.differs(statement, what, f"{len(found)} rows", f"{len(expected)} rows")
        same = same or (lambda a, b, _: a == b)
        for a, b in zip(found, expected):
            for x, y, ty in zip(a, b, types or [None] * len(b), strict=True):
                if not same(x, y, ty):
                    return self.differs(statement, what, x, y)

    def differs(self, statement, what, found, expected):
        self.differences += 1
        print(f"{what}: {statement[:300]}\n  martd:  {str(found)[:300]!r}\n"
              f"  duckdb: {str(expected)[:300]!r}")


# Random values of random types, as SQL.

SCALARS = {
    "BOOLEAN": lambda r: r.choice(["true", "false"]),
    "TINYINT": lambda r: r.randint(-128, 127),
    "UINTEGER": lambda r: r.randint(0, 2**32 - 1),
    "BIGINT": lambda r: f"'{r.randint(-2**63, 2**63 - 1)}'",
    "HUGEINT": lambda r: f"'{r.randint(-2**127, 2**127 - 1)}'",
    "UHUGEINT": lambda r: f"'{r.randint(0, 2**128 - 1)}'",
    "FLOAT": lambda r: f"'{struct.unpack('f', r.randbytes(4))[0]!r}'",
    "DOUBLE": lambda r: f"'{struct.unpack('d', r.randbytes(8))[0]!r}'",
    "DECIMAL(4,2)": lambda r: f"'{Decimal(r.randint(-9999, 9999)).scaleb(-2)}'",
    "DECIMAL(38,10)": lambda r: f"'{r.randint(-10**27, 10**27)}.{r.randint(0, 10**10 - 1):010}'",
    "VARCHAR": lambda r: "'" + "".join(
        r.choice("ab\"',\n\r\t\\{}[]é中🦆 ") for _ in range(r.randint(0, 20))
    ).replace("'", "''") + "'",
    "BLOB": lambda r: "'" + "".join(f"\\x{b:02X}" for b in r.randbytes(r.randint(0, 20))) + "'",
    "UUID": lambda r: f"'{uuid.UUID(int=r.getrandbits(128))}'",
    "DATE": lambda r: f"DATE '1970-01-01' + {r.randint(-700_000, 2_900_000)}",
    "TIME": lambda r: f"'{r.randint(0, 23):02}:{r.randint(0, 59):02}:00.{r.randint(0, 999999):06}'",
    "TIMESTAMP": lambda r: f"make_timestamp({r.randint(-10**16, 10**17)})",
    "TIMESTAMP_MS": lambda r: f"make_timestamp({r.randint(-10**16, 10**17)})",
    "ENUM('a', 'b', 'c c')": lambda r: r.choice(["'a'", "'b'", "'c c'"]),
    "BIT": lambda r: "'" + "".join(r.choice("01") for _ in range(r.randint(1, 40))) + "'",
}


def random_values(r, depth):
    """A function that makes values of one random type."""
    kind = r.choice(["scalar", "list", "array", "struct", "map"]) if depth else "scalar"
    if kind == "scalar":
        ty, scalar = r.choice(list(SCALARS.items()))
        return lambda: f"NULL::{ty}" if r.random() < 0.15 else f"({scalar(r)})::{ty}"
    item = random_values(r, depth - 1)
    size = r.randint(1, 3)
    if kind == "list":
        make = lambda: "[" + ", ".join(item() for _ in range(r.randint(0, 4))) + "]"
    elif kind == "array":
        make = lambda: "array_value(" + ", ".join(item() for _ in range(size)) + ")"
    elif kind == "map":
        make = lambda: "MAP {" + ", ".join(f"{n}: {item()}" for n in range(size)) + "}"
    else:
        other = random_values(r, depth - 1)
        make = lambda: f"{{'a': {item()}, 'b b': {other()}}}"
    return lambda: "NULL" if r.random() < 0.15 else make()


def main(url, path, seed):
    check = Check(Martd(url), path)
    for line in VALUES.strip().splitlines():
        values = [value.strip() for value in re.split(r" \| ", line)]
        columns = ", ".join(f"{value} AS c{n}" for n, value in enumerate(values))
        texts = ", ".join(f"({value})::VARCHAR" for value in values)
        check.statement(f"SELECT {columns}".replace("{", "{{").replace("}", "}}"),
                        f"SELECT {texts}")
    for statement in STATEMENTS:
        check.statement(statement)
    r = random.Random(seed)
    for _ in range(60):
        columns = []
        for n in range(4):
            value = random_values(r, r.randint(0, 3))
            columns.append(f"unnest([{', '.join(value() for _ in range(6))}]) AS c{n}")
        sql = f"SELECT {', '.join(columns)}"
        check.statement(sql.replace("{", "{{").replace("}", "}}"))
    print(f"{check.values} values compared, seed {seed}, {check.differences} differences")
    return 1 if check.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
