"""What the engine needs from its surroundings: connections, time, locks."""

from __future__ import annotations

import dataclasses
import ipaddress
import ssl
import time
from typing import Any, Protocol


class Transport(Protocol):
    """A connected stream of bytes. One turn at a time uses it; `wake` may come from anywhere."""

    # The server's certificate (DER), if the stream is encrypted.
    certificate: bytes | None
    encrypted: bool
    # Whether nobody on the way can read along.
    private: bool

    async def exchange(self, data: bytes, timeout: float | None, wait: bool) -> bytes:
        """Sends `data` and returns what has come meanwhile.

        With `wait` it returns when something has come, `wake` was called, or `timeout` seconds
        have passed; without, as soon as the data is on its way.

        Raises `ConnectionFailed` if the stream is broken, and `EOFError` at its end.
        """

    def push(self, data: bytes) -> None:
        """Sends what goes without waiting, and keeps the rest for the next exchange."""

    def poll(self) -> bytes:
        """What has come, without waiting. Raises as `exchange` does."""

    def wake(self) -> None:
        """Makes a waiting `exchange` return; the next one, if none is waiting."""

    def close(self) -> None:
        """Closes the stream at once."""


class Lock(Protocol):
    """Lets one turn at a time use a connection."""

    async def acquire(self, timeout: float | None) -> bool:
        """Waits for the lock; False if the time has passed."""

    def try_acquire(self) -> bool:
        """Takes the lock if it is free."""

    def release(self) -> None:
        """Gives the lock back."""


class Condition(Protocol):
    """A mutex with a place to wait at."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def wait(self, timeout: float | None) -> bool:
        """Waits for `notify`, the mutex being free meanwhile; False if the time has passed."""

    def notify(self) -> None:
        """Wakes one that waits. The mutex must be held."""


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a host and a port, or a path."""

    host: str
    port: int

    @property
    def path(self) -> str | None:
        """The Unix socket, if the host is a directory."""
        return f"{self.host}/.s.PGSQL.{self.port}" if self.host.startswith("/") else None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def is_local(peer: Any) -> bool:
    """Whether the peer of a socket, as `getpeername` tells it, is on this machine for certain."""
    if not isinstance(peer, tuple):
        # The path of a Unix socket, or the peer is gone.
        return peer is not None
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Runtime(Protocol):
    """Blocking calls or an event loop."""

    async def connect(
        self, address: Address, tls: ssl.SSLContext | None, timeout: float | None
    ) -> Transport:
        """Connects, and does the TLS handshake.

        Raises `TlsRefused` if the latter fails, `TimeoutError`, and `OSError`.
        """

    async def sleep(self, seconds: float) -> None:
        """Waits."""

    def lock(self) -> Lock: ...

    def condition(self) -> Condition: ...


class TlsRefused(Exception):
    """The server has not accepted TLS, or its certificate was not accepted."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause) or type(cause).__name__)
        # A certificate that is not trusted must not lead to a plain connection.
        self.untrusted = isinstance(cause, ssl.SSLCertVerificationError)


class Deadline:
    """When a request has to be done."""

    __slots__ = ("at",)

    def __init__(self, seconds: float | None):
        """`seconds` from now; None or 0 = never."""
        self.at = time.monotonic() + seconds if seconds else None

    def left(self) -> float | None:
        """Seconds left, at least 0; None = no limit."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.at is not None and time.monotonic() >= self.at

    def sooner(self, seconds: float) -> Deadline:
        """This deadline, or `seconds` from now if that is earlier."""
        other = Deadline(seconds)
        if self.at is not None and other.at is not None and self.at < other.at:
            return self
        return other
