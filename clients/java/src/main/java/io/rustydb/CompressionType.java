// Compression algorithms of the protocol; the order is that of the wire.
package io.rustydb;

/** How the bodies of large messages are compressed. */
public enum CompressionType {
    /** Not at all. */
    NONE,
    /** LZ4 in block format; built in. */
    LZ4,
    /** Zstandard; needs {@code com.github.luben:zstd-jni} on the class path. */
    ZSTD,
    /** Snappy in raw block format; built in. */
    SNAPPY
}
