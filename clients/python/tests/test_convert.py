"""Python's objects become values of PostgreSQL and come back."""

import datetime
import decimal
import enum
import ipaddress
import unittest
import uuid
import zoneinfo
from typing import Any

import rustydb
from rustydb import Kind, Range, Value
from rustydb._wire.bincode import Violation, write_unsigned
from rustydb._wire.convert import PythonReader, to_python, to_value, write_row, write_value
from rustydb._wire.values import write_exact

UTC = datetime.timezone.utc


class Colour(enum.IntEnum):
    RED = 3


# What comes back is equal, and of the kind stated.
ROUND_TRIPS: list[tuple[Any, Kind]] = [
    (None, Kind.NULL),
    (True, Kind.BOOL),
    (0, Kind.INT4),
    (-(2**31), Kind.INT4),
    (2**31, Kind.INT8),
    (-(2**63), Kind.INT8),
    (1.5, Kind.FLOAT8),
    (decimal.Decimal("12.50"), Kind.NUMERIC),
    (decimal.Decimal("-Infinity"), Kind.NUMERIC),
    ("é\U0001f600", Kind.TEXT),
    ("", Kind.TEXT),
    (b"\xde\xad", Kind.BYTEA),
    (datetime.date(2026, 1, 1), Kind.DATE),
    (datetime.date(1, 1, 1), Kind.DATE),
    (datetime.date(9999, 12, 31), Kind.DATE),
    (datetime.time(23, 59, 59, 999999), Kind.TIME),
    (
        datetime.time(1, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=-2))),
        Kind.TIMETZ,
    ),
    (datetime.datetime(1999, 12, 31, 23, 59, 59, 999999), Kind.TIMESTAMP),
    (datetime.datetime(2026, 1, 1, tzinfo=UTC), Kind.TIMESTAMPTZ),
    (rustydb.Interval(1, -2, 3_000_000), Kind.INTERVAL),
    (uuid.UUID("123e4567-e89b-12d3-a456-426614174000"), Kind.UUID),
    ({"a": [1, None, "é"]}, Kind.JSONB),
    (ipaddress.ip_interface("10.0.0.1/8"), Kind.INET),
    (ipaddress.ip_address("::1"), Kind.INET),
    (ipaddress.ip_network("10.0.0.0/8"), Kind.CIDR),
    (rustydb.MacAddr.parse("08:00:2b:01:02:03"), Kind.MACADDR),
    (rustydb.Bits("101"), Kind.BIT),
    (rustydb.Bits("111111110"), Kind.BIT),
    (rustydb.Bits(""), Kind.BIT),
    (rustydb.Oid(2**32 - 1), Kind.OID),
    (rustydb.Money(-100), Kind.MONEY),
    ([1, None, 3], Kind.ARRAY),
    ([[1, 2], [3, 4], [5, 6]], Kind.ARRAY),
    (Range(1, 5), Kind.RANGE),
    (Range(None, 5, "(]"), Kind.RANGE),
    (Range(decimal.Decimal("1.5"), None), Kind.RANGE),
    (rustydb.Multirange([Range(1, 5), Range(7, None)]), Kind.MULTIRANGE),
    (rustydb.Composite(16400, (1, "a", None)), Kind.COMPOSITE),
    (rustydb.Other(600, b"(1,2)"), Kind.OTHER),
]


def through_the_wire(item: Any) -> Any:
    out = bytearray()
    write_unsigned(out, 1)
    write_row(out, [item])
    (row,) = PythonReader(bytes(out)).rows()
    (value,) = row
    reader = PythonReader(bytes(out[2:]))
    assert repr(reader.value()) == repr(value), "both readers understand the same"
    reader.finish()
    return value


class ConvertTest(unittest.TestCase):
    def test_round_trips(self) -> None:
        for item, kind in ROUND_TRIPS:
            with self.subTest(item):
                self.assertEqual(to_value(item).kind, kind)
                back = through_the_wire(item)
                self.assertEqual(back, item)
                if kind not in (Kind.INET, Kind.CIDR):
                    self.assertIs(type(back), type(item))

    def test_what_becomes_something_else(self) -> None:
        cases: list[tuple[Any, Any]] = [
            (2**63, decimal.Decimal(2**63)),
            (bytearray(b"x"), b"x"),
            (memoryview(b"x"), b"x"),
            (Colour.RED, 3),
            (datetime.timedelta(days=-1, hours=-2), rustydb.Interval(0, -1, -7_200_000_000)),
            (datetime.timedelta(hours=25), rustydb.Interval(0, 1, 3_600_000_000)),
            (rustydb.Jsonb([1]), [1]),
            (rustydb.Json("x"), "x"),
            (["a", None, 'b "\\'], '{"a",NULL,"b \\"\\\\"}'),
            ([["a", "b"], ["c", None]], '{{"a","b"},{"c",NULL}}'),
            (rustydb.Array(["a"], 25), ["a"]),
            ([], "{}"),
            ([None, None], "{NULL,NULL}"),
            ([[None], [None]], "{{NULL},{NULL}}"),
            ([1, 2**40, None], [1, 2**40, None]),
            ([1, decimal.Decimal("0.5")], [decimal.Decimal(1), decimal.Decimal("0.5")]),
            ([1, 0.5], [1.0, 0.5]),
            (rustydb.INFINITY, "infinity"),
            (-rustydb.INFINITY, "-infinity"),
            (
                [datetime.date(2026, 1, 1), rustydb.INFINITY, None],
                [datetime.date(2026, 1, 1), rustydb.INFINITY, None],
            ),
            (
                Range(datetime.datetime(2026, 1, 1, tzinfo=UTC), rustydb.INFINITY),
                Range(datetime.datetime(2026, 1, 1, tzinfo=UTC), rustydb.INFINITY),
            ),
            (Range(), "(,)"),
            (Range(empty=True), "empty"),
            (rustydb.Multirange(), "{}"),
            (decimal.Decimal("1E+3"), decimal.Decimal("1000")),
            (
                datetime.datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
                datetime.datetime(2026, 7, 1, 10, tzinfo=UTC),
            ),
        ]
        for item, expected in cases:
            with self.subTest(item):
                self.assertEqual(through_the_wire(item), expected)
        self.assertTrue(through_the_wire(decimal.Decimal("NaN")).is_nan())

    def test_types_of_elements(self) -> None:
        cases: list[tuple[Any, int]] = [
            ([1, 2], 23),
            ([1, 2**40], 20),
            ([[1.5]], 701),
            ([datetime.date(2026, 1, 1), None], 1082),
            ([Range(1, 2)], 3904),
            ([rustydb.Composite(16400, (1,))], 16400),
            ([rustydb.MacAddr(bytes(8))], 774),
        ]
        for items, oid in cases:
            with self.subTest(items):
                self.assertEqual(to_value(items).data[0], oid)
        self.assertEqual(to_value(Range(1, 2**40)).data[0], 20)

    def test_lower_bounds(self) -> None:
        value = to_value(rustydb.Array([[1, 2]], 23, (0, -1)))
        self.assertEqual(value.data[1], [(1, 0), (2, -1)])
        self.assertEqual(to_python(value), [[1, 2]])

    def test_what_has_no_place(self) -> None:
        out = bytearray()
        for item in [object(), (1, 2), 1j, {1, 2}]:
            with self.subTest(item), self.assertRaises(TypeError):
                write_value(out, item)
        for item in [[[1], [2, 3]], [[1], 2], [1, [2]], [["a"], []]]:
            with self.subTest(item), self.assertRaises(ValueError):
                write_value(out, item)
        for item in [[1, "a"], ["a", datetime.date(2026, 1, 1)]]:
            with self.subTest(item), self.assertRaises(TypeError):
                write_value(out, item)
        for value in [Value(Kind.INT2, 2**15), Value(Kind.OID, -1), Value(Kind.DATE, 2**31)]:
            with self.subTest(value), self.assertRaises(OverflowError):
                write_exact(out, value)
        with self.assertRaises(TypeError):
            to_value(datetime.time(1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")))
        with self.assertRaises(ValueError):
            rustydb.Bits("102")
        with self.assertRaises(ValueError):
            Range(1, 2, "[[")

    def test_what_python_cannot_hold(self) -> None:
        for value in [
            Value(Kind.DATE, -2_000_000),
            Value(Kind.TIME, 86_400_000_000),
            Value(Kind.TIMETZ, (86_400_000_000, 0)),
            Value(Kind.TIMESTAMP, 2**62),
            Value(Kind.TIMESTAMPTZ, -(2**62)),
            Value(Kind.JSON, "[" * 100_000 + "]" * 100_000),
            Value(Kind.JSON, "1" * 5000),
        ]:
            with self.subTest(value.kind):
                self.assertEqual(to_python(value), value)
                self.assertEqual(through_the_wire(value), value)

    def test_infinity(self) -> None:
        low, high = rustydb.NEGATIVE_INFINITY, rustydb.INFINITY
        for kind, smallest, largest in [
            (Kind.DATE, -(2**31), 2**31 - 1),
            (Kind.TIMESTAMP, -(2**63), 2**63 - 1),
            (Kind.TIMESTAMPTZ, -(2**63), 2**63 - 1),
            (
                Kind.INTERVAL,
                (-(2**31), -(2**31), -(2**63)),
                (2**31 - 1, 2**31 - 1, 2**63 - 1),
            ),
        ]:
            with self.subTest(kind):
                self.assertIs(to_python(Value(kind, smallest)), low)
                self.assertIs(to_python(Value(kind, largest)), high)
        self.assertLess(low, datetime.date(1, 1, 1))
        self.assertGreater(high, datetime.date(9999, 12, 31))
        self.assertLess(low, high)
        self.assertFalse(high < high)
        self.assertIs(-low, high)

    def test_an_array_must_have_the_size_it_says(self) -> None:
        one = Value(Kind.INT4, 1)
        for dims in [[(3, 1)], [(2**31, 1), (2**31, 1)], []]:
            with self.subTest(dims), self.assertRaises(Violation):
                to_python(Value(Kind.ARRAY, (23, dims, [one, one])))
        with self.assertRaises(Violation):
            to_python(Value(Kind.BIT, (9, b"\xff")))

    def test_interval_as_timedelta(self) -> None:
        delta = datetime.timedelta(days=-3, hours=5)
        self.assertEqual(rustydb.Interval.from_timedelta(delta).to_timedelta(), delta)
        with self.assertRaises(ValueError):
            rustydb.Interval(1, 0, 0).to_timedelta()


if __name__ == "__main__":
    unittest.main()
