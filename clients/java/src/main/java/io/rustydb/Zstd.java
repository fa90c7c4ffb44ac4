// Zstandard, through the optional dependency com.github.luben:zstd-jni.
package io.rustydb;

import java.util.Arrays;

/** Must only be made where {@link #isAvailable()}. */
final class Zstd implements Compressor {
    private static final int LEVEL = 1;

    /** Whether the library is on the class path and works on this machine. */
    static boolean isAvailable() {
        return Availability.KNOWN;
    }

    private static final class Availability {
        static final boolean KNOWN = probe();

        private static boolean probe() {
            try {
                Zstd zstd = new Zstd();
                byte[] probe = {1, 2, 3};
                byte[] packed = zstd.compress(probe, 0, probe.length);
                return Arrays.equals(probe, zstd.decompress(packed, 0, packed.length, 3));
            } catch (LinkageError | RustyDBException e) {
                return false;
            }
        }
    }

    @Override
    public byte[] compress(byte[] source, int offset, int length) {
        byte[] out = new byte[(int) com.github.luben.zstd.Zstd.compressBound(length)];
        long written = com.github.luben.zstd.Zstd.compressByteArray(
                out, 0, out.length, source, offset, length, LEVEL);
        return Arrays.copyOf(out, (int) written);
    }

    @Override
    public byte[] decompress(byte[] source, int offset, int length, int size) {
        byte[] out = new byte[size];
        long written;
        try {
            written = com.github.luben.zstd.Zstd.decompressByteArray(
                    out, 0, size, source, offset, length);
        } catch (RuntimeException e) {
            // By its own name, it would have to be there before anybody can ask whether it is.
            throw Compressor.broken(e.getMessage());
        }
        if (written != size) {
            throw Compressor.broken("it is shorter than stated");
        }
        return out;
    }
}
