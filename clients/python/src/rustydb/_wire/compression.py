"""Compression of bodies, all of it from the optional package `cramjam`."""

from __future__ import annotations

from typing import Any

from .bincode import Violation
from .messages import CompressionType

cramjam: Any
try:
    import cramjam
except ImportError:
    cramjam = None

# Smallest body that is worth it, in bytes.
THRESHOLD = 1024


def available() -> list[CompressionType]:
    """The algorithms that this installation has."""
    if cramjam is None:
        return []
    return [CompressionType.Zstd, CompressionType.Lz4, CompressionType.Snappy]


def compress(algorithm: CompressionType, body: bytes | bytearray) -> bytes | None:
    """The compressed body behind its size, or None if that is not smaller."""
    if algorithm == CompressionType.Zstd:
        small = cramjam.zstd.compress(body, level=1)
    elif algorithm == CompressionType.Lz4:
        small = cramjam.lz4.compress_block(body, store_size=False)
    else:
        small = cramjam.snappy.compress_raw(body)
    if len(small) + 4 >= len(body):
        return None
    return len(body).to_bytes(4, "little") + bytes(small)


def decompress(algorithm: CompressionType, body: bytes, most: int) -> bytes:
    """The body that `compress` was given.

    Never takes more memory than the stated size. Raises `Violation` if that is more than `most`,
    or not what comes out.
    """
    size = int.from_bytes(body[:4], "little")
    if len(body) < 4 or size > most:
        raise Violation("a compressed body is larger than agreed", "DECOMPRESSION_FAILED")
    out = bytearray(size)
    try:
        if algorithm == CompressionType.Zstd:
            written = cramjam.zstd.decompress_into(body[4:], out)
        elif algorithm == CompressionType.Lz4:
            written = cramjam.lz4.decompress_block_into(body[4:], out)
        else:
            written = cramjam.snappy.decompress_raw_into(body[4:], out)
    except cramjam.DecompressionError as error:
        raise Violation(f"a body cannot be decompressed: {error}", "DECOMPRESSION_FAILED") from None
    if written != size:
        raise Violation("a body is smaller than it says", "DECOMPRESSION_FAILED")
    return bytes(out)
