// Values as PostgreSQL writes and reads them.
package io.rustydb;

import java.nio.charset.StandardCharsets;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.List;
import java.util.StringJoiner;

/** ISO dates, UTC, hexadecimal bytea; PostgreSQL reads every text back as the same value. */
final class TextForm {
    private TextForm() {
    }

    static String of(Value value) {
        if (value instanceof Value.Null) {
            return null;
        }
        String text = number(value);
        if (text == null) {
            text = plain(value);
        }
        if (text == null) {
            text = time(value);
        }
        return text != null ? text : compound(value);
    }

    private static String number(Value value) {
        if (value instanceof Value.Bool it) {
            return it.value() ? "t" : "f";
        } else if (value instanceof Value.Int2 it) {
            return Short.toString(it.value());
        } else if (value instanceof Value.Int4 it) {
            return Integer.toString(it.value());
        } else if (value instanceof Value.Int8 it) {
            return Long.toString(it.value());
        } else if (value instanceof Value.Float4 it) {
            return withoutZero(Float.toString(it.value()));
        } else if (value instanceof Value.Float8 it) {
            return withoutZero(Double.toString(it.value()));
        } else if (value instanceof Value.Numeric it) {
            return it.value();
        } else if (value instanceof Value.Oid it) {
            return Long.toString(it.value());
        } else if (value instanceof Value.Money it) {
            return java.math.BigDecimal.valueOf(it.value(), 2).toPlainString();
        }
        return null;
    }

    private static String withoutZero(String number) {
        return number.endsWith(".0") ? number.substring(0, number.length() - 2) : number;
    }

    private static String plain(Value value) {
        if (value instanceof Value.Text it) {
            return it.value();
        } else if (value instanceof Value.Bytea it) {
            return hex(it.value());
        } else if (value instanceof Value.Uuid it) {
            return it.value().toString();
        } else if (value instanceof Value.Json it) {
            return it.value();
        } else if (value instanceof Value.Jsonb it) {
            return it.value();
        } else if (value instanceof Value.Inet it) {
            return it.value();
        } else if (value instanceof Value.Cidr it) {
            return it.value();
        } else if (value instanceof Value.MacAddr it) {
            return HexFormat.ofDelimiter(":").formatHex(it.value());
        } else if (value instanceof Value.Bit it) {
            return bits(it);
        } else if (value instanceof Value.Other it) {
            return it.binary() ? hex(it.bytes()) : new String(it.bytes(), StandardCharsets.UTF_8);
        }
        return null;
    }

    private static String hex(byte[] bytes) {
        return "\\x" + HexFormat.of().formatHex(bytes);
    }

    private static String bits(Value.Bit bit) {
        if (bit.len() > bit.bytes().length * 8L) {
            throw RustyDBException.malformed("a bit string has fewer bits than it says");
        }
        StringBuilder digits = new StringBuilder((int) bit.len());
        for (int i = 0; i < bit.len(); i++) {
            digits.append((bit.bytes()[i / 8] >> (7 - i % 8) & 1) == 0 ? '0' : '1');
        }
        return digits.toString();
    }

    private static String time(Value value) {
        if (value instanceof Value.Date it) {
            LocalDate date = Times.date(it.value());
            return switch (it.value()) {
                case Integer.MAX_VALUE -> "infinity";
                case Integer.MIN_VALUE -> "-infinity";
                default -> day(date) + era(date);
            };
        } else if (value instanceof Value.Time it) {
            return clock(it.value());
        } else if (value instanceof Value.TimeTz it) {
            return clock(it.micros()) + offset(it.offsetSecs());
        } else if (value instanceof Value.Timestamp it) {
            return moment(it.value(), "");
        } else if (value instanceof Value.TimestampTz it) {
            return moment(it.value(), "+00");
        } else if (value instanceof Value.Interval it) {
            return interval(it);
        }
        return null;
    }

    private static String moment(long micros, String offset) {
        if (micros == Long.MAX_VALUE) {
            return "infinity";
        }
        if (micros == Long.MIN_VALUE) {
            return "-infinity";
        }
        LocalDateTime time = Times.timestamp(micros);
        LocalDate date = time.toLocalDate();
        return day(date) + " " + clock(Times.time(time.toLocalTime())) + offset + era(date);
    }

    private static String day(LocalDate date) {
        int year = date.getYear() > 0 ? date.getYear() : 1 - date.getYear();
        return String.format("%04d-%02d-%02d", year, date.getMonthValue(), date.getDayOfMonth());
    }

    private static String era(LocalDate date) {
        return date.getYear() > 0 ? "" : " BC";
    }

    private static String clock(long micros) {
        long seconds = micros / Times.MICROS_PER_SECOND;
        String clock = String.format(
                "%02d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
        long fraction = micros % Times.MICROS_PER_SECOND;
        if (fraction == 0) {
            return clock;
        }
        String digits = String.format("%06d", fraction);
        int end = digits.length();
        while (digits.charAt(end - 1) == '0') {
            end--;
        }
        return clock + "." + digits.substring(0, end);
    }

    private static String offset(int seconds) {
        int rest = Math.abs(seconds);
        StringBuilder text = new StringBuilder(
                String.format("%c%02d", seconds < 0 ? '-' : '+', rest / 3600));
        if (rest % 3600 != 0) {
            text.append(String.format(":%02d", rest / 60 % 60));
        }
        if (rest % 60 != 0) {
            text.append(String.format(":%02d", rest % 60));
        }
        return text.toString();
    }

    private static String interval(Value.Interval it) {
        if (it.equals(Value.Interval.INFINITY)) {
            return "infinity";
        }
        if (it.equals(Value.Interval.NEGATIVE_INFINITY)) {
            return "-infinity";
        }
        StringJoiner parts = new StringJoiner(" ");
        boolean negative = part(parts, it.months() / 12, "year", false);
        negative = part(parts, it.months() % 12, "mon", negative);
        negative = part(parts, it.days(), "day", negative);
        if (it.micros() != 0 || parts.length() == 0) {
            String sign = it.micros() < 0 ? "-" : negative ? "+" : "";
            long seconds = Math.abs(it.micros() / Times.MICROS_PER_SECOND);
            long fraction = Math.abs(it.micros() % Times.MICROS_PER_SECOND);
            String clock = clock((seconds % 60) * Times.MICROS_PER_SECOND + fraction);
            parts.add(String.format("%s%02d:%02d:%s", sign, seconds / 3600, seconds / 60 % 60,
                    clock.substring(6)));
        }
        return parts.toString();
    }

    // PostgreSQL writes a plus where a negative part would otherwise seem to go on.
    private static boolean part(StringJoiner parts, int number, String unit, boolean negative) {
        if (number == 0) {
            return negative;
        }
        String sign = negative && number > 0 ? "+" : "";
        parts.add(sign + number + " " + unit + (number == 1 ? "" : "s"));
        return number < 0;
    }

    private static String compound(Value value) {
        if (value instanceof Value.Array it) {
            return array(it);
        } else if (value instanceof Value.Range it) {
            return range(it.range());
        } else if (value instanceof Value.Multirange it) {
            StringJoiner ranges = new StringJoiner(",", "{", "}");
            it.ranges().forEach(range -> ranges.add(range(range)));
            return ranges.toString();
        }
        StringJoiner fields = new StringJoiner(",", "(", ")");
        for (Value field : ((Value.Composite) value).fields()) {
            String text = of(field);
            fields.add(text == null ? "" : quote(text, "(),\"\\", false));
        }
        return fields.toString();
    }

    private static String array(Value.Array array) {
        if (!Values.hasElements(array)) {
            return "{}";
        }
        StringBuilder text = new StringBuilder();
        if (array.dims().stream().anyMatch(dimension -> dimension.lower() != 1)) {
            for (Value.Dimension dimension : array.dims()) {
                text.append('[').append(dimension.lower()).append(':')
                        .append(dimension.lower() + dimension.len() - 1).append(']');
            }
            text.append('=');
        }
        dimension(text, array.dims(), array.values().iterator());
        return text.toString();
    }

    private static void dimension(
            StringBuilder text, List<Value.Dimension> dims, Iterator<Value> values) {
        text.append('{');
        for (long i = 0; i < dims.get(0).len(); i++) {
            if (i > 0) {
                text.append(',');
            }
            if (dims.size() > 1) {
                dimension(text, dims.subList(1, dims.size()), values);
            } else {
                String element = values.next().asText();
                text.append(element == null ? "NULL" : quote(element, "{},\"\\", true));
            }
        }
        text.append('}');
    }

    private static String range(Value.RangeValue range) {
        if (range.empty()) {
            return "empty";
        }
        String open = range.lower() instanceof Value.Inclusive ? "[" : "(";
        String close = range.upper() instanceof Value.Inclusive ? "]" : ")";
        return open + bound(range.lower()) + "," + bound(range.upper()) + close;
    }

    private static String bound(Value.Bound bound) {
        if (bound instanceof Value.Inclusive it) {
            return quote(String.valueOf(of(it.value())), "()[],\"\\", false);
        } else if (bound instanceof Value.Exclusive it) {
            return quote(String.valueOf(of(it.value())), "()[],\"\\", false);
        }
        return "";
    }

    private static String quote(String text, String special, boolean nullIsSpecial) {
        boolean plain = !text.isEmpty() && !(nullIsSpecial && text.equalsIgnoreCase("null"))
                && text.chars().noneMatch(c -> special.indexOf(c) >= 0 || c <= ' ');
        if (plain) {
            return text;
        }
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }
}
