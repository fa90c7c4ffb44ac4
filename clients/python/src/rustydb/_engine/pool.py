"""The connections of a client."""

from __future__ import annotations

import collections
import contextlib
import math
import time

from .._wire import messages as m
from .._wire.url import Config
from ..errors import Error, UsageError
from .commands import roll_back
from .link import Link, Turn
from .login import Connector
from .runtime import Deadline, Runtime

# How long cleaning up a connection may take before it is closed instead, in seconds.
_CLEAN_SECONDS = 5.0
# How long a connection in use has to notice that the client is closed, in seconds.
_STOP_SECONDS = 1.0
# The longest pause between two looks at the connections, in seconds.
_MOST_PAUSE = 5.0


class Pool:
    """At most `pool_size` connections; who finds none waits."""

    def __init__(self, runtime: Runtime, config: Config, connector: Connector):
        self._config = config
        # 0 = never closed for being idle.
        self._longest_idle = config.idle_timeout or math.inf
        self._connector = connector
        self._condition = runtime.condition()
        self._idle: list[Link] = []
        self._all: set[Link] = set()
        self._opening = 0
        self.closed = False
        # Connections whose user was collected as garbage, where nothing can be waited for.
        self._orphans: collections.deque[Link] = collections.deque()

    @property
    def size(self) -> int:
        """Connections that are open."""
        return len(self._all)

    @property
    def idle(self) -> int:
        """Connections that nobody uses."""
        return len(self._idle)

    def pause(self) -> float:
        """Seconds between two calls of `tend`."""
        pauses = [_MOST_PAUSE, max(0.05, self._longest_idle / 2)]
        for link in list(self._all):
            server = link.protocol.server
            if server is not None and server.heartbeat_interval_ms:
                pauses.append(max(0.02, server.heartbeat_interval_ms / 4000))
        return min(pauses)

    async def acquire(self, deadline: Deadline) -> Link:
        """A connection for the caller alone.

        Raises `Error`: none became free in time, or none can be made.
        """
        while True:
            link = await self._take(deadline)
            if link is None:
                return await self._open(deadline)
            link.service()
            if await self._clean(link, deadline):
                return link
            await self._drop(link)

    async def _take(self, deadline: Deadline) -> Link | None:
        """An idle connection, or None for the right to make one."""
        async with self._condition:
            while True:
                self._adopt()
                if self.closed:
                    raise UsageError("the client is closed")
                if self._idle:
                    return self._idle.pop()
                if len(self._all) + self._opening < self._config.pool_size:
                    self._opening += 1
                    return None
                if not await self._condition.wait(deadline.left()) and not self._idle:
                    # A wake-up that came too late is for somebody else.
                    self._condition.notify()
                    raise Error(
                        "no connection of the client's pool became free in time",
                        sqlstate="53300",
                        code="POOL_EXHAUSTED",
                        detail=f"all {self._config.pool_size} connections are in use",
                        hint="close streams, transactions and listeners, or raise pool_size",
                    )

    async def _open(self, deadline: Deadline) -> Link:
        link = None
        try:
            link = await self._connector.connect(deadline)
        finally:
            async with self._condition:
                self._opening -= 1
                if link is not None and not self.closed:
                    self._all.add(link)
                else:
                    self._condition.notify()
        if self.closed:
            link.close()
            raise UsageError("the client is closed")
        return link

    async def _clean(self, link: Link, deadline: Deadline) -> bool:
        """Waits for canceled requests and ends an open transaction; whether that worked."""
        protocol = link.protocol
        try:
            if link.is_usable and link.is_busy:
                async with Turn(link, deadline.sooner(_CLEAN_SECONDS)):
                    pass
            if link.is_usable and protocol.transaction_status != m.TxStatus.Idle:
                async with Turn(link, deadline.sooner(_CLEAN_SECONDS)) as turn:
                    await roll_back(turn)
        except Error:
            return False
        return link.is_usable and not protocol.draining

    async def release(self, link: Link) -> None:
        """Takes a connection back."""
        link.on_event = None
        if not link.is_busy and not await self._clean(link, Deadline(_CLEAN_SECONDS)):
            await self._drop(link)
            return
        async with self._condition:
            self._return(link)

    def _return(self, link: Link) -> None:
        # A connection that still gets events goes on listening.
        usable = link.is_usable and link.on_event is None
        if self.closed or not usable or link not in self._all:
            self._all.discard(link)
            link.close()
        else:
            link.idle_since = time.monotonic()
            self._idle.append(link)
        self._condition.notify()

    def orphan(self, link: Link) -> None:
        """Takes a connection back from where nothing may be waited for or locked."""
        self._orphans.append(link)

    def _adopt(self) -> None:
        while self._orphans:
            self._return(self._orphans.popleft())

    async def _drop(self, link: Link) -> None:
        async with self._condition:
            self._all.discard(link)
            self._condition.notify()
        link.close()

    def forget(self, statement: str) -> None:
        """Has a prepared statement deallocated wherever it is prepared."""
        for link in list(self._all):
            if statement in link.statements:
                link.unwanted.append(statement)

    async def fill(self, deadline: Deadline) -> None:
        """Makes connections until there are `min_pool_size`."""
        while not self.closed and self.size + self._opening < self._config.min_pool_size:
            async with self._condition:
                self._opening += 1
            link = await self._open(deadline)
            await self.release(link)

    async def tend(self) -> None:
        """Answers heartbeats of idle connections and closes those that are idle for too long."""
        async with self._condition:
            self._adopt()
            oldest = time.monotonic() - self._longest_idle
            spare = self.size - self._config.min_pool_size
            expired = [link for link in self._idle if link.idle_since < oldest][: max(0, spare)]
            for link in list(self._all):
                link.service()
            expired += [link for link in self._idle if not link.is_usable]
            expired += [link for link in self._idle if link.protocol.draining]
            dirty = [link for link in self._idle if link not in expired and _is_dirty(link)]
            self._idle = [link for link in self._idle if link not in expired and link not in dirty]
        for link in set(expired):
            await self._drop(link)
        for link in dirty:
            await self.release(link)
        # If the server is away, who needs a connection will be told why.
        with contextlib.suppress(Error):
            await self.fill(Deadline(_CLEAN_SECONDS))

    def abandon(self) -> None:
        """Closes all connections from where nothing can be waited for."""
        self.closed = True
        for link in list(self._all):
            # The event loop may be closed already.
            with contextlib.suppress(Exception):
                link.transport.close()

    async def close(self) -> None:
        """Closes all connections; those in use are lost for their users."""
        async with self._condition:
            self.closed = True
            links, self._idle, self._all = list(self._all), [], set()
            for _ in range(self._config.pool_size * 2):
                self._condition.notify()
        for link in links:
            link.stop()
            if await link.lock.acquire(_STOP_SECONDS):
                link.close()
                link.lock.release()
            else:
                link.transport.close()


def _is_dirty(link: Link) -> bool:
    return not link.is_busy and link.protocol.transaction_status != m.TxStatus.Idle
