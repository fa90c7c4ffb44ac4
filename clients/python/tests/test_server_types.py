"""Every type both ways, with a running server. PostgreSQL itself compares."""

import datetime
import decimal
import ipaddress
import unittest
import uuid
from typing import Any

import rustydb
from rustydb import Interval, Kind, Multirange, Range, Value

from .server import ServerTest

UTC = datetime.timezone.utc
EAST = datetime.timezone(datetime.timedelta(hours=2))
Decimal = decimal.Decimal


def instant(*parts: int) -> datetime.datetime:
    return datetime.datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


# Type, PostgreSQL's text, and the same in Python.
CASES: list[tuple[str, str, Any]] = [
    ("bool", "true", True),
    ("bool", "false", False),
    ("int2", "-32768", -32768),
    ("int4", "2147483647", 2147483647),
    ("int8", "-9223372036854775808", -(2**63)),
    ("float4", "1.5", 1.5),
    ("float8", "-2.25", -2.25),
    ("float8", "Infinity", float("inf")),
    ("numeric", "12.50", Decimal("12.50")),
    ("numeric", "-0.000000000000000000001", Decimal("-0.000000000000000000001")),
    ("numeric", "1" * 50, Decimal("1" * 50)),
    ("text", "é\U0001f600 ''\\", "é\U0001f600 ''\\"),
    ("varchar(5)", "abc", "abc"),
    ("bpchar(5)", "abc  ", "abc  "),
    ("name", "n", "n"),
    ('"char"', "c", "c"),
    ("xml", "<a/>", "<a/>"),
    ("bytea", "\\xdead00", b"\xde\xad\x00"),
    ("bytea", "\\x", b""),
    ("date", "2026-01-01", datetime.date(2026, 1, 1)),
    ("date", "infinity", rustydb.INFINITY),
    ("date", "4713-01-01 BC", Value(Kind.DATE, -2451507)),
    ("time", "23:59:59.999999", datetime.time(23, 59, 59, 999999)),
    ("time", "24:00:00", Value(Kind.TIME, 86_400_000_000)),
    (
        "timetz",
        "01:00:00+02",
        datetime.time(1, tzinfo=EAST),
    ),
    ("timestamp", "1999-12-31 23:59:59.5", datetime.datetime(1999, 12, 31, 23, 59, 59, 500_000)),
    ("timestamp", "-infinity", rustydb.NEGATIVE_INFINITY),
    ("timestamptz", "2026-01-01 00:00:00+00", instant(2026, 1, 1)),
    ("interval", "1 mon 2 days 00:00:03", Interval(1, 2, 3_000_000)),
    ("interval", "-1 mons -2 days -00:00:03", Interval(-1, -2, -3_000_000)),
    (
        "uuid",
        "123e4567-e89b-12d3-a456-426614174000",
        uuid.UUID("123e4567-e89b-12d3-a456-426614174000"),
    ),
    ("jsonb", '{"a": [1, null, "é"]}', {"a": [1, None, "é"]}),
    ("inet", "10.0.0.1/8", ipaddress.ip_interface("10.0.0.1/8")),
    ("inet", "::1", ipaddress.ip_address("::1")),
    ("cidr", "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
    ("macaddr", "08:00:2b:01:02:03", rustydb.MacAddr.parse("08:00:2b:01:02:03")),
    ("macaddr8", "08:00:2b:01:02:03:04:05", rustydb.MacAddr.parse("08:00:2b:01:02:03:04:05")),
    ("bit(3)", "101", rustydb.Bits("101")),
    ("varbit", "1010101011", rustydb.Bits("1010101011")),
    ("oid", "4294967295", rustydb.Oid(2**32 - 1)),
    ("int4[]", "{1,NULL,3}", [1, None, 3]),
    ("int4[]", "{}", []),
    ("int4[]", "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
    ("int2[]", "{1,2}", [1, 2]),
    ("int8[]", "{1,2}", [1, 2]),
    ("text[]", '{a,"b c",NULL,"\\"","NULL"}', ["a", "b c", None, '"', "NULL"]),
    (
        "uuid[]",
        "{123e4567-e89b-12d3-a456-426614174000}",
        [uuid.UUID(int=0x123E4567E89B12D3A456426614174000)],
    ),
    ("numeric[]", "{1.5,2}", [Decimal("1.5"), Decimal(2)]),
    ("date[]", "{2026-01-01}", [datetime.date(2026, 1, 1)]),
    ("int4range", "[1,5)", Range(1, 5)),
    ("int4range", "empty", Range(empty=True)),
    ("int4range", "(,5)", Range(None, 5, "()")),
    ("numrange", "(1.5,2.5]", Range(Decimal("1.5"), Decimal("2.5"), "(]")),
    ("tstzrange", '["2026-01-01 00:00:00+00",)', Range(instant(2026, 1, 1), None)),
    ("int4multirange", "{[1,5),[7,9)}", Multirange([Range(1, 5), Range(7, 9)])),
    ("point", "(1,2)", rustydb.Other(600, b"(1,2)")),
    ("tsvector", "'a' 'b'", rustydb.Other(3614, b"'a' 'b'")),
    ("pg_lsn", "16/B374D848", rustydb.Other(3220, b"16/B374D848")),
]


class TypesTest(ServerTest):
    def test_from_postgresql(self) -> None:
        for kind, text, expected in CASES:
            with self.subTest(kind, text=text):
                literal = text.replace("'", "''")
                value = self.client.query(f"SELECT '{literal}'::{kind}").scalar()
                self.assertEqual(value, expected)
                if not isinstance(value, (ipaddress._IPAddressBase, type(expected))):
                    self.fail(f"{value!r} is no {type(expected).__name__}")

    def test_to_postgresql(self) -> None:
        # Compared as text: not every type has an operator for it.
        for kind, text, value in CASES:
            with self.subTest(kind, text=text):
                literal = text.replace("'", "''")
                row = self.client.query(
                    f"SELECT ($1::{kind})::text AS got, ('{literal}'::{kind})::text AS expected",
                    [value],
                ).one()
                self.assertEqual(row["got"], row["expected"])

    def test_text_is_taken_for_every_type(self) -> None:
        for kind, text, expected in CASES:
            with self.subTest(kind, text=text):
                value = self.client.query(f"SELECT $1::{kind}", [text]).scalar()
                self.assertEqual(value, expected)

    def test_null_of_every_type(self) -> None:
        for kind in sorted({kind for kind, _, _ in CASES}):
            with self.subTest(kind):
                self.assertIsNone(self.client.query(f"SELECT $1::{kind}", [None]).scalar())

    def test_prepared_statements(self) -> None:
        for kind, text, value in CASES:
            with self.subTest(kind, text=text):
                with self.client.prepare(f"SELECT $1::{kind}") as statement:
                    self.assertEqual(statement.query([value]).scalar(), value)

    def test_columns_of_a_table(self) -> None:
        """What goes into a table, as a parameter and as a load, comes out of it."""
        kinds = [kind for kind, _, _ in CASES]
        columns = [f"c{n}" for n in range(len(kinds))]
        declared = ", ".join(f"{c} {k}" for c, k in zip(columns, kinds, strict=True))
        values = [value for _, _, value in CASES]
        with self.table(f"id int4, {declared}") as table:
            marks = ", ".join(f"${n + 2}" for n in range(len(kinds)))
            self.client.execute(f"INSERT INTO {table} VALUES ($1, {marks})", [1, *values])
            nothing = [None] * len(kinds)
            self.client.bulk_insert(table, ["id", *columns], [[2, *values], [3, *nothing]])
            result = self.client.query(f"SELECT * FROM {table} ORDER BY id")
            streamed = list(self.client.stream(f"SELECT * FROM {table} ORDER BY id"))
        self.assertEqual(list(result), streamed)
        for row, expected in zip(result, [values, values, nothing], strict=True):
            for kind, got, value in zip(kinds, row[1:], expected, strict=True):
                with self.subTest(kind, id=row[0]):
                    self.assertEqual(got, value)

    def test_types_of_ones_own(self) -> None:
        enum, composite = self.name("_e"), self.name("_c")
        self.client.query(
            f"CREATE TYPE {enum} AS ENUM ('red', 'blue');"
            f"CREATE TYPE {composite} AS (a int4, b text, c {enum})"
        )
        try:
            self.assertEqual(self.client.query(f"SELECT $1::{enum}", ["blue"]).scalar(), "blue")
            labels = self.client.query(f"SELECT $1::{enum}[]", [["red", "blue"]]).scalar()
            self.assertEqual(labels, ["red", "blue"])
            sql = f"SELECT ROW(1, 'x, y', 'red')::{composite}"
            value = self.client.query(sql).scalar()
            self.assertEqual(value.fields, (1, "x, y", "red"))
            self.assertEqual(self.client.query(f"SELECT $1::{composite}", [value]).scalar(), value)
            self.assertEqual(
                self.client.query(f"SELECT $1::{composite}[]", [[value, None]]).scalar(),
                [value, None],
            )
        finally:
            self.client.query(f"DROP TYPE {composite}; DROP TYPE {enum}")

    def test_json_and_money(self) -> None:
        self.assertEqual(self.client.query("SELECT '[1, 2]'::json").scalar(), [1, 2])
        self.assertEqual(self.client.query("SELECT $1::json", [rustydb.Json([1])]).scalar(), [1])
        self.assertEqual(self.client.query("SELECT $1::jsonb", [rustydb.Jsonb([])]).scalar(), [])
        money = self.client.query("SELECT 12.34::numeric::money").scalar()
        self.assertEqual((money, type(money)), (1234, rustydb.Money))
        self.assertEqual(self.client.query("SELECT $1::money", [money]).scalar(), money)

    def test_values_out_of_range(self) -> None:
        with self.refused("22003"):
            self.client.query("SELECT $1::int2", [2**20])
        with self.refused("22P02"):
            self.client.query("SELECT $1::int4", ["x"])


if __name__ == "__main__":
    unittest.main()
