"""The encoding of one value of any type: bincode 2 with its standard configuration.

Little-endian; integers of more than one byte have a variable length, signed ones are zigzagged
first. The wire form of a type follows from its type hints, see `codec_of`.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

_T = TypeVar("_T")

# Memory that the peer allows one decoded message, in bytes; a count beyond it is 54000.
MAX_DECODED = 64 << 20

# How many values may lie inside each other; deeper is 54000.
MAX_NESTING = 32


class Violation(Exception):
    """Bytes that break a rule of the protocol."""

    def __init__(self, text: str, code: str = "PROTOCOL_VIOLATION", sqlstate: str = "08P01"):
        super().__init__(text)
        self.code = code
        self.sqlstate = sqlstate


def too_large(text: str) -> Violation:
    """The violation for what is well-formed, but more than a message may hold."""
    return Violation(text, "PAYLOAD_TOO_LARGE", "54000")


class Reader:
    """Reads from the front of a message. Counts are believed only as far as there are bytes."""

    __slots__ = ("data", "depth", "pos")

    def __init__(self, data: bytes):
        self.data = data
        self.pos = 0
        self.depth = 0

    def finish(self) -> None:
        """Checks that nothing is left."""
        if self.pos != len(self.data):
            raise Violation("bytes are left over after the message")

    def byte(self) -> int:
        pos = self.pos
        if pos >= len(self.data):
            raise Violation("the message ends inside a value")
        self.pos = pos + 1
        return self.data[pos]

    def raw(self, count: int) -> bytes:
        end = self.pos + count
        if end > len(self.data):
            raise Violation("the message ends inside a value")
        part = self.data[self.pos : end]
        self.pos = end
        return part

    def unsigned(self, width: int) -> int:
        """An integer of at most `width` bytes; a longer form than needed is accepted."""
        first = self.byte()
        if first < 251:
            return first
        size = 1 << (first - 250)
        if first == 255 or size > width:
            raise Violation("an integer is longer than its type")
        return int.from_bytes(self.raw(size), "little")

    def signed(self, width: int) -> int:
        zigzag = self.unsigned(width)
        return (zigzag >> 1) ^ -(zigzag & 1)

    def count(self) -> int:
        """How many elements follow, each of at least one byte."""
        count = self.unsigned(8)
        if count > MAX_DECODED:
            raise too_large("the message takes more than 64 MiB when it is decoded")
        if count > len(self.data) - self.pos:
            raise Violation("the message ends inside a list")
        return count

    def text(self) -> str:
        raw = self.raw(self.count())
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise Violation("a string is not valid UTF-8") from None

    def value(self) -> Any:
        """A value of PostgreSQL; which form it gets is up to the subclass."""
        raise NotImplementedError

    def rows(self) -> list[Any]:
        """A list of rows, each a list of values."""
        raise NotImplementedError


def write_unsigned(out: bytearray, value: int) -> None:
    """Appends an integer of more than one byte, a count, or the number of a variant."""
    if value < 251:
        out.append(value)
    elif value < 1 << 16:
        out.append(251)
        out += value.to_bytes(2, "little")
    elif value < 1 << 32:
        out.append(252)
        out += value.to_bytes(4, "little")
    else:
        out.append(253)
        out += value.to_bytes(8, "little")


def write_signed(out: bytearray, value: int) -> None:
    """Appends a signed integer of at most 64 bits."""
    write_unsigned(out, value << 1 if value >= 0 else (-value << 1) - 1)


def write_counted(out: bytearray, data: bytes) -> None:
    """Appends bytes behind their count."""
    write_unsigned(out, len(data))
    out += data


def write_text(out: bytearray, text: str) -> None:
    """Appends text behind the count of its bytes."""
    write_counted(out, text.encode())


class Codec(NamedTuple):
    """How values of one type are read and written."""

    read: Callable[[Reader], Any]
    write: Callable[[bytearray, Any], None]


def _integer(name: str, width: int, is_signed: bool) -> Codec:
    low, high = (
        (-(1 << (8 * width - 1)), (1 << (8 * width - 1)) - 1)
        if is_signed
        else (
            0,
            (1 << (8 * width)) - 1,
        )
    )
    append = write_signed if is_signed else write_unsigned

    def write(out: bytearray, value: int) -> None:
        if not low <= value <= high:
            raise OverflowError(f"{value} is out of range for {name}")
        append(out, value)

    if is_signed:
        return Codec(lambda reader: reader.signed(width), write)
    return Codec(lambda reader: reader.unsigned(width), write)


def _read_bool(reader: Reader) -> bool:
    byte = reader.byte()
    if byte > 1:
        raise Violation("a boolean is neither 0 nor 1")
    return byte == 1


def _fixed(form: str) -> Codec:
    packer = struct.Struct(form)
    return Codec(
        lambda reader: packer.unpack(reader.raw(packer.size))[0],
        lambda out, value: out.extend(packer.pack(value)),
    )


U8 = Annotated[int, _fixed("<B")]
I8 = Annotated[int, _fixed("<b")]
U16 = Annotated[int, _integer("u16", 2, False)]
U32 = Annotated[int, _integer("u32", 4, False)]
U64 = Annotated[int, _integer("u64", 8, False)]
I16 = Annotated[int, _integer("i16", 2, True)]
I32 = Annotated[int, _integer("i32", 4, True)]
I64 = Annotated[int, _integer("i64", 8, True)]
F32 = Annotated[float, _fixed("<f")]
F64 = Annotated[float, _fixed("<d")]

_SIMPLE: dict[Any, Codec] = {
    bool: Codec(_read_bool, lambda out, value: out.append(1 if value else 0)),
    str: Codec(Reader.text, write_text),
    bytes: Codec(lambda reader: reader.raw(reader.count()), write_counted),
}


def _option(inner: Codec) -> Codec:
    def read(reader: Reader) -> Any:
        tag = reader.byte()
        if tag > 1:
            raise Violation("an option is neither absent nor present")
        return inner.read(reader) if tag else None

    def write(out: bytearray, value: Any) -> None:
        out.append(0 if value is None else 1)
        if value is not None:
            inner.write(out, value)

    return Codec(read, write)


def _list(inner: Codec) -> Codec:
    def write(out: bytearray, values: list[Any]) -> None:
        write_unsigned(out, len(values))
        for value in values:
            inner.write(out, value)

    return Codec(lambda reader: [inner.read(reader) for _ in range(reader.count())], write)


def _tuple(parts: list[Codec]) -> Codec:
    def write(out: bytearray, values: tuple[Any, ...]) -> None:
        for part, value in zip(parts, values, strict=True):
            part.write(out, value)

    return Codec(lambda reader: tuple(part.read(reader) for part in parts), write)


def _numbers(kind: type[enum.IntEnum]) -> Codec:
    def read(reader: Reader) -> enum.IntEnum:
        number = reader.unsigned(4)
        try:
            return kind(number)
        except ValueError:
            raise Violation(f"{kind.__name__} has no variant {number}") from None

    return Codec(read, write_unsigned)


def _struct(kind: type) -> Codec:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = [(field.name, codec_of(hints[field.name])) for field in dataclasses.fields(kind)]
    readers = [codec.read for _, codec in fields]

    def write(out: bytearray, value: Any) -> None:
        for name, codec in fields:
            codec.write(out, getattr(value, name))

    return Codec(lambda reader: kind(*[read(reader) for read in readers]), write)


_known: dict[Any, Codec] = {}


def codec_of(hint: Any) -> Codec:
    """The codec of a type: an integer or float of this module, `bool`, `str`, `bytes`, an
    `IntEnum`, a dataclass, or `| None`, `list`, `tuple` of them."""
    codec = _known.get(hint)
    if codec is None:
        codec = _known[hint] = _derive(hint)
    return codec


def _derive(hint: Any) -> Codec:
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Codec):
            return extra
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and arguments[1] is type(None):
        return _option(codec_of(arguments[0]))
    if origin is list:
        return _list(codec_of(arguments[0]))
    if origin is tuple:
        return _tuple([codec_of(argument) for argument in arguments])
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return _numbers(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _struct(hint)
    raise TypeError(f"{hint!r} has no place on the wire")
