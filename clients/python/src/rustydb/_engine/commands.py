"""What can be asked of a server, as work for a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._wire import messages as m
from .._wire.protocol import Request
from ..errors import ConnectionFailed, Error, ServerError, from_server
from ..rows import Result, Row, names_of
from .link import Turn, unexpected

Params = Sequence[Any] | None


def make_query(
    sql: str,
    params: Params,
    param_types: Sequence[int] = (),
    max_rows: int = 0,
    read_only: bool = False,
) -> m.Query:
    """A statement with its parameters."""
    return m.Query(sql, values_of(params), list(param_types), make_options(max_rows, read_only))


def make_options(max_rows: int, read_only: bool) -> m.QueryOptions | None:
    if not max_rows and not read_only:
        return None
    return m.QueryOptions(max_rows=max_rows, read_only=read_only)


def values_of(params: Params) -> list[Any]:
    """The parameters as a list. Raises `TypeError` for text, which would be taken apart."""
    if isinstance(params, (str, bytes)):
        raise TypeError("parameters are a list or a tuple")
    return list(params) if params is not None else []


class Answers:
    """Collects the parts of results; a large one comes in several messages."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self._names: dict[str, int] = {}
        self.is_open = False
        self._index = 0

    def add(self, part: m.QueryResponse) -> None:
        """Takes the next message."""
        goes_on = self.is_open and part.statement_index == self._index and not part.columns
        if not goes_on:
            self._names = names_of(part.columns)
            self.results.append(Result(part.columns, [], 0, "", 0))
        result, names = self.results[-1], self._names
        result.rows += [Row(values, names) for values in part.rows]
        result.row_count = part.affected_rows
        result.command = part.command_tag
        result.execution_time_us = part.execution_time_us
        # Only the last part of a result with columns says what the command was.
        self.is_open = bool(result.columns) and not part.command_tag
        self._index = part.statement_index


async def collect(turn: Turn, request: Request) -> list[Result]:
    """The results of all statements of a request."""
    answers = Answers()
    while True:
        message = await turn.answer(request)
        if not isinstance(message, m.QueryResponse):
            raise unexpected(message)
        answers.add(message)
        if request.done and not request.replies:
            return answers.results


async def query(turn: Turn, message: m.Query) -> list[Result]:
    """Runs a statement, or several that are separated by semicolons."""
    try:
        return await collect(turn, turn.submit(message))
    except ServerError:
        # A BEGIN among the statements has left a failed transaction that no reply told of.
        if not message.params and ";" in message.sql:
            turn.link.protocol.transaction_status = m.TxStatus.Failed
        raise


async def batch(turn: Turn, message: m.Batch) -> list[Result | Error]:
    """Runs statements in one request; one result or error for each that was run."""
    request = turn.submit(message)
    outcome: list[Result | Error] = []
    answers = Answers()
    while True:
        reply = (await turn.reply(request)).message
        if isinstance(reply, m.QueryResponse):
            before = len(answers.results)
            answers.add(reply)
            outcome += answers.results[before:]
        elif isinstance(reply, m.ErrorBody):
            if answers.is_open:
                # Rows that came of the statement that has failed are no result.
                outcome.pop()
            answers = Answers()
            outcome.append(from_server(reply))
        else:
            raise unexpected(reply)
        if request.done and not request.replies:
            return outcome


async def ping(turn: Turn) -> None:
    """Waits for the server's answer."""
    await turn.final(turn.submit(m.Ping()), m.Pong)


async def ok(turn: Turn, message: m.Message) -> m.Ok:
    """Sends a request that is answered with Ok."""
    return await turn.final(turn.submit(message), m.Ok)


async def begin(turn: Turn, message: m.Begin) -> int:
    """Begins a transaction; returns the server's number of it."""
    started = await turn.final(turn.submit(message), m.TransactionStarted)
    return started.transaction_id


async def commit(turn: Turn, chain: bool) -> None:
    """Commits. Raises `ServerError` if the transaction had failed, so that nothing was kept."""
    done = await ok(turn, m.Commit(chain))
    if done.command_tag == "ROLLBACK":
        raise ServerError(
            "the transaction had failed and was rolled back",
            sqlstate="25P02",
            code="TRANSACTION_FAILED",
        )


async def roll_back(turn: Turn) -> None:
    """Rolls back whatever transaction there may be."""
    try:
        await turn.final(turn.submit(m.Rollback(None, False)), m.Ok)
    except ServerError as error:
        # There was no transaction after all.
        if error.sqlstate != "25P01" or error.is_fatal:
            raise ConnectionFailed(error.message) from None
    turn.link.protocol.transaction_status = m.TxStatus.Idle


async def show(turn: Turn, name: str) -> str:
    """The value of a setting."""
    results = await collect(turn, turn.submit(m.SessionShow(name)))
    return str(results[-1].scalar())


async def acquire_session(turn: Turn, message: m.SessionAcquire) -> None:
    """Takes a session out of the server's session pool."""
    success = await turn.final(turn.submit(message), m.AuthSuccess)
    turn.link.parameters.update(success.parameters)
    turn.link.statements.clear()
