"""Makes the files of this folder: such as DuckDB and pyarrow both read, and stricter readers do not.

python make.py        (duckdb 1.5, pyarrow, pandas, fastparquet from PyPI)
"""

import pathlib
import struct

import duckdb
import fastparquet
import pandas
import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.string())])
NONE = pa.table({"a": [], "b": []}, SCHEMA)
TWO = pa.table({"a": [1, 2], "b": ["x", "y"]}, SCHEMA)


def groups(name, *tables):
    with pq.ParquetWriter(HERE / name, SCHEMA, compression="none", store_schema=False) as writer:
        for table in tables:
            writer.write_table(table)


groups("empty-group.parquet", NONE)
groups("empty-group-first.parquet", NONE, TWO)
groups("empty-group-last.parquet", TWO, NONE)
groups("empty-group-between.parquet", TWO, NONE, TWO)
groups("no-group.parquet")
fastparquet.write(
    str(HERE / "fastparquet-empty.parquet"),
    pandas.DataFrame({"a": pandas.Series([], dtype="int64"), "b": pandas.Series([], dtype="object")}),
)


def fields(b, at, path=(), seen=None):
    """Where each value of a Thrift struct begins, by its path; and where the struct ends."""
    seen = {} if seen is None else seen

    def varint(at):
        value = shift = 0
        while True:
            value |= (b[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not b[at - 1] & 0x80:
                return value, at

    def skip(ty, at, path):
        seen[path] = (ty, at)
        if ty in (1, 2):
            return at
        if ty == 3:
            return at + 1
        if ty in (4, 5, 6):
            return varint(at)[1]
        if ty == 7:
            return at + 8
        if ty == 8:
            length, at = varint(at)
            return at + length
        if ty == 9:
            size, element, at = b[at] >> 4, b[at] & 15, at + 1
            if size == 15:
                size, at = varint(at)
            for index in range(size):
                at = skip(element, at, (*path, index))
            return at
        assert ty == 12, ty
        return fields(b, at, path, seen)[1]

    field = 0
    while b[at]:
        field += b[at] >> 4
        assert b[at] >> 4, "long form"
        at = skip(b[at] & 15, at + 1, (*path, field))
    return seen, at + 1


plain = HERE / "plain.parquet"
with pq.ParquetWriter(plain, SCHEMA, compression="none", store_schema=False) as writer:
    writer.add_key_value_metadata({"note": "????", "dbt_invocation_id": "1234"})
    writer.write_table(TWO)
whole = plain.read_bytes()
plain.unlink()
seen, _ = fields(whole, len(whole) - 8 - struct.unpack("<I", whole[-8:-4])[0])


def patched(name, at, byte):
    changed = bytearray(whole)
    changed[at] = byte
    (HERE / name).write_bytes(changed)


(HERE / "metadata-not-utf8.parquet").write_bytes(whole.replace(b"????", b"\xff\xfe??"))
# FileMetaData.schema[2].converted_type: UTF8 becomes 24, which nobody knows.
patched("converted-type-24.parquet", seen[2, 2, 6][1], 24 * 2)
# row_groups[0].columns[0].meta_data.size_statistics' histogram: a list of I64 becomes one of I16.
lists = [at for path, (ty, at) in seen.items() if path[:5] == (4, 0, 1, 0, 3) and ty == 9 and whole[at] & 15 == 6]
patched("list-of-i16.parquet", lists[0], whole[lists[0]] & 0xF0 | 4)

for file in sorted(HERE.glob("*.parquet")):
    print(file.name, file.stat().st_size, len(duckdb.sql(f"from '{file}'")), pq.read_table(file).num_rows)

# DuckDB's VARIANT with a letter of its footer changed, in the schema and beside the values alike:
# DuckDB has an INTERNAL error.
broken = HERE / "internal-error.parquet.broken"
duckdb.sql(f"copy (select {{'a': i}}::variant v from range(3) t(i)) to '{broken}' (format parquet)")
whole = broken.read_bytes()
end = len(whole) - 8 - struct.unpack("<I", whole[-8:-4])[0]
broken.write_bytes(whole[:end] + whole[end:].replace(b"metadata", b"metadatX"))
# In the schema alone: its footer contradicts itself.
at = whole.index(b"metadata", end)
(HERE / "contradiction.parquet.broken").write_bytes(whole[: at + 7] + b"X" + whole[at + 8 :])
