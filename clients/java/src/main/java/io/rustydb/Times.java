// Between Java's dates and times and PostgreSQL's.
package io.rustydb;

import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.OffsetTime;
import java.time.Period;
import java.time.ZoneOffset;

/** PostgreSQL counts from 2000-01-01, Java from 1970-01-01; parts of a microsecond are cut off. */
final class Times {
    static final long MICROS_PER_SECOND = 1_000_000;
    static final long MICROS_PER_DAY = 86_400 * MICROS_PER_SECOND;
    private static final long EPOCH_DAY = LocalDate.of(2000, 1, 1).toEpochDay();
    private static final long EPOCH_SECOND = EPOCH_DAY * 86_400;

    private Times() {
    }

    static Value date(LocalDate date) {
        if (date.equals(Infinity.DATE)) {
            return new Value.Date(Integer.MAX_VALUE);
        }
        if (date.equals(Infinity.NEGATIVE_DATE)) {
            return new Value.Date(Integer.MIN_VALUE);
        }
        long days = date.toEpochDay() - EPOCH_DAY;
        if (days <= Integer.MIN_VALUE || days >= Integer.MAX_VALUE) {
            throw RustyDBException.outOfRange("PostgreSQL has no date " + date);
        }
        return new Value.Date((int) days);
    }

    static LocalDate date(int days) {
        return switch (days) {
            case Integer.MAX_VALUE -> Infinity.DATE;
            case Integer.MIN_VALUE -> Infinity.NEGATIVE_DATE;
            default -> LocalDate.ofEpochDay(EPOCH_DAY + days);
        };
    }

    static long time(LocalTime time) {
        // Java has no 24:00; its last moment stands for it, both ways.
        return time.equals(LocalTime.MAX) ? MICROS_PER_DAY : time.toNanoOfDay() / 1000;
    }

    static LocalTime time(long micros) {
        if (micros == MICROS_PER_DAY) {
            return LocalTime.MAX;
        }
        if (micros < 0 || micros > MICROS_PER_DAY) {
            throw RustyDBException.outOfRange(micros + " microseconds are no time of a day");
        }
        return LocalTime.ofNanoOfDay(micros * 1000);
    }

    static Value timeTz(OffsetTime time) {
        return new Value.TimeTz(time(time.toLocalTime()), time.getOffset().getTotalSeconds());
    }

    static OffsetTime timeTz(Value.TimeTz time) {
        return OffsetTime.of(time(time.micros()), ZoneOffset.ofTotalSeconds(time.offsetSecs()));
    }

    static Value timestamp(LocalDateTime time) {
        if (time.equals(Infinity.TIMESTAMP)) {
            return new Value.Timestamp(Long.MAX_VALUE);
        }
        if (time.equals(Infinity.NEGATIVE_TIMESTAMP)) {
            return new Value.Timestamp(Long.MIN_VALUE);
        }
        return new Value.Timestamp(micros(time.toInstant(ZoneOffset.UTC)));
    }

    static LocalDateTime timestamp(long micros) {
        if (micros == Long.MAX_VALUE) {
            return Infinity.TIMESTAMP;
        }
        if (micros == Long.MIN_VALUE) {
            return Infinity.NEGATIVE_TIMESTAMP;
        }
        return LocalDateTime.ofInstant(instant(micros), ZoneOffset.UTC);
    }

    static Value timestampTz(OffsetDateTime time) {
        if (time.equals(Infinity.TIMESTAMPTZ)) {
            return new Value.TimestampTz(Long.MAX_VALUE);
        }
        if (time.equals(Infinity.NEGATIVE_TIMESTAMPTZ)) {
            return new Value.TimestampTz(Long.MIN_VALUE);
        }
        return new Value.TimestampTz(micros(time.toInstant()));
    }

    static Value timestampTz(Instant time) {
        return new Value.TimestampTz(micros(time));
    }

    static OffsetDateTime timestampTz(long micros) {
        if (micros == Long.MAX_VALUE) {
            return Infinity.TIMESTAMPTZ;
        }
        if (micros == Long.MIN_VALUE) {
            return Infinity.NEGATIVE_TIMESTAMPTZ;
        }
        return instant(micros).atOffset(ZoneOffset.UTC);
    }

    static Value interval(Duration duration) {
        try {
            long micros = Math.addExact(
                    Math.multiplyExact(duration.getSeconds(), MICROS_PER_SECOND),
                    duration.getNano() / 1000);
            return new Value.Interval(0, 0, micros);
        } catch (ArithmeticException e) {
            throw RustyDBException.outOfRange("PostgreSQL has no interval " + duration);
        }
    }

    static Value interval(Period period) {
        try {
            int months = Math.toIntExact(period.toTotalMonths());
            return new Value.Interval(months, period.getDays(), 0);
        } catch (ArithmeticException e) {
            throw RustyDBException.outOfRange("PostgreSQL has no interval " + period);
        }
    }

    private static long micros(Instant time) {
        try {
            long seconds = Math.subtractExact(time.getEpochSecond(), EPOCH_SECOND);
            return Math.addExact(
                    Math.multiplyExact(seconds, MICROS_PER_SECOND), time.getNano() / 1000);
        } catch (ArithmeticException e) {
            throw RustyDBException.outOfRange("PostgreSQL has no timestamp " + time);
        }
    }

    private static Instant instant(long micros) {
        long second = Math.floorDiv(micros, MICROS_PER_SECOND) + EPOCH_SECOND;
        return Instant.ofEpochSecond(second, Math.floorMod(micros, MICROS_PER_SECOND) * 1000);
    }
}
