"""Prepared statements, on whichever connection they are run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .._wire import messages as m
from ..errors import ServerError, UsageError
from ..rows import Result
from .commands import Params, collect, make_options, ok, values_of
from .link import Turn
from .runner import Call, Runner

# Prepared statements that a connection keeps.
_MOST_STATEMENTS = 256

_statement_numbers = itertools.count(1)


class Prepared:
    """A statement that is prepared on each connection when it is first run there."""

    def __init__(self, runner: Runner, sql: str, param_types: Sequence[int]):
        self.runner = runner
        self.sql = sql
        self.closed = False
        self._name = f"rdb_{next(_statement_numbers)}"
        self._types = list(param_types)
        self.info = m.StatementInfo("", [], [])

    async def prepare(self, turn: Turn) -> None:
        """Prepares the statement on a connection, unless it is there."""
        known = turn.link.statements
        if self._name in known:
            known.move_to_end(self._name)
            return
        if len(known) >= _MOST_STATEMENTS:
            oldest, _ = known.popitem(last=False)
            await ok(turn, m.Deallocate(oldest))
        self.info = await self._send(turn)
        known[self._name] = self.info

    async def _send(self, turn: Turn) -> m.StatementInfo:
        message = m.Prepare(self._name, self.sql, self._types)
        try:
            return await turn.final(turn.submit(message), m.StatementInfo)
        except ServerError as error:
            # A session out of the server's pool may have a statement of that name.
            if error.sqlstate != "42P05" or turn.link.protocol.transaction_status:
                raise
        await ok(turn, m.Deallocate(self._name))
        return await turn.final(turn.submit(message), m.StatementInfo)

    async def run(self, params: Params, max_rows: int, read_only: bool, call: Call) -> Result:
        """Runs the statement with parameters."""
        if self.closed:
            raise UsageError("the prepared statement is closed")
        message = m.Execute(self._name, values_of(params), make_options(max_rows, read_only))

        async def work(turn: Turn) -> Result:
            await self.prepare(turn)
            try:
                return (await collect(turn, turn.submit(message)))[-1]
            except ServerError as error:
                # `DISCARD ALL` and the like have removed it.
                if error.sqlstate != "26000":
                    raise
                turn.link.statements.pop(self._name, None)
                if turn.link.protocol.transaction_status == m.TxStatus.Failed:
                    raise
            await self.prepare(turn)
            return (await collect(turn, turn.submit(message)))[-1]

        return await self.runner.run(work, call)

    def close(self) -> None:
        """Has the statement deallocated when its connections are used the next time."""
        if not self.closed:
            self.closed = True
            self.runner.forget(self._name)
