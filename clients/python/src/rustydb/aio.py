"""The asyncio interface: the same as `rustydb`, with `await`, `async with` and `async for`."""

from __future__ import annotations

import asyncio
import logging
import warnings
import weakref
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any

from ._engine.commands import Params
from ._engine.facade import (
    ClientCore,
    Commands,
    IsolationName,
    PurityName,
    SavepointCore,
    SessionCore,
    TransactionCore,
)
from ._engine.link import CancelToken
from ._engine.login import AskCode
from ._engine.pool import Pool
from ._engine.prepared import Prepared
from ._engine.streams import Listener as ListenerCore
from ._engine.streams import Stream
from ._engine.streams import Subscription as SubscriptionCore
from ._eventloop import EventRuntime
from ._wire.messages import Notice
from ._wire.url import parse
from .errors import Error, UsageError
from .rows import Column, Notification, Result, Row, StreamEvent

__all__ = [
    "Client",
    "Listener",
    "ObjectStream",
    "RowStream",
    "Savepoint",
    "Session",
    "Statement",
    "Subscription",
    "Transaction",
    "connect",
]

_log = logging.getLogger("rustydb")


class _Queries:
    """What runs statements: a client, a session, a transaction.

    Times are in seconds; a `timeout` of None is that of the connection string, 0 is no limit. A
    request is stopped on the server when its task is canceled, or with a `cancel` token.
    """

    def _commands(self) -> Commands:
        raise NotImplementedError

    async def query(
        self,
        sql: str,
        params: Params = None,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        max_rows: int = 0,
        read_only: bool = False,
        idempotent: bool = False,
        param_types: Sequence[int] = (),
    ) -> Result:
        """Runs a statement and returns its rows.

        `params` are the values of `$1`, `$2` …; without them there may be several statements,
        and the last one's rows are returned. `max_rows` cuts the result. `read_only` and
        `idempotent` allow the request to be sent again when the connection is lost while it
        runs; `read_only` has the server refuse to write. `param_types` are the OIDs of the
        parameters' types, 0 where PostgreSQL shall infer them.
        """
        return await self._commands().query(
            sql, params, timeout, cancel, max_rows, read_only, idempotent, param_types
        )

    async def query_all(
        self,
        sql: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> list[Result]:
        """Runs statements that are separated by semicolons and returns the result of each."""
        return await self._commands().query_all(sql, None, timeout, cancel)

    async def execute(
        self,
        sql: str,
        params: Params = None,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        idempotent: bool = False,
        param_types: Sequence[int] = (),
    ) -> int:
        """Runs a statement, as `query` does, and returns the number of affected rows."""
        return await self._commands().execute(
            sql, params, timeout, cancel, 0, False, idempotent, param_types
        )

    async def prepare(
        self, sql: str, *, param_types: Sequence[int] = (), timeout: float | None = None
    ) -> Statement:
        """Prepares a statement for being run many times."""
        prepared = await self._commands().prepare(sql, param_types, timeout)
        return Statement(prepared, self._commands)

    def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        chunk_rows: int = 0,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        read_only: bool = False,
        param_types: Sequence[int] = (),
    ) -> RowStream:
        """Runs a statement and returns its rows as they are read, however many there are.

        It begins with `async with` or `async for`. The rows use a connection until the last one
        is read or the stream is closed. Rows come in parts of at most `chunk_rows` (0: the server
        decides). The `timeout` is for each wait.
        """
        return RowStream(
            lambda: self._commands().stream(
                sql, params, chunk_rows, timeout, cancel, read_only, param_types
            )
        )

    def stream_object(
        self, oid: int, *, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> ObjectStream:
        """Returns the bytes of a large object, part by part, from `offset`."""
        return ObjectStream(lambda: self._commands().stream_object(oid, offset, length, timeout))

    async def bulk_insert(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        schema: str | None = None,
        on_conflict: str = "fail",
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> int:
        """Inserts any number of rows in one statement and returns how many were inserted.

        An error undoes everything. With `on_conflict="skip"` rows that violate a unique
        constraint are left out instead. The `timeout` is for each wait for the server.
        """
        return await self._commands().bulk_insert(
            table, columns, rows, schema, on_conflict, timeout, cancel
        )

    async def batch(
        self,
        statements: Iterable[str | tuple[str, Params]],
        *,
        atomic: bool = True,
        stop_on_error: bool = False,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> list[Result | Error]:
        """Runs up to 1,000 statements in one request.

        If it is atomic, the first error undoes everything and is raised. Otherwise each statement
        commits alone, and an `Error` stands in the list where one has failed; the statements
        after it run all the same, unless `stop_on_error` leaves them out.
        """
        return await self._commands().batch(statements, atomic, stop_on_error, timeout, cancel)

    async def ping(self, *, timeout: float | None = None) -> float:
        """Waits for an answer of the server; returns how long it took."""
        return await self._commands().ping(timeout)


class Client(_Queries):
    """A pool of connections to a server; `connect` makes one. Tasks of one event loop share it."""

    def __init__(self, core: ClientCore, runtime: EventRuntime):
        self._core = core
        self._runtime = runtime
        self._keeper = asyncio.get_running_loop().create_task(_keep(weakref.ref(core.pool)))

    def _commands(self) -> Commands:
        return self._core.commands

    @property
    def parameters(self) -> Mapping[str, str]:
        """What PostgreSQL reported at log-in, for instance `server_version`."""
        return self._core.parameters

    @property
    def pool_size(self) -> int:
        """Connections that are open now."""
        return self._core.pool.size

    @property
    def pool_idle(self) -> int:
        """Connections that nobody uses now."""
        return self._core.pool.idle

    def transaction(
        self,
        *,
        isolation: IsolationName | None = None,
        read_only: bool | None = None,
        deferrable: bool | None = None,
    ) -> Transaction:
        """A transaction, for `async with`. It uses a connection until it ends."""
        return Transaction(self._core.transaction(isolation, read_only, deferrable))

    def session(self) -> Session:
        """A connection for the caller alone, for `async with`."""
        return Session(SessionCore(self._core.commands))

    def listen(self, *channels: str) -> Listener:
        """Listens to channels of `NOTIFY`, in `async with`. It uses a connection."""
        return Listener(self._core.listener(channels))

    def subscribe(self, stream: str, params: Mapping[str, str] | None = None) -> Subscription:
        """Subscribes to a stream of the server, in `async with`. It uses a connection. There are
        no streams yet: the server answers `0A000`."""
        return Subscription(self._core.subscription(), stream, params or {})

    async def close(self) -> None:
        """Closes all connections. Requests that run in other tasks fail."""
        self._keeper.cancel()
        await self._core.pool.close()
        await self._runtime.closed()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is not None and not core.pool.closed:
            core.pool.abandon()
            warnings.warn("a rustydb.aio.Client was not closed", ResourceWarning, stacklevel=2)


class _Connecting:
    """What `connect` returns, for `await` and for `async with`."""

    def __init__(self, core: ClientCore, runtime: EventRuntime):
        self._core = core
        self._runtime = runtime
        self._client: Client | None = None

    async def _connect(self) -> Client:
        await self._core.open()
        return Client(self._core, self._runtime)

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connect().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._connect()
        return self._client

    async def __aexit__(self, *exc: object) -> None:
        if self._client is not None:
            await self._client.close()


def connect(
    url: str,
    *,
    user: str | None = None,
    password: str | None = None,
    database: str | None = None,
    parameters: Mapping[str, str] | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    ask_code: AskCode | None = None,
    **options: Any,
) -> _Connecting:
    """Connects to the server of a URL, `rustydb://user:password@host:port/database?options`.

    `client = await connect(…)`, or `async with connect(…) as client`. The options may be given as
    keyword arguments as well. `parameters` are settings of each session, for instance
    `{"TimeZone": "UTC"}`. `on_notice` gets PostgreSQL's notices. `ask_code` gets the methods of a
    second factor and returns the code, or an awaitable of it.

    Raises `UsageError` for a wrong URL, `ConnectionFailed` and `AuthenticationError`.
    """
    given = {"user": user, "password": password, "database": database, "parameters": parameters}
    options.update({name: value for name, value in given.items() if value is not None})
    runtime = EventRuntime()
    core = ClientCore(runtime, parse(url, **options), on_notice, ask_code)
    return _Connecting(core, runtime)


async def _keep(pool: weakref.ref[Pool]) -> None:
    """Answers the server's heartbeats while the client is not used."""
    while True:
        kept = pool()
        if kept is None or kept.closed:
            return
        try:
            await kept.tend()
        except Exception:
            _log.exception("looking after idle connections has failed")
        pause = kept.pause()
        del kept
        await asyncio.sleep(pause)


class Transaction(_Queries):
    """A transaction. Leaving the block commits, an exception rolls back."""

    def __init__(self, core: TransactionCore):
        self._core = core
        self._inner: Commands | None = None

    def _commands(self) -> Commands:
        if self._inner is None:
            raise UsageError("the transaction has not begun: use `async with`, or begin()")
        return self._inner

    @property
    def id(self) -> int:
        """The server's number of the transaction."""
        return self._core.number

    async def begin(self) -> Transaction:
        """Begins, without an `async with` block; `commit` or `rollback` has to follow."""
        self._inner = await self._core.begin()
        return self

    async def commit(self, *, chain: bool = False) -> None:
        """Commits. With `chain`, a new transaction with the same properties begins.

        Raises `ServerError` 25P02 if a statement has failed, so that nothing was kept.
        """
        await self._core.commit(chain)

    async def rollback(self, *, chain: bool = False) -> None:
        """Undoes everything. With `chain`, a new transaction begins."""
        await self._core.rollback(chain)

    def savepoint(self, name: str | None = None) -> Savepoint:
        """A savepoint, for `async with`."""
        return Savepoint(SavepointCore(self._commands(), name))

    async def __aenter__(self) -> Transaction:
        return self if self._inner is not None else await self.begin()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        await self._core.exit(error)

    def __del__(self) -> None:
        self._core.orphan()


class Savepoint:
    """A part of a transaction that can be undone. Leaving the block keeps what was done in it, an
    exception undoes it."""

    def __init__(self, core: SavepointCore):
        self._core = core

    @property
    def name(self) -> str:
        """The savepoint's name."""
        return self._core.name

    async def rollback(self) -> None:
        """Undoes what was done since; the savepoint stays."""
        await self._core.rollback()

    async def release(self) -> None:
        """Keeps what was done and forgets the savepoint."""
        await self._core.release()

    async def __aenter__(self) -> Savepoint:
        await self._core.create()
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        await self._core.exit(error)


class Session(_Queries):
    """A connection with settings, temporary tables and so on of its own. Leaving the block
    discards all that."""

    def __init__(self, core: SessionCore):
        self._core = core

    def _commands(self) -> Commands:
        return self._core.commands()

    def transaction(
        self,
        *,
        isolation: IsolationName | None = None,
        read_only: bool | None = None,
        deferrable: bool | None = None,
    ) -> Transaction:
        """A transaction on this connection, for `async with`."""
        return Transaction(TransactionCore(self._commands(), isolation, read_only, deferrable))

    async def set(self, name: str, value: str, *, local: bool = False) -> None:
        """Sets a setting, until the end of the transaction if `local`."""
        await self._core.set(name, value, local)

    async def show(self, name: str) -> str:
        """The value of a setting."""
        return await self._core.show(name)

    async def reset(self, name: str | None = None) -> None:
        """Resets a setting, or all of them."""
        await self._core.reset(name)

    async def discard_all(self) -> None:
        """Forgets settings, prepared statements and temporary tables."""
        await self._core.discard_all()

    async def acquire(
        self,
        connection_class: str | None = None,
        *,
        tag: str | None = None,
        purity: PurityName = "self",
    ) -> None:
        """Takes a session of a class out of the server's session pool."""
        await self._core.acquire(connection_class, tag, purity)

    async def release(self, *, tag: str | None = None) -> None:
        """Gives the session back to the server's session pool, under a tag."""
        await self._core.release(tag)

    async def __aenter__(self) -> Session:
        await self._core.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._core.close()

    def __del__(self) -> None:
        self._core.orphan()


class Statement:
    """A prepared statement."""

    def __init__(self, prepared: Prepared, commands: Callable[[], Commands]):
        self._prepared = prepared
        self._owner = commands

    @property
    def sql(self) -> str:
        """The statement's text."""
        return self._prepared.sql

    @property
    def param_types(self) -> list[int]:
        """OIDs of the parameters' types."""
        return self._prepared.info.param_types

    @property
    def columns(self) -> list[Column]:
        """The columns of the result."""
        return self._prepared.info.columns

    async def query(
        self,
        params: Params = None,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        max_rows: int = 0,
        read_only: bool = False,
        idempotent: bool = False,
    ) -> Result:
        """Runs the statement and returns its rows."""
        call = self._owner().call(timeout, cancel, read_only or idempotent)
        return await self._prepared.run(params, max_rows, read_only, call)

    async def execute(
        self,
        params: Params = None,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        idempotent: bool = False,
    ) -> int:
        """Runs the statement and returns the number of affected rows."""
        call = self._owner().call(timeout, cancel, idempotent)
        return (await self._prepared.run(params, 0, False, call)).row_count

    def close(self) -> None:
        """Forgets the statement."""
        self._prepared.close()

    def __enter__(self) -> Statement:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Opening:
    """A stream of the engine that begins when it is first used."""

    def __init__(self, opening: Callable[[], Any]):
        self._opening = opening
        self._core: Stream | None = None
        self._closed = False

    async def _open(self) -> Stream | None:
        if self._core is None and not self._closed:
            self._core = await self._opening()
        return self._core

    async def close(self) -> None:
        """Stops reading and frees the connection."""
        self._closed = True
        if self._core is not None:
            await self._core.close()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._core is not None:
            self._core.orphan()


class RowStream(_Opening, AsyncIterator[Row]):
    """Rows that are read as they come; only a few are in memory."""

    def __init__(self, opening: Callable[[], Any]):
        super().__init__(opening)
        self._rows: Iterator[Row] = iter(())

    @property
    def columns(self) -> list[Column]:
        """The columns of the rows, once the stream has begun."""
        return self._core.columns if self._core is not None else []

    @property
    def command(self) -> str | None:
        """PostgreSQL's command tag, once the last row was read."""
        return self._core.command if self._core is not None else None

    @property
    def row_count(self) -> int | None:
        """The number of rows, once the last one was read."""
        return self._core.row_count if self._core is not None else None

    async def __anext__(self) -> Row:
        while True:
            for row in self._rows:
                return row
            core = await self._open()
            rows = await core.rows() if core is not None and not self._closed else None
            if rows is None:
                raise StopAsyncIteration
            # Rows may be there without waiting; other tasks want their turn as well.
            await asyncio.sleep(0)
            self._rows = iter(rows)

    async def close(self) -> None:
        """Stops reading and frees the connection."""
        self._rows = iter(())
        await super().close()

    async def __aenter__(self) -> RowStream:
        await self._open()
        return self


class ObjectStream(_Opening, AsyncIterator[bytes]):
    """The bytes of a large object, part by part."""

    async def __anext__(self) -> bytes:
        core = await self._open()
        data = await core.data() if core is not None else None
        if data is None:
            raise StopAsyncIteration
        return data

    async def __aenter__(self) -> ObjectStream:
        await self._open()
        return self


class Listener(AsyncIterator[Notification]):
    """Notifications as they come. When the connection is lost a new one is made, and `reconnects`
    counts: what was sent meanwhile is lost."""

    def __init__(self, core: ListenerCore):
        self._core = core

    @property
    def dropped(self) -> int:
        """Notifications that were lost because they were not read in time."""
        return self._core.dropped

    @property
    def reconnects(self) -> int:
        """How often the connection was lost."""
        return self._core.reconnects

    async def get(self, timeout: float | None = None) -> Notification | None:
        """The next notification; None after `timeout` seconds, or when the listener is closed. A
        timeout of 0 does not wait, None waits for ever."""
        return await self._core.next(timeout)

    async def __anext__(self) -> Notification:
        notification = await self.get()
        if notification is None:
            raise StopAsyncIteration
        return notification

    async def close(self) -> None:
        """Stops listening and frees the connection. Another task may call it."""
        await self._core.close()

    async def __aenter__(self) -> Listener:
        await self._core.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __del__(self) -> None:
        self._core.orphan()


class Subscription(AsyncIterator[StreamEvent]):
    """Events of one of the server's streams, as they come."""

    def __init__(self, core: SubscriptionCore, stream: str, params: Mapping[str, str]):
        self._core = core
        self._stream = stream
        self._params = list(params.items())

    async def get(self, timeout: float | None = None) -> StreamEvent | None:
        """The next event; None after `timeout` seconds, or when the subscription is closed. A
        timeout of 0 does not wait, None waits for ever."""
        return await self._core.next(timeout)

    async def __anext__(self) -> StreamEvent:
        event = await self.get()
        if event is None:
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """Unsubscribes and frees the connection. Another task may call it."""
        await self._core.close()

    async def __aenter__(self) -> Subscription:
        await self._core.open(self._stream, self._params)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __del__(self) -> None:
        self._core.orphan()
