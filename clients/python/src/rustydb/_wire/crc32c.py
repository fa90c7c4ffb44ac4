"""CRC-32C (Castagnoli). With the package `crc32c` it is computed in hardware."""

from __future__ import annotations


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def _portable(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The checksum of `data`, or of what gave `crc` followed by `data`."""
    table = _TABLE
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


try:
    from crc32c import crc32c
except ImportError:
    crc32c = _portable

__all__ = ["crc32c"]
