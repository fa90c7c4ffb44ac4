"""The engine's surroundings for the blocking interface: sockets, threads, locks."""

from __future__ import annotations

import collections
import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from ._engine.runtime import Address, TlsRefused, is_local
from .errors import ConnectionFailed

_T = TypeVar("_T")

_READ_BYTES = 256 << 10


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Runs what the engine has written with `async`. It waits in blocking calls only, so it is
    through at once."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("the blocking interface cannot wait for asyncio")


class BlockingTransport:
    """A socket, not blocking in itself, and a second one to wake who waits for it."""

    def __init__(self, sock: socket.socket):
        self.encrypted = isinstance(sock, ssl.SSLSocket)
        self.certificate = sock.getpeercert(True) if isinstance(sock, ssl.SSLSocket) else None
        self.private = self.encrypted or is_local(_peer(sock))
        self._sock = sock
        self._out: collections.deque[memoryview] = collections.deque()
        self._waker, self._woken = socket.socketpair()
        for each in (sock, self._waker, self._woken):
            each.setblocking(False)

    async def exchange(self, data: bytes, timeout: float | None, wait: bool) -> bytes:
        end = None if timeout is None else time.monotonic() + timeout
        if data:
            self._out.append(memoryview(data))
            self._send()
        # What a TLS socket has decrypted already cannot be waited for.
        received = self._receive() if self.encrypted or not wait or not data else b""
        while not received and (wait or self._out):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            if self._await(left):
                break
            self._send()
            received = self._receive()
        return received

    def push(self, data: bytes) -> None:
        if data:
            self._out.append(memoryview(data))
        self._send()

    def poll(self) -> bytes:
        return self._receive()

    def wake(self) -> None:
        # It fails if it is awake already, or closed.
        with contextlib.suppress(OSError):
            self._waker.send(b"w")

    def close(self) -> None:
        for each in (self._sock, self._waker, self._woken):
            each.close()

    def _await(self, timeout: float | None) -> bool:
        """Waits until the socket can be read, or written if there is something to write. Whether
        it was woken up for another reason."""
        try:
            if hasattr(select, "poll"):
                ready = self._poll(timeout)
            else:
                write = [self._sock] if self._out else []
                reading, _, _ = select.select([self._sock, self._woken], write, [], timeout)
                ready = self._woken in reading
            if ready:
                self._woken.recv(4096)
            return ready
        except BlockingIOError:
            return False
        except (OSError, ValueError) as error:
            raise ConnectionFailed(f"the connection is broken: {error}") from None

    def _poll(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._out else 0))
        poll.register(self._woken, select.POLLIN)
        woken = self._woken.fileno()
        # Rounded up, so that the time has passed when it returns.
        events = poll.poll(None if timeout is None else int(timeout * 1000) + 1)
        return any(number == woken for number, _ in events)

    def _send(self) -> None:
        while self._out:
            try:
                sent = self._sock.send(self._out[0])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, ValueError) as error:
                self._out.clear()
                raise ConnectionFailed(f"the connection is broken: {error}") from None
            if sent == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][sent:]

    def _receive(self) -> bytes:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except ssl.SSLEOFError:
            raise EOFError from None
        except (OSError, ValueError) as error:
            raise ConnectionFailed(f"the connection is broken: {error}") from None
        if not data:
            raise EOFError
        return data


class BlockingLock:
    """A lock of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.release = self._lock.release

    async def acquire(self, timeout: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else timeout)

    def try_acquire(self) -> bool:
        return self._lock.acquire(blocking=False)


class BlockingCondition:
    """A condition of threads."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.notify = self._condition.notify

    async def __aenter__(self) -> object:
        return self._condition.__enter__()

    async def __aexit__(self, *exc: Any) -> None:
        self._condition.__exit__(*exc)

    async def wait(self, timeout: float | None) -> bool:
        return self._condition.wait(timeout)


class BlockingRuntime:
    """Blocking calls."""

    lock = BlockingLock
    condition = BlockingCondition

    async def connect(
        self, address: Address, tls: ssl.SSLContext | None, timeout: float | None
    ) -> BlockingTransport:
        sock = self._connect(address, timeout)
        try:
            return BlockingTransport(_encrypt(sock, tls, address.host) if tls else sock)
        except BaseException:
            sock.close()
            raise

    def _connect(self, address: Address, timeout: float | None) -> socket.socket:
        if timeout is not None and timeout <= 0:
            raise TimeoutError
        if address.path is None:
            sock = socket.create_connection((address.host, address.port), timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _peer(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError:
        return None


def _encrypt(sock: socket.socket, tls: ssl.SSLContext, host: str) -> socket.socket:
    try:
        return tls.wrap_socket(sock, server_hostname=host)
    except TimeoutError:
        raise
    except (OSError, ValueError) as error:
        raise TlsRefused(error) from None
