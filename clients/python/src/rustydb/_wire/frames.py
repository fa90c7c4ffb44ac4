"""Frames: header, checksum, compression."""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

from . import compression
from .bincode import Violation, too_large
from .crc32c import crc32c
from .messages import CompressionType

# What a client sends before its first frame: the name, and the format of the preface.
PREFACE = b"RUSTYDB\x01"

MAX_PAYLOAD = 16 << 20
MAX_URGENT_PAYLOAD = 64
# The last message numbers of Handshake, Auth and AuthReply, whose bodies are never compressed.
_NEVER_COMPRESSED = 2

_HEADER = struct.Struct("<IHQ")
HEADER = _HEADER.size


class Flag(enum.IntFlag):
    COMPRESSED = 0x0001
    CHECKSUM = 0x0002
    MORE = 0x0004
    RESPONSE = 0x0008
    URGENT = 0x0010
    ONEWAY = 0x0020
    PRIORITY = 0x00C0
    ORDERED = 0x0100
    RESERVED = 0xFE00


# As plain numbers: the flags of every frame are looked at.
_COMPRESSED, _CHECKSUM = int(Flag.COMPRESSED), int(Flag.CHECKSUM)
_URGENT, _RESERVED = int(Flag.URGENT), int(Flag.RESERVED)


@dataclasses.dataclass(slots=True)
class Agreed:
    """What the handshake has agreed on for frames; at first as it is before the handshake."""

    compression: CompressionType = CompressionType.None_
    checksum: bool = False
    max_message_size: int = MAX_PAYLOAD


class Frame(NamedTuple):
    """A frame as it came, its checksum verified and taken off."""

    flags: int
    id: int
    payload: bytes
    # Length of the payload as it was sent; flow control counts it.
    size: int
    agreed: Agreed

    @property
    def body(self) -> bytes:
        """The encoded message, decompressed anew each time.

        Raises `Violation` if it cannot be decompressed.
        """
        if not self.flags & _COMPRESSED:
            return self.payload
        agreed = self.agreed
        return compression.decompress(agreed.compression, self.payload, agreed.max_message_size)


def build(agreed: Agreed, flags: int, message_id: int, body: bytes | bytearray) -> bytes:
    """The bytes of a frame.

    Raises `Violation` (54000) if the body is longer than agreed.
    """
    trailer = 4 if agreed.checksum else 0
    if len(body) + trailer > agreed.max_message_size:
        raise too_large(
            f"the message has {len(body)} bytes, more than the {agreed.max_message_size} agreed"
        )
    if (
        agreed.compression
        and len(body) >= compression.THRESHOLD
        and body[0] > _NEVER_COMPRESSED
        and (small := compression.compress(agreed.compression, body)) is not None
    ):
        body = small
        flags |= _COMPRESSED
    if not agreed.checksum:
        return _HEADER.pack(len(body), flags, message_id) + body
    header = _HEADER.pack(len(body) + 4, flags | _CHECKSUM, message_id)
    checksum = crc32c(body, crc32c(header))
    return header + body + checksum.to_bytes(4, "little")


class Splitter:
    """Finds the frames in what has been received. Memory grows with the bytes that really came."""

    def __init__(self) -> None:
        self.agreed = Agreed()
        self._data = bytearray()
        self._pos = 0

    def feed(self, data: bytes) -> None:
        """Takes in what came."""
        if self._pos:
            del self._data[: self._pos]
            self._pos = 0
        self._data += data

    def frames(self) -> Iterator[Frame]:
        """The whole frames, in order; the rest is kept.

        Raises `Violation` at a frame that breaks a rule, a too long one before it has come.
        """
        while len(self._data) - self._pos >= HEADER:
            length, flags, message_id = _HEADER.unpack_from(self._data, self._pos)
            self._check(length, flags)
            start = self._pos + HEADER
            if len(self._data) - start < length:
                return
            payload = bytes(memoryview(self._data)[start : start + length])
            header = bytes(memoryview(self._data)[self._pos : start])
            self._pos = start + length
            body = self._verified(header, flags, payload)
            yield Frame(flags, message_id, body, length, self.agreed)

    def _check(self, length: int, flags: int) -> None:
        prefixes = (4 if flags & _CHECKSUM else 0) + (4 if flags & _COMPRESSED else 0)
        if length > self.agreed.max_message_size:
            raise Violation("a frame is longer than agreed", "PAYLOAD_TOO_LARGE")
        if flags & _RESERVED:
            raise Violation("reserved flag bits are set")
        if length < prefixes:
            raise Violation("a frame is shorter than its flags say")
        if flags & _URGENT and length > MAX_URGENT_PAYLOAD:
            raise Violation("an urgent frame is longer than 64 bytes")

    def _verified(self, header: bytes, flags: int, body: bytes) -> bytes:
        if flags & _CHECKSUM:
            body, checksum = body[:-4], body[-4:]
            if crc32c(body, crc32c(header)) != int.from_bytes(checksum, "little"):
                raise Violation("the checksum of a frame is wrong", "CHECKSUM_MISMATCH")
        elif self.agreed.checksum:
            raise Violation(
                "a frame has no checksum, although that was agreed", "CHECKSUM_MISMATCH"
            )
        if flags & _COMPRESSED and self.agreed.compression == CompressionType.None_:
            raise Violation("a body is compressed, although that was not agreed")
        return body
