"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), the client's side."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata

PLAIN = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"

# More rounds would let a false server keep the client busy for minutes.
_MOST_ITERATIONS = 10_000_000


class ScramError(Exception):
    """The server's part of the exchange is wrong, so it is not to be trusted."""


def saslprep(text: str) -> str:
    """The password in its normal form (RFC 4013), or as it is if the form is not defined for it,
    as PostgreSQL does."""
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if not stringprep.in_table_b1(char)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if not normal or any(map(_is_prohibited, normal)) or _is_mixed(normal):
        return text
    return normal


def _is_prohibited(char: str) -> bool:
    return (
        stringprep.in_table_a1(char)
        or stringprep.in_table_c12(char)
        or stringprep.in_table_c21_c22(char)
        or stringprep.in_table_c3(char)
        or stringprep.in_table_c4(char)
        or stringprep.in_table_c5(char)
        or stringprep.in_table_c6(char)
        or stringprep.in_table_c7(char)
        or stringprep.in_table_c8(char)
        or stringprep.in_table_c9(char)
    )


def _is_mixed(text: str) -> bool:
    """Whether text breaks the rules for text that is written from right to left."""
    if not any(map(stringprep.in_table_d1, text)):
        return False
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends or any(map(stringprep.in_table_d2, text))


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


class Scram:
    """One exchange. `binding` is the hash of the server's certificate for the PLUS mechanism;
    `could_bind` says that the client would have used it, had the server offered it."""

    def __init__(
        self,
        password: str,
        binding: bytes | None = None,
        could_bind: bool = False,
        nonce: str | None = None,
    ):
        self.mechanism = PLUS if binding is not None else PLAIN
        self._password = saslprep(password).encode()
        self._binding = binding or b""
        self._gs2 = "p=tls-server-end-point,," if binding else "y,," if could_bind else "n,,"
        self._nonce = nonce or base64.b64encode(secrets.token_bytes(18)).decode()
        # The user's name is that of the log-in, as with PostgreSQL.
        self._first = f"n=,r={self._nonce}"
        self._server_signature = b""

    def first(self) -> bytes:
        """The client's first message."""
        return (self._gs2 + self._first).encode()

    def final(self, server_first: bytes) -> bytes:
        """The client's last message, in answer to the server's first one."""
        text, fields = _fields(server_first, "r", "s", "i")
        nonce, iterations = fields["r"], _number(fields["i"])
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ScramError("the server's nonce does not continue the client's")
        if not 1 <= iterations <= _MOST_ITERATIONS:
            raise ScramError("the server's number of iterations is out of range")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, _unbase64(fields["s"]), iterations)
        client_key = _hmac(salted, b"Client Key")
        binding = base64.b64encode(self._gs2.encode() + self._binding).decode()
        without_proof = f"c={binding},r={nonce}"
        said = f"{self._first},{text},{without_proof}".encode()
        signature = _hmac(hashlib.sha256(client_key).digest(), said)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), said)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Checks that the server knows the password as well.

        Raises `ScramError` if it does not.
        """
        _, fields = _fields(server_final, "v")
        if not self._server_signature or not hmac.compare_digest(
            _unbase64(fields["v"]), self._server_signature
        ):
            raise ScramError("the server could not prove that it knows the password")


def _fields(message: bytes, *wanted: str) -> tuple[str, dict[str, str]]:
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise ScramError("the server's message is not text") from None
    fields = {part[0]: part[2:] for part in text.split(",") if part[1:2] == "="}
    if "e" in fields:
        raise ScramError(f"the server refused the exchange: {fields['e']}")
    if "m" in fields or any(name not in fields for name in wanted):
        raise ScramError("the server's message is malformed")
    return text, fields


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ScramError("the server's number of iterations is malformed")
    return int(text)


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ScramError("the server's message is malformed") from None


# Signature algorithms by their encoded OIDs, and the hash that the binding takes for each
# (RFC 5929: that of the signature, but SHA-256 in place of MD5 and SHA-1).
_RSA, _ECDSA = "2a864886f70d0101", "2a8648ce3d04"
_HASHES = {
    _RSA + "04": "sha256",
    _RSA + "05": "sha256",
    _RSA + "0b": "sha256",
    _RSA + "0c": "sha384",
    _RSA + "0d": "sha512",
    _RSA + "0e": "sha224",
    _ECDSA + "01": "sha256",
    _ECDSA + "0301": "sha224",
    _ECDSA + "0302": "sha256",
    _ECDSA + "0303": "sha384",
    _ECDSA + "0304": "sha512",
}


def end_point(certificate: bytes) -> bytes | None:
    """The hash of a server's certificate (DER) that `tls-server-end-point` binds to, or None if
    none is defined for its signature."""
    try:
        _, body, _ = _der(certificate)
        _, _, rest = _der(body)
        _, algorithm, _ = _der(rest)
        _, oid, _ = _der(algorithm)
    except IndexError:
        return None
    name = _HASHES.get(oid.hex())
    return hashlib.new(name, certificate).digest() if name else None


def _der(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what follows it."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise IndexError
    return data[0], data[start : start + length], data[start + length :]
