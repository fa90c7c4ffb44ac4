// Reads bincode's standard configuration from bytes that nobody vouches for.
package io.rustydb;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Function;

/**
 * One method for each type of the wire. Everything that does not fit is a protocol violation.
 *
 * <p>Nothing is allocated by an announced count alone: every element takes a byte at least, so a
 * count above the bytes that are left is refused, and lists start small.
 */
final class WireReader {
    /** How deep values may be nested. */
    static final int MAX_DEPTH = 32;
    private static final int MAX_DECODED_BYTES = 64 << 20;

    private static final VarHandle SHORT = view(short[].class);
    private static final VarHandle INT = view(int[].class);
    private static final VarHandle LONG = view(long[].class);
    private static final int FIRST_CAPACITY = 1024;

    private final byte[] buffer;
    private int position;
    private int depth;

    WireReader(byte[] buffer) {
        this.buffer = buffer;
    }

    private static VarHandle view(Class<?> type) {
        return MethodHandles.byteArrayViewVarHandle(type, ByteOrder.LITTLE_ENDIAN);
    }

    int remaining() {
        return buffer.length - position;
    }

    void requireEnd() {
        if (remaining() != 0) {
            throw RustyDBException.protocol(remaining() + " bytes are left over after the message");
        }
    }

    private int take(int bytes) {
        if (bytes > remaining()) {
            throw RustyDBException.protocol("the message ends inside a field");
        }
        int at = position;
        position += bytes;
        return at;
    }

    int u8() {
        return buffer[take(1)] & 0xff;
    }

    byte i8() {
        return buffer[take(1)];
    }

    int u16() {
        return (int) varint(2);
    }

    long u32() {
        return varint(4);
    }

    /** All 64 bits are the number. */
    long u64() {
        return varint(8);
    }

    short i16() {
        return (short) zigzag(varint(2));
    }

    int i32() {
        return (int) zigzag(varint(4));
    }

    long i64() {
        return zigzag(varint(8));
    }

    private static long zigzag(long value) {
        return (value >>> 1) ^ -(value & 1);
    }

    private long varint(int width) {
        int marker = u8();
        if (marker < 0xfb) {
            return marker;
        }
        if (marker == 0xfb) {
            return (short) SHORT.get(buffer, take(2)) & 0xffffL;
        }
        if (marker == 0xfc && width >= 4) {
            return (int) INT.get(buffer, take(4)) & 0xffff_ffffL;
        }
        if (marker == 0xfd && width >= 8) {
            return (long) LONG.get(buffer, take(8));
        }
        throw RustyDBException.protocol(
                String.format("a number of %d bytes cannot begin with %02x", width, marker));
    }

    boolean bool() {
        int value = u8();
        if (value > 1) {
            throw RustyDBException.protocol("neither true nor false: " + value);
        }
        return value == 1;
    }

    float f32() {
        return Float.intBitsToFloat((int) INT.get(buffer, take(4)));
    }

    double f64() {
        return Double.longBitsToDouble((long) LONG.get(buffer, take(8)));
    }

    long bigEndian() {
        return Long.reverseBytes((long) LONG.get(buffer, take(8)));
    }

    private int count() {
        long count = u64();
        if (count < 0 || count > MAX_DECODED_BYTES) {
            throw RustyDBException.tooLarge("a message announces more than 64 MiB of elements");
        }
        if (count > remaining()) {
            throw RustyDBException.protocol("more elements are announced than the message holds");
        }
        return (int) count;
    }

    String string() {
        int bytes = count();
        int at = take(bytes);
        for (int i = at; i < at + bytes; i++) {
            if (buffer[i] < 0) {
                return decodeUtf8(at, bytes);
            }
        }
        return new String(buffer, at, bytes, StandardCharsets.ISO_8859_1);
    }

    private String decodeUtf8(int at, int bytes) {
        try {
            return StandardCharsets.UTF_8.newDecoder()
                    .decode(ByteBuffer.wrap(buffer, at, bytes)).toString();
        } catch (CharacterCodingException e) {
            throw RustyDBException.protocol("a text is not valid UTF-8");
        }
    }

    byte[] bytes() {
        int bytes = count();
        int at = take(bytes);
        return Arrays.copyOfRange(buffer, at, at + bytes);
    }

    /** The number of an enum's variant, which must be below {@code variants}. */
    int variant(int variants, String type) {
        long number = u32();
        if (number >= variants) {
            throw RustyDBException.protocol("unknown variant " + number + " of " + type);
        }
        return (int) number;
    }

    <T extends Enum<T>> T variant(T[] variants) {
        return variants[variant(variants.length, variants[0].getDeclaringClass().getSimpleName())];
    }

    /** The value, or null. */
    <T> T option(Function<WireReader, T> read) {
        return bool() ? read.apply(this) : null;
    }

    <T> List<T> list(Function<WireReader, T> read) {
        int count = count();
        List<T> values = new ArrayList<>(Math.min(count, FIRST_CAPACITY));
        for (int i = 0; i < count; i++) {
            values.add(read.apply(this));
        }
        return values;
    }

    /** Runs {@code read} one level deeper. */
    <T> T nested(Function<WireReader, T> read) {
        if (++depth > MAX_DEPTH) {
            throw RustyDBException.tooLarge("values are nested deeper than " + MAX_DEPTH);
        }
        T value = read.apply(this);
        depth--;
        return value;
    }
}
