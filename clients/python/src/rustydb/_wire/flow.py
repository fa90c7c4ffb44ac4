"""Flow control: how much either side may send, and how often control frames may be sent."""

from __future__ import annotations

import collections

from .bincode import Violation

MOST = (1 << 31) - 1

# The peer closes the connection at more than 100 urgent frames in a second.
_URGENT_FRAMES = 60


class SendWindow:
    """What the peer is ready to receive, in bytes of payload. One frame may take it below zero."""

    __slots__ = ("credit",)

    def __init__(self, credit: int):
        self.credit = credit

    def add(self, credit: int) -> None:
        """Takes credit that the peer grants."""
        self.credit += credit
        if self.credit > MOST:
            raise Violation("a window is above 2^31 - 1", "FLOW_CONTROL_ERROR")


class ReceiveWindow:
    """What this side has declared itself ready to receive, in bytes of payload."""

    __slots__ = ("_granted", "_size", "_used")

    def __init__(self, size: int):
        self._size = size
        self._granted = size
        self._used = 0

    def receive(self, size: int) -> None:
        """Counts a frame that has come."""
        if self._granted <= 0:
            raise Violation("a frame was sent without credit", "FLOW_CONTROL_ERROR")
        self._granted -= size

    def consume(self, size: int) -> int:
        """Counts bytes that no longer take memory. Returns the credit to grant now: it is given
        back when half of the window is used."""
        self._used += size
        if 2 * self._used < self._size:
            return 0
        credit, self._used = self._used, 0
        self._granted += credit
        return credit


class UrgentLimit:
    """Tells when the next urgent frame may be sent."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: collections.deque[float] = collections.deque(maxlen=_URGENT_FRAMES)

    def due(self) -> float:
        """The earliest time for the next frame, on the clock of `count`."""
        full = len(self._sent) == _URGENT_FRAMES
        return self._sent[0] + 1.0 if full else 0.0

    def count(self, now: float) -> None:
        """Counts a frame that is sent."""
        self._sent.append(now)
