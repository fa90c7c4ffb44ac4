"""Every message of either side, by the protocol's own names and numbers."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from .bincode import (
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
    Codec,
    Reader,
    Violation,
    codec_of,
    write_unsigned,
)
from .convert import AnyValue, EncodedRows, PythonReader, Rows, read_rows, write_rows

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform() -> Any:
        return lambda function: function


_T = TypeVar("_T", bound=type)


class Message:
    """Base of all messages."""

    __slots__ = ()
    # Numbers of the variants on the way to this one, and their names.
    NUMBERS: ClassVar[tuple[int, ...]] = ()
    NAMES: ClassVar[tuple[str, ...]] = ()


# Messages by number; a message that is an enum of its own has a table of its variants.
_MESSAGES: dict[int, Any] = {}


@dataclass_transform()
def _message(*path: int | str) -> Callable[[_T], _T]:
    """Gives a message its place: number, name, and those of the variant below if there is one."""
    numbers = tuple(step for step in path if isinstance(step, int))

    def place(kind: _T) -> _T:
        made: Any = dataclasses.dataclass(slots=True)(kind)
        made.NUMBERS = numbers
        made.NAMES = tuple(step for step in path if isinstance(step, str))
        table = _MESSAGES
        for number in numbers[:-1]:
            table = table.setdefault(number, {})
        table[numbers[-1]] = made
        return made  # type: ignore[no-any-return]

    return place


def decode(body: bytes, reader: type[Reader] = PythonReader) -> Message:
    """The message that is all of `body`.

    Raises `Violation` if there is none, or if it breaks a limit.
    """
    source = reader(body)
    found: Any = _MESSAGES
    while isinstance(found, dict):
        number = source.unsigned(4)
        if number not in found:
            raise Violation(f"there is no message with the number {number}")
        found = found[number]
    message = codec_of(found).read(source)
    source.finish()
    return message  # type: ignore[no-any-return]


def encode(message: Message) -> bytearray:
    """The body of a message.

    Raises `TypeError`, `ValueError` or `OverflowError` if a value in it has no place on the wire.
    """
    out = bytearray()
    for number in message.NUMBERS:
        write_unsigned(out, number)
    codec_of(type(message)).write(out, message)
    return out


class Capability(enum.IntFlag):
    """What the sides agree on in the handshake."""

    STREAMING = 0x01
    PIPELINING = 0x02
    CHECKSUM = 0x04
    NOTIFICATIONS = 0x08
    BULK_INSERT = 0x10
    PREPARED = 0x20
    SUBSCRIPTIONS = 0x40
    SIMPLE = 0x80


class CompressionType(enum.IntEnum):
    None_ = 0
    Lz4 = 1
    Zstd = 2
    Snappy = 3


class AuthMethod(enum.IntEnum):
    ScramSha256 = 0
    ScramSha256Plus = 1
    Password = 2
    Token = 3
    ApiKey = 4
    Certificate = 5
    Ldap = 6
    Kerberos = 7
    Saml = 8
    Trust = 9


class Purity(enum.IntEnum):
    New = 0
    Self = 1
    Any = 2


class TxStatus(enum.IntEnum):
    Idle = 0
    InTransaction = 1
    Failed = 2


class OnConflict(enum.IntEnum):
    Fail = 0
    Skip = 1


class NoticeSeverity(enum.IntEnum):
    Debug = 0
    Log = 1
    Info = 2
    Notice = 3
    Warning = 4


class Isolation(enum.IntEnum):
    ReadUncommitted = 0
    ReadCommitted = 1
    RepeatableRead = 2
    Serializable = 3


class Severity(enum.IntEnum):
    Error = 0
    Fatal = 1
    Panic = 2


@dataclasses.dataclass(slots=True)
class Version:
    major: U16
    minor: U16


@dataclasses.dataclass(slots=True)
class ExtensionOffer:
    name: str
    version: U16


@dataclasses.dataclass(slots=True)
class Column:
    """A column of a result."""

    name: str
    type_oid: U32
    type_name: str
    type_modifier: I32
    type_size: I16
    table_oid: U32
    column_number: I16
    nullable: bool | None


@dataclasses.dataclass(slots=True)
class QueryOptions:
    timeout_ms: U32 = 0
    max_rows: U32 = 0
    read_only: bool = False
    traceparent: str | None = None
    tracestate: str | None = None


@_message(0, "Handshake", 0, "ClientHello")
class ClientHello(Message):
    version: Version
    min_version: Version
    client_name: str
    client_version: str
    compression: list[CompressionType]
    capabilities: U32
    extensions: list[ExtensionOffer]
    max_message_size: U32
    stream_window: U32
    connection_window: U32


@_message(0, "Handshake", 1, "ServerHello")
class ServerHello(Message):
    version: Version
    server_name: str
    server_version: str
    connection_id: U64
    compression: CompressionType
    capabilities: U32
    extensions: list[ExtensionOffer]
    max_message_size: U32
    max_sql_length: U32
    max_pending_requests: U32
    max_queued_requests: U32
    max_batch_statements: U32
    stream_window: U32
    connection_window: U32
    heartbeat_interval_ms: U32
    auth_methods: list[AuthMethod]


@_message(1, "Auth", 0, "Start")
class AuthStart(Message):
    user: str
    database: str
    method: AuthMethod
    application_name: str
    connection_class: str | None
    purity: Purity | None
    tag: str | None
    parameters: list[tuple[str, str]]


@_message(1, "Auth", 1, "SaslInitial")
class AuthSaslInitial(Message):
    mechanism: str
    data: bytes


@_message(1, "Auth", 2, "SaslResponse")
class AuthSaslResponse(Message):
    data: bytes


@_message(1, "Auth", 3, "Password")
class AuthPassword(Message):
    password: str


@_message(1, "Auth", 4, "Token")
class AuthToken(Message):
    token: str


@_message(1, "Auth", 5, "ApiKey")
class AuthApiKey(Message):
    key: str


@_message(1, "Auth", 6, "Certificate")
class AuthCertificate(Message):
    pass


@_message(1, "Auth", 7, "Gss")
class AuthGss(Message):
    data: bytes


@_message(1, "Auth", 8, "Saml")
class AuthSaml(Message):
    assertion: str


@_message(1, "Auth", 9, "MfaCode")
class AuthMfaCode(Message):
    challenge_id: str
    code: str


@_message(2, "AuthReply", 0, "SaslContinue")
class SaslContinue(Message):
    data: bytes


@_message(2, "AuthReply", 1, "SaslFinal")
class SaslFinal(Message):
    data: bytes


@_message(2, "AuthReply", 2, "GssContinue")
class GssContinue(Message):
    data: bytes


@_message(2, "AuthReply", 3, "MfaRequired")
class MfaRequired(Message):
    challenge_id: str
    methods: list[str]
    expires_in_secs: U32


@_message(2, "AuthReply", 4, "Success")
class AuthSuccess(Message):
    session_id: U64
    user: str
    roles: list[str]
    parameters: list[tuple[str, str]]


@_message(3, "Query")
class Query(Message):
    sql: str
    params: list[AnyValue]
    param_types: list[U32]
    options: QueryOptions | None


@_message(4, "QueryResponse")
class QueryResponse(Message):
    statement_index: U32
    columns: list[Column]
    rows: Rows
    affected_rows: U64
    command_tag: str
    execution_time_us: U64
    transaction_status: TxStatus


@_message(5, "PreparedStatement", 0, "Prepare")
class Prepare(Message):
    name: str
    sql: str
    param_types: list[U32]


@_message(5, "PreparedStatement", 1, "Execute")
class Execute(Message):
    name: str
    params: list[AnyValue]
    options: QueryOptions | None


@_message(5, "PreparedStatement", 2, "Describe")
class Describe(Message):
    name: str


@_message(5, "PreparedStatement", 3, "Deallocate")
class Deallocate(Message):
    name: str


@_message(6, "StatementInfo")
class StatementInfo(Message):
    name: str
    param_types: list[U32]
    columns: list[Column]


@_message(7, "BulkInsert", 0, "Start")
class BulkStart(Message):
    schema: str | None
    table: str
    columns: list[str]
    on_conflict: OnConflict


@_message(7, "BulkInsert", 1, "Rows")
class BulkRows(Message):
    sequence: U32
    rows: Annotated[list[Any] | EncodedRows, Codec(read_rows, write_rows)]


@_message(7, "BulkInsert", 2, "End")
class BulkEnd(Message):
    pass


@_message(7, "BulkInsert", 3, "Abort")
class BulkAbort(Message):
    reason: str


@_message(8, "Streaming", 0, "Open")
class StreamOpen(Message):
    query: Query
    chunk_rows: U32


@_message(8, "Streaming", 1, "Header")
class StreamHeader(Message):
    columns: list[Column]


@_message(8, "Streaming", 2, "Chunk")
class StreamChunk(Message):
    sequence: U32
    rows: Rows


@_message(8, "Streaming", 3, "Cancel")
class StreamCancel(Message):
    pass


@_message(8, "Streaming", 4, "End")
class StreamEnd(Message):
    rows: U64
    command_tag: str
    transaction_status: TxStatus


@_message(8, "Streaming", 5, "OpenObject")
class StreamOpenObject(Message):
    oid: U32
    offset: U64
    length: U64 | None


@_message(8, "Streaming", 6, "Data")
class StreamData(Message):
    sequence: U32
    data: bytes


@_message(9, "Heartbeat")
class Heartbeat(Message):
    sent_at_us: U64
    pending: U32


@_message(10, "Notification", 0, "Listen")
class Listen(Message):
    channel: str


@_message(10, "Notification", 1, "Unlisten")
class Unlisten(Message):
    channel: str | None


@_message(10, "Notification", 2, "Event")
class Event(Message):
    channel: str
    payload: str
    process_id: I32


@_message(10, "Notification", 3, "Notice")
class Notice(Message):
    severity: NoticeSeverity
    sqlstate: str
    message: str


@_message(10, "Notification", 4, "ParameterStatus")
class ParameterStatus(Message):
    name: str
    value: str


@_message(10, "Notification", 5, "SessionEvent")
class SessionEvent(Message):
    event: str
    detail: str


@_message(10, "Notification", 6, "Shutdown")
class Shutdown(Message):
    grace_ms: U32
    reason: str


@_message(11, "Begin")
class Begin(Message):
    isolation: Isolation | None
    read_only: bool | None
    deferrable: bool | None


@_message(12, "TransactionStarted")
class TransactionStarted(Message):
    transaction_id: U64


@_message(13, "Commit")
class Commit(Message):
    and_chain: bool


@_message(14, "Rollback")
class Rollback(Message):
    to_savepoint: str | None
    and_chain: bool


@_message(15, "Savepoint")
class Savepoint(Message):
    name: str
    release: bool


@_message(16, "Ping")
class Ping(Message):
    pass


@_message(17, "Pong")
class Pong(Message):
    pass


@_message(18, "Ok")
class Ok(Message):
    affected_rows: U64
    command_tag: str | None
    transaction_status: TxStatus


@_message(19, "Error")
class ErrorBody(Message):
    severity: Severity
    sqlstate: str
    code: str
    message: str
    detail: str | None = None
    hint: str | None = None
    position: U32 | None = None
    context: str | None = None
    schema: str | None = None
    table: str | None = None
    column: str | None = None
    data_type: str | None = None
    constraint: str | None = None
    retryable: bool = False
    retry_after_ms: U32 | None = None
    trace_id: str | None = None


@_message(20, "Cancel")
class Cancel(Message):
    target: U64


@_message(21, "WindowUpdate")
class WindowUpdate(Message):
    stream: U64
    credit: U32


@_message(22, "Session", 0, "Set")
class SessionSet(Message):
    name: str
    value: str
    local: bool


@_message(22, "Session", 1, "Show")
class SessionShow(Message):
    name: str


@_message(22, "Session", 2, "Reset")
class SessionReset(Message):
    name: str | None


@_message(22, "Session", 3, "DiscardAll")
class SessionDiscardAll(Message):
    pass


@_message(22, "Session", 4, "Acquire")
class SessionAcquire(Message):
    connection_class: str | None
    tag: str | None
    purity: Purity


@_message(22, "Session", 5, "Release")
class SessionRelease(Message):
    tag: str | None


@_message(23, "Subscribe")
class Subscribe(Message):
    stream: str
    params: list[tuple[str, str]]


@_message(24, "StreamEvent")
class StreamEvent(Message):
    stream: str
    sequence: U64
    time_us: I64
    body: str


@_message(25, "Unsubscribe")
class Unsubscribe(Message):
    target: U64


@_message(26, "Batch")
class Batch(Message):
    statements: list[Query]
    atomic: bool
    stop_on_error: bool


@_message(27, "Simple", 0, "Query")
class SimpleQuery(Message):
    sql: str


@_message(27, "Simple", 1, "BeginTransaction")
class SimpleBegin(Message):
    pass


@_message(27, "Simple", 2, "Commit")
class SimpleCommit(Message):
    pass


@_message(27, "Simple", 3, "Rollback")
class SimpleRollback(Message):
    pass


@_message(27, "Simple", 4, "Ping")
class SimplePing(Message):
    pass


@_message(28, "SimpleReply", 0, "QueryResult")
class SimpleQueryResult(Message):
    columns: list[str]
    rows: Rows
    affected_rows: U64


@_message(28, "SimpleReply", 1, "TransactionId")
class SimpleTransactionId(Message):
    id: U64


@_message(28, "SimpleReply", 2, "Ok")
class SimpleOk(Message):
    pass


@_message(28, "SimpleReply", 3, "Error")
class SimpleError(Message):
    text: str


@_message(28, "SimpleReply", 4, "Pong")
class SimplePong(Message):
    pass


@_message(29, "Extension")
class Extension(Message):
    name: str
    payload: bytes


@_message(30, "Close")
class Close(Message):
    reason: str
