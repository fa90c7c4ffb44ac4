"""The servers that are measured: started from nothing in a temporary directory, ended by pid."""

import glob
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time

from wire import Client, ServerError

POOL_SIZE = 20
# 256 clients of PostgreSQL itself beside the idle pools of both proxies.
MAX_CONNECTIONS = 400
DATABASE = "bench"


class Failure(Exception):
    """Something that ends the whole run."""


def unprivileged():
    """Arguments of Popen: PostgreSQL and PgBouncer refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def give_away(path):
    """Hands a file or directory to the user that unprivileged servers run as."""
    owner = unprivileged()
    if owner:
        os.chown(path, owner["user"], owner["group"])


def postgres_program(name):
    """A program of the newest installed PostgreSQL, or of the one in PATH."""
    found = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
    newest = max(found, key=lambda path: float(path.split("/")[4]), default=shutil.which(name))
    if newest is None:
        raise Failure(f"{name} is missing: install PostgreSQL")
    return newest


def version_line(program):
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True,
                          timeout=10).stdout.split("\n", 1)[0].strip()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A process with a port. `stop_signal` ends it in good order."""

    name = ""
    stop_signal = signal.SIGTERM

    def __init__(self, directory):
        self.directory = directory
        self.process = None
        self.port = None

    @property
    def pid(self):
        return self.process.pid

    def launch(self, command, **options):
        self.log = os.path.join(self.directory, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd="/", **options)

    def wait_for(self, ready, seconds=30):
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    raise Failure(f"{self.name} did not start:\n" + log.read()[-2000:])
            time.sleep(0.05)

    def answers(self, database="postgres"):
        try:
            Client(self.port, database, timeout=2).close()
        except (OSError, ServerError):
            return False
        return True

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        for sign in (self.stop_signal, signal.SIGQUIT, signal.SIGKILL):
            self.process.send_signal(sign)
            try:
                self.process.wait(10)
                return
            except subprocess.TimeoutExpired:
                continue


class Postgres(Server):
    """A cluster that trusts everybody on loopback and need not survive a crash."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT
    SETTINGS = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": MAX_CONNECTIONS,
        "shared_buffers": "512MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "1h",
        "fsync": "off",
        "autovacuum": "off",
        "jit": "off",
    }

    def start(self):
        give_away(self.directory)
        data = os.path.join(self.directory, "cluster")
        subprocess.run([postgres_program("initdb"), "--no-sync", "--auth=trust", "--encoding=UTF8",
                        "--username=postgres", "--locale=C", "-D", data],
                       stdout=subprocess.DEVNULL, check=True, timeout=120, cwd="/", **unprivileged())
        self.port = free_port()
        settings = {"port": self.port, **self.SETTINGS}
        command = [postgres_program("postgres"), "-D", data]
        for key, value in settings.items():
            command += ["-c", f"{key}={value}"]
        self.launch(command, **unprivileged())
        self.wait_for(self.answers)


class PgBouncer(Server):
    """Transaction pooling; what it logs of connections is off, as RustyDB logs none either."""

    name = "PgBouncer"

    def __init__(self, directory, program, postgres):
        super().__init__(directory)
        self.program = program
        self.postgres = postgres
        self.version = version_line(program)

    @property
    def tracks_statements(self):
        """From 1.21 on prepared statements survive transaction pooling."""
        numbers = re.search(r"(\d+)\.(\d+)", self.version)
        return (int(numbers[1]), int(numbers[2])) >= (1, 21)

    def start(self):
        self.port = free_port()
        give_away(self.directory)
        users = self.write("users", '"postgres" ""\n')
        ini = self.write("ini", self.configuration(users))
        self.launch([self.program, "-q", ini], **unprivileged())
        self.wait_for(lambda: self.answers(DATABASE))

    def configuration(self, users):
        lines = [
            "[databases]", f"* = host=127.0.0.1 port={self.postgres.port}",
            "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {self.port}",
            "unix_socket_dir =", "auth_type = trust", f"auth_file = {users}",
            "pool_mode = transaction", f"default_pool_size = {POOL_SIZE}",
            "max_client_conn = 5000", "log_connections = 0", "log_disconnections = 0",
        ]
        if self.tracks_statements:
            lines.append("max_prepared_statements = 200")
        return "\n".join(lines) + "\n"

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        give_away(path)
        return path


class RustyDB(Server):
    name = "RustyDB"
    tracks_statements = True

    def __init__(self, directory, program, postgres, arguments=()):
        super().__init__(directory)
        self.program = program
        self.postgres = postgres
        self.arguments = list(arguments)
        self.version = version_line(program)

    def start(self):
        data = os.path.join(self.directory, "data")
        self.launch([
            self.program, "--backend", f"postgresql://postgres@127.0.0.1:{self.postgres.port}/postgres",
            "--insecure", "--set", f"pool.max_size={POOL_SIZE}", "--data-dir", data, "--port", "0",
            "--set", "rate_limit.enabled=false", "--api-port", "0", "--metrics-port", "0", "--unix-socket-dir", "none", *self.arguments,
        ])
        self.wait_for(lambda: self.read_port(data) and self.answers(DATABASE))

    def read_port(self, data):
        try:
            with open(os.path.join(data, "rustydb.lock"), encoding="utf-8") as file:
                self.port = json.load(file)["postgres_port"]
        except (OSError, ValueError, KeyError):
            return False
        return True


def pools_transactions(server):
    """Whether one client more than there are connections gets an answer while the others stay."""
    clients = []
    try:
        for _ in range(POOL_SIZE + 1):
            clients.append(Client(server.port, DATABASE, timeout=3))
            clients[-1].query("select 1")
        return True
    except (OSError, ServerError):
        return False
    finally:
        for client in clients:
            client.close()
