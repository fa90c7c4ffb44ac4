// Between Java objects and values.
package io.rustydb;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.OffsetTime;
import java.time.Period;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.function.Function;

/** One table for parameters, one for results. */
final class Values {
    private static final int MAX_DIMENSIONS = 6;
    private static final long GREATEST_U32 = 0xffff_ffffL;
    private static final Map<Class<?>, Function<Object, Value>> FROM_JAVA = new HashMap<>();

    static {
        from(Boolean.class, Value.Bool::new);
        from(Byte.class, it -> new Value.Int2(it));
        from(Short.class, Value.Int2::new);
        from(Integer.class, Value.Int4::new);
        from(Long.class, Value.Int8::new);
        from(Float.class, Value.Float4::new);
        from(Double.class, Value.Float8::new);
        from(BigInteger.class, it -> new Value.Numeric(it.toString()));
        from(Character.class, it -> new Value.Text(it.toString()));
        from(byte[].class, Value.Bytea::new);
        from(LocalDate.class, Times::date);
        from(LocalTime.class, it -> new Value.Time(Times.time(it)));
        from(OffsetTime.class, Times::timeTz);
        from(LocalDateTime.class, Times::timestamp);
        from(OffsetDateTime.class, Times::timestampTz);
        from(ZonedDateTime.class, it -> Times.timestampTz(it.toInstant()));
        from(Instant.class, Times::timestampTz);
        from(Duration.class, Times::interval);
        from(Period.class, Times::interval);
        from(UUID.class, Value.Uuid::new);
    }

    private Values() {
    }

    private static <T> void from(Class<T> type, Function<T, Value> convert) {
        FROM_JAVA.put(type, object -> convert.apply(type.cast(object)));
    }

    static Value of(Object object) {
        if (object == null) {
            return Value.NULL;
        }
        Function<Object, Value> convert = FROM_JAVA.get(object.getClass());
        if (convert != null) {
            return convert.apply(object);
        }
        if (object instanceof Value value) {
            return value;
        } else if (object instanceof BigDecimal number) {
            return Value.numeric(number);
        } else if (object instanceof CharSequence text) {
            return new Value.Text(text.toString());
        } else if (object instanceof Enum<?> label) {
            return new Value.Text(label.name());
        } else if (object instanceof InetAddress address) {
            return new Value.Inet(address.getHostAddress());
        } else if (object instanceof java.util.Date date) {
            return Times.timestampTz(Instant.ofEpochMilli(date.getTime()));
        }
        return Arrays.of(object);
    }

    static Value macAddr(String text) {
        try {
            byte[] bytes = HexFormat.of().parseHex(text.replaceAll("[:.-]", ""));
            if (bytes.length == 6 || bytes.length == 8) {
                return new Value.MacAddr(bytes);
            }
        } catch (IllegalArgumentException e) {
            // Not hexadecimal: the same error as a wrong length.
        }
        throw RustyDBException.malformed("not a macaddr: " + text);
    }

    /** The natural Java object of a value: see the table of the README. */
    static Object toJava(Value value) {
        if (value instanceof Value.Bool it) {
            return it.value();
        } else if (value instanceof Value.Int2 it) {
            return it.value();
        } else if (value instanceof Value.Int4 it) {
            return it.value();
        } else if (value instanceof Value.Int8 it) {
            return it.value();
        } else if (value instanceof Value.Float4 it) {
            return it.value();
        } else if (value instanceof Value.Float8 it) {
            return it.value();
        } else if (value instanceof Value.Numeric it) {
            return number(it.value());
        } else if (value instanceof Value.Bytea it) {
            return it.value();
        } else if (value instanceof Value.Uuid it) {
            return it.value();
        } else if (value instanceof Value.Oid it) {
            return it.value();
        } else if (value instanceof Value.Money it) {
            return it.value();
        } else if (value instanceof Value.Array it) {
            return hasElements(it) ? Arrays.toList(it.dims(), it.values().iterator())
                    : new ArrayList<>();
        } else if (value instanceof Value.Other it) {
            return it.binary() ? it.bytes() : new String(it.bytes(), StandardCharsets.UTF_8);
        }
        return timeToJava(value);
    }

    private static Object timeToJava(Value value) {
        if (value instanceof Value.Date it) {
            return Times.date(it.value());
        } else if (value instanceof Value.Time it) {
            return Times.time(it.value());
        } else if (value instanceof Value.TimeTz it) {
            return Times.timeTz(it);
        } else if (value instanceof Value.Timestamp it) {
            return Times.timestamp(it.value());
        } else if (value instanceof Value.TimestampTz it) {
            return Times.timestampTz(it.value());
        } else if (value instanceof Value.Interval || value instanceof Value.Range
                || value instanceof Value.Multirange || value instanceof Value.Composite) {
            return value;
        }
        return value.asText();
    }

    // BigDecimal has neither infinities nor NaN, which PostgreSQL's numeric has.
    private static Object number(String digits) {
        return switch (digits) {
            case "NaN" -> Double.NaN;
            case "Infinity" -> Double.POSITIVE_INFINITY;
            case "-Infinity" -> Double.NEGATIVE_INFINITY;
            default -> new BigDecimal(digits);
        };
    }

    /** False for an empty array; an error where dimensions and elements do not agree. */
    static boolean hasElements(Value.Array array) {
        long expected = array.dims().isEmpty() ? 0 : 1;
        for (Value.Dimension dimension : array.dims()) {
            long product = expected * dimension.len();
            // Both factors are below 2^32, so a product too large is negative or above that.
            expected = product < 0 || product > GREATEST_U32 ? GREATEST_U32 : product;
        }
        if (expected != array.values().size() || array.dims().size() > MAX_DIMENSIONS) {
            throw RustyDBException.malformed("an array has not the elements its dimensions say");
        }
        return expected > 0;
    }

    /** The type of a value's column, or 0 where the value does not tell. */
    static long oid(Value value) {
        if (value instanceof Value.Range it) {
            return RANGES.getOrDefault(it.elementOid(), 0L);
        } else if (value instanceof Value.Composite it) {
            return it.typeOid();
        } else if (value instanceof Value.Other it) {
            return it.typeOid();
        } else if (value instanceof Value.MacAddr it) {
            return it.value().length == 8 ? 774 : 829;
        }
        return OIDS.getOrDefault(value.getClass(), 0L);
    }

    private static final Map<Long, Long> RANGES = Map.of(
            23L, 3904L, 20L, 3926L, 1700L, 3906L, 1114L, 3908L, 1184L, 3910L, 1082L, 3912L);

    private static final Map<Class<?>, Long> OIDS = Map.ofEntries(
            Map.entry(Value.Bool.class, 16L),
            Map.entry(Value.Int2.class, 21L),
            Map.entry(Value.Int4.class, 23L),
            Map.entry(Value.Int8.class, 20L),
            Map.entry(Value.Float4.class, 700L),
            Map.entry(Value.Float8.class, 701L),
            Map.entry(Value.Numeric.class, 1700L),
            Map.entry(Value.Text.class, 25L),
            Map.entry(Value.Bytea.class, 17L),
            Map.entry(Value.Date.class, 1082L),
            Map.entry(Value.Time.class, 1083L),
            Map.entry(Value.TimeTz.class, 1266L),
            Map.entry(Value.Timestamp.class, 1114L),
            Map.entry(Value.TimestampTz.class, 1184L),
            Map.entry(Value.Interval.class, 1186L),
            Map.entry(Value.Uuid.class, 2950L),
            Map.entry(Value.Json.class, 114L),
            Map.entry(Value.Jsonb.class, 3802L),
            Map.entry(Value.Inet.class, 869L),
            Map.entry(Value.Cidr.class, 650L),
            Map.entry(Value.Bit.class, 1562L),
            Map.entry(Value.Oid.class, 26L),
            Map.entry(Value.Money.class, 790L));

    /** Java's arrays and collections. */
    private static final class Arrays {
        private final List<Value.Dimension> dims = new ArrayList<>();
        private final List<Value> leaves = new ArrayList<>();

        static Value of(Object object) {
            List<?> elements = elements(object);
            if (elements == null) {
                throw RustyDBException.local("22023", "VALIDATION_ERROR",
                        "there is no natural PostgreSQL type for " + object.getClass().getName());
            }
            Arrays arrays = new Arrays();
            arrays.collect(elements, 0);
            return arrays.build();
        }

        private static List<?> elements(Object object) {
            if (object instanceof Collection<?> collection) {
                return new ArrayList<>(collection);
            }
            if (!object.getClass().isArray() || object instanceof byte[]) {
                return null;
            }
            int length = java.lang.reflect.Array.getLength(object);
            List<Object> elements = new ArrayList<>(length);
            for (int i = 0; i < length; i++) {
                elements.add(java.lang.reflect.Array.get(object, i));
            }
            return elements;
        }

        private void collect(List<?> elements, int level) {
            if (level == dims.size()) {
                if (!leaves.isEmpty() || level == MAX_DIMENSIONS) {
                    throw ragged();
                }
                dims.add(new Value.Dimension(elements.size(), 1));
            } else if (dims.get(level).len() != elements.size()) {
                throw ragged();
            }
            for (Object element : elements) {
                List<?> inner = element == null ? null : elements(element);
                if (inner != null) {
                    collect(inner, level + 1);
                } else if (level == dims.size() - 1) {
                    leaves.add(Values.of(element));
                } else {
                    throw ragged();
                }
            }
        }

        private static RustyDBException ragged() {
            return RustyDBException.local("22023", "VALIDATION_ERROR",
                    "all arrays of one dimension must have the same length, of at most six");
        }

        private Value build() {
            List<Value> known = leaves.stream().filter(it -> !(it instanceof Value.Null)).toList();
            if (known.isEmpty()) {
                // No element tells the type, so the text form, which fits every array.
                return leaves.isEmpty() ? new Value.Text("{}")
                        : new Value.Text(new Value.Array(0, dims, leaves).asText());
            }
            long oid = oid(known.get(0));
            if (oid == 0 || known.stream().anyMatch(it -> oid(it) != oid)) {
                throw RustyDBException.local("22023", "VALIDATION_ERROR",
                        "the elements of an array must have one type; Value.Array sets another");
            }
            return new Value.Array(oid, dims, leaves);
        }

        static List<Object> toList(List<Value.Dimension> dims, Iterator<Value> values) {
            List<Object> list = new ArrayList<>();
            for (long i = 0; i < dims.get(0).len(); i++) {
                if (dims.size() > 1) {
                    list.add(toList(dims.subList(1, dims.size()), values));
                } else {
                    list.add(toJava(values.next()));
                }
            }
            return list;
        }
    }
}
