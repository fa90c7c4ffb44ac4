"""What the blocking and the asyncio classes offer, before it has either form."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from .._wire import messages as m
from .._wire.url import Config
from ..errors import Error, UsageError
from ..rows import Result
from . import commands
from .commands import Params, make_query
from .link import CancelToken, Link
from .login import AskCode, Connector
from .pool import Pool
from .prepared import Prepared
from .runner import Call, Pinned, Pooled, Runner
from .runtime import Deadline, Runtime
from .streams import BulkInsert, Listener, Stream, Subscription

IsolationName = Literal["read uncommitted", "read committed", "repeatable read", "serializable"]
PurityName = Literal["new", "self", "any"]

_ISOLATION = {
    "read uncommitted": m.Isolation.ReadUncommitted,
    "read committed": m.Isolation.ReadCommitted,
    "repeatable read": m.Isolation.RepeatableRead,
    "serializable": m.Isolation.Serializable,
}
_CONFLICT = {"fail": m.OnConflict.Fail, "skip": m.OnConflict.Skip}
_PURITY = {"new": m.Purity.New, "self": m.Purity.Self, "any": m.Purity.Any}

_savepoint_numbers = itertools.count(1)


def _choose(name: str, text: str, choices: Mapping[str, Any]) -> Any:
    if text not in choices:
        raise UsageError(f"{name} is one of {', '.join(choices)}, not {text!r}")
    return choices[text]


class Commands:
    """Everything that runs statements, wherever they run."""

    def __init__(self, runner: Runner, timeout: float):
        self.runner = runner
        # Seconds for requests that do not say.
        self.timeout = timeout

    def call(
        self, timeout: float | None, cancel: CancelToken | None = None, repeatable: bool = False
    ) -> Call:
        """How to run one request."""
        return Call(self.timeout if timeout is None else timeout, cancel, repeatable)

    async def query_all(
        self,
        sql: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        max_rows: int = 0,
        read_only: bool = False,
        idempotent: bool = False,
        param_types: Sequence[int] = (),
    ) -> list[Result]:
        """The result of each statement."""
        message = make_query(sql, params, param_types, max_rows, read_only)
        call = self.call(timeout, cancel, read_only or idempotent)
        return await self.runner.run(lambda turn: commands.query(turn, message), call)

    async def query(self, *args: Any, **options: Any) -> Result:
        """The result of the last statement."""
        return (await self.query_all(*args, **options))[-1]

    async def execute(self, *args: Any, **options: Any) -> int:
        """How many rows the last statement changed or returned."""
        return (await self.query_all(*args, **options))[-1].row_count

    async def prepare(
        self, sql: str, param_types: Sequence[int], timeout: float | None
    ) -> Prepared:
        """Prepares a statement on one connection, to see whether it is one."""
        prepared = Prepared(self.runner, sql, param_types)
        await self.runner.run(prepared.prepare, self.call(timeout, repeatable=True))
        return prepared

    async def stream(
        self,
        sql: str,
        params: Params,
        chunk_rows: int,
        timeout: float | None,
        cancel: CancelToken | None,
        read_only: bool,
        param_types: Sequence[int],
    ) -> Stream:
        """Opens a stream of rows."""
        message = m.StreamOpen(make_query(sql, params, param_types, 0, read_only), chunk_rows)
        return await Stream(self.runner, self.call(timeout, cancel, read_only)).open(message)

    async def stream_object(
        self, oid: int, offset: int, length: int | None, timeout: float | None
    ) -> Stream:
        """Opens a large object."""
        message = m.StreamOpenObject(oid, offset, length)
        return await Stream(self.runner, self.call(timeout, None, True)).open(message)

    async def bulk_insert(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Any] | AsyncIterable[Any],
        schema: str | None,
        on_conflict: str,
        timeout: float | None,
        cancel: CancelToken | None,
    ) -> int:
        """Inserts rows; returns how many."""
        conflict = _choose("on_conflict", on_conflict, _CONFLICT)
        if not columns or isinstance(columns, str):
            raise UsageError("name the columns, as a list")
        start = m.BulkStart(schema, table, list(columns), conflict)
        call = self.call(timeout, cancel)
        return await BulkInsert(self.runner, call, len(columns)).run(start, rows)

    async def batch(
        self,
        statements: Iterable[str | tuple[str, Params]],
        atomic: bool,
        stop_on_error: bool,
        timeout: float | None,
        cancel: CancelToken | None,
    ) -> list[Result | Error]:
        """Runs statements in one request. An atomic batch raises the first error."""
        queries = [
            make_query(each, None) if isinstance(each, str) else make_query(*each)
            for each in statements
        ]
        if not queries:
            return []
        message = m.Batch(queries, atomic, stop_on_error)
        call = self.call(timeout, cancel)
        outcome = await self.runner.run(lambda turn: commands.batch(turn, message), call)
        if atomic:
            for each in outcome:
                if isinstance(each, Error):
                    raise each
        return outcome

    async def ping(self, timeout: float | None) -> float:
        """Seconds to the server and back."""
        start = time.perf_counter()
        await self.runner.run(commands.ping, self.call(timeout, repeatable=True))
        return time.perf_counter() - start

    async def ok(self, message: m.Message, timeout: float | None = None) -> None:
        """Sends a request that is answered with Ok."""
        await self.runner.run(lambda turn: commands.ok(turn, message), self.call(timeout))


class TransactionCore:
    """A transaction on a connection of its own, or on that of a session."""

    def __init__(
        self,
        outer: Commands,
        isolation: IsolationName | None,
        read_only: bool | None,
        deferrable: bool | None,
    ):
        level = None if isolation is None else _choose("isolation", isolation, _ISOLATION)
        self._begin = m.Begin(level, read_only, deferrable)
        self._outer = outer
        self._link: Link | None = None
        self._pinned: Pinned | None = None
        # The server's number of the transaction.
        self.number = 0

    async def begin(self) -> Commands:
        """Begins; what runs inside is run by what is returned."""
        if self._pinned is not None:
            raise UsageError("the transaction has begun already")
        call = self._outer.call(None, repeatable=True)
        self._link, self.number = await self._outer.runner.start(
            lambda turn: commands.begin(turn, self._begin), call
        )
        self._pinned = Pinned(self._link)
        return Commands(self._pinned, self._outer.timeout)

    def _running(self) -> Pinned:
        if self._pinned is None:
            raise UsageError("the transaction has not begun")
        return self._pinned

    @property
    def is_open(self) -> bool:
        """Whether it was neither committed nor rolled back."""
        return self._pinned is not None and self._pinned.ended is None

    async def commit(self, chain: bool) -> None:
        """Commits. With `chain`, a new one begins at once."""
        call = self._outer.call(None)
        await self._end(lambda turn: commands.commit(turn, chain), call, chain, "committed")

    async def rollback(self, chain: bool) -> None:
        """Rolls back. With `chain`, a new one begins at once."""
        call = self._outer.call(None)
        message = m.Rollback(None, chain)
        await self._end(lambda turn: commands.ok(turn, message), call, chain, "rolled back")

    async def _end(self, work: Any, call: Call, chain: bool, how: str) -> None:
        pinned = self._running()
        pinned.link.end_streams("the transaction of this stream has ended")
        try:
            await pinned.run(work, call)
        except BaseException:
            await self._leave("the transaction has failed")
            raise
        if not chain:
            await self._leave(f"the transaction was {how}")

    async def _leave(self, reason: str) -> None:
        pinned, link, self._link = self._running(), self._link, None
        pinned.ended = pinned.ended or reason
        if link is not None:
            await self._outer.runner.give_back(link)

    async def exit(self, error: BaseException | None) -> None:
        """Commits, or rolls back after an error, unless either was done."""
        if not self.is_open:
            return
        if error is None:
            await self.commit(False)
            return
        # If this fails the connection is lost, and the transaction with it.
        with contextlib.suppress(Error):
            await self.rollback(False)

    def orphan(self) -> None:
        """Rolls back from where nothing can be waited for."""
        link, self._link = self._link, None
        if link is not None:
            self._outer.runner.orphan(link)


class SavepointCore:
    """A savepoint of a transaction."""

    def __init__(self, commands: Commands, name: str | None):
        self._commands = commands
        self.name = name or f"rdb_{next(_savepoint_numbers)}"
        self.is_open = False

    async def create(self) -> None:
        """Sets the savepoint."""
        await self._commands.ok(m.Savepoint(self.name, False))
        self.is_open = True

    async def release(self) -> None:
        """Forgets the savepoint and keeps what was done since."""
        await self._commands.ok(m.Savepoint(self.name, True))
        self.is_open = False

    async def rollback(self) -> None:
        """Undoes what was done since; the savepoint stays."""
        await self._commands.ok(m.Rollback(self.name, False))

    async def exit(self, error: BaseException | None) -> None:
        """Releases the savepoint, after undoing everything if there was an error."""
        if not self.is_open:
            return
        if error is None:
            await self.release()
            return
        # If this fails the transaction ends as well, with the first error.
        with contextlib.suppress(Error):
            await self.rollback()
            await self.release()


class SessionCore:
    """A connection of the pool for one user alone."""

    def __init__(self, outer: Commands):
        self._outer = outer
        self._link: Link | None = None
        self._pinned: Pinned | None = None
        self._commands: Commands | None = None

    async def open(self) -> Commands:
        """Takes the connection."""
        self._link, _ = await self._outer.runner.start(_nothing, self._outer.call(None))
        self._pinned = Pinned(self._link)
        self._commands = Commands(self._pinned, self._outer.timeout)
        return self._commands

    def commands(self) -> Commands:
        """What runs requests on the connection."""
        if self._commands is None:
            raise UsageError("the session is not open")
        return self._commands

    async def close(self) -> None:
        """Gives the connection back as if it were new."""
        link, self._link = self._link, None
        if link is None or self._pinned is None:
            return
        try:
            if link.is_usable:
                await self._reset(link)
        except Error:
            link.close()
        finally:
            self._pinned.ended = "the session is closed"
            await self._outer.runner.give_back(link)

    async def _reset(self, link: Link) -> None:
        link.end_streams("the session of this stream is closed")
        own = self.commands()
        if link.protocol.transaction_status != m.TxStatus.Idle:
            await own.runner.run(commands.roll_back, own.call(None))
        await self.discard_all()

    def orphan(self) -> None:
        """Gives the connection back from where nothing can be waited for."""
        link, self._link = self._link, None
        if link is not None:
            link.stop()
            self._outer.runner.orphan(link)

    async def set(self, name: str, value: str, local: bool) -> None:
        """Sets a setting."""
        await self.commands().ok(m.SessionSet(name, value, local))

    async def show(self, name: str) -> str:
        """The value of a setting."""
        own = self.commands()
        return await own.runner.run(lambda turn: commands.show(turn, name), own.call(None))

    async def reset(self, name: str | None) -> None:
        """Resets a setting, or all of them."""
        await self.commands().ok(m.SessionReset(name))

    async def discard_all(self) -> None:
        """Forgets settings, prepared statements and the rest of the session's state."""
        await self.commands().ok(m.SessionDiscardAll())
        if self._pinned is not None:
            self._pinned.link.statements.clear()

    async def acquire(
        self, connection_class: str | None, tag: str | None, purity: PurityName
    ) -> None:
        """Takes a session out of the server's session pool."""
        own = self.commands()
        chosen = _choose("purity", purity, _PURITY)
        message = m.SessionAcquire(connection_class, tag, chosen)
        call = own.call(None)
        await own.runner.run(lambda turn: commands.acquire_session(turn, message), call)

    async def release(self, tag: str | None) -> None:
        """Gives the session back to the server's session pool."""
        await self.commands().ok(m.SessionRelease(tag))


async def _nothing(turn: Any) -> None:
    pass


class ClientCore:
    """A pool of connections and what runs on it."""

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        on_notice: Callable[[m.Notice], None] | None,
        ask_code: AskCode | None,
    ):
        self.config = config
        self._runtime = runtime
        connector = Connector(runtime, config, ask_code, on_notice)
        self.pool = Pool(runtime, config, connector)
        self.commands = Commands(Pooled(runtime, self.pool), config.timeout)
        # What PostgreSQL reported at log-in, `server_version` among it.
        self.parameters: dict[str, str] = {}

    async def open(self) -> None:
        """Connects for the first time, to see whether that works."""
        deadline = Deadline(self.config.timeout)
        try:
            link = await self.pool.acquire(deadline)
            self.parameters = dict(link.parameters)
            await self.pool.release(link)
            await self.pool.fill(deadline)
        except BaseException:
            await self.pool.close()
            raise

    def transaction(
        self,
        isolation: IsolationName | None,
        read_only: bool | None,
        deferrable: bool | None,
    ) -> TransactionCore:
        """A transaction that has not begun."""
        return TransactionCore(self.commands, isolation, read_only, deferrable)

    def listener(self, channels: Sequence[str]) -> Listener:
        """A listener that is not open."""
        if not channels:
            raise UsageError("name a channel to listen to")
        call = self.commands.call(None, None, True)
        return Listener(self._runtime, self.commands.runner, channels, call)

    def subscription(self) -> Subscription:
        """A subscription that is not open."""
        return Subscription(self.commands.runner, self.commands.call(None, None, True))
