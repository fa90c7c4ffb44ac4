"""Results: rows by index and by name, columns, what a statement did."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, overload

from ._wire.messages import Column
from .errors import UsageError

__all__ = ["Column", "Notification", "Result", "Row", "StreamEvent"]


class Row(Sequence[Any]):
    """A row: a sequence of values that also knows the names of its columns.

    `row[0]`, `row["name"]`, `dict(row)`, `a, b = row`. Of columns with the same name, the name
    means the first.
    """

    __slots__ = ("_names", "_values")

    def __init__(self, values: list[Any], names: dict[str, int]):
        self._values = values
        self._names = names

    @overload
    def __getitem__(self, key: int | str) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> list[Any]: ...
    def __getitem__(self, key: int | str | slice) -> Any:
        if isinstance(key, str):
            return self._values[self._names[key]]
        return self._values[key]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column, or `default` if there is no such column."""
        index = self._names.get(name)
        return default if index is None else self._values[index]

    def keys(self) -> list[str]:
        """The names of the columns, each once."""
        return list(self._names)

    def values(self) -> list[Any]:
        """The values in order."""
        return list(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row):
            return self._values == other._values
        if isinstance(other, (list, tuple)):
            return self._values == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._values))

    def __repr__(self) -> str:
        if len(self._names) != len(self._values):
            return f"Row{tuple(self._values)!r}"
        parts = (f"{name}={self._values[index]!r}" for name, index in self._names.items())
        return f"Row({', '.join(parts)})"


def names_of(columns: Sequence[Column]) -> dict[str, int]:
    """The first index of each name."""
    names: dict[str, int] = {}
    for index, column in enumerate(columns):
        names.setdefault(column.name, index)
    return names


class Result(Sequence[Row]):
    """What a statement returned: a sequence of rows."""

    __slots__ = ("columns", "command", "execution_time_us", "row_count", "rows")

    def __init__(
        self,
        columns: list[Column],
        rows: list[Row],
        row_count: int,
        command: str,
        execution_time_us: int,
    ):
        self.columns = columns
        self.rows = rows
        # Rows that the statement changed or returned.
        self.row_count = row_count
        # PostgreSQL's command tag, for instance `INSERT 0 1`.
        self.command = command
        # How long the server took, in microseconds.
        self.execution_time_us = execution_time_us

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> list[Row]: ...
    def __getitem__(self, key: int | slice) -> Row | list[Row]:
        return self.rows[key]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"<Result {self.command!r}, {len(self.rows)} rows>"

    def one(self) -> Row:
        """The only row. Raises `UsageError` if there is none, or more than one."""
        if len(self.rows) != 1:
            raise UsageError(f"the statement returned {len(self.rows)} rows, not one")
        return self.rows[0]

    def scalar(self) -> Any:
        """The first value of the only row."""
        return self.one()[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Notification:
    """What `NOTIFY` has sent."""

    channel: str
    payload: str
    # Number of the PostgreSQL process that sent it.
    process_id: int


@dataclasses.dataclass(frozen=True, slots=True)
class StreamEvent:
    """An event of a subscription."""

    stream: str
    sequence: int
    # Microseconds since 1970-01-01 UTC.
    time_us: int
    # The event's data, from JSON.
    data: Any
