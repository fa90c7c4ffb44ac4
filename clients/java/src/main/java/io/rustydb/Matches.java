// Finds repetitions for LZ4 and Snappy.
package io.rustydb;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** A greedy search with one candidate for each hash of four bytes. */
final class Matches {
    private static final VarHandle INT =
            MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.LITTLE_ENDIAN);
    private static final int HASH_BITS = 13;
    private static final int FARTHEST = 0xffff;
    // LZ4's rules: no match begins in the last 12 bytes or reaches into the last 5.
    private static final int LAST_START = 12;
    private static final int LAST_LITERALS = 5;

    private Matches() {
    }

    /** Takes what was found. */
    interface Sink {
        /** The bytes from {@code literals} to {@code end}, then a repetition of {@code length}. */
        void sequence(int literals, int end, int distance, int length);
    }

    /**
     * Tells the sink about every repetition.
     *
     * @return where the bytes begin that belong to no repetition any more
     */
    static int scan(byte[] source, int offset, int length, Sink sink) {
        int[] candidates = new int[1 << HASH_BITS];
        int end = offset + length;
        int anchor = offset;
        int position = offset;
        while (position < end - LAST_START) {
            int four = (int) INT.get(source, position);
            int hash = (four * 0x9e3779b1) >>> (32 - HASH_BITS);
            int candidate = candidates[hash] - 1;
            candidates[hash] = position + 1;
            if (candidate < 0 || position - candidate > FARTHEST
                    || (int) INT.get(source, candidate) != four) {
                // Faster through what does not repeat.
                position += 1 + ((position - anchor) >> 6);
                continue;
            }
            int after = position + 4;
            int distance = position - candidate;
            while (after < end - LAST_LITERALS && source[after] == source[after - distance]) {
                after++;
            }
            sink.sequence(anchor, position, distance, after - position);
            anchor = after;
            position = after;
        }
        return anchor;
    }
}
