"""Parameters as JSON, each with the type that Python's duckdb would bind it as.

JSON alone has no dates, and all its integers are one. The type matters: `DATE + INTEGER` is a date,
`DATE + BIGINT` is an error.
"""

import datetime as dt
import math
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from .errors import QueryError

Params = Mapping[str, Any] | Sequence[Any] | None

# The types that duckdb gives an int, by what fits, and the digits that each needs as a DECIMAL.
INTEGERS = [
    ("INTEGER", -(2**31), 2**31 - 1, 10),
    ("BIGINT", -(2**63), 2**63 - 1, 19),
    ("UBIGINT", 0, 2**64 - 1, 20),
    ("HUGEINT", -(2**127), 2**127 - 1, 38),
    ("UHUGEINT", 0, 2**128 - 1, 38),
]
MAX_DECIMAL_DIGITS = 38


def encode(params: Params) -> tuple[Any, dict[str, str]]:
    """`params` and `types` of a request."""
    if params is None:
        return None, {}
    types: dict[str, str] = {}

    def one(name: str, value: object) -> Any:
        try:
            ty, json = _list(value) if isinstance(value, list | tuple) else _scalar(value)
        except (TypeError, ValueError) as error:
            raise QueryError(f"parameter ${name} {error}", slug="bad-request") from error
        if ty is not None:
            types[name] = ty
        return json

    if isinstance(params, Mapping):
        return {name: one(name, value) for name, value in params.items()}, types
    if isinstance(params, str | bytes):
        raise TypeError("params must be a mapping of names, or a list, of values")
    return [one(str(place), value) for place, value in enumerate(params, 1)], types


def _scalar(value: object) -> tuple[str | None, Any]:
    """DuckDB's type, or none where martd finds it by itself, and the JSON value."""
    if value is None or isinstance(value, bool):
        return None, value
    if isinstance(value, str):
        return None, str.__str__(value)  # also of an enumeration
    ty, text = _typed(value)
    if ty in ("INTEGER", "BIGINT"):
        return (ty if ty == "INTEGER" else None), int(text)
    if ty == "DOUBLE" and isinstance(value, float) and math.isfinite(value):
        return None, float(value)
    return ty, text


def _typed(value: object) -> tuple[str, str]:
    """DuckDB's type of a value, and the text that DuckDB casts to it."""
    match value:
        case bool():
            return "BOOLEAN", str(value).lower()
        case int():
            for name, low, high, _ in INTEGERS:
                if low <= value <= high:
                    return name, str(int(value))
            raise ValueError("is an integer of more than 128 bits")
        case float():
            return "DOUBLE", repr(float(value))
        case str():
            return "VARCHAR", str.__str__(value)
        case Decimal():
            return _decimal(value)
        case uuid.UUID():
            return "UUID", str(value)
        case dt.datetime():
            if value.utcoffset() is None:
                return "TIMESTAMP", value.isoformat(" ")
            try:
                value = value.astimezone(dt.timezone.utc)
            except OverflowError:  # in the year 1 or 9999, which DuckDB can pass and Python cannot
                pass
            return "TIMESTAMPTZ", value.isoformat(" ")
        case dt.date():
            return "DATE", value.isoformat()
        case dt.time():
            if value.tzinfo is not None:
                raise TypeError("is a time with a time zone; send a text, and cast it to TIMETZ")
            return "TIME", value.isoformat()
        case dt.timedelta():
            text = f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
            return "INTERVAL", text
        case bytes() | bytearray() | memoryview():
            return "BLOB", "".join(f"\\x{byte:02X}" for byte in bytes(value))
    raise TypeError(
        f"is a {type(value).__name__}; use None, bool, int, float, str, Decimal, UUID, date, "
        "datetime, time, timedelta, bytes, or a list of them"
    )


def _decimal(value: Decimal) -> tuple[str, str]:
    parts = value.as_tuple()
    if not isinstance(parts.exponent, int):
        return "FLOAT", str(value).lower()  # as duckdb does with NaN and infinities
    scale = max(0, -parts.exponent)
    width = len(parts.digits) + max(0, parts.exponent)
    if scale > width:
        width = scale + 1  # as duckdb counts: the 0 before the point too
    if width > MAX_DECIMAL_DIGITS:
        return "DOUBLE", repr(float(value))
    return f"DECIMAL({width},{scale})", f"{value:f}"


def _list(values: Sequence[object]) -> tuple[str | None, Any]:
    if any(isinstance(value, list | tuple) for value in values):
        raise TypeError("is a list in a list; use a list of scalars")
    typed = [None if value is None else _typed(value) for value in values]
    ty: str | None = None
    for item in typed:
        if item is not None:
            ty = item[0] if ty is None else _unify(ty, item[0])
    if ty is None:
        return None, list(values)
    # As texts, because they have a form for every value, and the elements of a list share one type.
    return f"{ty}[]", [_as(ty, item) for item in typed]


def _as(ty: str, item: tuple[str, str] | None) -> str | None:
    if item is None:
        return None
    if item[0] == "BOOLEAN" and ty in _RANK and ty != "BOOLEAN":
        return str(int(item[1] == "true"))
    return item[1]


_RANK = {"BOOLEAN": -1} | {name: rank for rank, (name, *_) in enumerate(INTEGERS)}
_MOMENTS = ["DATE", "TIMESTAMP", "TIMESTAMPTZ"]


def _unify(a: str, b: str) -> str:
    """The type that holds both, as in a list of duckdb's."""
    if a == b:
        return a
    if a in _RANK and b in _RANK:
        return _wider_integer(a, b)
    if a in _MOMENTS and b in _MOMENTS:
        return max(a, b, key=_MOMENTS.index)
    decimals = [_width_and_scale(ty) for ty in (a, b)]
    if all(decimals):
        (width, scale), (other_width, other_scale) = filter(None, decimals)
        scale, whole = max(scale, other_scale), max(width - scale, other_width - other_scale)
        return f"DECIMAL({min(whole + scale, MAX_DECIMAL_DIGITS)},{scale})"
    numbers = [ty for ty in (a, b) if ty in (*_RANK, "DOUBLE", "FLOAT") or "(" in ty]
    if len(numbers) == 2:
        return "DOUBLE"
    if "VARCHAR" in (a, b):
        # A text is cast to a UUID; all else, to a text.
        return "UUID" if "UUID" in (a, b) else "VARCHAR"
    raise TypeError(f"is a list of different types, {a} and {b}; use one type")


def _wider_integer(a: str, b: str) -> str:
    wide, narrow = sorted((a, b), key=_RANK.__getitem__, reverse=True)
    if wide == "UBIGINT" and narrow in ("INTEGER", "BIGINT"):
        return "HUGEINT"  # one may be negative
    if wide == "UHUGEINT" and narrow != "BOOLEAN":
        return "DOUBLE"
    return wide


def _width_and_scale(ty: str) -> tuple[int, int] | None:
    for name, _, _, digits in INTEGERS:
        if ty == name:
            return digits, 0
    if not ty.startswith("DECIMAL("):
        return None
    width, scale = ty.removeprefix("DECIMAL(").removesuffix(")").split(",")
    return int(width), int(scale)
