"""From values of PostgreSQL to Python's objects and back."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import ipaddress
import json
import struct
import uuid
from collections.abc import Callable
from typing import Annotated, Any

from ..types import (
    INFINITY,
    NEGATIVE_INFINITY,
    Array,
    Bits,
    Composite,
    Infinity,
    Interval,
    Json,
    Jsonb,
    MacAddr,
    Money,
    Multirange,
    Oid,
    Other,
    Range,
)
from .bincode import Codec, Reader, Violation, write_signed, write_text, write_unsigned
from .values import ExactReader, Kind, Value, write_exact

# PostgreSQL's type of a kind's values, where there is one.
_OIDS = {
    Kind.BOOL: 16,
    Kind.INT2: 21,
    Kind.INT4: 23,
    Kind.INT8: 20,
    Kind.FLOAT4: 700,
    Kind.FLOAT8: 701,
    Kind.NUMERIC: 1700,
    Kind.TEXT: 25,
    Kind.BYTEA: 17,
    Kind.DATE: 1082,
    Kind.TIME: 1083,
    Kind.TIMETZ: 1266,
    Kind.TIMESTAMP: 1114,
    Kind.TIMESTAMPTZ: 1184,
    Kind.INTERVAL: 1186,
    Kind.UUID: 2950,
    Kind.JSON: 114,
    Kind.JSONB: 3802,
    Kind.INET: 869,
    Kind.CIDR: 650,
    Kind.MACADDR: 829,
    Kind.BIT: 1562,
    Kind.OID: 26,
    Kind.MONEY: 790,
}
# The range and the multirange over a type.
_RANGES = {23: 3904, 1700: 3906, 1114: 3908, 1184: 3910, 1082: 3912, 20: 3926}
_MULTIRANGES = {23: 4451, 1700: 4532, 1114: 4533, 1184: 4534, 1082: 4535, 20: 4536}
# Numbers of different kinds in one list take the kind that can hold them all.
_NUMBERS = (Kind.INT2, Kind.INT4, Kind.INT8, Kind.NUMERIC, Kind.FLOAT8)

_DAY_ZERO = datetime.date(2000, 1, 1).toordinal()
_EPOCH = datetime.datetime(2000, 1, 1)
_EPOCH_UTC = _EPOCH.replace(tzinfo=datetime.timezone.utc)
_MICROSECOND = datetime.timedelta(microseconds=1)
_DAY = 86_400_000_000
_I32 = (-(1 << 31), (1 << 31) - 1)
_I64 = (-(1 << 63), (1 << 63) - 1)
# What stands for infinity among values of a kind.
_INFINITE = {
    kind: {"-infinity": low, "infinity": high}
    for kind, (low, high) in (
        (Kind.DATE, _I32),
        (Kind.TIMESTAMP, _I64),
        (Kind.TIMESTAMPTZ, _I64),
    )
}


def _infinity(number: int, limits: tuple[int, int]) -> Infinity | None:
    if number == limits[1]:
        return INFINITY
    return NEGATIVE_INFINITY if number == limits[0] else None


def _date(days: int) -> Any:
    try:
        return datetime.date.fromordinal(_DAY_ZERO + days)
    except (ValueError, OverflowError):
        return _infinity(days, _I32) or Value(Kind.DATE, days)


def _timestamp(kind: Kind, epoch: datetime.datetime) -> Callable[[int], Any]:
    def convert(micros: int) -> Any:
        try:
            return epoch + datetime.timedelta(microseconds=micros)
        except OverflowError:
            return _infinity(micros, _I64) or Value(kind, micros)

    return convert


def _time(micros: int, zone: datetime.tzinfo | None = None) -> datetime.time:
    seconds, micros = divmod(micros, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return datetime.time(hour, minute, second, micros, zone)


def _plain_time(micros: int) -> Any:
    return _time(micros) if 0 <= micros < _DAY else Value(Kind.TIME, micros)


def _zoned_time(data: tuple[int, int]) -> Any:
    micros, offset = data
    if not 0 <= micros < _DAY or not -86_400 < offset < 86_400:
        return Value(Kind.TIMETZ, data)
    return _time(micros, datetime.timezone(datetime.timedelta(seconds=offset)))


def _interval(data: tuple[int, int, int]) -> Any:
    if data == (_I32[1], _I32[1], _I64[1]):
        return INFINITY
    if data == (_I32[0], _I32[0], _I64[0]):
        return NEGATIVE_INFINITY
    return Interval(*data)


def _inet(text: str) -> Any:
    return ipaddress.ip_interface(text) if "/" in text else ipaddress.ip_address(text)


def _bits(data: tuple[int, bytes]) -> Bits:
    length, raw = data
    if length > 8 * len(raw):
        raise Violation("a bit string is longer than its bytes")
    return Bits("".join(format(byte, "08b") for byte in raw)[:length])


def _array(data: Any) -> list[Any]:
    _, dims, values = data
    lengths = [length for length, _ in dims]
    size = 1 if dims else 0
    for length in lengths:
        size *= length
    if size != len(values):
        raise Violation("an array has not as many values as its dimensions say")
    items = [to_python(value) for value in values]
    for length in reversed(lengths[1:]):
        items = [items[start : start + length] for start in range(0, len(items), length)]
    return items


def _range(oid: int, data: Any) -> Range:
    empty, (low, lower), (high, upper) = data
    return Range(
        to_python(lower) if low else None,
        to_python(upper) if high else None,
        ("[" if low == 1 else "(") + ("]" if high == 1 else ")") if not empty else "[)",
        empty,
        oid,
    )


_TO_PYTHON: dict[Kind, Callable[[Any], Any]] = {
    Kind.NUMERIC: decimal.Decimal,
    Kind.DATE: _date,
    Kind.TIME: _plain_time,
    Kind.TIMETZ: _zoned_time,
    Kind.TIMESTAMP: _timestamp(Kind.TIMESTAMP, _EPOCH),
    Kind.TIMESTAMPTZ: _timestamp(Kind.TIMESTAMPTZ, _EPOCH_UTC),
    Kind.INTERVAL: _interval,
    Kind.UUID: lambda raw: uuid.UUID(bytes=raw),
    Kind.JSON: json.loads,
    Kind.JSONB: json.loads,
    Kind.INET: _inet,
    Kind.CIDR: ipaddress.ip_network,
    Kind.MACADDR: MacAddr,
    Kind.BIT: _bits,
    Kind.OID: Oid,
    Kind.MONEY: Money,
    Kind.ARRAY: _array,
    Kind.RANGE: lambda data: _range(*data),
    Kind.MULTIRANGE: lambda data: Multirange([_range(data[0], each) for each in data[1]], data[0]),
    Kind.COMPOSITE: lambda data: Composite(data[0], tuple(map(to_python, data[1]))),
    Kind.OTHER: lambda data: Other(data[0], data[2], data[1]),
}


def to_python(value: Value) -> Any:
    """The Python object of a value. What Python cannot hold, for instance a date before the year 1,
    stays a `Value`."""
    convert = _TO_PYTHON.get(value.kind)
    if convert is None:
        return value.data
    try:
        return convert(value.data)
    except (ValueError, ArithmeticError, RecursionError):
        return value


_F64 = struct.Struct("<d")


class PythonReader(Reader):
    """Reads values as Python objects."""

    __slots__ = ()

    def value(self) -> Any:
        return to_python(ExactReader.value(self))  # type: ignore[arg-type]

    def rows(self) -> list[Any]:
        return [self._row() for _ in range(self.count())]

    def _row(self) -> list[Any]:
        # The kinds that most columns have are read here, without a call for each.
        row: list[Any] = []
        append = row.append
        data = self.data
        for _ in range(self.count()):
            pos = self.pos
            try:
                kind = data[pos]
                if 2 <= kind <= 4 and data[pos + 1] < 251:
                    zigzag = data[pos + 1]
                    append((zigzag >> 1) ^ -(zigzag & 1))
                    self.pos = pos + 2
                elif 2 <= kind <= 4:
                    self.pos = pos + 1
                    append(self.signed(1 << (kind - 1)))
                elif kind == 8 and data[pos + 1] < 251:
                    end = pos + 2 + data[pos + 1]
                    if end > len(data):
                        raise Violation("the message ends inside a value")
                    append(data[pos + 2 : end].decode())
                    self.pos = end
                elif kind == 0:
                    append(None)
                    self.pos = pos + 1
                elif kind == 6:
                    append(_F64.unpack_from(data, pos + 1)[0])
                    self.pos = pos + 9
                else:
                    append(self.value())
            except (IndexError, struct.error):
                raise Violation("the message ends inside a value") from None
            except UnicodeDecodeError:
                raise Violation("a string is not valid UTF-8") from None
        return row


def _integer_value(number: int) -> Value:
    if _I32[0] <= number <= _I32[1]:
        return Value(Kind.INT4, number)
    if _I64[0] <= number <= _I64[1]:
        return Value(Kind.INT8, number)
    return Value(Kind.NUMERIC, str(number))


def _decimal_value(number: decimal.Decimal) -> Value:
    if number.is_nan():
        return Value(Kind.NUMERIC, "NaN")
    return Value(Kind.NUMERIC, format(number, "f") if number.is_finite() else str(number))


def _datetime_value(moment: datetime.datetime) -> Value:
    if moment.tzinfo is None:
        return Value(Kind.TIMESTAMP, (moment - _EPOCH) // _MICROSECOND)
    return Value(Kind.TIMESTAMPTZ, (moment - _EPOCH_UTC) // _MICROSECOND)


def _time_value(time: datetime.time) -> Value:
    seconds = (time.hour * 60 + time.minute) * 60 + time.second
    micros = seconds * 1_000_000 + time.microsecond
    if time.tzinfo is None:
        return Value(Kind.TIME, micros)
    offset = time.utcoffset()
    if offset is None:
        raise TypeError("the offset of this time depends on a date; give it a datetime.timezone")
    return Value(Kind.TIMETZ, (micros, offset // datetime.timedelta(seconds=1)))


def _bits_value(bits: Bits) -> Value:
    size = (len(bits) + 7) // 8
    raw = int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")
    return Value(Kind.BIT, (len(bits), raw))


def _json_text(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _flatten(items: Any, lengths: list[int], depth: int, out: list[Any]) -> None:
    """Collects the elements of nested lists row by row, and checks that they are a rectangle."""
    if depth == len(lengths):
        if isinstance(items, list):
            raise ValueError("the lists of an array are nested to different depths")
        out.append(items)
        return
    if not isinstance(items, list) or len(items) != lengths[depth]:
        raise ValueError("the lists of an array have different lengths")
    for item in items:
        _flatten(item, lengths, depth + 1, out)


def _array_parts(items: list[Any]) -> tuple[list[int], list[Value]]:
    lengths = []
    inner: Any = items
    while isinstance(inner, list):
        lengths.append(len(inner))
        inner = inner[0] if inner else None
    flat: list[Any] = []
    _flatten(items, lengths, 0, flat)
    return lengths if flat else [], [to_value(item) for item in flat]


def element_oid(value: Value) -> int:
    """PostgreSQL's type of a value, or 0 if the value does not tell."""
    if value.kind == Kind.RANGE:
        return _RANGES.get(value.data[0], 0)
    if value.kind == Kind.MULTIRANGE:
        return _MULTIRANGES.get(value.data[0], 0)
    if value.kind in (Kind.COMPOSITE, Kind.OTHER):
        return int(value.data[0])
    if value.kind == Kind.MACADDR and len(value.data) == 8:
        return 774
    return _OIDS.get(value.kind, 0)


def _common(values: list[Value]) -> tuple[int, list[Value]]:
    """The type of all values, and the values in that type; 0 if all are null."""
    present = {value.kind for value in values if value.kind != Kind.NULL}
    if len(present) > 1 and present <= set(_NUMBERS):
        widest = max(present, key=_NUMBERS.index)
        values = [_widen(value, widest) for value in values]
    if len(present) == 2 and Kind.TEXT in present:
        # An infinity has no type of its own.
        (kind,) = present - {Kind.TEXT}
        infinite = _INFINITE.get(kind, {})
        values = [
            Value(kind, infinite[value.data])
            if value.kind == Kind.TEXT and value.data in infinite
            else value
            for value in values
        ]
    oids = {element_oid(value) for value in values if value.kind != Kind.NULL}
    if len(oids) > 1:
        raise TypeError("the elements of an array have different types")
    return (oids.pop() if oids else 0), values


def _widen(value: Value, kind: Kind) -> Value:
    if value.kind in (Kind.NULL, kind):
        return value
    if kind == Kind.FLOAT8:
        return Value(kind, float(value.data))
    return Value(kind, str(value.data) if kind == Kind.NUMERIC else value.data)


def _list_value(items: list[Any]) -> Value:
    lengths, values = _array_parts(items)
    if all(value.kind in (Kind.NULL, Kind.TEXT) for value in values):
        # As with a single str, the type is up to PostgreSQL: it may be text[], uuid[], an enum's.
        return Value(Kind.TEXT, _array_text(lengths, values))
    oid, values = _common(values)
    return Value(Kind.ARRAY, (oid, [(length, 1) for length in lengths], values))


def _array_text(lengths: list[int], values: list[Value]) -> str:
    parts = ["NULL" if value.kind == Kind.NULL else _quoted(value.data) for value in values]
    for length in reversed(lengths):
        starts = range(0, len(parts), length)
        parts = ["{" + ",".join(parts[start : start + length]) + "}" for start in starts]
    return parts[0] if parts else "{}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _array_value(array: Array) -> Value:
    lengths, values = _array_parts(list(array.values))
    lower = array.lower_bounds or (1,) * len(lengths)
    if len(lower) != len(lengths):
        raise ValueError("an array has one lower bound for each dimension")
    return Value(Kind.ARRAY, (array.element_oid, list(zip(lengths, lower, strict=True)), values))


def _range_data(each: Range) -> Any:
    lower = to_value(each.lower) if each.lower is not None and not each.empty else None
    upper = to_value(each.upper) if each.upper is not None and not each.empty else None
    return (
        each.empty,
        ((1 if each.bounds[0] == "[" else 2) if lower else 0, lower),
        ((1 if each.bounds[1] == "]" else 2) if upper else 0, upper),
    )


def _same_bounds(ranges: list[Range]) -> tuple[int, list[Any]]:
    """The type of the bounds of all ranges, and the ranges as data; 0 if no bound tells."""
    data = [_range_data(each) for each in ranges]
    bounds = [bound for _, low, high in data for _, bound in (low, high) if bound is not None]
    oid, widened = _common(bounds)
    rest = iter(widened)
    return oid, [
        (empty, *((kind, next(rest) if kind else None) for kind, _ in (low, high)))
        for empty, low, high in data
    ]


def _range_value(each: Range) -> Value:
    oid, data = _same_bounds([each])
    oid = each.element_oid or oid
    if oid:
        return Value(Kind.RANGE, (oid, data[0]))
    return Value(Kind.TEXT, "empty" if each.empty else "(,)")


def _multirange_value(ranges: Multirange) -> Value:
    oid, data = _same_bounds(list(ranges))
    oid = ranges.element_oid or next((r.element_oid for r in ranges if r.element_oid), 0) or oid
    if oid:
        return Value(Kind.MULTIRANGE, (oid, data))
    return Value(Kind.TEXT, "{(,)}" if any(not r.empty for r in ranges) else "{}")


_TO_VALUE: dict[type, Callable[[Any], Value]] = {
    Value: lambda value: value,
    type(None): lambda _: Value(Kind.NULL),
    bool: lambda value: Value(Kind.BOOL, value),
    int: _integer_value,
    float: lambda number: Value(Kind.FLOAT8, float(number)),
    decimal.Decimal: _decimal_value,
    str: lambda text: Value(Kind.TEXT, str(text)),
    bytes: lambda data: Value(Kind.BYTEA, data),
    bytearray: lambda data: Value(Kind.BYTEA, bytes(data)),
    memoryview: lambda data: Value(Kind.BYTEA, bytes(data)),
    datetime.datetime: _datetime_value,
    datetime.date: lambda date: Value(Kind.DATE, date.toordinal() - _DAY_ZERO),
    datetime.time: _time_value,
    datetime.timedelta: lambda delta: Value(Kind.INTERVAL, Interval.from_timedelta(delta)),
    uuid.UUID: lambda value: Value(Kind.UUID, value.bytes),
    dict: lambda data: Value(Kind.JSONB, _json_text(data)),
    list: _list_value,
    ipaddress.IPv4Address: lambda address: Value(Kind.INET, str(address)),
    ipaddress.IPv6Address: lambda address: Value(Kind.INET, str(address)),
    ipaddress.IPv4Network: lambda network: Value(Kind.CIDR, str(network)),
    ipaddress.IPv6Network: lambda network: Value(Kind.CIDR, str(network)),
    Infinity: lambda end: Value(Kind.TEXT, "infinity" if end.sign > 0 else "-infinity"),
    Interval: lambda interval: Value(Kind.INTERVAL, interval),
    Oid: lambda oid: Value(Kind.OID, int(oid)),
    Money: lambda amount: Value(Kind.MONEY, int(amount)),
    Bits: _bits_value,
    MacAddr: lambda address: Value(Kind.MACADDR, bytes(address)),
    Json: lambda wrapper: Value(Kind.JSON, _json_text(wrapper.data)),
    Jsonb: lambda wrapper: Value(Kind.JSONB, _json_text(wrapper.data)),
    Array: _array_value,
    Range: _range_value,
    Multirange: _multirange_value,
    Composite: lambda row: Value(Kind.COMPOSITE, (row.type_oid, [*map(to_value, row.fields)])),
    Other: lambda other: Value(Kind.OTHER, (other.type_oid, other.binary, other.data)),
}


def to_value(item: Any) -> Value:
    """The value of a Python object.

    Raises `TypeError` if PostgreSQL has nothing like it.
    """
    for kind in type(item).__mro__:
        convert = _TO_VALUE.get(kind)
        if convert is not None:
            return convert(item)
    raise TypeError(
        f"no type of PostgreSQL is like {type(item).__name__}; a str is taken for every type"
    )


def _write_int(out: bytearray, number: int) -> None:
    if _I32[0] <= number <= _I32[1]:
        out.append(Kind.INT4)
        write_signed(out, number)
    else:
        write_exact(out, _integer_value(number))


def _write_str(out: bytearray, text: str) -> None:
    out.append(Kind.TEXT)
    write_text(out, text)


_WRITE: dict[type, Callable[[bytearray, Any], None]] = {
    int: _write_int,
    str: _write_str,
    Value: write_exact,
}


def write_value(out: bytearray, item: Any) -> None:
    """Appends a Python object as a value."""
    write = _WRITE.get(type(item))
    if write is not None:
        write(out, item)
    else:
        write_exact(out, to_value(item))


def write_row(out: bytearray, row: Any) -> None:
    """Appends the values of one row behind their count."""
    write_unsigned(out, len(row))
    for item in row:
        write_value(out, item)


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows that `write_row` has written already."""

    count: int
    data: bytearray


def read_rows(reader: Reader) -> list[Any]:
    """Rows, in the form that the reader gives them."""
    return reader.rows()


def write_rows(out: bytearray, rows: Any) -> None:
    """Appends lists of Python objects, or `EncodedRows`."""
    if isinstance(rows, EncodedRows):
        write_unsigned(out, rows.count)
        out += rows.data
        return
    write_unsigned(out, len(rows))
    for row in rows:
        write_row(out, row)


AnyValue = Annotated[Any, Codec(lambda reader: reader.value(), write_value)]
Rows = Annotated[list[Any], Codec(read_rows, write_rows)]
