"""CRC-32C (Castagnoli). With the package `google-crc32c` it is computed in hardware."""

from __future__ import annotations

from typing import Any

_google: Any
try:
    import google_crc32c as _google
except ImportError:
    _google = None


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def portable(data: bytes | bytearray, crc: int = 0) -> int:
    """As `crc32c`, in Python alone."""
    table = _TABLE
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def crc32c(data: bytes | bytearray, crc: int = 0) -> int:
    """The checksum of `data`, or of what gave `crc` followed by `data`."""
    if _google is None:
        return portable(data, crc)
    return int(_google.extend(crc, bytes(data)))
