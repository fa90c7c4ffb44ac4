"""The blocking interface."""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ._blocking import BlockingRuntime, run
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
from ._wire.messages import Notice
from ._wire.url import parse
from .errors import Error, UsageError
from .rows import Column, Notification, Result, Row, StreamEvent

_log = logging.getLogger("rustydb")


class _Queries:
    """What runs statements: a client, a session, a transaction.

    Times are in seconds; a `timeout` of None is that of the connection string, 0 is no limit.
    `cancel` is a token that another thread can stop the request with.
    """

    def _commands(self) -> Commands:
        raise NotImplementedError

    def query(
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
        return run(
            self._commands().query(
                sql, params, timeout, cancel, max_rows, read_only, idempotent, param_types
            )
        )

    def query_all(
        self,
        sql: str,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> list[Result]:
        """Runs statements that are separated by semicolons and returns the result of each."""
        return run(self._commands().query_all(sql, None, timeout, cancel))

    def execute(
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
        return run(
            self._commands().execute(
                sql, params, timeout, cancel, 0, False, idempotent, param_types
            )
        )

    def prepare(
        self, sql: str, *, param_types: Sequence[int] = (), timeout: float | None = None
    ) -> Statement:
        """Prepares a statement for being run many times."""
        return Statement(run(self._commands().prepare(sql, param_types, timeout)), self._commands)

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

        The rows use a connection until the last one is read or the stream is closed. Rows come
        in parts of at most `chunk_rows` (0: the server decides). The `timeout` is for each wait.
        """
        return RowStream(
            run(
                self._commands().stream(
                    sql, params, chunk_rows, timeout, cancel, read_only, param_types
                )
            )
        )

    def stream_object(
        self, oid: int, *, offset: int = 0, length: int | None = None, timeout: float | None = None
    ) -> ObjectStream:
        """Returns the bytes of a large object, part by part, from `offset`."""
        return ObjectStream(run(self._commands().stream_object(oid, offset, length, timeout)))

    def bulk_insert(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
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
        return run(
            self._commands().bulk_insert(table, columns, rows, schema, on_conflict, timeout, cancel)
        )

    def batch(
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
        return run(self._commands().batch(statements, atomic, stop_on_error, timeout, cancel))

    def ping(self, *, timeout: float | None = None) -> float:
        """Waits for an answer of the server; returns how long it took."""
        return run(self._commands().ping(timeout))


class Client(_Queries):
    """A pool of connections to a server; `connect` makes one. Threads may share it."""

    def __init__(self, core: ClientCore):
        self._core = core
        self._stop = threading.Event()
        self._keeper = threading.Thread(
            target=_keep, args=(weakref.ref(core.pool), self._stop), name="rustydb", daemon=True
        )
        self._keeper.start()

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
        """A transaction, for `with`. It uses a connection until it ends."""
        return Transaction(self._core.transaction(isolation, read_only, deferrable))

    def session(self) -> Session:
        """A connection for the caller alone, for `with`."""
        return Session(SessionCore(self._core.commands))

    def listen(self, *channels: str) -> Listener:
        """Listens to channels of `NOTIFY`. It uses a connection until it is closed."""
        return Listener(run(self._core.listener(channels).open()))

    def subscribe(self, stream: str, params: Mapping[str, str] | None = None) -> Subscription:
        """Subscribes to a stream of the server, which has none yet and answers `0A000`. It uses a
        connection until it is closed."""
        opening = self._core.subscription().open(stream, list((params or {}).items()))
        return Subscription(run(opening))

    def close(self) -> None:
        """Closes all connections. Requests that run in other threads fail."""
        self._stop.set()
        run(self._core.pool.close())
        if threading.current_thread() is not self._keeper:
            self._keeper.join(timeout=1)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        stop = getattr(self, "_stop", None)
        if stop is not None and not stop.is_set():
            stop.set()
            self._core.pool.abandon()
            warnings.warn("a rustydb.Client was not closed", ResourceWarning, stacklevel=2)


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
) -> Client:
    """Connects to the server of a URL, `rustydb://user:password@host:port/database?options`.

    The options may be given as keyword arguments as well. `parameters` are settings of each
    session, for instance `{"TimeZone": "UTC"}`. `on_notice` gets PostgreSQL's notices, in whichever
    thread they arrive; it must not use the client. `ask_code` gets the methods of a second factor
    and returns the code.

    Raises `UsageError` for a wrong URL, `ConnectionFailed` and `AuthenticationError`.
    """
    given = {"user": user, "password": password, "database": database, "parameters": parameters}
    options.update({name: value for name, value in given.items() if value is not None})
    core = ClientCore(BlockingRuntime(), parse(url, **options), on_notice, ask_code)
    run(core.open())
    return Client(core)


def _keep(pool: weakref.ref[Pool], stop: threading.Event) -> None:
    """Answers the server's heartbeats while the client is not used."""
    while True:
        kept = pool()
        if kept is None or kept.closed:
            return
        try:
            run(kept.tend())
        except Exception:
            _log.exception("looking after idle connections has failed")
        pause = kept.pause()
        del kept
        if stop.wait(pause):
            return


class Transaction(_Queries):
    """A transaction. Leaving the block commits, an exception rolls back."""

    def __init__(self, core: TransactionCore):
        self._core = core
        self._inner: Commands | None = None

    def _commands(self) -> Commands:
        if self._inner is None:
            raise UsageError("the transaction has not begun: use `with`, or begin()")
        return self._inner

    @property
    def id(self) -> int:
        """The server's number of the transaction."""
        return self._core.number

    def begin(self) -> Transaction:
        """Begins, without a `with` block; `commit` or `rollback` has to follow."""
        self._inner = run(self._core.begin())
        return self

    def commit(self, *, chain: bool = False) -> None:
        """Commits. With `chain`, a new transaction with the same properties begins.

        Raises `ServerError` 25P02 if a statement has failed, so that nothing was kept.
        """
        run(self._core.commit(chain))

    def rollback(self, *, chain: bool = False) -> None:
        """Undoes everything. With `chain`, a new transaction begins."""
        run(self._core.rollback(chain))

    def savepoint(self, name: str | None = None) -> Savepoint:
        """A savepoint, for `with`."""
        return Savepoint(SavepointCore(self._commands(), name))

    def __enter__(self) -> Transaction:
        return self if self._inner is not None else self.begin()

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        run(self._core.exit(error))

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

    def rollback(self) -> None:
        """Undoes what was done since; the savepoint stays."""
        run(self._core.rollback())

    def release(self) -> None:
        """Keeps what was done and forgets the savepoint."""
        run(self._core.release())

    def __enter__(self) -> Savepoint:
        run(self._core.create())
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        run(self._core.exit(error))


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
        """A transaction on this connection, for `with`."""
        return Transaction(TransactionCore(self._commands(), isolation, read_only, deferrable))

    def set(self, name: str, value: str, *, local: bool = False) -> None:
        """Sets a setting, until the end of the transaction if `local`."""
        run(self._core.set(name, value, local))

    def show(self, name: str) -> str:
        """The value of a setting."""
        return run(self._core.show(name))

    def reset(self, name: str | None = None) -> None:
        """Resets a setting, or all of them."""
        run(self._core.reset(name))

    def discard_all(self) -> None:
        """Forgets settings, prepared statements and temporary tables."""
        run(self._core.discard_all())

    def acquire(
        self,
        connection_class: str | None = None,
        *,
        tag: str | None = None,
        purity: PurityName = "self",
    ) -> None:
        """Takes a session of a class out of the server's session pool."""
        run(self._core.acquire(connection_class, tag, purity))

    def release(self, *, tag: str | None = None) -> None:
        """Gives the session back to the server's session pool, under a tag."""
        run(self._core.release(tag))

    def __enter__(self) -> Session:
        run(self._core.open())
        return self

    def __exit__(self, *exc: object) -> None:
        run(self._core.close())

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

    def query(
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
        return run(self._prepared.run(params, max_rows, read_only, call))

    def execute(
        self,
        params: Params = None,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        idempotent: bool = False,
    ) -> int:
        """Runs the statement and returns the number of affected rows."""
        call = self._owner().call(timeout, cancel, idempotent)
        return run(self._prepared.run(params, 0, False, call)).row_count

    def close(self) -> None:
        """Forgets the statement."""
        self._prepared.close()

    def __enter__(self) -> Statement:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RowStream(Iterator[Row]):
    """Rows that are read as they come; only a few are in memory."""

    def __init__(self, core: Stream):
        self._core = core
        self._rows: Iterator[Row] = iter(())

    @property
    def columns(self) -> list[Column]:
        """The columns of the rows."""
        return self._core.columns

    @property
    def command(self) -> str | None:
        """PostgreSQL's command tag, once the last row was read."""
        return self._core.command

    @property
    def row_count(self) -> int | None:
        """The number of rows, once the last one was read."""
        return self._core.row_count

    def __next__(self) -> Row:
        while True:
            for row in self._rows:
                return row
            rows = run(self._core.rows())
            if rows is None:
                raise StopIteration
            self._rows = iter(rows)

    def close(self) -> None:
        """Stops reading and frees the connection."""
        run(self._core.close())
        self._rows = iter(())

    def __enter__(self) -> RowStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._core.orphan()


class ObjectStream(Iterator[bytes]):
    """The bytes of a large object, part by part."""

    def __init__(self, core: Stream):
        self._core = core

    def __next__(self) -> bytes:
        data = run(self._core.data())
        if data is None:
            raise StopIteration
        return data

    def close(self) -> None:
        """Stops reading and frees the connection."""
        run(self._core.close())

    def __enter__(self) -> ObjectStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._core.orphan()


class Listener(Iterator[Notification]):
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

    def get(self, timeout: float | None = None) -> Notification | None:
        """The next notification; None after `timeout` seconds, or when the listener is closed. A
        timeout of 0 does not wait, None waits for ever."""
        return run(self._core.next(timeout))

    def __next__(self) -> Notification:
        notification = self.get()
        if notification is None:
            raise StopIteration
        return notification

    def close(self) -> None:
        """Stops listening and frees the connection. Another thread may call it."""
        run(self._core.close())

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._core.orphan()


class Subscription(Iterator[StreamEvent]):
    """Events of one of the server's streams, as they come."""

    def __init__(self, core: SubscriptionCore):
        self._core = core

    def get(self, timeout: float | None = None) -> StreamEvent | None:
        """The next event; None after `timeout` seconds, or when the subscription is closed. A
        timeout of 0 does not wait, None waits for ever."""
        return run(self._core.next(timeout))

    def __next__(self) -> StreamEvent:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Unsubscribes and frees the connection. Another thread may call it."""
        run(self._core.close())

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._core.orphan()
