"""A server for the tests of the library's own logic: each connection follows a script."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from rustydb._wire import frames
from rustydb._wire import messages as m
from rustydb._wire.frames import Flag

OK_TAG = "SELECT 1"
ECHO = Flag.RESPONSE


def hello(**changes: Any) -> m.ServerHello:
    """What the fake server agrees to; anything may be changed."""
    fields: dict[str, Any] = {
        "version": m.Version(1, 0),
        "server_name": "fake",
        "server_version": "0",
        "connection_id": 1,
        "compression": m.CompressionType.None_,
        "capabilities": 0x7F,
        "extensions": [],
        "max_message_size": 16 << 20,
        "max_sql_length": 1 << 20,
        "max_pending_requests": 10_000,
        "max_queued_requests": 1_000,
        "max_batch_statements": 1_000,
        "stream_window": 1 << 20,
        "connection_window": 16 << 20,
        "heartbeat_interval_ms": 30_000,
        "auth_methods": [m.AuthMethod.Trust],
    }
    return m.ServerHello(**{**fields, **changes})


def answer(value: Any = 1, status: m.TxStatus = m.TxStatus.Idle) -> m.QueryResponse:
    """A result of one row with one column."""
    columns = [m.Column("v", 25, "text", -1, -1, 0, 0, None)]
    return m.QueryResponse(0, columns, [[value]], 1, OK_TAG, 1, status)


def ok(tag: str | None = None, affected: int = 0, status: m.TxStatus = m.TxStatus.Idle) -> m.Ok:
    return m.Ok(affected, tag, status)


def error(sqlstate: str = "42601", fatal: bool = False, **fields: Any) -> m.ErrorBody:
    severity = m.Severity.Fatal if fatal else m.Severity.Error
    return m.ErrorBody(severity, sqlstate, "CODE", f"error {sqlstate}", **fields)


class Hangup(Exception):
    """Ends a connection's script."""


class Connection:
    """The server's side of one connection."""

    def __init__(self, sock: socket.socket, number: int):
        self.sock = sock
        # The how manieth connection of the server it is, from 0.
        self.number = number
        self.hello: m.ClientHello
        self._splitter = frames.Splitter()
        self._frames: list[frames.Frame] = []

    def receive(self) -> frames.Frame:
        """The next frame; `Hangup` at the end."""
        while not self._frames:
            data = self.sock.recv(1 << 16)
            if not data:
                raise Hangup
            self._splitter.feed(data)
            self._frames = list(self._splitter.frames())
        return self._frames.pop(0)

    def request(self, *skip: type[m.Message]) -> tuple[int, Any]:
        """The next message that is not of a kind to skip, with its id; `Hangup` at the end."""
        while True:
            frame = self.receive()
            message = m.decode(frame.body)
            if isinstance(message, m.Close):
                raise Hangup
            if not isinstance(message, skip):
                return frame.id, message

    def send(self, number: int, message: m.Message, flags: int = 0) -> int:
        """Sends a message; returns the length of its payload."""
        if not isinstance(message, m.WindowUpdate) and number < 1 << 63:
            flags |= Flag.RESPONSE
        data = frames.build(frames.Agreed(), flags, number, m.encode(message))
        self.sock.sendall(data)
        return len(data) - frames.HEADER

    def accept(self, login: "Script | None" = None, **changes: Any) -> None:
        """Does the handshake and lets the client in."""
        preface = b""
        while len(preface) < 8:
            data = self.sock.recv(8 - len(preface))
            if not data:
                raise Hangup
            preface += data
        assert preface == frames.PREFACE
        number, self.hello = self.request()
        self.send(number, hello(**changes))
        if login is not None:
            login(self)
            return
        number, start = self.request()
        assert isinstance(start, m.AuthStart)
        parameters = [("server_version", "16.0")]
        self.send(number, m.AuthSuccess(1, start.user, [], parameters))


Script = Callable[[Connection], None]


class Server:
    """Listens on a free port and runs the script for each connection in a thread."""

    def __init__(self, script: Script, **changes: Any):
        self._script = script
        self._changes = changes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.connections = 0
        # Connections that were closed at once.
        self.refused = 0
        self._refuses = False
        self.failures: list[BaseException] = []
        self.url = f"rustydb://u@127.0.0.1:{self._listener.getsockname()[1]}/d?tls=disable"
        self._start(self._accept)

    def refuse(self, refuses: bool) -> None:
        """Closes new connections at once, or no longer."""
        self._refuses = refuses

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                self.refused += 1
                sock.close()
                continue
            self._sockets.append(sock)
            self.connections += 1
            self._start(self._serve, Connection(sock, self.connections - 1))

    def _serve(self, connection: Connection) -> None:
        with connection.sock:
            try:
                connection.accept(**self._changes)
                self._script(connection)
            except Hangup:
                self._hang_up(connection.sock)
            except OSError:
                pass
            except BaseException as failure:
                self.failures.append(failure)

    @staticmethod
    def _hang_up(sock: socket.socket) -> None:
        """Closes so that the client gets everything that was sent."""
        with contextlib.suppress(OSError):
            sock.settimeout(1)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        # A blocked accept notices a shutdown, but not a close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)
        for sock in self._sockets:
            sock.close()
        if kind is None and self.failures:
            raise self.failures[0]


def serve_queries(connection: Connection) -> None:
    """Answers every query with 1, and pings."""
    while True:
        number, message = connection.request(m.WindowUpdate, m.Cancel)
        if isinstance(message, m.Ping):
            connection.send(number, m.Pong())
        elif isinstance(message, m.SessionDiscardAll):
            connection.send(number, ok("DISCARD ALL"))
        else:
            connection.send(number, answer())
