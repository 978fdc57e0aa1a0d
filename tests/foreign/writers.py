"""What each writer of `make.py` writes. Imports are local: a writer's environment has its own packages alone."""

from __future__ import annotations

import datetime as dt
import math
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

ROWS = 60


def run(name: str, folder: Path) -> None:
    globals()["duckdb_" if name.startswith("duckdb-") else name](folder)


# DuckDB ----------------------------------------------------------------------------------------------

DUCKDB_TYPES = """
    SELECT i, i % 2 = 0 AS bool, (i % 100)::TINYINT AS i8, i::SMALLINT AS i16, i::INTEGER AS i32, i::UTINYINT AS u8,
        i::USMALLINT AS u16, i::UINTEGER AS u32, i::UBIGINT AS u64, (i * 1e30)::HUGEINT AS huge, i / 7 AS f64,
        (i / 7)::FLOAT AS f32, (i / 100)::DECIMAL(4, 2) AS d4, (i * 1.01)::DECIMAL(9, 3) AS d9,
        (-i * 1.01)::DECIMAL(18, 6) AS d18, (i::HUGEINT * 10000000000000000000)::DECIMAL(38, 10) AS d38,
        'text ' || i % 5 AS text, i::VARCHAR::BLOB AS bytes, DATE '2026-01-01' - i::INTEGER AS day,
        TIME '00:00:00' + to_seconds(i * 1000) AS clock, TIMESTAMP '1969-12-31' + to_microseconds(i * 40000000001) AS at,
        (TIMESTAMP '2026-01-01' + to_seconds(i))::TIMESTAMP_S AS at_s,
        (TIMESTAMP '2026-01-01' + to_milliseconds(i))::TIMESTAMP_MS AS at_ms,
        make_timestamp_ns(1767225600000000000 + i) AS at_ns, TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_hours(i) AS at_tz,
        TIMETZ '12:00:00+02' AS clock_tz, INTERVAL (i) DAYS AS span, md5(i::VARCHAR)::UUID AS id,
        '{"a": 1}'::JSON AS document, 'happy'::ENUM ('sad', 'happy') AS mood, NULL::INTEGER AS nothing,
        CASE WHEN i % 3 = 0 THEN i END AS some
    FROM range({rows}) t(i)
"""
DUCKDB_NESTED = """
    SELECT i, range(i % 4) AS list, [[i], NULL, []] AS lists, {'a': i, 'b b': {'c': 'x' || i}} AS pair,
        MAP {'k' || i: i, 'null': NULL} AS pairs, [{'a': [i]}, NULL] AS structs,
        CASE WHEN i % 5 <> 0 THEN ['a', NULL, ''] END AS texts, [i, i + 1]::INTEGER[2] AS two
    FROM range({rows}) t(i)
"""
DUCKDB_FLOATS = """
    SELECT i, v::DOUBLE AS f64, v::FLOAT AS f32
    FROM (VALUES (1, '1'), (2, 'nan'), (3, '-0.0'), (4, '0'), (5, 'inf'), (6, '-inf'), (7, NULL), (8, '-nan')) t(i, v)
"""


def duckdb_(folder: Path) -> None:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")

    def write(name: str, sql: str, options: str = "") -> None:
        path = folder / f"{name}.parquet"
        connection.execute(f"COPY ({sql.replace('{rows}', str(ROWS))}) TO '{path}' (FORMAT parquet {options})")

    write("types", DUCKDB_TYPES)
    write("nested", DUCKDB_NESTED)
    write("floats", DUCKDB_FLOATS)
    write("empty", DUCKDB_TYPES + " LIMIT 0")
    write("one null row", "SELECT NULL::INTEGER AS a, NULL::VARCHAR AS b")
    write("not-utf8", "SELECT unhex(hex(i + 128))::BLOB AS b FROM range(100) t(i)")
    write("groups", "SELECT i % 7 AS g, i // 1000 AS k FROM range(5000) t(i)", ", ROW_GROUP_SIZE 2048")
    for codec in ["uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4", "lz4_raw"]:
        write(f"codec-{codec}", "SELECT i, 'text ' || i % 9 AS t FROM range(300) t(i)", f", CODEC {codec}")
    for version in ["v1", "v2"]:
        write(
            f"encodings-{version}",
            "SELECT i * 1000 AS delta, i / 3 AS split, md5(i::VARCHAR) AS texts, i % 3 AS dictionary,"
            " i % 5 = 0 AS bool FROM range(400) t(i)",
            f", PARQUET_VERSION {version}",
        )
    if tuple(map(int, duckdb.__version__.split(".")[:2])) >= (1, 5):
        write("variant", "SELECT i, {'a': i, 'b': ['x', NULL]}::VARIANT AS v FROM range(40) t(i)")
        write("geometry", "SELECT i, ('POINT(' || i || ' 2)')::GEOMETRY AS g FROM range(40) t(i)")


# pyarrow and pandas ----------------------------------------------------------------------------------

DAY = dt.date(2026, 1, 31)
MOMENT = dt.datetime(2026, 1, 31, 23, 59, 59, 123456)


def arrow_columns() -> dict[str, Any]:
    """A column of each type of Arrow that Parquet has a form of."""
    import pyarrow as pa

    def some(values: Any) -> list[Any]:
        return [None if n % 4 == 3 else value for n, value in enumerate(values)]

    span = range(ROWS)
    columns: dict[str, Any] = {"i": pa.array(span)}
    for bits in (8, 16, 32, 64):
        columns[f"int{bits}"] = pa.array(some(-n for n in span), getattr(pa, f"int{bits}")())
        columns[f"uint{bits}"] = pa.array(some(span), getattr(pa, f"uint{bits}")())
    columns |= {
        "bool": pa.array(some(n % 2 == 0 for n in span)),
        "float16": pa.array(some(n / 8 for n in span), pa.float16()),
        "float32": pa.array(some(n / 7 for n in span), pa.float32()),
        "float64": pa.array(some(n / 7 for n in span), pa.float64()),
        "text": pa.array(some(f"größe {n % 5}" for n in span)),
        "large_text": pa.array(some(f"text {n}" for n in span), pa.large_string()),
        "text_view": pa.array(some(f"a text of some length {n}" for n in span), pa.string_view()),
        "binary": pa.array(some(bytes([n, 255]) for n in span)),
        "fixed": pa.array(some(bytes([n]) * 5 for n in span), pa.binary(5)),
        "date32": pa.array(some(DAY - dt.timedelta(n) for n in span)),
        "date64": pa.array(some(DAY - dt.timedelta(n) for n in span), pa.date64()),
        "time32s": pa.array(some(dt.time(n % 24, n) for n in span), pa.time32("s")),
        "time32": pa.array(some(dt.time(n % 24, n) for n in span), pa.time32("ms")),
        "time64": pa.array(some(dt.time(n % 24, n, 1, n) for n in span), pa.time64("us")),
        "time64ns": pa.array(some(n * 1_000_000_007 for n in span), pa.time64("ns")),
        "duration": pa.array(some(dt.timedelta(0, n) for n in span)),
        "dictionary": pa.array(some(f"d{n % 3}" for n in span)).dictionary_encode(),
        "nothing": pa.nulls(ROWS),
    }
    for unit in ("s", "ms", "us", "ns"):
        columns[f"timestamp_{unit}"] = pa.array(some(n * 1_000_003 for n in span), pa.timestamp(unit))
        columns[f"timestamptz_{unit}"] = pa.array(some(n * 1_000_003 for n in span), pa.timestamp(unit, "Europe/Berlin"))
    for precision, scale in [(1, 0), (4, 2), (9, 0), (10, 3), (18, 18), (19, 2), (28, 9), (38, 0), (38, 37)]:
        values = some(Decimal(n * (-1) ** n % 10).scaleb(-scale) for n in span)
        columns[f"decimal_{precision}_{scale}"] = pa.array(values, pa.decimal128(precision, scale))
    return columns


def arrow_nested() -> dict[str, Any]:
    import pyarrow as pa

    span = range(ROWS)
    pair = pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))])
    return {
        "i": pa.array(span),
        "list": pa.array([None if n % 5 == 4 else list(range(n % 4)) for n in span]),
        "lists": pa.array([[[n], None, []] for n in span], pa.list_(pa.list_(pa.int64()))),
        "large_list": pa.array([["x", None] for _ in span], pa.large_list(pa.string())),
        "fixed_list": pa.array([[n, n + 1] for n in span], pa.list_(pa.int32(), 2)),
        "pair": pa.array([None if n % 6 == 5 else {"a": n, "b": ["x", None]} for n in span], pair),
        "map": pa.array([[("k", n), ("l", None)] for n in span], pa.map_(pa.string(), pa.int64())),
        "structs": pa.array([[{"a": n, "b": None}, None] for n in span], pa.list_(pair)),
        "map_of_lists": pa.array([[(n, ["x"])] for n in span], pa.map_(pa.int32(), pa.list_(pa.string()))),
    }


def pyarrow(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(name: str, table: Any, **options: Any) -> None:
        pq.write_table(table, folder / f"{name}.parquet", **options)

    types, nested = pa.table(arrow_columns()), pa.table(arrow_nested())
    write("types", types)
    write("types-without-schema", types, store_schema=False)
    write("types-v1", types.drop_columns(["uint32"]), version="1.0", coerce_timestamps="us", allow_truncated_timestamps=True)
    write("types-pages-v2", types, data_page_version="2.0", data_page_size=64)
    write("types-plain", types, use_dictionary=False, write_statistics=False)
    write("nested", nested)
    write("nested-not-compliant", nested, use_compliant_nested_type=False)
    write("nested-pages-v2", nested, data_page_version="2.0", data_page_size=64)
    write("empty", types.slice(0, 0))
    write("int96", types.select(["i", "timestamp_us", "timestamp_ns"]), use_deprecated_int96_timestamps=True)
    write("int96-extreme", pa.table({"at": pa.array([-(2**62), -1, 0, 2**62, None], pa.timestamp("ns"))}),
          use_deprecated_int96_timestamps=True)
    write("groups", pa.table({"i": range(2000), "t": [f"t{n % 11}" for n in range(2000)]}), row_group_size=300)
    for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]:
        write(f"codec-{codec}", pa.table({"i": range(300), "t": [f"text {n % 9}" for n in range(300)]}), compression=codec)
    span = range(300)
    plain = {"i32": pa.array(span, pa.int32()), "i64": pa.array([n * n for n in span]), "f32": pa.array([n / 3 for n in span], pa.float32()),
             "f64": pa.array([n / 3 for n in span]), "t": pa.array([f"prefix {n}" for n in span]), "b": pa.array([n % 3 == 0 for n in span]),
             "fixed": pa.array([bytes([n % 256]) * 4 for n in span], pa.binary(4))}
    for encoding, names in [
        ("PLAIN", ["i32", "i64", "f32", "f64", "t", "b", "fixed"]),
        ("DELTA_BINARY_PACKED", ["i32", "i64"]),
        ("DELTA_LENGTH_BYTE_ARRAY", ["t"]),
        ("DELTA_BYTE_ARRAY", ["t", "fixed"]),
        ("BYTE_STREAM_SPLIT", ["f32", "f64"]),
        ("BYTE_STREAM_SPLIT", ["i32", "i64", "fixed"]),
        ("RLE", ["b"]),
    ]:
        table = pa.table({name: plain[name] for name in names})
        for version in ["1.0", "2.0"]:
            write(f"{encoding}-{names[0]}-{version[0]}".lower(), table, use_dictionary=False, data_page_version=version,
                  column_encoding=dict.fromkeys(names, encoding), compression="none")
    floats = [1.0, math.nan, -0.0, 0.0, math.inf, -math.inf, None, 2.0]
    write("floats", pa.table({"i": range(8), "f64": floats, "f32": pa.array(floats, pa.float32())}))
    write("all-null", pa.table({"a": pa.nulls(5), "b": pa.nulls(5, pa.int64()), "c": pa.nulls(5, pa.list_(pa.string()))}))
    write("one-null-row", pa.table({"a": pa.nulls(1, pa.int64()), "b": pa.nulls(1, pa.string())}))
    write("checksums", pa.table({"i": range(50)}), write_page_checksum=True)
    write("page-index", pa.table({"i": range(500)}), write_page_index=True, data_page_size=200)
    write("sorted", pa.table({"i": range(50)}), sorting_columns=[pq.SortingColumn(0)])
    names = ["", " ", "a.b", 'say "x"', "größe", "a,b", "select", "A", "line\nbreak", "🦆", "martd:row", "t"]
    write("names", pa.table([pa.array([n, None]) for n in range(len(names))], names=names))
    write("names-twice", pa.table([pa.array([n]) for n in range(3)], names=["a", "a", "A"]))
    write("many-columns", pa.table({f"c{n}": [n] for n in range(300)}), write_statistics=False, compression="none")
    deep = pa.int32()
    value: Any = 1
    for _ in range(12):
        deep, value = pa.struct([("s", deep)]), {"s": value}
    write("deep", pa.table({"d": pa.array([value, None], deep)}))
    for precision, scale in [(39, 0), (50, 2), (76, 38)]:
        write(f"decimal-{precision}", pa.table({"i": range(2), "d": pa.array([Decimal(1), Decimal(-2)], pa.decimal256(precision, scale))}))
    write("decimal-60-nested", pa.table({"d": pa.array([[Decimal(1)]], pa.list_(pa.decimal256(60, 5)))}))
    write("decimal-as-integer", pa.table({"d": pa.array([Decimal("1.5"), Decimal("-2.25")], pa.decimal128(9, 4)),
                                          "e": pa.array([Decimal("1.5"), None], pa.decimal128(18, 4))}), store_decimal_as_integer=True)
    write("uuid-and-json", pa.table({"u": pa.array([bytes(range(16)), None], pa.uuid()), "j": pa.array(['{"a": 1}', None], pa.json_())}))


def pandas(folder: Path) -> None:
    import numpy as np
    import pandas as pd

    def write(name: str, frame: Any, **options: Any) -> None:
        frame.to_parquet(folder / f"{name}.parquet", **options)

    days = pd.date_range("2026-01-01", periods=6, freq="D")
    frame = pd.DataFrame({"a": range(6), "b": [1.5, None, math.nan, 4, 5, 6], "t": ["x", None, "y", "", "z", "é"]})
    write("plain", frame)
    write("index-named", frame.set_index("t"))
    write("index-dates", frame.set_index(days))
    write("index-multi", frame.set_index(["a", "t"]))
    write("index-none", frame, index=False)
    write("index-kept", frame, index=True)
    write("empty", pd.DataFrame())
    write("empty-columns", pd.DataFrame({"a": pd.Series([], dtype="int64"), "t": pd.Series([], dtype="object")}))
    write("no-columns", pd.DataFrame(index=range(3)))
    write("columns-multi", pd.DataFrame([[1, 2], [3, 4]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])))
    kinds = pd.DataFrame({
        "category": pd.Categorical(["lo", "hi", None, "lo", "lo", "hi"]),
        "ordered": pd.Categorical([1, 2, 3, 1, 2, 3], ordered=True),
        "nullable": pd.array([1, None, 3, 4, 5, 6], dtype="Int8"),
        "boolean": pd.array([True, None, False, True, True, False], dtype="boolean"),
        "string": pd.array(["a", None, "c", "d", "e", "f"], dtype="string"),
        "at": days, "at_tz": days.tz_localize("Asia/Kathmandu"), "at_ns": days.as_unit("ns") + pd.Timedelta(1, "ns"),
        "span": pd.to_timedelta(range(6), unit="h"), "period": pd.period_range("2026-01", periods=6, freq="M"),
        "interval": pd.interval_range(0, 6), "half": np.arange(6, dtype="float16"), "bytes": [b"\xff", None] * 3,
        "lists": [[1, 2], [], None, [3], [4], [5]], "dicts": [{"a": 1}, {"a": None}, None, {"a": 2}, {"a": 3}, {"a": 4}],
        "decimals": [Decimal("1.10"), Decimal("-99999999999999.99"), None] * 2,
    })
    write("kinds", kinds)
    write("kinds-int96", kinds[["at", "at_ns"]], use_deprecated_int96_timestamps=True)
    write("partition-like", pd.DataFrame({"year": [2025, 2026], "month": pd.Categorical(["01", "02"])}))


def polars(folder: Path) -> None:
    import polars as pl

    def write(name: str, frame: Any, **options: Any) -> None:
        frame.write_parquet(folder / f"{name}.parquet", **options)

    span = range(ROWS)
    frame = pl.DataFrame({
        "i8": pl.Series(span, dtype=pl.Int8), "u64": pl.Series(span, dtype=pl.UInt64), "i128": pl.Series(span, dtype=pl.Int128),
        "f32": pl.Series([n / 7 for n in span], dtype=pl.Float32), "f64": [None if n % 4 == 3 else n / 7 for n in span],
        "t": [None if n % 4 == 3 else f"text {n % 5}" for n in span], "b": [n % 3 == 0 for n in span], "bytes": [bytes([n, 255]) for n in span],
        "day": [DAY] * ROWS, "clock": [dt.time(1, 2, 3, n) for n in span], "at": [MOMENT] * ROWS,
        "at_ms": pl.Series([MOMENT] * ROWS, dtype=pl.Datetime("ms")), "at_ns": pl.Series([MOMENT] * ROWS, dtype=pl.Datetime("ns")),
        "at_tz": pl.Series([MOMENT.replace(tzinfo=dt.timezone.utc)] * ROWS, dtype=pl.Datetime("us", "Europe/Berlin")),
        "span": [dt.timedelta(hours=n) for n in span], "category": pl.Series([f"c{n % 3}" for n in span], dtype=pl.Categorical),
        "enum": pl.Series([f"c{n % 3}" for n in span], dtype=pl.Enum(["c0", "c1", "c2"])), "nothing": [None] * ROWS,
        "decimal": pl.Series([Decimal(n).scaleb(-2) for n in span], dtype=pl.Decimal(38, 2)),
        "list": [list(range(n % 4)) for n in span], "array": pl.Series([[n, n] for n in span], dtype=pl.Array(pl.Int64, 2)),
        "pair": [{"a": n, "b": [str(n)]} for n in span],
    })
    write("types", frame)
    write("types-old", frame, use_pyarrow=False, statistics="full", data_page_size=100)
    write("empty", frame.clear())
    write("no-columns", pl.DataFrame())
    write("floats", pl.DataFrame({"i": range(6), "f": [1.0, math.nan, 1.0, -0.0, math.inf, None]}))
    write("all-nan", pl.DataFrame({"f": [math.nan, math.nan]}))
    for codec in ["uncompressed", "snappy", "gzip", "brotli", "zstd", "lz4"]:
        write(f"codec-{codec}", pl.DataFrame({"i": range(300), "t": [f"text {n % 9}" for n in range(300)]}), compression=codec)
    write("groups", pl.DataFrame({"i": range(2000)}), row_group_size=300)
    pl.LazyFrame({"i": range(300)}).filter(pl.col("i") % 7 == 0).sink_parquet(folder / "sunk.parquet")


def datafusion(folder: Path) -> None:
    import datafusion as df

    context = df.SessionContext()

    def write(name: str, sql: str, options: str = "") -> None:
        path = folder / f"{name}.parquet"
        path.unlink(missing_ok=True)
        context.sql(f"COPY ({sql}) TO '{path}' STORED AS PARQUET {options}").collect()

    write("types", """
        SELECT value AS i, arrow_cast(value % 100, 'Int8') AS i8, arrow_cast(value, 'UInt64') AS u64, value / 7.0 AS f64,
            arrow_cast(value, 'Float16') AS f16, value % 2 = 0 AS b, concat('text ', value % 5) AS t,
            arrow_cast(concat('view ', value), 'Utf8View') AS v, arrow_cast(value, 'Decimal128(38, 10)') AS d38,
            arrow_cast(value, 'Decimal128(9, 2)') AS d9, arrow_cast(value, 'Timestamp(Nanosecond, None)') AS at_ns,
            arrow_cast(value, 'Timestamp(Second, Some("+02:00"))') AS at_tz, arrow_cast(value, 'Date32') AS day,
            arrow_cast(value, 'Time64(Nanosecond)') AS clock, arrow_cast(concat('x', value), 'Binary') AS bytes,
            arrow_cast(concat('d', value % 3), 'Dictionary(Int32, Utf8)') AS dictionary, CASE WHEN value % 3 = 0 THEN value END AS some,
            make_array(value, NULL) AS list, named_struct('a', value, 'b', concat('x', value)) AS pair,
            map(make_array('k'), make_array(value)) AS pairs
        FROM range(60)""")
    write("empty", "SELECT value AS i, 'x' AS t FROM range(1) WHERE value > 5")
    write("floats", "SELECT * FROM (VALUES (1, 1.0), (2, 'nan'::double), (3, -0.0), (4, NULL)) AS t(i, f)")
    for codec in ["uncompressed", "snappy", "gzip(6)", "brotli(4)", "zstd(3)", "lz4", "lz4_raw"]:
        write(f"codec-{codec.partition('(')[0]}", "SELECT value AS i, concat('text ', value % 9) AS t FROM range(300)",
              f"OPTIONS ('format.compression' '{codec}')")
    write("bloom", "SELECT value AS i, concat('t', value) AS t FROM range(300)",
          "OPTIONS ('format.bloom_filter_on_write' 'true', 'format.writer_version' '2.0')")
    write("groups", "SELECT value AS i FROM range(2000)", "OPTIONS ('format.max_row_group_size' '300')")


def fastparquet(folder: Path) -> None:
    import fastparquet as fp
    import numpy as np
    import pandas as pd

    def write(name: str, frame: Any, **options: Any) -> None:
        fp.write(str(folder / f"{name}.parquet"), frame, **options)

    frame = pd.DataFrame({
        "i": np.arange(60), "i8": np.arange(60, dtype="int8"), "u32": np.arange(60, dtype="uint32"), "f": np.arange(60) / 7,
        "f32": (np.arange(60) / 7).astype("float32"), "b": np.arange(60) % 2 == 0,
        "t": pd.Series([None if n % 4 == 3 else f"text {n % 5}" for n in range(60)], dtype="object"),
        "at": pd.date_range("2026-01-01", periods=60, freq="h"), "category": pd.Categorical([f"c{n % 3}" for n in range(60)]),
        "nullable": pd.array([None if n % 4 == 3 else n for n in range(60)], dtype="Int64"),
        "bytes": pd.Series([bytes([n, 255]) for n in range(60)], dtype="object"),
    })
    write("types", frame, object_encoding={"t": "utf8", "bytes": "bytes"})
    write("int96", frame[["i", "at"]], times="int96")
    write("groups", frame[["i", "f"]], row_group_offsets=[0, 20, 40])
    write("index", frame[["i", "f"]].set_index("f"), write_index=True)
    write("empty", frame.iloc[:0], object_encoding={"t": "utf8", "bytes": "bytes"})
    for codec in ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4", "LZ4_RAW"]:
        write(f"codec-{codec.lower()}", frame[["i", "f"]], compression=codec)


# What stricter readers reject, and damage ------------------------------------------------------------


def fields(b: bytes, at: int, path: tuple[int, ...] = (), seen: dict[tuple[int, ...], tuple[int, int]] | None = None) -> tuple[
    dict[tuple[int, ...], tuple[int, int]], int
]:
    """Where each value of a Thrift struct begins, by its path; and where the struct ends."""
    seen = {} if seen is None else seen

    def skip(ty: int, at: int, path: tuple[int, ...]) -> int:
        seen[path] = (ty, at)
        if ty in (1, 2):
            return at
        if ty == 3:
            return at + 1
        if ty in (4, 5, 6):
            return varint(b, at)[1]
        if ty == 7:
            return at + 8
        if ty == 8:
            length, at = varint(b, at)
            return at + length
        if ty == 9:
            size, element, at = b[at] >> 4, b[at] & 15, at + 1
            if size == 15:
                size, at = varint(b, at)
            for index in range(size):
                at = skip(element, at, (*path, index))
            return at
        assert ty == 12, ty
        return fields(b, at, path, seen)[1]

    field = 0
    while b[at]:
        ty, delta, at = b[at] & 15, b[at] >> 4, at + 1
        if delta:
            field += delta
        else:
            field, at = zigzag(b, at), varint(b, at)[1]
        at = skip(ty, at, (*path, field))
    return seen, at + 1


def footer(whole: bytes) -> tuple[int, dict[tuple[int, ...], tuple[int, int]]]:
    """Where a file's footer begins, and its values."""
    at = len(whole) - 8 - int(struct.unpack("<I", whole[-8:-4])[0])
    return at, fields(whole, at)[0]


def edges(folder: Path) -> None:
    import duckdb
    import fastparquet as fp
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    none = pa.table({"a": [], "b": []}, schema)
    two = pa.table({"a": [1, 2], "b": ["x", "y"]}, schema)

    def groups(name: str, *tables: Any) -> bytes:
        path = folder / f"{name}.parquet"
        with pq.ParquetWriter(path, schema, compression="none", store_schema=False) as writer:
            writer.add_key_value_metadata({"note": "????", "dbt_invocation_id": "1234"} if name == "plain" else {})
            for table in tables:
                writer.write_table(table)
        return path.read_bytes()

    groups("empty-group", none)
    groups("empty-group-first", none, two)
    groups("empty-group-last", two, none)
    groups("empty-group-between", two, none, two)
    groups("no-group")
    no_rows = {"a": pd.Series([], dtype="int64"), "b": pd.Series([], dtype="object")}
    fp.write(str(folder / "fastparquet-empty.parquet"), pd.DataFrame(no_rows))

    whole = groups("plain", two)
    (folder / "plain.parquet").unlink()
    _, seen = footer(whole)

    def patched(name: str, at: int, byte: int) -> None:
        (folder / f"{name}.parquet").write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])

    (folder / "metadata-not-utf8.parquet").write_bytes(whole.replace(b"????", b"\xff\xfe??"))
    # FileMetaData.schema[2].converted_type: UTF8 becomes 24, which nobody knows.
    patched("converted-type-24", seen[2, 2, 6][1], 24 * 2)
    # row_groups[0].columns[0].meta_data.size_statistics' histogram: a list of I64 becomes one of I16.
    lists = [at for path, (ty, at) in seen.items() if path[:5] == (4, 0, 1, 0, 3) and ty == 9 and whole[at] & 15 == 6]
    patched("list-of-i16", lists[0], whole[lists[0]] & 0xF0 | 4)

    # Statistics of column a that say 100 to 100 and no NULL; DuckDB finds no row in the file that is 1.
    for_damage = pa.table({"a": [1, 2, None], "b": ["x", "y", None]}, schema)
    damaged = bytearray(groups("statistics-wrong", for_damage))
    _, seen = footer(bytes(damaged))
    for path, (ty, at) in seen.items():
        if path[:4] == (4, 0, 1, 0) and path[4:6] == (3, 12):
            if ty == 8 and path[6:] in [(1,), (2,), (5,), (6,)]:  # max, min, max_value, min_value
                damaged[at + 1] = 100
            if path[6:] == (3,):  # null_count
                damaged[at] = 0
    (folder / "statistics-wrong.parquet").write_bytes(damaged)
    # A Bloom filter in which nothing is: DuckDB finds no row in the file.
    bloom = folder / "bloom-wrong.parquet"
    duckdb.sql(f"COPY (SELECT i % 50 AS r, 'text ' || i % 50 AS t FROM range(4000) t(i)) TO '{bloom}' (FORMAT parquet)")
    damaged = bytearray(bloom.read_bytes())
    _, seen = footer(bytes(damaged))
    for column in range(2):
        _, at = seen[4, 0, 1, column, 3, 14]
        offset = zigzag(damaged, at)
        header, begins = fields(bytes(damaged), offset)
        size = zigzag(damaged, header[1,][1])
        damaged[begins : begins + size] = bytes(size)
    bloom.write_bytes(damaged)
    # The filter's header is damaged: DuckDB cannot ask the file for a value.
    _, at = seen[4, 0, 1, 0, 3, 14]
    damaged[zigzag(damaged, at)] = 0xFF
    (folder / "bloom-header-wrong.parquet").write_bytes(damaged)

    # DuckDB's VARIANT with a letter of its footer changed, in the schema and beside the values alike:
    # DuckDB has an INTERNAL error.
    internal = folder / "internal-error.parquet"
    duckdb.sql(f"COPY (SELECT {{'a': i}}::VARIANT v FROM range(3) t(i)) TO '{internal}' (FORMAT parquet)")
    whole = internal.read_bytes()
    end, _ = footer(whole)
    internal.write_bytes(whole[:end] + whole[end:].replace(b"metadata", b"metadatX"))
    # In the schema alone: its footer contradicts itself.
    at = whole.index(b"metadata", end)
    (folder / "contradiction.parquet").write_bytes(whole[: at + 7] + b"X" + whole[at + 8 :])
    # Pages that do not decode, below a footer that does.
    damaged = bytearray(groups("pages-damaged", pa.table({"a": range(500), "b": [f"text {n}" for n in range(500)]}, schema)))
    damaged[8:400] = b"\xff" * 392
    (folder / "pages-damaged.parquet").write_bytes(damaged)


def varint(b: bytes | bytearray, at: int) -> tuple[int, int]:
    """A number of Thrift's compact protocol, and where it ends."""
    value = shift = 0
    while True:
        value |= (b[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not b[at - 1] & 0x80:
            return value, at


def zigzag(b: bytes | bytearray, at: int) -> int:
    value, _ = varint(b, at)
    return (value >> 1) ^ -(value & 1)
