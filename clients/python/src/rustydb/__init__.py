"""A client of RustyDB's native protocol.

    import rustydb

    with rustydb.connect("rustydb://user:password@localhost:5432/database") as client:
        for row in client.query("SELECT $1::int + 1 AS n", [41]):
            print(row["n"])

`rustydb.aio` has the same for asyncio.
"""

from ._engine.link import CancelToken
from ._sync import (
    Client,
    Listener,
    ObjectStream,
    RowStream,
    Savepoint,
    Session,
    Statement,
    Subscription,
    Transaction,
    connect,
)
from ._version import VERSION as __version__
from ._wire.messages import Notice
from .errors import (
    AuthenticationError,
    ConnectionFailed,
    Error,
    IntegrityError,
    ProtocolError,
    QueryCanceled,
    RequestTimeout,
    ServerError,
    TransactionConflict,
    UsageError,
)
from .rows import Column, Notification, Result, Row, StreamEvent
from .types import (
    INFINITY,
    NEGATIVE_INFINITY,
    Array,
    Bits,
    Composite,
    Infinity,
    Interval,
    Json,
    Jsonb,
    Kind,
    MacAddr,
    Money,
    Multirange,
    Oid,
    Other,
    Range,
    Value,
)

__all__ = [
    "INFINITY",
    "NEGATIVE_INFINITY",
    "Array",
    "AuthenticationError",
    "Bits",
    "CancelToken",
    "Client",
    "Column",
    "Composite",
    "ConnectionFailed",
    "Error",
    "Infinity",
    "IntegrityError",
    "Interval",
    "Json",
    "Jsonb",
    "Kind",
    "Listener",
    "MacAddr",
    "Money",
    "Multirange",
    "Notice",
    "Notification",
    "ObjectStream",
    "Oid",
    "Other",
    "ProtocolError",
    "QueryCanceled",
    "Range",
    "RequestTimeout",
    "Result",
    "Row",
    "RowStream",
    "Savepoint",
    "ServerError",
    "Session",
    "Statement",
    "StreamEvent",
    "Subscription",
    "Transaction",
    "TransactionConflict",
    "UsageError",
    "Value",
    "__version__",
    "connect",
]
