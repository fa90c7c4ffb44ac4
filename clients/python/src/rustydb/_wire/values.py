"""Values of PostgreSQL exactly as they travel.

`Value` keeps the variant that was sent; what Python makes of it is the matter of `convert`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from .bincode import (
    MAX_NESTING,
    Reader,
    Violation,
    too_large,
    write_counted,
    write_signed,
    write_text,
    write_unsigned,
)


class Kind(enum.IntEnum):
    """The variants of a value, by their numbers on the wire."""

    NULL = 0
    BOOL = 1
    INT2 = 2
    INT4 = 3
    INT8 = 4
    FLOAT4 = 5
    FLOAT8 = 6
    NUMERIC = 7
    TEXT = 8
    BYTEA = 9
    DATE = 10
    TIME = 11
    TIMETZ = 12
    TIMESTAMP = 13
    TIMESTAMPTZ = 14
    INTERVAL = 15
    UUID = 16
    JSON = 17
    JSONB = 18
    INET = 19
    CIDR = 20
    MACADDR = 21
    BIT = 22
    OID = 23
    MONEY = 24
    ARRAY = 25
    RANGE = 26
    MULTIRANGE = 27
    COMPOSITE = 28
    OTHER = 29


class Value(NamedTuple):
    """A value of one variant, for what a Python object cannot say: `Value(Kind.INT2, 5)`.

    The data is a number for numbers, dates (days since 2000-01-01), times and timestamps
    (microseconds), money and OIDs; text for NUMERIC, TEXT, JSON, JSONB, INET and CIDR; bytes for
    BYTEA, UUID and MACADDR. The others have a tuple: TIMETZ (microseconds, seconds east of UTC),
    INTERVAL (months, days, microseconds), BIT (number of bits, bytes), ARRAY (OID of the
    elements, dimensions as (length, lower bound), values), RANGE (OID of the bounds,
    (empty, lower, upper)) where a bound is (0 unbounded, 1 inclusive or 2 exclusive, value),
    MULTIRANGE (OID, ranges), COMPOSITE (OID, values), OTHER (OID, whether binary, bytes).
    """

    kind: Kind
    data: Any = None


_F32 = struct.Struct("<f")
_F64 = struct.Struct("<d")


class ExactReader(Reader):
    """Reads values as `Value`."""

    __slots__ = ()

    def value(self) -> Value:
        number = self.byte()
        if number >= len(_READ):
            raise Violation(f"a value has no variant {number}")
        return Value(_KINDS[number], _READ[number](self))

    def rows(self) -> list[Any]:
        return [[self.value() for _ in range(self.count())] for _ in range(self.count())]


def _read_bool(reader: Reader) -> bool:
    byte = reader.byte()
    if byte > 1:
        raise Violation("a boolean is neither 0 nor 1")
    return byte == 1


def _exact(reader: Reader) -> Value:
    """Reads a value that lies inside another one."""
    if reader.depth >= MAX_NESTING:
        raise too_large("values are nested deeper than 32 levels")
    reader.depth += 1
    value = ExactReader.value(reader)  # type: ignore[arg-type]
    reader.depth -= 1
    return value


def _read_array(reader: Reader) -> Any:
    oid = reader.unsigned(4)
    dims = [(reader.unsigned(4), reader.signed(4)) for _ in range(reader.count())]
    return oid, dims, [_exact(reader) for _ in range(reader.count())]


def _read_bound(reader: Reader) -> tuple[int, Value | None]:
    kind = reader.unsigned(4)
    if kind > 2:
        raise Violation(f"a bound has no variant {kind}")
    return kind, _exact(reader) if kind else None


def _read_range(reader: Reader) -> Any:
    return _read_bool(reader), _read_bound(reader), _read_bound(reader)


def _bytes(reader: Reader) -> bytes:
    return reader.raw(reader.count())


# What follows the number of the variant, in the order of `Kind`.
_READ: list[Callable[[Reader], Any]] = [
    lambda reader: None,
    _read_bool,
    lambda reader: reader.signed(2),
    lambda reader: reader.signed(4),
    lambda reader: reader.signed(8),
    lambda reader: _F32.unpack(reader.raw(4))[0],
    lambda reader: _F64.unpack(reader.raw(8))[0],
    Reader.text,
    Reader.text,
    _bytes,
    lambda reader: reader.signed(4),
    lambda reader: reader.signed(8),
    lambda reader: (reader.signed(8), reader.signed(4)),
    lambda reader: reader.signed(8),
    lambda reader: reader.signed(8),
    lambda reader: (reader.signed(4), reader.signed(4), reader.signed(8)),
    lambda reader: reader.raw(16),
    Reader.text,
    Reader.text,
    Reader.text,
    Reader.text,
    _bytes,
    lambda reader: (reader.unsigned(4), _bytes(reader)),
    lambda reader: reader.unsigned(4),
    lambda reader: reader.signed(8),
    _read_array,
    lambda reader: (reader.unsigned(4), _read_range(reader)),
    lambda reader: (
        reader.unsigned(4),
        [_read_range(reader) for _ in range(reader.count())],
    ),
    lambda reader: (reader.unsigned(4), [_exact(reader) for _ in range(reader.count())]),
    lambda reader: (reader.unsigned(4), _read_bool(reader), _bytes(reader)),
]
_KINDS = list(Kind)


def _limited(name: str, bits: int, signed: bool) -> Callable[[bytearray, int], None]:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    append = write_signed if signed else write_unsigned

    def write(out: bytearray, value: int) -> None:
        if not low <= value <= high:
            raise OverflowError(f"{value} is out of range for {name}")
        append(out, value)

    return write


_i32 = _limited("a 32-bit integer", 32, True)
_i64 = _limited("a 64-bit integer", 64, True)
_u32 = _limited("an unsigned 32-bit integer", 32, False)


def _write_pair(
    first: Callable[[bytearray, Any], None], second: Callable[[bytearray, Any], None]
) -> Callable[[bytearray, Any], None]:
    def write(out: bytearray, data: Any) -> None:
        first(out, data[0])
        second(out, data[1])

    return write


def _write_interval(out: bytearray, data: Any) -> None:
    _i32(out, data[0])
    _i32(out, data[1])
    _i64(out, data[2])


def _write_uuid(out: bytearray, data: bytes) -> None:
    if len(data) != 16:
        raise ValueError("a UUID has 16 bytes")
    out += data


def _write_values(out: bytearray, values: Any) -> None:
    write_unsigned(out, len(values))
    for value in values:
        write_exact(out, value)


def _write_array(out: bytearray, data: Any) -> None:
    oid, dims, values = data
    _u32(out, oid)
    write_unsigned(out, len(dims))
    for length, lower in dims:
        _u32(out, length)
        _i32(out, lower)
    _write_values(out, values)


def _write_range(out: bytearray, data: Any) -> None:
    empty, *bounds = data
    out.append(1 if empty else 0)
    for kind, value in bounds:
        write_unsigned(out, kind)
        if kind:
            write_exact(out, value)


def _write_ranges(out: bytearray, ranges: Any) -> None:
    write_unsigned(out, len(ranges))
    for each in ranges:
        _write_range(out, each)


def _write_other(out: bytearray, data: Any) -> None:
    oid, binary, raw = data
    _u32(out, oid)
    out.append(1 if binary else 0)
    write_counted(out, raw)


_WRITE: list[Callable[[bytearray, Any], None]] = [
    lambda out, data: None,
    lambda out, data: out.append(1 if data else 0),
    _limited("int2", 16, True),
    _limited("int4", 32, True),
    _limited("int8", 64, True),
    lambda out, data: out.extend(_F32.pack(data)),
    lambda out, data: out.extend(_F64.pack(data)),
    write_text,
    write_text,
    write_counted,
    _i32,
    _i64,
    _write_pair(_i64, _i32),
    _i64,
    _i64,
    _write_interval,
    _write_uuid,
    write_text,
    write_text,
    write_text,
    write_text,
    write_counted,
    _write_pair(_u32, write_counted),
    _u32,
    _i64,
    _write_array,
    _write_pair(_u32, _write_range),
    _write_pair(_u32, _write_ranges),
    _write_pair(_u32, _write_values),
    _write_other,
]


def write_exact(out: bytearray, value: Value) -> None:
    """Appends a `Value`; raises `OverflowError` for a number that its variant cannot hold."""
    kind, data = value
    out.append(kind)
    _WRITE[kind](out, data)
