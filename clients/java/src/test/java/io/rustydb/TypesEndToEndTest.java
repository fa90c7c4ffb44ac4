// Values of every type, to a running server and back.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.net.InetAddress;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.OffsetTime;
import java.time.Period;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

@EnabledIfEnvironmentVariable(named = EndToEnd.URL, matches = ".+")
class TypesEndToEndTest {
    private static Client client;

    @BeforeAll
    static void connect() {
        client = EndToEnd.builder().parameter("TimeZone", "UTC").build().connect();
    }

    @AfterAll
    static void disconnect() {
        client.disconnect();
    }

    private record Case(String type, Object object, String text) {
        @Override
        public String toString() {
            return type + " " + text;
        }
    }

    /** A Java object, its PostgreSQL type, and PostgreSQL's text for it. */
    private static Stream<Case> cases() {
        return Stream.of(
                new Case("bool", true, "true"),
                new Case("int2", (short) -32768, "-32768"),
                new Case("int4", Integer.MIN_VALUE, "-2147483648"),
                new Case("int8", Long.MAX_VALUE, "9223372036854775807"),
                new Case("float4", 1.5f, "1.5"),
                new Case("float8", -2.25, "-2.25"),
                new Case("float8", Double.NaN, "NaN"),
                new Case("float8", Double.NEGATIVE_INFINITY, "-Infinity"),
                new Case("numeric", new BigDecimal("12.50"), "12.50"),
                new Case("numeric", new BigDecimal("-0.000000000000000000001"),
                        "-0.000000000000000000001"),
                new Case("text", "na\u00efve \ud83d\ude00 'quoted' \\", "na\u00efve \ud83d\ude00 "
                        + "'quoted' \\"),
                new Case("varchar", "x", "x"),
                new Case("name", "x", "x"),
                new Case("date", LocalDate.of(2026, 1, 1), "2026-01-01"),
                new Case("date", LocalDate.of(-43, 3, 15), "0044-03-15 BC"),
                new Case("date", Infinity.DATE, "infinity"),
                new Case("date", Infinity.NEGATIVE_DATE, "-infinity"),
                new Case("time", LocalTime.of(1, 2, 3, 456_789_000), "01:02:03.456789"),
                new Case("time", LocalTime.MAX, "24:00:00"),
                new Case("timetz", OffsetTime.of(1, 0, 0, 0, ZoneOffset.ofHours(2)),
                        "01:00:00+02"),
                new Case("timestamp", LocalDateTime.of(1999, 12, 31, 23, 59, 59, 999_999_000),
                        "1999-12-31 23:59:59.999999"),
                new Case("timestamp", Infinity.TIMESTAMP, "infinity"),
                new Case("timestamptz",
                        OffsetDateTime.of(2026, 1, 1, 0, 0, 0, 0, ZoneOffset.UTC),
                        "2026-01-01 00:00:00+00"),
                new Case("timestamptz", Infinity.NEGATIVE_TIMESTAMPTZ, "-infinity"),
                new Case("interval", new Value.Interval(-14, 3, -14_706_700_000L),
                        "-1 years -2 mons +3 days -04:05:06.7"),
                new Case("uuid", UUID.fromString("123e4567-e89b-12d3-a456-426614174000"),
                        "123e4567-e89b-12d3-a456-426614174000"),
                new Case("int4[]", Arrays.asList(1, null, 3), "{1,NULL,3}"),
                new Case("int8[]", List.of(List.of(1L, 2L), List.of(3L, 4L)), "{{1,2},{3,4}}"),
                new Case("text[]", Arrays.asList("a b", "", "NULL", null, "\"\\"),
                        "{\"a b\",\"\",\"NULL\",NULL,\"\\\"\\\\\"}"),
                new Case("numeric[]", List.of(new BigDecimal("1.0")), "{1.0}"),
                new Case("date[]", List.of(LocalDate.of(2026, 1, 1)), "{2026-01-01}"),
                new Case("int4[]", List.of(), "{}"));
    }

    @TestFactory
    Stream<DynamicTest> objectsGoBothWays() {
        return cases().map(it -> DynamicTest.dynamicTest(it.toString(), () -> {
            String sql = "SELECT $1::" + it.type() + " AS v, $1::" + it.type() + "::text AS t";
            try (ResultSet result = client.query(sql, it.object())) {
                assertTrue(result.next());
                assertEquals(it.text(), result.getString("t"));
                assertEquals(it.object(), result.getObject("v"));
                String text = result.getString("v");
                ResultSet again = client.query("SELECT $1::" + it.type() + " AS v", text);
                assertTrue(again.next());
                assertEquals(result.getValue("v"), again.getValue("v"));
            }
        }));
    }

    /** Values that Java has no natural type for, and PostgreSQL's text for them. */
    private static Stream<Case> values() {
        Value.RangeValue range = new Value.RangeValue(
                false, Value.Bound.inclusive(1), Value.Bound.exclusive(5));
        return Stream.of(
                new Case("bpchar", new Value.Text("ab"), "ab"),
                new Case("json", new Value.Json("{\"a\": 1}"), "{\"a\": 1}"),
                new Case("jsonb", new Value.Jsonb("[]"), "[]"),
                new Case("inet", new Value.Inet("10.0.0.1/8"), "10.0.0.1/8"),
                new Case("cidr", new Value.Cidr("10.0.0.0/8"), "10.0.0.0/8"),
                new Case("macaddr", Value.macAddr("08:00:2b:01:02:03"), "08:00:2b:01:02:03"),
                new Case("macaddr8", Value.macAddr("08:00:2b:01:02:03:04:05"),
                        "08:00:2b:01:02:03:04:05"),
                new Case("varbit", Value.Bit.of("101"), "101"),
                new Case("bit(3)", Value.Bit.of("101"), "101"),
                new Case("oid", new Value.Oid(4_294_967_295L), "4294967295"),
                new Case("money", new Value.Money(123), "$1.23"),
                new Case("int4range", new Value.Range(23, range), "[1,5)"),
                new Case("int4range", new Value.Range(23, Value.RangeValue.EMPTY), "empty"),
                new Case("int4[]", new Value.Array(23, List.of(new Value.Dimension(2, 0)),
                        List.of(new Value.Int4(7), new Value.Int4(8))), "[0:1]={7,8}"),
                new Case("point", new Value.Other(600, false, "(1,2)".getBytes()), "(1,2)"));
    }

    @TestFactory
    Stream<DynamicTest> valuesGoBothWays() {
        return values().map(it -> DynamicTest.dynamicTest(it.toString(), () -> {
            String sql = "SELECT $1::" + it.type() + " AS v, $1::" + it.type() + "::text AS t";
            try (ResultSet result = client.query(sql, it.object())) {
                assertTrue(result.next());
                assertEquals(it.text(), result.getString("t"));
                assertEquals(it.object(), result.getValue("v"));
            }
        }));
    }

    @Test
    void everyTypeHasANull() {
        for (String type : new String[] {"bool", "int4", "text", "bytea", "timestamptz",
            "interval", "uuid", "jsonb", "inet", "int4[]", "point"}) {
            ResultSet result = client.query("SELECT $1::" + type + " AS v", (Object) null);
            assertTrue(result.next());
            assertNull(result.getObject("v"));
            assertTrue(result.wasNull());
        }
    }

    @Test
    void bytesGoBothWays() {
        byte[] bytes = new byte[256];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) i;
        }
        ResultSet result = client.query("SELECT $1::bytea AS b, $2::bytea AS empty",
                bytes, new byte[0]);
        assertTrue(result.next());
        assertArrayEquals(bytes, result.getBytes("b"));
        assertArrayEquals(new byte[0], result.getBytes("empty"));
    }

    @Test
    void objectsThatAreOnlyParametersArrive() throws Exception {
        ResultSet result = client.query("SELECT $1::inet::text AS a, $2::interval::text AS b, "
                + "$3::interval::text AS c, $4::timestamptz::text AS d, $5::int4 AS e",
                InetAddress.getByName("10.0.0.1"), Duration.ofMillis(-1500), Period.of(1, 2, 3),
                Instant.parse("2000-01-01T00:00:01Z"), (byte) 3);
        assertTrue(result.next());
        assertEquals("10.0.0.1", result.getString("a").replace("/32", ""));
        assertEquals("-00:00:01.5", result.getString("b"));
        assertEquals("1 year 2 mons 3 days", result.getString("c"));
        assertEquals("2000-01-01 00:00:01+00", result.getString("d"));
        assertEquals(3, result.getInt("e"));
    }

    @Test
    void typesOfTheDatabaseItselfArrive() {
        String mood = EndToEnd.name("mood");
        String pair = EndToEnd.name("pair");
        client.queryAll("CREATE TYPE " + mood + " AS ENUM ('happy', 'sad');"
                + "CREATE TYPE " + pair + " AS (a int4, b text)");
        try {
            ResultSet result = client.query("SELECT $1::" + mood + " AS m, ROW(1, 'x')::" + pair
                    + " AS p, ARRAY['sad']::" + mood + "[] AS ms, '{[1,2),[5,6)}'::text AS t",
                    "happy");
            assertTrue(result.next());
            assertEquals("happy", result.getObject("m"));
            Value.Composite composite = (Value.Composite) result.getObject("p");
            assertEquals(List.of(new Value.Int4(1), new Value.Text("x")), composite.fields());
            assertEquals("(1,x)", result.getString("p"));
            assertEquals(List.of("sad"), result.getObject("ms"));
        } finally {
            client.queryAll("DROP TYPE " + mood + "; DROP TYPE " + pair);
        }
    }

    @Test
    void columnsAreDescribed() {
        ResultSet result = client.query("SELECT 1::int4 AS a, 'x'::varchar(7) AS b, relname "
                + "FROM pg_class LIMIT 0");
        assertEquals(0, result.size());
        List<Column> columns = result.columns();
        assertEquals("a", columns.get(0).name());
        assertEquals(23, columns.get(0).typeOid());
        assertEquals("int4", columns.get(0).typeName());
        assertEquals(4, columns.get(0).typeSize());
        assertEquals(11, columns.get(1).typeModifier());
        assertTrue(columns.get(2).tableOid() > 0);
        assertTrue(columns.get(2).columnNumber() > 0);
    }

    @Test
    void whatDoesNotFitIsAnError() {
        assertEquals("22003", assertThrows(RustyDBException.class,
                () -> client.query("SELECT $1::int2", 70_000)).getSqlState());
        assertEquals("22P02", assertThrows(RustyDBException.class,
                () -> client.query("SELECT $1::int4", "x")).getSqlState());
        ResultSet typed = client.query("SELECT $1 AS v", new Parameter("42", 23));
        assertTrue(typed.next());
        assertEquals(42, typed.getObject("v"));
    }
}
