"""The Python values of an Arrow answer: those that duckdb's `fetchall()` has for the same rows.

Every field says DuckDB's name of its type, because Arrow has fewer. What Python has no value for
(a date before the year 1, the time 24:00) is DuckDB's text of it, as with duckdb.
"""

import datetime as dt
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pyarrow as pa

from .errors import QueryError

try:
    import pytz

    UTC: dt.tzinfo = pytz.utc  # what duckdb's values have, which needs pytz for them
except ImportError:
    UTC = dt.timezone.utc

Values = list[Any]
Converter = Callable[[Any], Values]

NOT_IN_ARROW = ("UHUGEINT", "INTERVAL", "BIT", "BIGNUM", "TIME WITH TIME ZONE", "UNION")
"""Types that martd sends as something else, or that duckdb's Arrow has wrong."""
EPOCH = dt.datetime(1970, 1, 1)
MICROS_PER_DAY = 86_400_000_000
TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
MAX_DAYS, MAX_TICKS = 2**31 - 1, 2**63 - 1
"""Infinity; the negative of each is minus infinity."""
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
"""Days between which Python has dates."""
DAYS_OF_400_YEARS = 146_097


def rows(schema: Any, batches: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of batches that share a schema."""
    converters = [converter(field) for field in schema]
    for batch in batches:
        columns = [convert(column) for convert, column in zip(converters, batch.columns, strict=True)]
        yield from zip(*columns, strict=True)


def table(schema: Any, batches: list[Any]) -> Any:
    """The same as a table with the types of duckdb's own Arrow tables."""
    found = pa.Table.from_batches(batches, schema)
    columns = [_plain(column, field) for column, field in zip(found.columns, schema, strict=True)]
    return pa.table(columns, names=schema.names)


def column_names(schema: Any) -> list[str]:
    """The names that the statement gives; in Arrow a repeated one has a number."""
    return [(field.metadata or {}).get(b"duckdb.name", field.name.encode()).decode() for field in schema]


def duckdb_type(field: Any) -> str:
    """DuckDB's name of a field's type."""
    metadata = field.metadata or {}
    return str(metadata.get(b"duckdb.type", b"").decode())


def converter(field: Any) -> Converter:
    """What makes Python values of the arrays of a field."""
    convert = _converter(duckdb_type(field), field.type)
    if isinstance(field.type, pa.BaseExtensionType):
        return lambda array: convert(array.storage)
    return convert


def _converter(ty: str, arrow: Any) -> Converter:
    if ty in _FROM_STORAGE:
        storage, function = _FROM_STORAGE[ty]
        return lambda array: _map(function, array.view(storage))
    if ty in _FROM_VALUE:
        function = _FROM_VALUE[ty]
        return lambda array: _map(function, array)
    if pa.types.is_timestamp(arrow):
        zone = UTC if ty == "TIMESTAMP WITH TIME ZONE" else None
        per_second = TICKS_PER_SECOND[arrow.unit]
        return lambda array: _map(lambda n: _timestamp(n, per_second, zone), array.view(pa.int64()))
    if ty == "INTERVAL":
        return _intervals
    if pa.types.is_map(arrow):
        return _maps(arrow)
    if pa.types.is_fixed_size_list(arrow):
        return _arrays(arrow)
    if pa.types.is_list(arrow):
        return _lists(arrow)
    if pa.types.is_struct(arrow):
        return _structs(ty, arrow)
    if pa.types.is_union(arrow):
        return _unions(arrow)
    return lambda array: list(array.to_pylist())


def _plain(column: Any, field: Any) -> Any:
    ty = plain_type(field, field.name)
    if column.type == ty:
        return column
    try:
        if pa.types.is_nested(ty) or pa.types.is_string(ty):
            convert = converter(field)
            return pa.chunked_array([pa.array(map(_texts, convert(chunk)), ty) for chunk in column.chunks], ty)
        return column.cast(ty)
    except pa.ArrowInvalid as error:
        raise too_long_for_arrow(field.name) from error


def _texts(value: Any) -> Any:
    """A value with texts in the place of UUIDs."""
    match value:
        case uuid.UUID():
            return str(value)
        case list() | tuple():
            return [_texts(each) for each in value]
        case dict():
            return {key: _texts(each) for key, each in value.items()}
    return value


def plain_type(field: Any, column: str) -> Any:
    """The type that duckdb's own Arrow tables have; raises where there is none that says the same."""
    ty, arrow = duckdb_type(field), field.type
    if ty.startswith(NOT_IN_ARROW):
        raise not_in_arrow(column, ty)
    if ty in ("UUID", "JSON"):
        return pa.string()
    if ty == "HUGEINT":
        return pa.decimal128(38, 0)
    if pa.types.is_map(arrow):
        return pa.map_(plain_type(arrow.key_field, column), plain_type(arrow.item_field, column))
    if pa.types.is_fixed_size_list(arrow):
        return pa.list_(plain_type(arrow.value_field, column), arrow.list_size)
    if pa.types.is_list(arrow):
        return pa.list_(plain_type(arrow.value_field, column))
    if pa.types.is_struct(arrow):
        fields = [arrow.field(n) for n in range(arrow.num_fields)]
        return pa.struct([pa.field(each.name, plain_type(each, column)) for each in fields])
    return arrow


def not_in_arrow(column: str, ty: str) -> QueryError:
    """The error of a column whose values Arrow has no type for."""
    detail = f"column {column} has the type {ty}, which Arrow tables cannot have here; cast it"
    return QueryError(detail, slug="unsupported-format")


def too_long_for_arrow(column: str) -> QueryError:
    """The error of a HUGEINT that is no decimal of Arrow's."""
    detail = f"column {column} has a HUGEINT of more than 38 digits, which Arrow tables cannot have here; cast it"
    return QueryError(detail, slug="unsupported-format")


def _map(function: Callable[[Any], Any], array: Any) -> Values:
    return [None if value is None else function(value) for value in array.to_pylist()]


def _where_valid(array: Any, values: Iterable[Any]) -> Values:
    valid = array.is_valid().to_pylist()
    return [value if ok else None for value, ok in zip(values, valid, strict=True)]


def _ranges(array: Any) -> Iterable[tuple[int, int]]:
    return pairwise(array.offsets.to_pylist())


def _lists(arrow: Any) -> Converter:
    items_of = converter(arrow.value_field)

    def convert(array: Any) -> Values:
        items = items_of(array.values)
        return _where_valid(array, (items[a:b] for a, b in _ranges(array)))

    return convert


def _arrays(arrow: Any) -> Converter:
    items_of, size = converter(arrow.value_field), arrow.list_size

    def convert(array: Any) -> Values:
        items = items_of(array.values)
        return _where_valid(array, (tuple(items[n * size :][:size]) for n in range(len(array))))

    return convert


def _maps(arrow: Any) -> Converter:
    keys_of, values_of = converter(arrow.key_field), converter(arrow.item_field)
    hashable = not pa.types.is_nested(arrow.key_type)

    def entries(keys: Values, values: Values) -> dict[Any, Any]:
        if hashable:
            return dict(zip(keys, values, strict=True))
        return {"key": keys, "value": values}

    def convert(array: Any) -> Values:
        keys, values = keys_of(array.keys), values_of(array.items)
        return _where_valid(array, (entries(keys[a:b], values[a:b]) for a, b in _ranges(array)))

    return convert


def _structs(ty: str, arrow: Any) -> Converter:
    fields = [arrow.field(index) for index in range(arrow.num_fields)]
    converters = [converter(field) for field in fields]
    names = [field.name for field in fields]
    # Fields without names are numbered in Arrow. Real names of digits are quoted in the type.
    unnamed = names == [str(n) for n in range(1, len(names) + 1)] and not ty.startswith('STRUCT("1" ')

    def convert(array: Any) -> Values:
        columns = [of(array.field(index)) for index, of in enumerate(converters)]
        rows = zip(*columns, strict=True)
        if unnamed:
            return _where_valid(array, rows)
        return _where_valid(array, (dict(zip(names, row, strict=True)) for row in rows))

    return convert


def _unions(arrow: Any) -> Converter:
    converters = [converter(arrow.field(index)) for index in range(arrow.num_fields)]

    def convert(array: Any) -> Values:
        members = [of(array.field(index)) for index, of in enumerate(converters)]
        return [members[code][row] for row, code in enumerate(array.type_codes.to_pylist())]

    return convert


def _intervals(array: Any) -> Values:
    parts = zip(*(array.field(index).to_pylist() for index in range(3)), strict=True)
    return _where_valid(
        array,
        (
            None if months is None else dt.timedelta(days=months * 30 + days, microseconds=micros)
            for months, days, micros in parts
        ),
    )


@lru_cache(maxsize=1 << 16)  # the same days come again and again
def _date(days: int) -> dt.date | str:
    if abs(days) == MAX_DAYS:
        return dt.date.max if days > 0 else dt.date.min
    if not FIRST_DAY <= days <= LAST_DAY:
        return _far_date(days)
    return dt.date.fromordinal(days - FIRST_DAY + 1)


def _far_date(days: int) -> str:
    """DuckDB's text of a date that Python has none for: the calendar repeats every 400 years."""
    cycles = (days - FIRST_DAY) // DAYS_OF_400_YEARS
    near = dt.date.fromordinal(days - FIRST_DAY + 1 - cycles * DAYS_OF_400_YEARS)
    year = near.year + 400 * cycles
    era = "" if year > 0 else " (BC)"
    return f"{year if year > 0 else 1 - year:04}-{near.month:02}-{near.day:02}{era}"


def _time(micros: int) -> dt.time | str:
    if micros == MICROS_PER_DAY:
        return "24:00:00"
    return (EPOCH + dt.timedelta(microseconds=micros)).time()


def _timestamp(ticks: int, per_second: int, zone: dt.tzinfo | None) -> dt.datetime | str:
    if abs(ticks) == MAX_TICKS:
        return dt.datetime.max if ticks > 0 else dt.datetime.min  # without a zone, as duckdb does
    micros, rest = divmod(ticks * 10**6, per_second)
    if rest and ticks < 0:
        micros += 1  # duckdb cuts nanoseconds off towards 1970
    days, of_day = divmod(micros, MICROS_PER_DAY)
    if FIRST_DAY <= days <= LAST_DAY:
        return (EPOCH + dt.timedelta(microseconds=micros)).replace(tzinfo=zone)
    clock = _time(of_day)
    assert isinstance(clock, dt.time)
    text = clock.strftime("%H:%M:%S")
    if clock.microsecond:
        text += f".{clock.microsecond:06}".rstrip("0")
    return f"{_far_date(days)} {text}{'+00' if zone else ''}"


def _time_with_zone(text: str) -> dt.time | str:
    parts = re.fullmatch(r"(\d\d:\d\d:\d\d)(\.\d+)?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?", text)
    if parts is None or text.startswith("24"):
        return text
    clock, fraction, sign, hours, minutes, seconds = parts.groups()
    offset = dt.timedelta(
        hours=int(hours), minutes=int(minutes or 0), seconds=int(seconds or 0)
    )
    micros = int((fraction or ".")[1:].ljust(6, "0"))
    zone = dt.timezone(-offset if sign == "-" else offset)
    return dt.time.fromisoformat(clock).replace(microsecond=micros, tzinfo=zone)


_uuid = lru_cache(maxsize=1 << 16)(lambda number: uuid.UUID(bytes=number))

_FROM_STORAGE: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "DATE": (pa.int32(), _date),
    "TIME": (pa.int64(), _time),
    "TIME_NS": (pa.int64(), lambda nanos: _time(nanos // 1000)),
}
_FROM_VALUE: dict[str, Callable[[Any], Any]] = {
    "HUGEINT": int,
    "UHUGEINT": int,
    "UUID": _uuid,
    "TIME WITH TIME ZONE": _time_with_zone,
}
