"""The exchange of RFC 7677, and servers that cheat."""

import unittest

from rustydb._wire.scram import PLUS, Scram, ScramError, end_point, saslprep

_NONCE = "rOprNGfwEbeRWgbNEkqO"
_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


class ScramTest(unittest.TestCase):
    def test_the_example_of_the_rfc(self) -> None:
        # The RFC's user is `user`; PostgreSQL leaves the name empty, so the proof differs.
        scram = Scram("pencil", nonce=_NONCE)
        scram._first = f"n=user,r={_NONCE}"
        self.assertEqual(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(
            scram.final(_FIRST),
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")

    def test_the_name_is_left_to_the_login(self) -> None:
        self.assertEqual(Scram("x", nonce="n").first(), b"n,,n=,r=n")
        self.assertEqual(Scram("x", could_bind=True, nonce="n").first(), b"y,,n=,r=n")
        bound = Scram("x", binding=b"hash", could_bind=True, nonce="n")
        self.assertEqual(bound.first(), b"p=tls-server-end-point,,n=,r=n")
        self.assertEqual(bound.mechanism, PLUS)
        self.assertNotEqual(Scram("x").first(), Scram("x").first())

    def test_a_false_server(self) -> None:
        scram = Scram("pencil", nonce=_NONCE)
        with self.assertRaises(ScramError):
            scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        scram.final(_FIRST)
        for final in [
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=",
            b"v=AAAA",
            b"v=!",
            b"",
            b"e=other-error",
            b"\xff",
        ]:
            with self.subTest(final), self.assertRaises(ScramError):
                scram.verify(final)
        for first in [
            b"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            f"r={_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode(),
            f"r={_NONCE}x,s=!,i=4096".encode(),
            f"r={_NONCE}x,s=AAAA,i=0".encode(),
            f"r={_NONCE}x,s=AAAA,i=999999999".encode(),
            f"r={_NONCE}x,s=AAAA,i=12345678901234567890".encode(),
            f"r={_NONCE}x,s=AAAA,i=-1".encode(),
            f"m=ext,r={_NONCE}x,s=AAAA,i=4096".encode(),
            b"r",
        ]:
            with self.subTest(first), self.assertRaises(ScramError):
                Scram("pencil", nonce=_NONCE).final(first)

    def test_saslprep(self) -> None:
        for password, prepared in [
            ("pencil", "pencil"),
            ("I\u00adX", "IX"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
            ("a\u00a0b", "a b"),
            # Not defined for these, so they stay as they are.
            ("\u0007", "\u0007"),
            ("\u0627\u0031", "\u0627\u0031"),
            ("", ""),
        ]:
            with self.subTest(password):
                self.assertEqual(saslprep(password), prepared)

    def test_hash_of_a_certificate(self) -> None:
        for junk in [b"", b"\x30", b"\x30\x82\xff\xff", b"\x30\x03\x02\x01\x00"]:
            with self.subTest(junk):
                self.assertIsNone(end_point(junk))


if __name__ == "__main__":
    unittest.main()
