// What the three compression algorithms have in common.
package io.rustydb;

import java.util.Arrays;

/** A compression algorithm. Implementations keep no state and serve every thread. */
interface Compressor {
    /** The compressed form of a part of {@code source}. */
    byte[] compress(byte[] source, int offset, int length);

    /**
     * Undoes {@link #compress}; stops, with an error, where the output would pass {@code size}.
     *
     * @return exactly {@code size} bytes
     * @throws RustyDBException 08P01, DECOMPRESSION_FAILED
     */
    byte[] decompress(byte[] source, int offset, int length, int size);

    /** The algorithm, or null for none. */
    static Compressor of(CompressionType type) {
        return switch (type) {
            case NONE -> null;
            case LZ4 -> new Lz4();
            case SNAPPY -> new Snappy();
            case ZSTD -> new Zstd();
        };
    }

    static RustyDBException broken(String why) {
        return RustyDBException.local("08P01", "DECOMPRESSION_FAILED",
                "a compressed message cannot be read: " + why);
    }

    /** Compressed bytes, read one after the other. */
    final class Input {
        private final byte[] source;
        private final int end;
        private int position;

        Input(byte[] source, int offset, int length) {
            this.source = source;
            this.position = offset;
            this.end = offset + length;
        }

        boolean isEmpty() {
            return position == end;
        }

        int next() {
            if (position == end) {
                throw broken("it ends too early");
            }
            return source[position++] & 0xff;
        }
    }

    /** A buffer of fixed size that can repeat what it holds. */
    final class Output {
        private final byte[] buffer;
        private int length;

        Output(int capacity) {
            buffer = new byte[capacity];
        }

        void put(int value) {
            buffer[length++] = (byte) value;
        }

        void put(byte[] source, int from, int bytes) {
            System.arraycopy(source, from, buffer, length, bytes);
            length += bytes;
        }

        void copy(Input in, int bytes) {
            if (bytes > in.end - in.position || bytes > buffer.length - length) {
                throw broken("a run is longer than the whole");
            }
            put(in.source, in.position, bytes);
            in.position += bytes;
        }

        void repeat(int distance, int bytes) {
            if (distance <= 0 || distance > length || bytes > buffer.length - length) {
                throw broken("a copy reaches outside");
            }
            // Byte by byte: where the distance is shorter than the copy, it repeats itself.
            for (int i = 0; i < bytes; i++, length++) {
                buffer[length] = buffer[length - distance];
            }
        }

        byte[] toByteArray() {
            return Arrays.copyOf(buffer, length);
        }

        byte[] complete() {
            if (length != buffer.length) {
                throw broken("it is shorter than stated");
            }
            return buffer;
        }
    }
}
