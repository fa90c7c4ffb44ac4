"""The state of one connection: frames in, replies out; requests in, bytes out.

It does no input or output and knows no clock but the one it is given.
"""

from __future__ import annotations

import collections
import enum
import time
from collections.abc import Callable

from ..errors import ConnectionFailed, Error, ProtocolError, from_server, from_violation
from . import messages as m
from .bincode import Violation
from .flow import ReceiveWindow, SendWindow, UrgentLimit
from .frames import PREFACE, Agreed, Flag, Frame, Splitter, build

# Ids with this bit belong to the server.
_SERVERS = 1 << 63
_MORE, _RESPONSE, _URGENT = int(Flag.MORE), int(Flag.RESPONSE), int(Flag.URGENT)
_CONTROL = int(Flag.URGENT | Flag.ONEWAY)

# So many heartbeats without any answer mean that nobody is there.
_MOST_UNANSWERED = 2

# Urgent frames that may wait for their turn.
_MOST_CONTROL = 1_000


class State(enum.Enum):
    """How far the connection is."""

    CONNECTED = "connected"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    CLOSED = "closed"


class Reply:
    """A message that answers a request.

    A part of a stream is decoded when it is taken: until then it is compressed, and takes no more
    memory than flow control counts.
    """

    __slots__ = ("_frame", "_message", "size")

    def __init__(self, frame: Frame, message: m.Message | None = None):
        self._frame = frame if message is None else None
        self._message = message
        # Length of its payload as it was sent.
        self.size = frame.size

    @property
    def message(self) -> m.Message:
        """Raises `Violation` when it is asked for first, if it is none."""
        if self._message is None:
            assert self._frame is not None
            self._message = m.decode(self._frame.body)
            self._frame = None
        return self._message


class Request:
    """A request that was submitted, and what has come for it."""

    __slots__ = ("abandoned", "done", "id", "inbound", "outbound", "replies", "sent", "stream")

    def __init__(self, number: int):
        self.id = number
        self.replies: collections.deque[Reply] = collections.deque()
        # Whether its final reply has come.
        self.done = False
        # Whether its first frame may have left this process.
        self.sent = False
        # Whether nobody waits for the replies any more.
        self.abandoned = False
        # Whether it is a stream of rows or of a large object.
        self.stream = False
        # The windows of a stream of its own, towards the client and towards the server.
        self.inbound: ReceiveWindow | None = None
        self.outbound: SendWindow | None = None


class Protocol:
    """One connection. `on_event` gets what the server says unasked."""

    def __init__(
        self,
        hello: m.ClientHello,
        on_event: Callable[[m.Message], None] = lambda message: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.state = State.CONNECTED
        self.server: m.ServerHello | None = None
        # Why the connection is closed.
        self.failure: Error | None = None
        # The server will close the connection soon: nothing new should be begun.
        self.draining = False
        self.transaction_status = m.TxStatus.Idle
        self._hello = hello
        self._on_event = on_event
        self._clock = clock
        self._splitter = Splitter()
        self._out: list[bytes] = [PREFACE]
        # Requests whose first frame lies in `_out`.
        self._leaving: list[Request] = []
        # Frames that wait for credit of the connection.
        self._held: collections.deque[tuple[Request, bytes, int]] = collections.deque()
        self._control: collections.deque[tuple[int, m.Message, int]] = collections.deque()
        self._grants: dict[int, int] = {}
        self._limit = UrgentLimit()
        self._requests: dict[int, Request] = {}
        # Unsubscribe requests, and the subscriptions they end.
        self._ending: dict[int, int] = {}
        self._next_id = 1
        self._outbound = SendWindow(hello.connection_window)
        self._inbound = ReceiveWindow(hello.connection_window)
        self._heard = self._beat = clock()
        self._unanswered = 0
        self._hello_request = self.submit(hello)

    # Requests

    @property
    def hello_request(self) -> Request:
        """The request whose reply is the ServerHello."""
        return self._hello_request

    def submit(self, message: m.Message, more: bool = False) -> Request:
        """Sends the first message of a request.

        Raises `Error` if the connection is closed or the message too long, and what `encode` does.
        """
        if self.failure is not None:
            raise ConnectionFailed(f"the connection is closed: {self.failure.message}")
        request = Request(self._next_id)
        frame = self._build(message, more, request.id)
        self._next_id += 1
        self._open_windows(request, message)
        self._requests[request.id] = request
        if isinstance(message, m.Unsubscribe):
            self._ending[request.id] = message.target
        self._send(request, frame)
        return request

    def proceed(self, request: Request, message: m.Message, more: bool = False) -> None:
        """Sends a further message of a request."""
        if not request.done:
            self._send(request, self._build(message, more, request.id))

    def may_send(self, request: Request) -> bool:
        """Whether there is credit for a further message of a request."""
        free = not self._held and self._outbound.credit > 0
        return free and (request.outbound is None or request.outbound.credit > 0)

    def cancel(self, request: Request) -> None:
        """Asks the server to stop a request; its final reply still comes."""
        if not request.done and self.failure is None:
            self._urgent(0, m.Cancel(request.id), _CONTROL)

    def abandon(self, request: Request) -> None:
        """Cancels a request whose replies nobody wants any more."""
        if request.done or request.abandoned:
            return
        self.cancel(request)
        self.ignore(request)

    def dismiss(self, request: Request) -> None:
        """Ends a request that nobody wants any more; a stream so that a transaction goes on."""
        if request.inbound is None or not request.stream:
            self.abandon(request)
        elif not request.done and not request.abandoned and self.failure is None:
            self.ignore(request)
            self.proceed(request, m.StreamCancel())

    def ignore(self, request: Request) -> None:
        """Drops what has come for a request, and what will come."""
        request.abandoned = True
        while request.replies:
            self.consumed(request, request.replies.popleft())

    def unfinished(self) -> list[Request]:
        """Abandoned requests whose final reply has not come."""
        return [request for request in self._requests.values() if request.abandoned]

    def take(self, request: Request) -> Reply:
        """The oldest reply of a request that has one. A violation closes the connection."""
        reply = request.replies.popleft()
        try:
            _ = reply.message
        except Violation as violation:
            self.fail(from_violation(violation))
            raise lost(self) from None
        return reply

    def consumed(self, request: Request, reply: Reply) -> None:
        """Grants back the credit of a reply of a stream that has been used."""
        if request.inbound is None:
            return
        self._grant(0, self._inbound.consume(reply.size))
        # An abandoned stream gets credit as well: its end may be behind what nobody wants.
        if not request.done:
            self._grant(request.id, request.inbound.consume(reply.size))
        self._send_control()

    def close(self, reason: str) -> None:
        """Says good-bye and takes no more requests."""
        if self.failure is None:
            frame = self._build(m.Close(reason), False, self._next_id)
            self._send(Request(self._next_id), frame)
            self.fail(ConnectionFailed("the connection was closed by the client"))

    def _build(self, message: m.Message, more: bool, number: int) -> bytes:
        body = m.encode(message)
        try:
            return build(self._splitter.agreed, _MORE if more else 0, number, body)
        except Violation as violation:
            raise Error(
                str(violation),
                sqlstate=violation.sqlstate,
                code=violation.code,
                hint="send fewer rows per message, or smaller values",
            ) from None

    def _open_windows(self, request: Request, message: m.Message) -> None:
        if isinstance(message, (m.StreamOpen, m.StreamOpenObject, m.Subscribe)):
            request.inbound = ReceiveWindow(self._hello.stream_window)
            request.stream = not isinstance(message, m.Subscribe)
        elif isinstance(message, m.BulkStart) and self.server is not None:
            request.outbound = SendWindow(self.server.stream_window)

    def _send(self, request: Request, frame: bytes) -> None:
        self._held.append((request, frame, len(frame) - 14))
        self._release()

    def _release(self) -> None:
        while self._held and self._outbound.credit > 0:
            request, frame, size = self._held.popleft()
            self._out.append(frame)
            self._leaving.append(request)
            if self.server is not None:
                self._outbound.credit -= size
            if request.outbound is not None:
                request.outbound.credit -= size

    # Control frames

    def _urgent(self, number: int, message: m.Message, flags: int) -> None:
        if len(self._control) >= _MOST_CONTROL:
            raise Violation("the server asks for more heartbeats than can be answered")
        self._control.append((number, message, flags))
        self._send_control()

    def _grant(self, stream: int, credit: int) -> None:
        if credit:
            self._grants[stream] = self._grants.get(stream, 0) + credit

    def _send_control(self) -> None:
        now = self._clock()
        while (self._control or self._grants) and self._limit.due() <= now:
            if self._control:
                number, message, flags = self._control.popleft()
            else:
                stream, credit = self._grants.popitem()
                number, message, flags = 0, m.WindowUpdate(stream, credit), _CONTROL
            self._out.append(build(self._splitter.agreed, flags, number, m.encode(message)))
            self._limit.count(now)

    # Time

    def next_timer(self) -> float:
        """When `tick` is needed at the latest, on the clock."""
        due = float("inf")
        if self._control or self._grants:
            due = self._limit.due()
        if self.server is not None and self.state == State.READY:
            due = min(due, max(self._heard, self._beat) + self._interval())
        return due

    def tick(self) -> None:
        """Does what is due: a heartbeat after silence, control frames that had to wait."""
        self._send_control()
        now = self._clock()
        if self.server is None or self.state != State.READY or self.failure is not None:
            return
        if now - max(self._heard, self._beat) < self._interval():
            return
        if self._unanswered >= _MOST_UNANSWERED:
            self.fail(ConnectionFailed("the server has not answered two heartbeats"))
            return
        self._unanswered += 1
        self._beat = now
        number, self._next_id = self._next_id, self._next_id + 1
        beat = m.Heartbeat(time.time_ns() // 1000, len(self._requests))
        self._urgent(number, beat, _URGENT)

    def _interval(self) -> float:
        milliseconds = self.server.heartbeat_interval_ms if self.server is not None else 0
        return milliseconds / 1000 or float("inf")

    # Input and output

    def output(self) -> bytes:
        """The bytes to send now; they are handed out once."""
        if not self._out:
            return b""
        for request in self._leaving:
            request.sent = True
        self._leaving.clear()
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes) -> None:
        """Takes in what came. A violation of the protocol closes the connection."""
        if self.failure is not None:
            return
        self._heard = self._clock()
        self._unanswered = 0
        self._splitter.feed(data)
        try:
            for frame in self._splitter.frames():
                self._accept(frame)
                if self.failure is not None:
                    return
        except Violation as violation:
            self.fail(from_violation(violation))

    def end_of_input(self) -> None:
        """The server has closed the connection."""
        self.fail(ConnectionFailed("the server has closed the connection"))

    def fail(self, error: Error) -> None:
        """Closes the connection for a reason; the first one counts."""
        if self.failure is None:
            self.failure = error
            self.state = State.CLOSED
            for request in self._requests.values():
                request.done = True
            self._requests.clear()
            self._held.clear()

    def _accept(self, frame: Frame) -> None:
        request = self._requests.get(frame.id)
        if request is not None and request.inbound is not None and frame.flags & _MORE:
            self._inbound.receive(frame.size)
            request.inbound.receive(frame.size)
            self._deliver(request, Reply(frame))
            return
        message = m.decode(frame.body)
        if self.state == State.CONNECTED and not isinstance(message, (m.ServerHello, m.ErrorBody)):
            raise Violation("the server has sent something else than a ServerHello")
        # Flow control begins after the log-in; what came before is not counted.
        size = 0 if frame.flags & _URGENT or self.state != State.READY else frame.size
        if size:
            self._inbound.receive(size)
        if isinstance(message, m.WindowUpdate):
            self._take_credit(message)
        elif isinstance(message, m.Heartbeat):
            if not frame.flags & _RESPONSE:
                self._urgent(frame.id, message, _URGENT)
        elif message.NUMBERS[0] == m.Event.NUMBERS[0]:
            self._used(size)
            self._notify(message)
        elif isinstance(message, m.ErrorBody) and frame.id == 0:
            self.fail(from_server(message))
        else:
            self._answer(frame, message, size)

    def _used(self, size: int) -> None:
        self._grant(0, self._inbound.consume(size))
        self._send_control()

    def _take_credit(self, update: m.WindowUpdate) -> None:
        if update.stream == 0:
            self._outbound.add(update.credit)
            self._release()
            return
        # The request may have ended while the credit was under way.
        request = self._requests.get(update.stream)
        if request is not None and request.outbound is not None:
            request.outbound.add(update.credit)

    def _notify(self, message: m.Message) -> None:
        if isinstance(message, m.Shutdown):
            self.draining = True
        self._on_event(message)

    def _answer(self, frame: Frame, message: m.Message, size: int) -> None:
        request = self._requests.get(frame.id)
        if request is None or frame.id & _SERVERS:
            raise Violation(f"the server has answered no request (id {frame.id})")
        if isinstance(message, m.ServerHello):
            self._agree(message)
        elif isinstance(message, m.AuthSuccess) and self.state == State.AUTHENTICATING:
            self.state = State.READY
        final = not frame.flags & _MORE
        self._observe(message, final)
        if request.inbound is None:
            self._used(size)
        if final:
            self._finish(request, message)
        self._deliver(request, Reply(frame, message))
        if isinstance(message, m.ErrorBody) and message.severity != m.Severity.Error:
            self.fail(from_server(message))

    def _deliver(self, request: Request, reply: Reply) -> None:
        if not request.abandoned:
            request.replies.append(reply)
        elif request.inbound is not None:
            self.consumed(request, reply)

    def _finish(self, request: Request, message: m.Message) -> None:
        request.done = True
        del self._requests[request.id]
        ended = self._ending.pop(request.id, None)
        if ended is not None and isinstance(message, m.Ok):
            subscription = self._requests.pop(ended, None)
            if subscription is not None:
                subscription.done = True

    def _observe(self, message: m.Message, final: bool) -> None:
        if isinstance(message, (m.Ok, m.QueryResponse, m.StreamEnd)):
            if final:
                self.transaction_status = message.transaction_status
        elif isinstance(message, m.TransactionStarted):
            self.transaction_status = m.TxStatus.InTransaction
        elif (
            isinstance(message, m.ErrorBody) and self.transaction_status == m.TxStatus.InTransaction
        ):
            self.transaction_status = m.TxStatus.Failed

    def _agree(self, server: m.ServerHello) -> None:
        hello = self._hello
        low, high = hello.min_version, hello.version
        version = (server.version.major, server.version.minor)
        if not (low.major, low.minor) <= version <= (high.major, high.minor):
            raise Violation("the server has chosen a version that was not offered")
        offered = [m.CompressionType.None_, *hello.compression]
        if server.compression not in offered:
            raise Violation("the server has chosen a compression that was not offered")
        if server.max_message_size > hello.max_message_size:
            raise Violation("the server has chosen longer messages than were offered")
        self.server = server
        self.state = State.AUTHENTICATING
        checksum = bool(server.capabilities & hello.capabilities & m.Capability.CHECKSUM)
        self._splitter.agreed = Agreed(server.compression, checksum, server.max_message_size)
        self._outbound = SendWindow(server.connection_window)


def lost(protocol: Protocol) -> Error:
    """A new error that says why the connection is closed."""
    failure = protocol.failure
    if failure is None or isinstance(failure, ConnectionFailed):
        text = failure.message if failure else "the connection is closed"
        kind = ProtocolError if isinstance(failure, ProtocolError) else ConnectionFailed
        return kind(text, code=failure.code if failure else None)
    return failure
