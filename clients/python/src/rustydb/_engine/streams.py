"""What goes on for longer than one turn: streams of rows, bulk loads, events."""

from __future__ import annotations

import collections
import json
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

from .._wire import messages as m
from .._wire.convert import EncodedRows, write_row
from .._wire.protocol import Reply, Request
from ..errors import (
    ConnectionFailed,
    Error,
    ProtocolError,
    RequestTimeout,
    UsageError,
    from_server,
)
from ..rows import Column, Notification, Row, StreamEvent, names_of
from .link import Link, Turn, unexpected
from .runner import Call, Runner
from .runtime import Deadline, Runtime

# Notifications that may wait to be read; older ones are dropped.
_MOST_EVENTS = 10_000
# A listener that has lost its connection tries so often to get another one, in seconds.
_RECONNECT_SECONDS = 0.25
# A frame of rows is sent when it has so many bytes.
_BULK_BYTES = 64 << 10


class Stream:
    """The parts of a result that the server sends as they are asked for."""

    def __init__(self, runner: Runner, call: Call):
        self._runner = runner
        self._call = call
        self._link: Link | None = None
        self._request: Request | None = None
        # The part that the user has, whose credit goes back when the next one is asked for.
        self._current: Reply | None = None
        self._sequence = 0
        self._names: dict[str, int] = {}
        self.columns: list[Column] = []
        # Why there are no more parts, if that is not because all were read.
        self._interrupted: str | None = None
        # The command tag and the number of rows, known at the end.
        self.command: str | None = None
        self.row_count: int | None = None

    async def open(self, message: m.Message) -> Stream:
        """Begins; for rows, waits until the columns are known."""

        async def work(turn: Turn) -> Request:
            request = turn.submit(message)
            if isinstance(message, m.StreamOpen):
                header = await turn.reply(request)
                turn.link.protocol.consumed(request, header)
                self._head(header.message)
            turn.keep(request)
            return request

        self._link, self._request = await self._runner.start(work, self._call)
        self._link.streams.add(self)
        return self

    def _head(self, message: m.Message) -> None:
        if isinstance(message, m.ErrorBody):
            raise from_server(message)
        if not isinstance(message, m.StreamHeader):
            raise unexpected(message)
        self.columns = message.columns
        self._names = names_of(message.columns)

    async def rows(self) -> list[Row] | None:
        """The next rows, or None at the end."""
        chunk = await self._next(m.StreamChunk)
        names = self._names
        return None if chunk is None else [Row(values, names) for values in chunk.rows]

    async def data(self) -> bytes | None:
        """The next bytes of a large object, or None at the end."""
        part = await self._next(m.StreamData)
        return None if part is None else part.data

    async def _next(self, kind: Any) -> Any:
        if self._interrupted is not None:
            raise UsageError(self._interrupted)
        link, request = self._link, self._request
        if link is None or request is None:
            return None
        try:
            async with Turn(link, self._call.deadline(), self._call.token) as turn:
                turn.resume(request)
                message = await self._advance(turn, request, kind)
        except BaseException:
            await self._release()
            raise
        if isinstance(message, kind):
            return message
        await self._release()
        if isinstance(message, m.StreamEnd):
            self.command, self.row_count = message.command_tag, message.rows
        return None

    async def _advance(self, turn: Turn, request: Request, kind: Any) -> m.Message:
        protocol = turn.link.protocol
        if self._current is not None:
            protocol.consumed(request, self._current)
            self._current = None
        reply = await turn.reply(request)
        message = reply.message
        if isinstance(message, (m.StreamChunk, m.StreamData)) and isinstance(message, kind):
            self._current = reply
            if message.sequence != self._sequence:
                raise ProtocolError("a part of a stream is missing")
            self._sequence += 1
            return message
        protocol.consumed(request, reply)
        if isinstance(message, m.ErrorBody):
            raise from_server(message)
        if not isinstance(message, m.StreamEnd):
            raise unexpected(message)
        return message

    async def close(self) -> None:
        """Ends the stream early; the rest is not sent."""
        link, request = self._link, self._request
        if link is None or request is None:
            return
        if not request.done and link.is_usable:
            try:
                async with Turn(link, self._call.deadline()) as turn:
                    turn.resume(request)
                    if self._current is not None:
                        link.protocol.consumed(request, self._current)
                    link.protocol.dismiss(request)
                    # The end comes soon, and the next turn waits for it.
                    await link.pump(turn.deadline, wait=False)
            except Error:
                pass
        await self._release()

    async def _release(self) -> None:
        link, self._link, self._request, self._current = self._link, None, None, None
        if link is not None:
            link.streams.discard(self)
            await self._runner.give_back(link)

    def interrupt(self, reason: str) -> None:
        """Ends the stream because its connection is needed for something else."""
        link, request, self._link, self._request = self._link, self._request, None, None
        if link is not None and request is not None:
            self._interrupted = reason
            link.neglect(request)

    def orphan(self) -> None:
        """Ends the stream from where nothing can be waited for."""
        link, request, self._link, self._request = self._link, self._request, None, None
        if link is not None and request is not None:
            link.neglect(request)
            link.streams.discard(self)
            self._runner.orphan(link)


class BulkInsert:
    """Rows on their way into a table. The connection answers heartbeats while rows are awaited."""

    def __init__(self, runner: Runner, call: Call, columns: int):
        self._runner = runner
        self._call = call
        self._columns = columns
        self._link: Link
        self._request: Request
        self._data = bytearray()
        self._count = 0
        self._sequence = 0

    async def run(self, start: m.BulkStart, rows: Iterable[Any] | AsyncIterable[Any]) -> int:
        """Sends all rows; returns how many were inserted."""

        async def work(turn: Turn) -> Request:
            request = turn.submit(start, more=True)
            turn.keep(request)
            return request

        self._link, self._request = await self._runner.start(work, self._call)
        self._link.streams.add(self)
        try:
            return await self._send(rows)
        except Exception as error:
            await self._abort(str(error))
            raise
        finally:
            self._link.neglect(self._request)
            self._link.streams.discard(self)
            await self._runner.give_back(self._link)

    def interrupt(self, reason: str) -> None:
        """Ends the load because its connection is needed for something else."""
        self._link.neglect(self._request)

    async def _send(self, rows: Iterable[Any] | AsyncIterable[Any]) -> int:
        if isinstance(rows, AsyncIterable):
            async for row in rows:
                self._add(row)
                if len(self._data) >= _BULK_BYTES and not await self._flush():
                    break
        else:
            for row in rows:
                self._add(row)
                if len(self._data) >= _BULK_BYTES and not await self._flush():
                    break
        if self._count:
            await self._flush()
        async with self._turn() as turn:
            turn.resume(self._request)
            if await self._credit(turn):
                turn.link.protocol.proceed(self._request, m.BulkEnd())
            return (await turn.final(self._request, m.Ok)).affected_rows

    def _turn(self) -> Turn:
        # The time-out is for each step: a load may take long as long as it makes progress.
        return Turn(self._link, self._call.deadline(), self._call.token)

    def _add(self, row: Any) -> None:
        if len(row) != self._columns:
            raise ValueError(f"a row has {len(row)} values for {self._columns} columns")
        write_row(self._data, row)
        self._count += 1

    async def _flush(self) -> bool:
        """Sends the rows collected so far; False if the server has ended the load."""
        async with self._turn() as turn:
            request, protocol = self._request, turn.link.protocol
            turn.resume(request)
            if not await self._credit(turn):
                return False
            rows = EncodedRows(self._count, self._data)
            self._data, self._count = bytearray(), 0
            protocol.proceed(request, m.BulkRows(self._sequence, rows), more=True)
            self._sequence += 1
            await turn.link.pump(turn.deadline, wait=False)
            return not request.done

    async def _credit(self, turn: Turn) -> bool:
        """Waits until something may be sent; False if the server has ended the load."""
        while not self._request.done and not turn.link.protocol.may_send(self._request):
            await turn.link.pump(turn.deadline)
        return not self._request.done

    async def _abort(self, reason: str) -> None:
        """Undoes the load because of what went wrong on this side."""
        if self._request.done or self._request.abandoned or not self._link.is_usable:
            return
        try:
            async with self._turn() as turn:
                turn.resume(self._request)
                if await self._credit(turn):
                    turn.link.protocol.proceed(self._request, m.BulkAbort(reason[:200]))
                # The server confirms with an error, or with nothing inserted.
                await turn.reply(self._request)
        except Error:
            pass


class Listener:
    """Notifications of some channels. After the connection was lost, a new one listens."""

    def __init__(self, runtime: Runtime, runner: Runner, channels: Sequence[str], call: Call):
        self._runtime = runtime
        self._runner = runner
        self._channels = list(dict.fromkeys(channels))
        self._call = call
        self._link: Link | None = None
        self._events: collections.deque[Notification] = collections.deque()
        self.closed = False
        # Notifications that were dropped because nobody read them.
        self.dropped = 0
        # How often the connection was lost; what was sent meanwhile is not known.
        self.reconnects = 0

    async def open(self) -> Listener:
        """Begins to listen."""

        async def work(turn: Turn) -> None:
            turn.link.on_event = self._take
            for channel in self._channels:
                await turn.final(turn.submit(m.Listen(channel)), m.Ok)

        self._link, _ = await self._runner.start(work, self._call)
        return self

    def _take(self, message: m.Message) -> None:
        if isinstance(message, m.Event):
            if message.channel not in self._channels:
                return
            if len(self._events) >= _MOST_EVENTS:
                self._events.popleft()
                self.dropped += 1
            event = Notification(message.channel, message.payload, message.process_id)
            self._events.append(event)
        elif isinstance(message, m.SessionEvent) and message.event == "events_dropped":
            self.dropped += int(message.detail) if message.detail.isdigit() else 1

    async def next(self, timeout: float | None) -> Notification | None:
        """The next notification, or None if the time has passed or the listener was closed."""
        deadline = Deadline(timeout)
        if timeout == 0 and self._link is not None:
            self._link.service()
        while not self._events:
            if self.closed or timeout == 0:
                return None
            try:
                await self._wait(deadline)
            except RequestTimeout:
                return None
            except ConnectionFailed:
                await self._again(deadline)
        return self._events.popleft()

    async def _wait(self, deadline: Deadline) -> None:
        link = self._link
        if link is None:
            raise ConnectionFailed("the listener has no connection")
        async with Turn(link, deadline):
            while not self._events and not self.closed:
                if link.protocol.failure is not None:
                    raise ConnectionFailed(link.protocol.failure.message)
                await link.pump(deadline)

    async def _again(self, deadline: Deadline) -> None:
        """Listens on another connection, as soon as there is a server."""
        link, self._link = self._link, None
        if link is not None:
            self.reconnects += 1
            await self._runner.give_back(link)
        limit = self._call.deadline()
        while not self.closed:
            try:
                await self.open()
                break
            except ConnectionFailed:
                if limit.passed or deadline.passed:
                    raise
            await self._runtime.sleep(_RECONNECT_SECONDS)
        if self.closed:
            await self.close()

    async def close(self) -> None:
        """Stops listening; a `next` that waits elsewhere returns None."""
        self.closed = True
        link = self._link
        if link is None:
            return
        link.transport.wake()
        if link.is_usable:
            try:
                async with Turn(link, self._call.deadline()) as turn:
                    await turn.final(turn.submit(m.Unlisten(None)), m.Ok)
            except Error:
                link.close()
        self._link = None
        await self._runner.give_back(link)

    def orphan(self) -> None:
        """Ends from where nothing can be waited for."""
        link, self._link = self._link, None
        if link is not None:
            self._runner.orphan(link)


class Subscription:
    """Events of one of the server's streams."""

    def __init__(self, runner: Runner, call: Call):
        self._runner = runner
        self._call = call
        self._link: Link | None = None
        self._request: Request | None = None

    async def open(self, stream: str, params: list[tuple[str, str]]) -> Subscription:
        """Subscribes."""

        async def work(turn: Turn) -> Request:
            request = turn.submit(m.Subscribe(stream, params))
            await turn.final(request, m.Ok)
            turn.keep(request)
            return request

        self._link, self._request = await self._runner.start(work, self._call)
        return self

    async def next(self, timeout: float | None) -> StreamEvent | None:
        """The next event, or None if the time has passed or the subscription was closed."""
        link, request = self._link, self._request
        if link is None or request is None:
            return None
        if timeout == 0:
            link.service()
        try:
            reply = await self._reply(link, request, Deadline(timeout), timeout == 0)
        except RequestTimeout:
            return None
        except ConnectionFailed:
            await self._release()
            raise
        if reply is None:
            return None
        message = reply.message
        if isinstance(message, m.StreamEvent):
            data = json.loads(message.body)
            return StreamEvent(message.stream, message.sequence, message.time_us, data)
        await self._release()
        if isinstance(message, m.ErrorBody):
            raise from_server(message)
        raise unexpected(message)

    async def _reply(
        self, link: Link, request: Request, deadline: Deadline, at_once: bool
    ) -> Reply | None:
        # The request is not one of the turn: running out of time does not cancel it.
        async with Turn(link, deadline):
            while not request.replies:
                if link.protocol.failure is not None:
                    raise ConnectionFailed(link.protocol.failure.message)
                if at_once or request.done or self._request is None:
                    return None
                await link.pump(deadline)
            reply = link.protocol.take(request)
            link.protocol.consumed(request, reply)
            return reply

    async def close(self) -> None:
        """Unsubscribes; a `next` that waits elsewhere returns None."""
        link, request, self._request = self._link, self._request, None
        if link is None or request is None:
            return
        link.transport.wake()
        if link.is_usable and not request.done:
            try:
                async with Turn(link, self._call.deadline()) as turn:
                    link.protocol.ignore(request)
                    await turn.final(turn.submit(m.Unsubscribe(request.id)), m.Ok)
            except Error:
                link.close()
        await self._release()

    async def _release(self) -> None:
        link, self._link, self._request = self._link, None, None
        if link is not None:
            await self._runner.give_back(link)

    def orphan(self) -> None:
        """Ends from where nothing can be waited for."""
        link, request, self._link, self._request = self._link, self._request, None, None
        if link is not None and request is not None:
            link.neglect(request)
            self._runner.orphan(link)
