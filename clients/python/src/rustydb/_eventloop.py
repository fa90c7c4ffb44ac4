"""The engine's surroundings for the asyncio interface."""

from __future__ import annotations

import asyncio
import collections
import ssl
import weakref
from typing import Any

from ._engine.runtime import Address, TlsRefused, is_local
from .errors import ConnectionFailed

# How long closing a connection may take, in seconds.
_CLOSE_SECONDS = 1.0

# Reading pauses when so many bytes wait to be taken.
_MOST_INBOX = 1 << 20


async def _wait(future: asyncio.Future[None], timeout: float | None) -> bool:
    """Waits for a future of this module; False if the time has passed first."""
    loop = asyncio.get_running_loop()
    timer = None
    if timeout is not None:
        timer = loop.call_later(timeout, _expire, future)
    try:
        await future
    except asyncio.TimeoutError:
        return False
    finally:
        if timer is not None:
            timer.cancel()
    return True


def _was_set(future: asyncio.Future[None]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(asyncio.TimeoutError())


class EventTransport(asyncio.Protocol):
    """A connection of the event loop."""

    def __init__(self) -> None:
        self.encrypted = False
        self.certificate: bytes | None = None
        self.private = False
        self._transport: asyncio.Transport
        self._inbox = bytearray()
        self._end: Exception | None = None
        self._writing = True
        self._reading = True
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        # Whether the event loop has let go of the connection.
        self.lost = asyncio.Event()

    # What the event loop calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.private = is_local(transport.get_extra_info("peername"))

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        if len(self._inbox) >= _MOST_INBOX and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._notify()

    def eof_received(self) -> None:
        self._end = self._end or EOFError()
        self._notify()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()
        if self._end is None:
            self._end = (
                EOFError()
                if error is None
                else ConnectionFailed(f"the connection is broken: {error}")
            )
        self._notify()

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        self._notify()

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the engine calls

    async def exchange(self, data: bytes, timeout: float | None, wait: bool) -> bytes:
        self.push(data)
        if not wait:
            # A long load must not keep the other tasks from running.
            await asyncio.sleep(0)
        while not self._inbox and self._end is None and (wait or not self._writing):
            if self._woken:
                self._woken = False
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                if not await _wait(self._waiter, timeout):
                    break
            finally:
                self._waiter = None
        return self.poll()

    def push(self, data: bytes) -> None:
        if data and self._end is None:
            self._transport.write(data)

    def poll(self) -> bytes:
        if self._inbox:
            data = bytes(self._inbox)
            self._inbox.clear()
            if not self._reading:
                self._reading = True
                self._transport.resume_reading()
            return data
        if isinstance(self._end, EOFError):
            raise EOFError
        if self._end is not None:
            raise ConnectionFailed(str(self._end.args[0]))
        return b""

    def wake(self) -> None:
        self._woken = True
        self._notify()

    def close(self) -> None:
        self._end = self._end or ConnectionFailed("the connection was closed by the client")
        self._transport.close()
        self._notify()

    async def encrypt(self, tls: ssl.SSLContext, host: str, timeout: float | None) -> None:
        """Does the TLS handshake."""
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._transport,
                self,
                tls,
                server_hostname=host,
                ssl_handshake_timeout=timeout or None,
            )
        except asyncio.TimeoutError:
            raise TimeoutError from None
        except (OSError, ValueError) as error:
            raise TlsRefused(error) from None
        if transport is None:
            raise TlsRefused(ConnectionResetError("the server has closed the connection"))
        self._transport = transport
        self.encrypted = self.private = True
        self.certificate = transport.get_extra_info("ssl_object").getpeercert(True)


class EventLock:
    """A lock of tasks that can also be tried without waiting."""

    def __init__(self) -> None:
        self._locked = False
        self._waiters: collections.deque[asyncio.Future[None]] = collections.deque()

    async def acquire(self, timeout: float | None) -> bool:
        if self.try_acquire():
            return True
        future = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        try:
            return await _wait(future, timeout)
        except asyncio.CancelledError:
            if _was_set(future):
                # The lock was handed over just before.
                self.release()
            raise

    def try_acquire(self) -> bool:
        if self._locked:
            return False
        self._locked = True
        return True

    def release(self) -> None:
        while self._waiters:
            future = self._waiters.popleft()
            if not future.done():
                # It stays locked for the one that is woken.
                future.set_result(None)
                return
        self._locked = False


class EventCondition:
    """A condition of tasks. It needs no mutex: nothing else runs until a task waits."""

    def __init__(self) -> None:
        self._waiters: collections.deque[asyncio.Future[None]] = collections.deque()

    async def __aenter__(self) -> object:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def wait(self, timeout: float | None) -> bool:
        future = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        try:
            return await _wait(future, timeout)
        except asyncio.CancelledError:
            if _was_set(future):
                # The wake-up is for the next one.
                self.notify()
            raise

    def notify(self) -> None:
        while self._waiters:
            future = self._waiters.popleft()
            if not future.done():
                future.set_result(None)
                return


class EventRuntime:
    """An event loop."""

    lock = EventLock
    condition = EventCondition

    def __init__(self) -> None:
        self._transports: weakref.WeakSet[EventTransport] = weakref.WeakSet()

    async def connect(
        self, address: Address, tls: ssl.SSLContext | None, timeout: float | None
    ) -> EventTransport:
        loop = asyncio.get_running_loop()
        if address.path is None:
            making = loop.create_connection(EventTransport, address.host, address.port)
        else:
            making = loop.create_unix_connection(EventTransport, address.path)
        try:
            _, transport = await asyncio.wait_for(making, timeout)
        except asyncio.TimeoutError:
            raise TimeoutError from None
        self._transports.add(transport)
        if tls is not None:
            try:
                await transport.encrypt(tls, address.host, timeout)
            except BaseException:
                transport.close()
                raise
        return transport

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def closed(self) -> None:
        """Waits a moment for the connections that were closed: TLS says good-bye first."""
        losing = [asyncio.ensure_future(each.lost.wait()) for each in self._transports]
        if losing:
            _, late = await asyncio.wait(losing, timeout=_CLOSE_SECONDS)
            for each in late:
                each.cancel()
