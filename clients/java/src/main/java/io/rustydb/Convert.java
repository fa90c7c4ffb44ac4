// Values as the Java types that a caller asks for.
package io.rustydb;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.HashMap;
import java.util.Map;
import java.util.function.Function;

/** Nothing is rounded or cut unseen, but for what the target type cannot hold exactly. */
final class Convert {
    private static final Map<Class<?>, Function<Value, Object>> TO_JAVA = new HashMap<>();

    static {
        TO_JAVA.put(Object.class, Values::toJava);
        TO_JAVA.put(String.class, Value::asText);
        TO_JAVA.put(Boolean.class, Convert::toBoolean);
        TO_JAVA.put(Short.class, value -> (short) toLong(value, Short.MIN_VALUE, Short.MAX_VALUE));
        TO_JAVA.put(Integer.class, Convert::toInt);
        TO_JAVA.put(Long.class, Convert::toLong);
        TO_JAVA.put(Float.class, value -> (float) toDouble(value));
        TO_JAVA.put(Double.class, Convert::toDouble);
        TO_JAVA.put(BigDecimal.class, Convert::toBigDecimal);
        TO_JAVA.put(BigInteger.class, Convert::toBigInteger);
        TO_JAVA.put(byte[].class, Convert::toBytes);
        TO_JAVA.put(Instant.class, value -> toMoment(value).toInstant());
        TO_JAVA.put(OffsetDateTime.class, Convert::toMoment);
        TO_JAVA.put(ZonedDateTime.class, value -> toMoment(value).toZonedDateTime());
        TO_JAVA.put(LocalDateTime.class, Convert::toLocalDateTime);
    }

    private Convert() {
    }

    private static RustyDBException mismatch(Value value, String wanted) {
        return RustyDBException.local("42804", "VALIDATION_ERROR",
                "a " + value.getClass().getSimpleName() + " is no " + wanted);
    }

    /** The value as an object of the class; null for null. */
    static <T> T to(Value value, Class<T> type) {
        if (value instanceof Value.Null) {
            return null;
        }
        if (Value.class.isAssignableFrom(type) && type.isInstance(value)) {
            return type.cast(value);
        }
        Function<Value, Object> convert = TO_JAVA.get(type);
        Object object = convert != null ? convert.apply(value) : Values.toJava(value);
        if (!type.isInstance(object)) {
            throw mismatch(value, type.getName());
        }
        return type.cast(object);
    }

    static boolean toBoolean(Value value) {
        if (value instanceof Value.Null) {
            return false;
        } else if (value instanceof Value.Bool it) {
            return it.value();
        } else if (value instanceof Value.Text it) {
            return switch (it.value()) {
                case "t", "true" -> true;
                case "f", "false" -> false;
                default -> throw RustyDBException.malformed("not a boolean: " + it.value());
            };
        }
        throw mismatch(value, "boolean");
    }

    static int toInt(Value value) {
        return (int) toLong(value, Integer.MIN_VALUE, Integer.MAX_VALUE);
    }

    private static long toLong(Value value, long least, long greatest) {
        long number = toLong(value);
        if (number < least || number > greatest) {
            throw RustyDBException.outOfRange(number + " is not between " + least + " and "
                    + greatest);
        }
        return number;
    }

    static long toLong(Value value) {
        if (value instanceof Value.Null) {
            return 0;
        } else if (value instanceof Value.Int2 it) {
            return it.value();
        } else if (value instanceof Value.Int4 it) {
            return it.value();
        } else if (value instanceof Value.Int8 it) {
            return it.value();
        } else if (value instanceof Value.Oid it) {
            return it.value();
        } else if (value instanceof Value.Money it) {
            return it.value();
        }
        try {
            return toBigDecimal(value).longValueExact();
        } catch (ArithmeticException e) {
            throw RustyDBException.outOfRange(value.asText() + " is not a whole number of 64 bits");
        }
    }

    static double toDouble(Value value) {
        if (value instanceof Value.Null) {
            return 0;
        } else if (value instanceof Value.Float4 it) {
            return it.value();
        } else if (value instanceof Value.Float8 it) {
            return it.value();
        } else if (value instanceof Value.Numeric || value instanceof Value.Text) {
            try {
                return Double.parseDouble(value.asText());
            } catch (NumberFormatException e) {
                throw RustyDBException.malformed("not a number: " + value.asText());
            }
        }
        return toLong(value);
    }

    static BigDecimal toBigDecimal(Value value) {
        if (value instanceof Value.Null) {
            return null;
        } else if (value instanceof Value.Float4 it) {
            return finite(Float.toString(it.value()));
        } else if (value instanceof Value.Float8 it) {
            return finite(Double.toString(it.value()));
        } else if (value instanceof Value.Numeric || value instanceof Value.Text) {
            return finite(value.asText());
        } else if (value instanceof Value.Int2 || value instanceof Value.Int4
                || value instanceof Value.Int8 || value instanceof Value.Oid
                || value instanceof Value.Money) {
            return BigDecimal.valueOf(toLong(value));
        }
        throw mismatch(value, "number");
    }

    private static BigDecimal finite(String digits) {
        try {
            return new BigDecimal(digits);
        } catch (NumberFormatException e) {
            throw RustyDBException.malformed("not a finite number: " + digits);
        }
    }

    private static BigInteger toBigInteger(Value value) {
        try {
            return toBigDecimal(value).toBigIntegerExact();
        } catch (ArithmeticException e) {
            throw RustyDBException.outOfRange(value.asText() + " is not a whole number");
        }
    }

    static byte[] toBytes(Value value) {
        if (value instanceof Value.Null) {
            return null;
        } else if (value instanceof Value.Bytea it) {
            return it.value();
        } else if (value instanceof Value.MacAddr it) {
            return it.value();
        } else if (value instanceof Value.Other it) {
            return it.bytes();
        }
        throw mismatch(value, "bytea");
    }

    private static OffsetDateTime toMoment(Value value) {
        if (value instanceof Value.TimestampTz it) {
            return Times.timestampTz(it.value());
        }
        throw mismatch(value, "timestamptz");
    }

    private static LocalDateTime toLocalDateTime(Value value) {
        if (value instanceof Value.Timestamp it) {
            return Times.timestamp(it.value());
        }
        // Without this, the moment would silently be told in the wrong time zone.
        throw mismatch(value, "timestamp without time zone (a moment is an OffsetDateTime, "
                + "whose offset is " + ZoneOffset.UTC + ")");
    }
}
