"""The errors of this library. All are `Error`, with the same fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._wire.bincode import Violation
    from ._wire.messages import ErrorBody

__all__ = [
    "AuthenticationError",
    "ConnectionFailed",
    "Error",
    "IntegrityError",
    "ProtocolError",
    "QueryCanceled",
    "RequestTimeout",
    "ServerError",
    "TransactionConflict",
    "UsageError",
]


class Error(Exception):
    """Something went wrong. `str(error)` is for a human, the attributes are for a program."""

    # SQLSTATE and code of an error that is raised without them.
    _SQLSTATE = "XX000"
    _CODE = "INTERNAL_ERROR"

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        code: str | None = None,
        severity: str = "ERROR",
        detail: str | None = None,
        hint: str | None = None,
        position: int | None = None,
        context: str | None = None,
        schema: str | None = None,
        table: str | None = None,
        column: str | None = None,
        data_type: str | None = None,
        constraint: str | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
        trace_id: str | None = None,
    ):
        super().__init__(message)
        self.message = message
        # Five characters, PostgreSQL's Appendix A.
        self.sqlstate = sqlstate or self._SQLSTATE
        # RustyDB's own code, for instance `TIMEOUT`.
        self.code = code or self._CODE
        # `ERROR`, or `FATAL` or `PANIC` if the connection is closed.
        self.severity = severity
        self.detail = detail
        self.hint = hint
        # Where in the statement, in characters from 1.
        self.position = position
        self.context = context
        self.schema = schema
        self.table = table
        self.column = column
        self.data_type = data_type
        self.constraint = constraint
        # Whether the same request may succeed if it is sent again, after so many milliseconds.
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.trace_id = trace_id

    def __str__(self) -> str:
        lines = [f"{self.message} ({self.sqlstate})"]
        if self.detail:
            lines.append(f"Detail: {self.detail}")
        if self.hint:
            lines.append(f"Hint: {self.hint}")
        return "\n".join(lines)

    @property
    def is_fatal(self) -> bool:
        """Whether the connection cannot be used any more."""
        return self.severity != "ERROR"


class ServerError(Error):
    """The server, or PostgreSQL behind it, has refused the request."""


class AuthenticationError(ServerError):
    """The log-in was refused (class 28)."""


class IntegrityError(ServerError):
    """A constraint was violated (class 23)."""


class TransactionConflict(ServerError):
    """The transaction lost against another one (class 40); run it again."""


class QueryCanceled(ServerError):
    """The server has stopped the statement (57014)."""


class ConnectionFailed(Error):
    """The connection could not be made, or was lost. `request_sent` tells whether the request may
    have reached the server."""

    _SQLSTATE = "08006"
    _CODE = "CONNECTION_FAILURE"
    request_sent = False


class ProtocolError(ConnectionFailed):
    """The other side does not keep to the protocol. The connection is closed."""

    _SQLSTATE = "08P01"
    _CODE = "PROTOCOL_VIOLATION"


class RequestTimeout(Error, TimeoutError):
    """The time-out of the request has passed. The server was told to stop it."""

    _SQLSTATE = "57014"
    _CODE = "TIMEOUT"


class UsageError(Error):
    """The library was asked for something that it cannot do, or not now."""

    _SQLSTATE = "55000"
    _CODE = "VALIDATION_ERROR"


_CLASSES: dict[str, type[ServerError]] = {
    "23": IntegrityError,
    "28": AuthenticationError,
    "40": TransactionConflict,
}


def from_server(body: ErrorBody) -> ServerError:
    """The error that a message of the server describes."""
    kind = _CLASSES.get(body.sqlstate[:2], ServerError)
    if body.sqlstate == "57014":
        kind = QueryCanceled
    return kind(
        body.message,
        sqlstate=body.sqlstate,
        code=body.code,
        severity=body.severity.name.upper(),
        detail=body.detail,
        hint=body.hint,
        position=body.position,
        context=body.context,
        schema=body.schema,
        table=body.table,
        column=body.column,
        data_type=body.data_type,
        constraint=body.constraint,
        retryable=body.retryable,
        retry_after_ms=body.retry_after_ms,
        trace_id=body.trace_id,
    )


def from_violation(violation: Violation) -> ProtocolError:
    """The error for what the server has sent against the protocol."""
    return ProtocolError(str(violation), code=violation.code, sqlstate=violation.sqlstate)
