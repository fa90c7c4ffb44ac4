"""Where requests run: on any connection of the pool, or on one that is held."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from ..errors import ConnectionFailed, Error, ServerError, UsageError
from .link import CancelToken, Link, Turn
from .pool import Pool
from .runtime import Deadline, Runtime

_T = TypeVar("_T")

# How often a request is tried, and the first pause between two attempts, in seconds.
_ATTEMPTS = 4
_FIRST_PAUSE = 0.05
# A pause longer than this that the server asks for is left to the caller.
_MOST_PAUSE = 5.0


@dataclasses.dataclass(slots=True)
class Call:
    """How one request is to be run."""

    # Seconds; 0 = no limit.
    timeout: float
    token: CancelToken | None = None
    # Whether it may be run a second time when nobody knows whether it was run.
    repeatable: bool = False

    def deadline(self) -> Deadline:
        return Deadline(self.timeout)


Work = Callable[[Turn], Awaitable[_T]]


class Runner(Protocol):
    """Runs requests."""

    async def run(self, work: Work[_T], call: Call) -> _T:
        """Runs `work` on a connection."""

    async def start(self, work: Work[_T], call: Call) -> tuple[Link, _T]:
        """Runs `work` on a connection, which is then the caller's until `give_back`."""

    async def give_back(self, link: Link) -> None:
        """Ends what `start` began."""

    def orphan(self, link: Link) -> None:
        """As `give_back`, but never waits."""

    def forget(self, statement: str) -> None:
        """Has a prepared statement deallocated."""


class Pooled:
    """Runs each request on a connection of the pool, again if that is safe."""

    def __init__(self, runtime: Runtime, pool: Pool):
        self._runtime = runtime
        self._pool = pool

    async def run(self, work: Work[_T], call: Call) -> _T:
        link, result = await self.start(work, call)
        await self._pool.release(link)
        return result

    async def start(self, work: Work[_T], call: Call) -> tuple[Link, _T]:
        deadline = call.deadline()
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(work, call, deadline)
            except Error as error:
                pause = _pause(error, call, attempt)
                left = deadline.left()
                if pause is None or (left is not None and left <= pause):
                    raise
            await self._runtime.sleep(pause)

    async def _attempt(self, work: Work[_T], call: Call, deadline: Deadline) -> tuple[Link, _T]:
        link = await self._pool.acquire(deadline)
        try:
            async with Turn(link, deadline, call.token) as turn:
                return link, await work(turn)
        except BaseException:
            await self._pool.release(link)
            raise

    async def give_back(self, link: Link) -> None:
        await self._pool.release(link)

    def orphan(self, link: Link) -> None:
        self._pool.orphan(link)

    def forget(self, statement: str) -> None:
        self._pool.forget(statement)


def _pause(error: Error, call: Call, attempt: int) -> float | None:
    """How long to wait before the next attempt; None = there is none."""
    if attempt >= _ATTEMPTS:
        return None
    if isinstance(error, ConnectionFailed):
        again = call.repeatable or not error.request_sent
    else:
        again = isinstance(error, ServerError) and error.retryable
    if not again:
        return None
    pause: float = _FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
    if error.retry_after_ms is not None:
        pause = error.retry_after_ms / 1000
    return pause if pause <= _MOST_PAUSE else None


class Pinned:
    """Runs every request on the same connection, and never again."""

    def __init__(self, link: Link):
        self.link = link
        # Why requests are refused.
        self.ended: str | None = None

    async def run(self, work: Work[_T], call: Call) -> _T:
        return (await self.start(work, call))[1]

    async def start(self, work: Work[_T], call: Call) -> tuple[Link, _T]:
        if self.ended is not None:
            raise UsageError(self.ended)
        if self.link.streams:
            raise UsageError(
                "a stream or a bulk insert uses the connection",
                hint="read the stream to its end or close it, or use another connection",
            )
        async with Turn(self.link, call.deadline(), call.token) as turn:
            return self.link, await work(turn)

    async def give_back(self, link: Link) -> None:
        pass

    def orphan(self, link: Link) -> None:
        pass

    def forget(self, statement: str) -> None:
        if statement in self.link.statements:
            self.link.unwanted.append(statement)
