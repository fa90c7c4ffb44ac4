"""Clients that work beside a script and through the same pool, so that the script's client keeps
no backend by luck. They watch that nothing of anybody else reaches them. A process of its own:

    noise.py SOCKET-DIRECTORY PORT USER DATABASE CLIENTS FILE

FILE holds the name of the application that half of the clients take on. On SIGTERM the process
writes what it did as JSON to standard output.
"""

import json
import random
import signal
import socket
import struct
import sys
import threading
import time

# What psql announces when it runs as pg_regress runs it.
LIKE_PSQL = {
    "datestyle": "Postgres, MDY",
    "timezone": "America/Los_Angeles",
    "options": "-c intervalstyle=postgres_verbose",
}
# What half of the clients set once they are in.
OTHERWISE = {"datestyle": "ISO, DMY", "timezone": "Asia/Tokyo", "intervalstyle": "iso_8601"}
# Transactions until a client comes back as a new one.
SESSION = 60
MOST_ERRORS = 20


class Surprise(Exception):
    """An answer that this client must not get."""


class Client:
    """One session in the PostgreSQL protocol."""

    def __init__(self, path, parameters, patience):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience)
        self.socket.connect(path)
        self.rest = b""
        body = struct.pack("!i", 196608)
        for name, value in parameters.items():
            body += name.encode() + b"\0" + value.encode() + b"\0"
        self.socket.sendall(struct.pack("!i", len(body) + 5) + body + b"\0")
        self.answer()

    def answer(self):
        """Rows as lists of texts, the SQLSTATE of an error, the last transaction status."""
        rows, error = [], None
        while True:
            kind, body = self.message()
            if kind == b"D":
                rows.append(columns(body))
            elif kind == b"E":
                error = fields(body)
                if error["S"] == "FATAL":
                    raise Surprise(f"{error['C']} {error['M']}")
            elif kind == b"A":
                raise Surprise(f"a notification of somebody else: {body}")
            elif kind == b"Z":
                return rows, error, body

    def message(self):
        kind, length = struct.unpack("!ci", self.exactly(5))
        return kind, self.exactly(length - 4)

    def exactly(self, size):
        while len(self.rest) < size:
            data = self.socket.recv(65536)
            if not data:
                raise Surprise("the connection was closed")
            self.rest += data
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def send(self, *messages):
        packed = b"".join(kind + struct.pack("!i", len(body) + 4) + body for kind, body in messages)
        self.socket.sendall(packed)
        return self.answer()

    def query(self, sql):
        return self.send((b"Q", sql.encode() + b"\0"))

    def value(self, sql):
        rows, error, _ = self.query(sql)
        if error:
            raise Surprise(f"{sql}: {error['C']} {error['M']}")
        return rows[0][0]

    def close(self):
        try:
            self.socket.sendall(b"X\0\0\0\4")
        except OSError:
            pass
        self.socket.close()


def columns(body):
    count, at, found = struct.unpack("!h", body[:2])[0], 2, []
    for _ in range(count):
        size = struct.unpack("!i", body[at:at + 4])[0]
        at += 4
        if size < 0:
            found.append(None)
        else:
            found.append(body[at:at + size].decode())
            at += size
    return found


def fields(body):
    parts = [part for part in body.split(b"\0") if part]
    return {part[:1].decode(): part[1:].decode(errors="replace") for part in parts}


def expect(what, got, wanted):
    if got != wanted:
        raise Surprise(f"{what}: {got!r} instead of {wanted!r}")


class Worker(threading.Thread):
    def __init__(self, number, target, done):
        super().__init__(daemon=True)
        self.number, self.target, self.done = number, target, done
        self.random = random.Random(number)
        self.transactions = self.sessions = self.moves = 0
        self.errors = []

    def run(self):
        while not self.done.is_set():
            try:
                self.session()
            except (OSError, Surprise) as e:
                if not self.done.is_set():
                    self.errors = (self.errors + [f"client {self.number}: {e}"])[:MOST_ERRORS]
                    time.sleep(0.1)

    def session(self):
        path, user, database, application = self.target
        like_psql = self.number % 2 == 0
        with open(application, encoding="utf-8") as file:
            name = file.read() if like_psql else f"noise {self.number}"
        parameters = {"user": user, "database": database, "application_name": name}
        parameters.update(LIKE_PSQL)
        client = Client(path, parameters, patience=300)
        self.sessions += 1
        self.user = user
        self.name = name
        self.style = LIKE_PSQL["datestyle"]
        if not like_psql:
            self.style = OTHERWISE["datestyle"]
            sql = "; ".join(f"set {name} = '{value}'" for name, value in OTHERWISE.items())
            expect("set", client.query(sql)[1], None)
        self.memory = f"{self.number + 1}MB"
        expect("set", client.query(f"set work_mem = '{self.memory}'")[1], None)
        sql = f"select $1::int + {self.number}"
        client.send((b"P", b"noise\0" + sql.encode() + b"\0\0\0"), (b"S", b""))
        tasks = [self.plain, self.block, self.prepared, self.settings, self.failure,
                 self.rolled_back, self.pipeline]
        if self.number == 0:
            # Where this pins, the others must go on moving.
            client.query(f"prepare noise_sql as select {self.number}")
            tasks.append(self.prepared_sql)
        for _ in range(SESSION):
            if self.done.is_set():
                break
            self.random.choice(tasks)(client)
            self.transactions += 1
            time.sleep(self.random.random() * 0.005)
        client.close()

    def plain(self, client):
        expect("select", client.value("select 42"), "42")

    def block(self, client):
        client.query("begin")
        pid = client.value("select pg_backend_pid()")
        expect("one transaction, one backend", client.value("select pg_backend_pid()"), pid)
        expect("commit", client.query("commit")[2], b"I")
        if client.value("select pg_backend_pid()") != pid:
            self.moves += 1

    def execute(self, value):
        text = str(value).encode()
        bind = b"\0noise\0" + struct.pack("!hhi", 0, 1, len(text)) + text + b"\0\0"
        return [(b"B", bind), (b"E", b"\0\0\0\0\0")]

    def prepared(self, client):
        rows, error, _ = client.send(*self.execute(1000), (b"S", b""))
        expect("prepared", (rows, error), ([[str(1000 + self.number)]], None))

    def pipeline(self, client):
        rows, error, _ = client.send(*self.execute(1), *self.execute(2), (b"S", b""))
        wanted = [[str(1 + self.number)], [str(2 + self.number)]]
        expect("pipeline", (rows, error), (wanted, None))

    def prepared_sql(self, client):
        expect("execute", client.value("execute noise_sql"), str(self.number))

    def settings(self, client):
        expect("work_mem", client.value("show work_mem"), self.memory)
        expect("datestyle", client.value("show datestyle"), self.style)
        expect("application_name", client.value("show application_name"), self.name)
        expect("search_path", client.value("show search_path"), '"$user", public')
        expect("roles", client.query("select current_user, session_user")[0], [[self.user] * 2])
        expect("portals", client.value("select count(*) from pg_cursors"), "0")
        expect("role", client.value("show role"), "none")

    def failure(self, client):
        _, error, status = client.query("select 1/0")
        expect("division", (error and error["C"], status), ("22012", b"I"))

    def rolled_back(self, client):
        client.query("begin; set local work_mem = '99MB'; set statement_timeout = '1h'; rollback")
        expect("work_mem after rollback", client.value("show work_mem"), self.memory)


def main():
    directory, port, user, database, clients, application = sys.argv[1:]
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    target = (f"{directory}/.s.PGSQL.{port}", user, database, application)
    workers = [Worker(number, target, done) for number in range(int(clients))]
    for worker in workers:
        worker.start()
    while not done.wait(1):
        pass
    for worker in workers:
        worker.join(5)
    json.dump({
        "clients": len(workers),
        "sessions": sum(worker.sessions for worker in workers),
        "transactions": sum(worker.transactions for worker in workers),
        "moves": sum(worker.moves for worker in workers),
        "errors": [error for worker in workers for error in worker.errors][:MOST_ERRORS],
    }, sys.stdout)


main()
