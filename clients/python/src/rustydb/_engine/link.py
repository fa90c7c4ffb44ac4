"""One connection that is logged in, and the turns in which it is used."""

from __future__ import annotations

import collections
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from .._wire import messages as m
from .._wire import protocol as wire
from .._wire.protocol import Reply, Request, lost
from ..errors import ConnectionFailed, Error, ProtocolError, RequestTimeout, from_server
from .runtime import Deadline, Runtime, Transport

_log = logging.getLogger("rustydb")

_M = TypeVar("_M", bound=m.Message)

# How long a canceled request may take to end before the connection is given up, in seconds.
_SETTLE_SECONDS = 5.0


class CancelToken:
    """Stops the request that it is given to. `cancel` may be called from any thread or task; a
    request that is given a token that was used already is stopped at once."""

    __slots__ = ("_canceled", "_running")

    def __init__(self) -> None:
        self._running: tuple[Link, Request] | None = None
        self._canceled = False

    def cancel(self) -> None:
        """Tells the server to stop the request, which then ends with `QueryCanceled`."""
        self._canceled = True
        running = self._running
        if running is not None:
            running[0].interrupt(running[1])

    def attach(self, link: Link, request: Request) -> None:
        """Makes a request the one to cancel."""
        self._running = link, request
        if self._canceled:
            link.interrupt(request)

    def detach(self) -> None:
        """Forgets the request."""
        self._running = None


class Ongoing(Protocol):
    """What uses a connection for several turns."""

    def interrupt(self, reason: str) -> None:
        """Ends it; who goes on with it is told the reason."""


class Link:
    """A connection. `on_event` gets the notifications of the server."""

    def __init__(self, runtime: Runtime, transport: Transport, hello: m.ClientHello):
        self.transport = transport
        self.on_event: Callable[[m.Message], None] | None = None
        self.on_notice: Callable[[m.Notice], None] | None = None
        self.protocol = wire.Protocol(hello, self._event)
        self.parameters: dict[str, str] = {}
        # Names of the statements that are prepared on this connection, the latest used last.
        self.statements: collections.OrderedDict[str, m.StatementInfo] = collections.OrderedDict()
        # Names that are to be deallocated before the next use.
        self.unwanted: collections.deque[str] = collections.deque()
        # Streams and loads that go on; other statements would wait for their end for ever.
        self.streams: weakref.WeakSet[Ongoing] = weakref.WeakSet()
        self.idle_since = time.monotonic()
        self.lock = runtime.lock()
        self._interrupts: collections.deque[Request] = collections.deque()
        self._neglected: collections.deque[Request] = collections.deque()
        self._closed = False
        # Somebody wants the connection closed, also while it is in use.
        self.stopping = False

    @property
    def is_usable(self) -> bool:
        """Whether a new request may be sent."""
        return not self._closed and not self.stopping and self.protocol.failure is None

    def _event(self, message: m.Message) -> None:
        if isinstance(message, m.ParameterStatus):
            self.parameters[message.name] = message.value
        elif isinstance(message, m.Notice):
            self._notice(message)
        elif self.on_event is not None:
            self.on_event(message)

    def _notice(self, message: m.Notice) -> None:
        if self.on_notice is None:
            return
        try:
            self.on_notice(message)
        except Exception:
            # It belongs to somebody else than the request that is running.
            _log.exception("on_notice has failed")

    def end_streams(self, reason: str) -> None:
        """Ends what goes on, before the connection is given to somebody else."""
        for stream in list(self.streams):
            stream.interrupt(reason)
        self.streams.clear()

    def interrupt(self, request: Request) -> None:
        """Has a request canceled by whoever uses the connection now."""
        self._interrupts.append(request)
        self.transport.wake()

    def neglect(self, request: Request) -> None:
        """Has a request dismissed before the connection is used the next time. Never waits."""
        self._neglected.append(request)

    @property
    def is_busy(self) -> bool:
        """Whether the server still works on something that nobody waits for."""
        return bool(self._neglected) or bool(self.protocol.unfinished())

    def stop(self) -> None:
        """Makes the request that uses the connection now fail."""
        self.stopping = True
        self.transport.wake()

    async def pump(self, deadline: Deadline, wait: bool = True) -> None:
        """Sends what there is to send and takes in what has come; with `wait`, waits for it.

        Raises `RequestTimeout` if the deadline has passed.
        """
        if wait and deadline.passed:
            raise RequestTimeout("the time-out of the request has passed")
        self._cancel_interrupted()
        if self.stopping:
            self.protocol.fail(ConnectionFailed("the client was closed"))
            return
        timer = self.protocol.next_timer() - time.monotonic()
        left = deadline.left()
        timeout = max(0.0, timer) if left is None else max(0.0, min(left, timer))
        await self._exchange(None if timeout == float("inf") else timeout, wait)
        self.protocol.tick()

    async def _exchange(self, timeout: float | None, wait: bool) -> None:
        try:
            data = await self.transport.exchange(self.protocol.output(), timeout, wait)
        except EOFError:
            self.protocol.end_of_input()
        except ConnectionFailed as error:
            self.protocol.fail(error)
        else:
            if data:
                self.protocol.receive(data)

    def _cancel_interrupted(self) -> None:
        while self._interrupts:
            self.protocol.cancel(self._interrupts.popleft())

    def flush(self) -> None:
        """Sends what goes without waiting."""
        try:
            self.transport.push(self.protocol.output())
        except ConnectionFailed as error:
            self.protocol.fail(error)

    def service(self) -> None:
        """Answers heartbeats, and sends them, while nobody uses the connection."""
        if not self.lock.try_acquire():
            return
        try:
            while self.is_usable and (data := self.transport.poll()):
                self.protocol.receive(data)
            self._cancel_interrupted()
            self.protocol.tick()
            self.flush()
        except EOFError:
            self.protocol.end_of_input()
        except ConnectionFailed as error:
            self.protocol.fail(error)
        finally:
            self.lock.release()

    async def settle(self, deadline: Deadline) -> None:
        """Waits until canceled requests have ended, so that they do not disturb the next one."""
        while self._neglected:
            self.protocol.dismiss(self._neglected.popleft())
        limit = deadline.sooner(_SETTLE_SECONDS)
        while self.protocol.failure is None and self.protocol.unfinished():
            if limit.passed:
                self.close()
                raise ConnectionFailed("a canceled request did not end")
            await self.pump(limit)

    def close(self) -> None:
        """Says good-bye if that goes without waiting, and closes the connection."""
        if self._closed:
            return
        self._closed = True
        self.protocol.close("")
        self.flush()
        self.transport.close()


class Turn:
    """The right to use a connection for a while. Requests that are unfinished when the block is
    left with an exception are canceled."""

    __slots__ = ("_kept", "_requests", "_token", "deadline", "link")

    def __init__(self, link: Link, deadline: Deadline, token: CancelToken | None = None):
        self.link = link
        self.deadline = deadline
        self._token = token
        self._requests: list[Request] = []
        # Requests that live on when the turn ends.
        self._kept: list[Request] = []

    async def __aenter__(self) -> Turn:
        if not await self.link.lock.acquire(self.deadline.left()):
            raise RequestTimeout("the connection was in use until the time-out")
        try:
            await self.link.settle(self.deadline)
            await self._deallocate()
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        protocol = self.link.protocol
        if isinstance(error, ConnectionFailed):
            error.request_sent = any(request.sent for request in self._requests)
        for request in self._requests:
            if request not in self._kept or error is not None:
                protocol.abandon(request)
        if self._token is not None:
            self._token.detach()
        if error is not None:
            self.link.flush()
        self.link.lock.release()

    async def _deallocate(self) -> None:
        while self.link.unwanted:
            name = self.link.unwanted.popleft()
            if self.link.statements.pop(name, None) is not None:
                await self.final(self.submit(m.Deallocate(name)), m.Ok)

    def submit(self, message: m.Message, more: bool = False) -> Request:
        """Sends a request; `keep` it if it shall outlive the turn."""
        request = self.link.protocol.submit(message, more)
        self._requests.append(request)
        if self._token is not None:
            self._token.attach(self.link, request)
        return request

    def resume(self, request: Request) -> None:
        """Takes over a request of an earlier turn."""
        self._requests.append(request)
        self._kept.append(request)
        if self._token is not None:
            self._token.attach(self.link, request)

    def keep(self, request: Request) -> None:
        """Lets a request go on after the turn, unless the turn fails."""
        self._kept.append(request)

    async def reply(self, request: Request) -> Reply:
        """The next reply, of whatever kind."""
        while not request.replies:
            if self.link.protocol.failure is not None:
                raise lost(self.link.protocol)
            if request.done:
                raise ProtocolError("the server has ended a request without an answer")
            await self.link.pump(self.deadline)
        return self.link.protocol.take(request)

    async def answer(self, request: Request) -> m.Message:
        """The next reply; an error is raised."""
        reply = await self.reply(request)
        if isinstance(reply.message, m.ErrorBody):
            raise from_server(reply.message)
        return reply.message

    async def final(self, request: Request, kind: type[_M]) -> _M:
        """The only reply, which has to be of a kind."""
        message = await self.answer(request)
        if not isinstance(message, kind):
            raise unexpected(message)
        return message


def unexpected(message: m.Message) -> Error:
    """The error for a reply that does not belong to the request."""
    return ProtocolError(f"the server has answered with {'::'.join(message.NAMES)}")
