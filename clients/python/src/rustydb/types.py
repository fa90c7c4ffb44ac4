"""Types for values of PostgreSQL that Python has no type of its own for."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ._wire.values import Kind, Value

__all__ = [
    "INFINITY",
    "NEGATIVE_INFINITY",
    "Array",
    "Bits",
    "Composite",
    "Infinity",
    "Interval",
    "Json",
    "Jsonb",
    "Kind",
    "MacAddr",
    "Money",
    "Multirange",
    "Oid",
    "Other",
    "Range",
    "Value",
]


@functools.total_ordering
class Infinity:
    """A date, timestamp or interval that is later, or earlier, than every other one. There are
    two objects of this type, `INFINITY` and `NEGATIVE_INFINITY`."""

    __slots__ = ("sign",)

    def __init__(self, sign: int):
        self.sign = sign

    def __neg__(self) -> Infinity:
        return NEGATIVE_INFINITY if self.sign > 0 else INFINITY

    def __eq__(self, other: object) -> bool:
        return self is other

    def __lt__(self, other: object) -> bool:
        return self.sign < 0 and self is not other

    def __hash__(self) -> int:
        return hash(("Infinity", self.sign))

    def __repr__(self) -> str:
        return "rustydb.INFINITY" if self.sign > 0 else "rustydb.NEGATIVE_INFINITY"


INFINITY = Infinity(1)
NEGATIVE_INFINITY = Infinity(-1)


class Interval(NamedTuple):
    """An interval. Months and days have no fixed length, so the three parts stay apart."""

    months: int = 0
    days: int = 0
    microseconds: int = 0

    def to_timedelta(self) -> datetime.timedelta:
        """The interval as a `timedelta`, a day being 24 hours.

        Raises `ValueError` if there are months, and `OverflowError` beyond what Python can hold.
        """
        if self.months:
            raise ValueError("months have no fixed length")
        return datetime.timedelta(days=self.days, microseconds=self.microseconds)

    @classmethod
    def from_timedelta(cls, delta: datetime.timedelta) -> Interval:
        """The interval of a `timedelta`; both parts have its sign."""
        if delta < datetime.timedelta(0):
            _, days, microseconds = cls.from_timedelta(-delta)
            return cls(0, -days, -microseconds)
        return cls(0, delta.days, delta.seconds * 1_000_000 + delta.microseconds)


class Oid(int):
    """An object identifier (`oid`, `regclass`, `xid` …), 0 to 2^32 - 1."""

    __slots__ = ()


class Money(int):
    """An amount of `money` in the currency's smallest unit, for instance cents."""

    __slots__ = ()


class Bits(str):
    """A `bit` or `varbit` string, as zeros and ones."""

    __slots__ = ()

    def __new__(cls, bits: str) -> Bits:
        """Raises `ValueError` if there is anything but zeros and ones."""
        if bits.strip("01"):
            raise ValueError("a bit string consists of 0 and 1")
        return super().__new__(cls, bits)


class MacAddr(bytes):
    """A hardware address of 6 bytes (`macaddr`) or 8 bytes (`macaddr8`)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> MacAddr:
        """The address of text as `08:00:2b:01:02:03`."""
        return cls(bytes.fromhex(text.replace(":", "").replace("-", "")))

    def __str__(self) -> str:
        return self.hex(":")

    def __repr__(self) -> str:
        return f"MacAddr.parse({str(self)!r})"


@dataclasses.dataclass(frozen=True, slots=True)
class Json:
    """A parameter of type `json`: anything that `json.dumps` takes."""

    data: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Jsonb:
    """A parameter of type `jsonb`: anything that `json.dumps` takes. A dict needs no wrapper."""

    data: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """An array parameter whose element type cannot be told from the elements, or whose lower
    bounds are not 1. A list needs no wrapper otherwise."""

    values: Sequence[Any]
    element_oid: int
    lower_bounds: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """A range; a bound that is None is unbounded.

    `bounds` is `[)`, `[]`, `()` or `(]`. `element_oid` is the OID of the bounds' type; without it
    the bounds of a parameter decide. Discrete ranges come from PostgreSQL as `[)`.
    """

    lower: Any = None
    upper: Any = None
    bounds: str = "[)"
    empty: bool = False
    element_oid: int | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if len(self.bounds) != 2 or self.bounds[0] not in "[(" or self.bounds[1] not in "])":
            raise ValueError("the bounds of a range are [), [], () or (]")


class Multirange(tuple[Range, ...]):
    """A multirange: a tuple of ranges with the OID of the bounds' type, if that is known."""

    element_oid: int | None

    def __new__(cls, ranges: Iterable[Range] = (), element_oid: int | None = None) -> Multirange:
        self = super().__new__(cls, ranges)
        self.element_oid = element_oid
        return self

    def __repr__(self) -> str:
        return f"Multirange({list(self)!r})"


@dataclasses.dataclass(frozen=True, slots=True)
class Composite:
    """A row as a value: the OID of its type (2249 if it has none) and its fields."""

    type_oid: int
    fields: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Other:
    """A value of a type that the protocol has no variant for, as PostgreSQL writes it: its text
    form, or its binary one if `binary`."""

    type_oid: int
    data: bytes
    binary: bool = False

    def __str__(self) -> str:
        return self.data.decode() if not self.binary else self.data.hex()
