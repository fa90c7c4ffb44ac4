// Writes bincode's standard configuration: little-endian, variable-length integers.
package io.rustydb;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.function.BiConsumer;

/** A growing buffer with one method for each type of the wire. */
final class WireWriter {
    private static final VarHandle SHORT = view(short[].class);
    private static final VarHandle INT = view(int[].class);
    private static final VarHandle LONG = view(long[].class);
    private static final int LARGEST = Integer.MAX_VALUE - 16;

    private byte[] buffer;
    private int length;

    WireWriter(int capacity) {
        buffer = new byte[capacity];
    }

    private static VarHandle view(Class<?> type) {
        return MethodHandles.byteArrayViewVarHandle(type, ByteOrder.LITTLE_ENDIAN);
    }

    /** The buffer itself; only the first {@link #length()} bytes mean anything. */
    byte[] buffer() {
        return buffer;
    }

    int length() {
        return length;
    }

    byte[] toByteArray() {
        return Arrays.copyOf(buffer, length);
    }

    private void reserve(int bytes) {
        long needed = (long) length + bytes;
        if (needed <= buffer.length) {
            return;
        }
        if (needed > LARGEST) {
            throw RustyDBException.tooLarge("the message does not fit into memory");
        }
        buffer = Arrays.copyOf(buffer, (int) Math.min(LARGEST, Math.max(needed, 2L * length)));
    }

    /** Leaves room for bytes that are set later. */
    void skip(int bytes) {
        reserve(bytes);
        length += bytes;
    }

    void setU16(int at, int value) {
        SHORT.set(buffer, at, (short) value);
    }

    void setU32(int at, int value) {
        INT.set(buffer, at, value);
    }

    void setU64(int at, long value) {
        LONG.set(buffer, at, value);
    }

    void u8(int value) {
        reserve(1);
        buffer[length++] = (byte) value;
    }

    void i8(int value) {
        u8(value);
    }

    void u16(int value) {
        requireRange(value, 0xffff, "u16");
        varint(value);
    }

    void u32(long value) {
        requireRange(value, 0xffff_ffffL, "u32");
        varint(value);
    }

    /** The 64 bits of {@code value} are an unsigned number. */
    void u64(long value) {
        varint(value);
    }

    void i16(short value) {
        varint(zigzag(value));
    }

    void i32(int value) {
        varint(zigzag(value));
    }

    void i64(long value) {
        varint(zigzag(value));
    }

    private static long zigzag(long value) {
        return (value << 1) ^ (value >> 63);
    }

    private static void requireRange(long value, long greatest, String type) {
        if (value < 0 || value > greatest) {
            throw RustyDBException.outOfRange(value + " is not a " + type);
        }
    }

    private void varint(long value) {
        reserve(9);
        if (value >= 0 && value < 251) {
            buffer[length++] = (byte) value;
        } else if (value >>> 16 == 0) {
            buffer[length] = (byte) 0xfb;
            SHORT.set(buffer, length + 1, (short) value);
            length += 3;
        } else if (value >>> 32 == 0) {
            buffer[length] = (byte) 0xfc;
            INT.set(buffer, length + 1, (int) value);
            length += 5;
        } else {
            buffer[length] = (byte) 0xfd;
            LONG.set(buffer, length + 1, value);
            length += 9;
        }
    }

    void bool(boolean value) {
        u8(value ? 1 : 0);
    }

    void f32(float value) {
        reserve(4);
        INT.set(buffer, length, Float.floatToRawIntBits(value));
        length += 4;
    }

    void f64(double value) {
        reserve(8);
        LONG.set(buffer, length, Double.doubleToRawLongBits(value));
        length += 8;
    }

    void string(String value) {
        requireWholeCharacters(value);
        bytes(value.getBytes(StandardCharsets.UTF_8));
    }

    // Java would send "?" for half of a surrogate pair, and the user would lose a character unseen.
    private static void requireWholeCharacters(String value) {
        for (int i = 0; i < value.length(); i++) {
            if (!Character.isSurrogate(value.charAt(i))) {
                continue;
            }
            boolean pair = i + 1 < value.length()
                    && Character.isSurrogatePair(value.charAt(i), value.charAt(i + 1));
            if (!pair) {
                throw RustyDBException.local("22021", "VALIDATION_ERROR",
                        "the text has half of a surrogate pair at character " + (i + 1));
            }
            i++;
        }
    }

    void bytes(byte[] value) {
        u64(value.length);
        raw(value);
    }

    /** Bytes without a count. */
    void raw(byte[] value) {
        reserve(value.length);
        System.arraycopy(value, 0, buffer, length, value.length);
        length += value.length;
    }

    /** The 16 raw bytes of a UUID, or other big-endian numbers. */
    void bigEndian(long value) {
        reserve(8);
        LONG.set(buffer, length, Long.reverseBytes(value));
        length += 8;
    }

    /** The number of an enum's variant. */
    void variant(int number) {
        u32(number);
    }

    void variant(Enum<?> value) {
        u32(value.ordinal());
    }

    <T> void option(T value, BiConsumer<WireWriter, T> write) {
        bool(value != null);
        if (value != null) {
            write.accept(this, value);
        }
    }

    <T> void list(List<T> values, BiConsumer<WireWriter, T> write) {
        u64(values.size());
        for (T value : values) {
            write.accept(this, value);
        }
    }
}
