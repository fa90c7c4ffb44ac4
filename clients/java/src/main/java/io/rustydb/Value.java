// PostgreSQL values as they travel.
package io.rustydb;

import java.math.BigDecimal;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.UUID;

/**
 * A value together with its type: for parameters that Java has no natural type for, and for results
 * whose exact form matters. {@link #of} says which Java objects become which values.
 *
 * <p>Microseconds and days count from 2000-01-01, as in PostgreSQL.
 */
public sealed interface Value {
    /** The only {@link Null}. */
    Value NULL = new Null();

    /** An SQL null of any type. */
    record Null() implements Value {
    }

    /** A bool. */
    record Bool(boolean value) implements Value {
    }

    /** An int2. */
    record Int2(short value) implements Value {
    }

    /** An int4. */
    record Int4(int value) implements Value {
    }

    /** An int8. */
    record Int8(long value) implements Value {
    }

    /** A float4. */
    record Float4(float value) implements Value {
    }

    /** A float8. */
    record Float8(double value) implements Value {
    }

    /** A numeric as decimal text, or {@code NaN}, {@code Infinity}, {@code -Infinity}. */
    record Numeric(String value) implements Value {
    }

    /** A text of any kind; also an enum's label. As a parameter it fits every type. */
    record Text(String value) implements Value {
    }

    /** A bytea. */
    record Bytea(byte[] value) implements Value {
        @Override
        public boolean equals(Object other) {
            return other instanceof Bytea that && Arrays.equals(value, that.value);
        }

        @Override
        public int hashCode() {
            return Arrays.hashCode(value);
        }
    }

    /** A date in days; the greatest and the smallest number are the infinities. */
    record Date(int value) implements Value {
    }

    /** A time in microseconds since midnight; 24:00 is allowed. */
    record Time(long value) implements Value {
    }

    /** A timetz; offsets east of UTC are positive. */
    record TimeTz(long micros, int offsetSecs) implements Value {
    }

    /** A timestamp in microseconds; the greatest and the smallest number are the infinities. */
    record Timestamp(long value) implements Value {
    }

    /** A timestamptz in microseconds of UTC, with infinities as {@link Timestamp}. */
    record TimestampTz(long value) implements Value {
    }

    /** An interval: its three parts are independent of each other. */
    record Interval(int months, int days, long micros) implements Value {
        /** Longer than every other interval (PostgreSQL 17). */
        public static final Interval INFINITY =
                new Interval(Integer.MAX_VALUE, Integer.MAX_VALUE, Long.MAX_VALUE);
        /** Shorter than every other interval (PostgreSQL 17). */
        public static final Interval NEGATIVE_INFINITY =
                new Interval(Integer.MIN_VALUE, Integer.MIN_VALUE, Long.MIN_VALUE);
    }

    /** A uuid. */
    record Uuid(UUID value) implements Value {
    }

    /** A json document as text. */
    record Json(String value) implements Value {
    }

    /** A jsonb document as text. */
    record Jsonb(String value) implements Value {
    }

    /** An inet as text, for example {@code 10.0.0.1/8}. */
    record Inet(String value) implements Value {
    }

    /** A cidr as text. */
    record Cidr(String value) implements Value {
    }

    /** A macaddr of 6 or a macaddr8 of 8 bytes. */
    record MacAddr(byte[] value) implements Value {
        @Override
        public boolean equals(Object other) {
            return other instanceof MacAddr that && Arrays.equals(value, that.value);
        }

        @Override
        public int hashCode() {
            return Arrays.hashCode(value);
        }
    }

    /** A bit or varbit: {@code len} bits, the most significant first, padded with zeros. */
    record Bit(long len, byte[] bytes) implements Value {
        /** The bits of a text of zeros and ones. */
        public static Bit of(String digits) {
            byte[] bytes = new byte[(digits.length() + 7) / 8];
            for (int i = 0; i < digits.length(); i++) {
                switch (digits.charAt(i)) {
                    case '0' -> { }
                    case '1' -> bytes[i / 8] |= (byte) (0x80 >> i % 8);
                    default -> throw RustyDBException.malformed("not a bit: " + digits);
                }
            }
            return new Bit(digits.length(), bytes);
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Bit that && len == that.len && Arrays.equals(bytes, that.bytes);
        }

        @Override
        public int hashCode() {
            return Objects.hash(len, Arrays.hashCode(bytes));
        }
    }

    /** An oid, reg type, xid or cid: an unsigned number of 32 bits. */
    record Oid(long value) implements Value {
    }

    /** A money in its smallest unit. */
    record Money(long value) implements Value {
    }

    /** One dimension of an array. */
    record Dimension(long len, int lower) {
    }

    /** An array, row by row; an empty one has no dimensions. */
    record Array(long elementOid, List<Dimension> dims, List<Value> values) implements Value {
    }

    /** A range of the type of its elements. */
    record Range(long elementOid, RangeValue range) implements Value {
    }

    /** Several ranges. */
    record Multirange(long elementOid, List<RangeValue> ranges) implements Value {
    }

    /** A row. */
    record Composite(long typeOid, List<Value> fields) implements Value {
    }

    /** A value of any other type in PostgreSQL's text form, or in its send form if binary. */
    record Other(long typeOid, boolean binary, byte[] bytes) implements Value {
        @Override
        public boolean equals(Object other) {
            return other instanceof Other that && typeOid == that.typeOid
                    && binary == that.binary && Arrays.equals(bytes, that.bytes);
        }

        @Override
        public int hashCode() {
            return Objects.hash(typeOid, binary, Arrays.hashCode(bytes));
        }
    }

    /** What a range covers; an empty one has no bounds. */
    record RangeValue(boolean empty, Bound lower, Bound upper) {
        /** The range without any value. */
        public static final RangeValue EMPTY =
                new RangeValue(true, new Unbounded(), new Unbounded());
    }

    /** One end of a range. */
    sealed interface Bound {
        /** The end, included. */
        static Bound inclusive(Object value) {
            return new Inclusive(of(value));
        }

        /** The end, not included. */
        static Bound exclusive(Object value) {
            return new Exclusive(of(value));
        }
    }

    /** No end. */
    record Unbounded() implements Bound {
    }

    /** An end that belongs to the range. */
    record Inclusive(Value value) implements Bound {
    }

    /** An end that does not belong to the range. */
    record Exclusive(Value value) implements Bound {
    }

    /**
     * The value of a Java object.
     *
     * <p>null, Boolean, Byte and Short (int2), Integer, Long, Float, Double, BigDecimal and
     * BigInteger (numeric), CharSequence, Character and enums (text), {@code byte[]} (bytea),
     * LocalDate, LocalTime, OffsetTime, LocalDateTime, OffsetDateTime, ZonedDateTime, Instant and
     * java.util.Date (timestamptz), Duration and Period (interval), UUID, InetAddress (inet),
     * arrays and collections of these, and values themselves. Parts of a microsecond are cut off.
     *
     * @throws RustyDBException 22023 for another class, 22003 for what PostgreSQL cannot hold
     */
    static Value of(Object object) {
        return Values.of(object);
    }

    /** A numeric with the scale of {@code number}. */
    static Value numeric(BigDecimal number) {
        return new Numeric(number.toPlainString());
    }

    /** A macaddr or macaddr8 from hexadecimal digits, separated by colons or hyphens. */
    static Value macAddr(String text) {
        return Values.macAddr(text);
    }

    /** PostgreSQL's text form; null for {@link Null}. */
    default String asText() {
        return TextForm.of(this);
    }
}
