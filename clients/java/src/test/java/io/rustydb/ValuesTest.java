// Java objects as values, values as Java objects and as text.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.OffsetTime;
import java.time.Period;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import org.junit.jupiter.api.Test;

class ValuesTest {
    private static void bothWays(Object object, Value value, String text) {
        assertEquals(value, Value.of(object));
        assertEquals(text, value.asText());
        assertEquals(object, Convert.to(value, Object.class));
        assertEquals(object, Convert.to(value, object.getClass()));
    }

    @Test
    void scalarsGoBothWays() {
        bothWays(true, new Value.Bool(true), "t");
        bothWays((short) -1, new Value.Int2((short) -1), "-1");
        bothWays(7, new Value.Int4(7), "7");
        bothWays(Long.MIN_VALUE, new Value.Int8(Long.MIN_VALUE), "-9223372036854775808");
        bothWays(1.5f, new Value.Float4(1.5f), "1.5");
        bothWays(-2.0, new Value.Float8(-2.0), "-2");
        bothWays(new BigDecimal("12.50"), new Value.Numeric("12.50"), "12.50");
        bothWays("\u00e9", new Value.Text("\u00e9"), "\u00e9");
        bothWays(UUID.fromString("123e4567-e89b-12d3-a456-426614174000"),
                new Value.Uuid(new UUID(0x123e4567e89b12d3L, 0xa456426614174000L)),
                "123e4567-e89b-12d3-a456-426614174000");
        assertEquals(new Value.Bytea(new byte[] {(byte) 0xde, (byte) 0xad}),
                Value.of(new byte[] {(byte) 0xde, (byte) 0xad}));
        assertEquals("\\xdead", new Value.Bytea(new byte[] {(byte) 0xde, (byte) 0xad}).asText());
    }

    private enum Mood { HAPPY }

    @Test
    void moreObjectsCanBeParameters() throws UnknownHostException {
        assertEquals(Value.NULL, Value.of(null));
        assertEquals(new Value.Int2((short) 3), Value.of((byte) 3));
        assertEquals(new Value.Numeric("1000"), Value.of(new BigDecimal("1E+3")));
        assertEquals(new Value.Numeric("12"), Value.of(BigInteger.valueOf(12)));
        assertEquals(new Value.Text("x"), Value.of('x'));
        assertEquals(new Value.Text("ab"), Value.of(new StringBuilder("ab")));
        assertEquals(new Value.Text("HAPPY"), Value.of(Mood.HAPPY));
        assertEquals(new Value.Inet("10.0.0.1"), Value.of(InetAddress.getByName("10.0.0.1")));
        assertEquals(new Value.TimestampTz(1_000_000),
                Value.of(java.util.Date.from(Instant.parse("2000-01-01T00:00:01Z"))));
        assertEquals(new Value.TimestampTz(0),
                Value.of(ZonedDateTime.parse("2000-01-01T02:00:00+02:00[Europe/Helsinki]")));
        assertEquals(new Value.Interval(14, 3, 0), Value.of(Period.of(1, 2, 3)));
        assertEquals(new Value.Interval(0, 0, -1_500_000), Value.of(Duration.ofMillis(-1500)));
        assertEquals(Value.NULL, Value.of(Value.NULL));
        assertEquals("22023", assertThrows(RustyDBException.class,
                () -> Value.of(new Object())).getSqlState());
    }

    @Test
    void datesAndTimesGoBothWays() {
        bothWays(LocalDate.of(2000, 1, 2), new Value.Date(1), "2000-01-02");
        bothWays(LocalDate.of(2026, 1, 1), new Value.Date(9497), "2026-01-01");
        bothWays(LocalDate.of(-43, 3, 15), new Value.Date(-746117), "0044-03-15 BC");
        bothWays(LocalDate.of(12026, 1, 1), new Value.Date(3661922), "12026-01-01");
        bothWays(Infinity.DATE, new Value.Date(Integer.MAX_VALUE), "infinity");
        bothWays(Infinity.NEGATIVE_DATE, new Value.Date(Integer.MIN_VALUE), "-infinity");
        bothWays(LocalTime.of(0, 0, 1), new Value.Time(1_000_000), "00:00:01");
        bothWays(LocalTime.of(23, 59, 59, 120_000_000), new Value.Time(86_399_120_000L),
                "23:59:59.12");
        bothWays(LocalTime.MAX, new Value.Time(86_400_000_000L), "24:00:00");
        bothWays(OffsetTime.of(1, 0, 0, 0, ZoneOffset.ofHours(2)),
                new Value.TimeTz(3_600_000_000L, 7200), "01:00:00+02");
        bothWays(OffsetTime.of(1, 0, 0, 0, ZoneOffset.ofHoursMinutes(-5, -30)),
                new Value.TimeTz(3_600_000_000L, -19_800), "01:00:00-05:30");
        bothWays(LocalDateTime.of(1999, 12, 31, 23, 59, 59, 999_999_000),
                new Value.Timestamp(-1), "1999-12-31 23:59:59.999999");
        bothWays(Infinity.TIMESTAMP, new Value.Timestamp(Long.MAX_VALUE), "infinity");
        bothWays(Infinity.NEGATIVE_TIMESTAMP, new Value.Timestamp(Long.MIN_VALUE), "-infinity");
        bothWays(OffsetDateTime.of(2026, 1, 1, 0, 0, 0, 0, ZoneOffset.UTC),
                new Value.TimestampTz(820_540_800_000_000L), "2026-01-01 00:00:00+00");
        bothWays(Infinity.TIMESTAMPTZ, new Value.TimestampTz(Long.MAX_VALUE), "infinity");
        bothWays(Infinity.NEGATIVE_TIMESTAMPTZ, new Value.TimestampTz(Long.MIN_VALUE),
                "-infinity");
        assertEquals(Instant.parse("2000-01-01T00:00:00Z"),
                Convert.to(new Value.TimestampTz(0), Instant.class));
        for (Object far : new Object[] {Instant.MAX, Duration.ofSeconds(Long.MAX_VALUE),
            LocalDate.of(99_999_999, 1, 1), LocalDateTime.of(300_000, 1, 1, 0, 0)}) {
            assertEquals("22003", assertThrows(RustyDBException.class,
                    () -> Value.of(far)).getSqlState());
        }
    }

    @Test
    void intervalsAreWrittenAsPostgreSqlDoes() {
        assertEquals("1 mon 2 days 00:00:03", new Value.Interval(1, 2, 3_000_000).asText());
        assertEquals("00:00:00", new Value.Interval(0, 0, 0).asText());
        assertEquals("1 year 2 mons", new Value.Interval(14, 0, 0).asText());
        assertEquals("-1 years -2 mons +3 days -04:05:06.7",
                new Value.Interval(-14, 3, -14_706_700_000L).asText());
        assertEquals("-1 days +100:00:00", new Value.Interval(0, -1, 360_000_000_000L).asText());
        assertEquals("infinity", Value.Interval.INFINITY.asText());
        assertEquals("-infinity", Value.Interval.NEGATIVE_INFINITY.asText());
    }

    @Test
    void otherTypesHaveATextForm() {
        assertNull(Value.NULL.asText());
        assertEquals("08:00:2b:01:02:03", Value.macAddr("08-00-2b-01-02-03").asText());
        assertThrows(RustyDBException.class, () -> Value.macAddr("08:00"));
        assertEquals("101", Value.Bit.of("101").asText());
        assertEquals(new Value.Bit(3, new byte[] {(byte) 0xa0}), Value.Bit.of("101"));
        assertThrows(RustyDBException.class, () -> Value.Bit.of("102"));
        assertThrows(RustyDBException.class,
                () -> new Value.Bit(9, new byte[] {1}).asText());
        assertEquals("1.00", new Value.Money(100).asText());
        assertEquals("4294967295", new Value.Oid(4_294_967_295L).asText());
        Value.RangeValue range = new Value.RangeValue(
                false, Value.Bound.inclusive(1), Value.Bound.exclusive(5));
        assertEquals("[1,5)", new Value.Range(23, range).asText());
        assertEquals("empty", new Value.Range(23, Value.RangeValue.EMPTY).asText());
        assertEquals("(,\"a b\"]", new Value.Range(25, new Value.RangeValue(
                false, new Value.Unbounded(), Value.Bound.inclusive("a b"))).asText());
        assertEquals("{[1,5),empty}",
                new Value.Multirange(23, List.of(range, Value.RangeValue.EMPTY)).asText());
        assertEquals("(1,\"a,\"\"b\"\"\",,\"\")".replace("\"\"b\"\"", "\\\"b\\\""),
                new Value.Composite(16400, List.of(new Value.Int4(1), new Value.Text("a,\"b\""),
                        Value.NULL, new Value.Text(""))).asText());
    }

    @Test
    void arraysGoBothWays() {
        assertEquals(new Value.Array(23, List.of(new Value.Dimension(2, 1)),
                List.of(new Value.Int4(1), Value.NULL)), Value.of(Arrays.asList(1, null)));
        assertEquals(Value.of(List.of(1, 2)), Value.of(new int[] {1, 2}));
        assertEquals(Value.of(List.of("a")), Value.of(new String[] {"a"}));
        Value matrix = Value.of(new long[][] {{1, 2, 3}, {4, 5, 6}});
        assertEquals("{{1,2,3},{4,5,6}}", matrix.asText());
        assertEquals(List.of(List.of(1L, 2L, 3L), List.of(4L, 5L, 6L)),
                Convert.to(matrix, Object.class));
        assertEquals(new Value.Text("{}"), Value.of(List.of()));
        assertEquals(new Value.Text("{NULL,NULL}"), Value.of(Arrays.asList(null, null)));
        assertEquals("{\"\",\"NULL\",\"a b\",\"\\\"\\\\\",NULL,x}",
                Value.of(Arrays.asList("", "NULL", "a b", "\"\\", null, "x")).asText());
        assertEquals("[0:1]={7,8}", new Value.Array(23, List.of(new Value.Dimension(2, 0)),
                List.of(new Value.Int4(7), new Value.Int4(8))).asText());
        assertEquals(List.of(), Convert.to(new Value.Array(23, List.of(), List.of()), List.class));
        assertEquals(17L, ((Value.Array) Value.of(new byte[][] {{1}, {2}})).elementOid());
        for (Object wrong : new Object[] {List.of(1, 2L), List.of(List.of(1), List.of(1, 2)),
            List.of(List.of(1), 2), List.of(1, List.of(2)), List.of(new Object())}) {
            assertEquals("22023", assertThrows(RustyDBException.class,
                    () -> Value.of(wrong)).getSqlState());
        }
    }

    @Test
    void arraysWithImpossibleDimensionsAreRefused() {
        List<Value> one = List.of(new Value.Int4(1));
        Value.Dimension huge = new Value.Dimension(4_294_967_295L, 1);
        Value.Dimension single = new Value.Dimension(1, 1);
        for (List<Value.Dimension> dims : List.of(List.<Value.Dimension>of(), List.of(huge),
                List.of(huge, huge, huge), List.of(new Value.Dimension(0, 1)),
                List.of(single, single, single, single, single, single, single))) {
            Value array = new Value.Array(23, dims, one);
            assertThrows(RustyDBException.class, array::asText);
            assertThrows(RustyDBException.class, () -> Convert.to(array, Object.class));
        }
        Value empty = new Value.Array(23, List.of(huge, new Value.Dimension(0, 1)), List.of());
        assertEquals("{}", empty.asText());
        assertEquals(List.of(), Convert.to(empty, Object.class));
    }

    @Test
    void numbersConvertWhereTheyFit() {
        assertEquals(300, Convert.toInt(new Value.Int8(300)));
        assertEquals(12, Convert.toLong(new Value.Numeric("12.00")));
        assertEquals(12.5, Convert.toDouble(new Value.Numeric("12.50")));
        assertEquals(Double.NaN, Convert.toDouble(new Value.Numeric("NaN")));
        assertEquals(Double.POSITIVE_INFINITY, Convert.to(
                new Value.Numeric("Infinity"), Object.class));
        assertEquals(42, Convert.toInt(new Value.Text("42")));
        assertEquals(new BigDecimal("1.5"), Convert.toBigDecimal(new Value.Float8(1.5)));
        assertEquals(0, Convert.toInt(Value.NULL));
        assertNull(Convert.to(Value.NULL, Integer.class));
        assertEquals("22003", assertThrows(RustyDBException.class,
                () -> Convert.toInt(new Value.Int8(1L << 31))).getSqlState());
        assertEquals("22003", assertThrows(RustyDBException.class,
                () -> Convert.toLong(new Value.Numeric("1.5"))).getSqlState());
        assertEquals("22P02", assertThrows(RustyDBException.class,
                () -> Convert.toBigDecimal(new Value.Numeric("NaN"))).getSqlState());
        assertEquals("42804", assertThrows(RustyDBException.class,
                () -> Convert.toInt(new Value.Bool(true))).getSqlState());
        assertEquals("42804", assertThrows(RustyDBException.class,
                () -> Convert.to(new Value.TimestampTz(0), LocalDateTime.class)).getSqlState());
    }

    @Test
    void halfACharacterIsNotSent() {
        for (String text : new String[] {"a\ud800", "\udc00", "\ud800\ud800\udc00"}) {
            WireWriter out = new WireWriter(1);
            assertEquals("22021", assertThrows(RustyDBException.class,
                    () -> out.string(text)).getSqlState());
        }
        WireWriter out = new WireWriter(1);
        out.string("a\ud83d\ude00b");
        assertArrayEquals(VectorsTest.hex("0661f09f988062"), out.toByteArray());
    }

    @Test
    void parametersWithATypeTellIt() {
        Message.Query query = Requests.query(QueryOptions.DEFAULT, "x", 1,
                new Parameter("2", 20), null);
        assertEquals(List.of(0L, 20L), query.paramTypes());
        assertEquals(List.of(new Value.Int4(1), new Value.Text("2"), Value.NULL), query.params());
        assertEquals(List.of(Value.NULL),
                Requests.query(QueryOptions.DEFAULT, "x", (Object[]) null).params());
        assertEquals(new ArrayList<>(), Requests.query(QueryOptions.DEFAULT, "x").params());
    }
}
