"""A client of the PostgreSQL protocol, as small as it can be: log-in by trust, simple queries."""

import socket
import struct


class ServerError(Exception):
    """An ErrorResponse."""


class Client:
    def __init__(self, port, database, timeout=10.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.rest = b""
        body = struct.pack("!i", 196608)
        body += b"".join(w.encode() + b"\0" for w in ("user", "postgres", "database", database))
        self.socket.sendall(struct.pack("!i", len(body) + 5) + body + b"\0")
        self.wait_until_ready()

    def query(self, sql):
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
        self.wait_until_ready()

    def wait_until_ready(self):
        """Reads to ReadyForQuery; an ErrorResponse on the way is raised there."""
        error = None
        while True:
            kind, body = self.message()
            if kind == b"E":
                error = ServerError(error_text(body))
            if kind == b"Z" or (error and "FATAL" in str(error)):
                break
        if error:
            raise error

    def message(self):
        kind, length = struct.unpack("!ci", self.exactly(5))
        return kind, self.exactly(length - 4)

    def exactly(self, size):
        while len(self.rest) < size:
            data = self.socket.recv(65536)
            if not data:
                raise ServerError("the server closed the connection")
            self.rest += data
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def close(self):
        self.socket.close()


def error_text(body):
    fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    return f"{fields.get(b'S', '')} {fields.get(b'C', '')}: {fields.get(b'M', '')}".strip()
