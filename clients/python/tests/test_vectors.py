"""Every library encodes and decodes the same bytes: `clients/vectors.json`."""

import random
import unittest
from typing import Any

from rustydb._wire import compression, frames
from rustydb._wire import messages as m
from rustydb._wire.bincode import (
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Violation,
    codec_of,
)
from rustydb._wire.crc32c import crc32c, portable
from rustydb._wire.values import ExactReader, write_exact

from .serde import VECTORS, of_message, of_value

_TYPES: dict[str, Any] = {
    "u8": U8,
    "u16": U16,
    "u32": U32,
    "u64": U64,
    "i8": I8,
    "i16": I16,
    "i32": I32,
    "i64": I64,
    "f32": F32,
    "f64": F64,
    "String": str,
    "Option<u32>": U32 | None,
    "Vec<u8>": bytes,
    "Vec<u32>": list[U32],
    "[u8;4]": tuple[U8, U8, U8, U8],
    "(String,String)": tuple[str, str],
}


def agreed_for(flags: int) -> frames.Agreed:
    """What the sides must have agreed on for a frame with these flags."""
    lz4 = m.CompressionType.Lz4 if flags & frames.Flag.COMPRESSED else m.CompressionType.None_
    return frames.Agreed(lz4, bool(flags & frames.Flag.CHECKSUM))


def read_frames(data: bytes) -> list[frames.Frame]:
    """All frames of a stream that ends after `data`."""
    splitter = frames.Splitter()
    flags = int.from_bytes(data[4:6], "little")
    splitter.agreed = agreed_for(flags)
    splitter.feed(data)
    found = list(splitter.frames())
    if len(data) != sum(frames.HEADER + frame.size for frame in found):
        raise Violation("the stream ends inside a frame")
    return found


def read_value(data: bytes) -> Any:
    reader = ExactReader(data)
    value = reader.value()
    reader.finish()
    return value


class VectorTest(unittest.TestCase):
    def test_primitives(self) -> None:
        self.assertGreater(len(VECTORS["primitives"]), 30)
        for vector in VECTORS["primitives"]:
            with self.subTest(vector):
                codec, expected = codec_of(_TYPES[vector["type"]]), vector["value"]
                data = bytes.fromhex(vector["bytes"])
                reader = ExactReader(data)
                value = codec.read(reader)
                reader.finish()
                if vector["type"] == "Vec<u8>":
                    expected = bytes(expected)
                elif isinstance(expected, str) and vector["type"] != "String":
                    expected = int(expected)
                elif isinstance(value, tuple):
                    expected = tuple(expected)
                self.assertEqual(value, expected)
                out = bytearray()
                codec.write(out, expected)
                self.assertEqual(out.hex(" "), data.hex(" "))

    def test_values(self) -> None:
        self.assertGreater(len(VECTORS["values"]), 40)
        for vector in VECTORS["values"]:
            with self.subTest(vector["name"]):
                data = bytes.fromhex(vector["bytes"])
                value = read_value(data)
                self.assertEqual(of_value(value), vector["value"])
                out = bytearray()
                write_exact(out, value)
                self.assertEqual(out.hex(" "), data.hex(" "))

    def test_frames(self) -> None:
        self.assertGreater(len(VECTORS["frames"]), 31)
        for vector in VECTORS["frames"]:
            with self.subTest(vector["name"]):
                data = bytes.fromhex(vector["bytes"])
                flags = vector["flags"]
                if flags & frames.Flag.COMPRESSED and compression.cramjam is None:
                    self.skipTest("cramjam is not installed")
                (frame,) = read_frames(data)
                self.assertEqual((frame.flags, frame.id), (flags, int(vector["id"])))
                message = m.decode(frame.body, ExactReader)
                self.assertEqual(of_message(message), vector["message"])
                body = m.encode(message)
                self.assertEqual(body.hex(" "), frame.body.hex(" "))
                if not flags & frames.Flag.COMPRESSED:
                    plain = flags & ~frames.Flag.CHECKSUM
                    again = frames.build(agreed_for(flags), plain, frame.id, body)
                    self.assertEqual(again.hex(" "), data.hex(" "))

    def test_what_the_rows_hold_becomes_python(self) -> None:
        # The reader of connections has a faster way for rows; it must understand as much.
        for vector in VECTORS["frames"]:
            flags = vector["flags"]
            if flags & frames.Flag.COMPRESSED:
                continue
            with self.subTest(vector["name"]):
                (frame,) = read_frames(bytes.fromhex(vector["bytes"]))
                self.assertIs(type(m.decode(frame.body)), type(m.decode(frame.body, ExactReader)))

    def test_invalid(self) -> None:
        self.assertGreater(len(VECTORS["invalid"]), 50)
        for vector in VECTORS["invalid"]:
            with self.subTest(vector["name"], what=vector["what"]):
                self._refuse(vector)

    def _refuse(self, vector: dict[str, str]) -> None:
        data = bytes.fromhex(vector["bytes"])
        if vector["code"] == "DECOMPRESSION_FAILED" and compression.cramjam is None:
            self.skipTest("cramjam is not installed")
        with self.assertRaises(Violation) as refused:
            if vector["what"] == "value":
                read_value(data)
            elif vector["what"] == "message":
                m.decode(data, ExactReader)
            else:
                for frame in read_frames(data):
                    m.decode(frame.body, ExactReader)
        self.assertEqual(refused.exception.sqlstate, vector["sqlstate"])
        self.assertEqual(refused.exception.code, vector["code"])

    def test_every_cut_of_every_message_is_refused(self) -> None:
        for vector in VECTORS["frames"]:
            if vector["flags"] & frames.Flag.COMPRESSED:
                continue
            (frame,) = read_frames(bytes.fromhex(vector["bytes"]))
            for end in range(len(frame.body)):
                for reader in (ExactReader, None):
                    with self.subTest(vector["name"], end=end), self.assertRaises(Violation):
                        m.decode(frame.body[:end], *([reader] if reader else []))

    def test_checksums(self) -> None:
        for compute in (crc32c, portable):
            self.assertEqual(compute(b"123456789"), 0xE3069283)
            self.assertEqual(compute(b"56789", compute(b"1234")), 0xE3069283)
            self.assertEqual(compute(bytearray(b"")), 0)

    def test_damaged_messages_do_nothing_else(self) -> None:
        """Whatever the bytes are, they are understood or refused, and with little memory."""
        bodies = []
        for vector in VECTORS["frames"]:
            if not vector["flags"] & frames.Flag.COMPRESSED:
                bodies.append(read_frames(bytes.fromhex(vector["bytes"]))[0].body)
        for vector in VECTORS["values"]:
            value = bytes.fromhex(vector["bytes"])
            bodies.append(b"\x08\x02\x00\x01\x01" + value)
        chance = random.Random(1)
        understood = 0
        for _ in range(20_000):
            body = bytearray(chance.choice(bodies))
            for _ in range(chance.randint(1, 3)):
                where = chance.randrange(len(body) + 1)
                if chance.random() < 0.7:
                    body[where : where + 1] = [chance.randrange(256)]
                else:
                    body[where:where] = chance.randbytes(chance.randint(1, 4))
            try:
                message = m.decode(bytes(body))
            except Violation:
                continue
            understood += 1
            self.assertIsInstance(message, m.Message)
        self.assertGreater(understood, 1000)


if __name__ == "__main__":
    unittest.main()
