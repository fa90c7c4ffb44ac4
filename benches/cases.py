"""The cases: what is run against one target in one round, and what comes of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field

from machine import CORES, Snapshot, resident_bytes
from servers import DATABASE, POOL_SIZE, postgres_program
from wire import Client, ServerError

IDLE_CLIENTS = 2000
COPY_OUT_ROWS = 3_000_000
COPY_IN_ROWS = 1_000_000
TYPED_ROWS = 1_000_000
SESSION_POOLING = f"pools per session: at most {POOL_SIZE} clients run statements at once"
NO_PROXY = "no proxy to measure"
NO_STATEMENTS = "does not keep prepared statements in transaction pooling before 1.21"
SETTLE = 0.15
TYPED_SELECT = ("i::int8 as id, 'name of row ' || i as name, "
                "timestamptz '2026-01-01 00:00:00+00' + i * interval '1.000003 s' as at, "
                "i * 0.37::float8 as value")


class Skip(Exception):
    """The target cannot do the case; the text says why."""


@dataclass
class Sample:
    """One case on one target in one round. CPU times are seconds for one unit of work."""

    values: dict = field(default_factory=dict)
    cost: object = None
    note: str = ""


@dataclass
class Target:
    """`server` is who is asked, `proxy` says whether it stands in front of PostgreSQL, `native`
    whether it is asked over the native protocol, `rest` whether over HTTP, with these `headers`."""

    name: str
    server: object
    proxy: bool
    transactions: bool = True
    prepared: bool = True
    restart: object = None
    native: bool = False
    rest: bool = False
    headers: tuple = ()

    @property
    def pid(self):
        return self.server.pid if self.proxy else None


class Bench:
    """What every case needs: PostgreSQL, the running proxies, how long to measure."""

    def __init__(self, postgres, targets, seconds, directory, load, rest_load):
        self.postgres = postgres
        self.load = load
        self.rest_load = rest_load
        self.targets = targets
        self.seconds = seconds
        self.directory = directory
        self.copy_file = os.path.join(directory, "rows")
        self.copy_out_bytes = 0

    def prepare(self):
        """The tables of pgbench, of COPY, and of the rows with types."""
        psql(self.postgres, f"create database {DATABASE}", database="postgres")
        run([postgres_program("pgbench"), "-i", "-q", "-s", "10", *address(self.postgres)], 300)
        psql(self.postgres, "create unlogged table rows_out as select i, repeat('x', 80) as filler "
             f"from generate_series(1, {COPY_OUT_ROWS}) i")
        psql(self.postgres, "create unlogged table rows_in (i integer, filler text)")
        psql(self.postgres, f"create unlogged table typed_out as select {TYPED_SELECT} "
             f"from generate_series(1, {TYPED_ROWS}) i")
        psql(self.postgres, "create unlogged table typed_in as select * from typed_out limit 0")
        psql(self.postgres, "vacuum analyze")
        size = psql(self.postgres, "select sum(length(i::text) + length(filler) + 2) from rows_out")
        self.copy_out_bytes = int(size)
        psql(self.postgres, f"\\copy (select * from rows_out limit {COPY_IN_ROWS}) "
             f"to '{self.copy_file}'")

    def snapshot(self):
        time.sleep(SETTLE)
        return Snapshot(self.postgres.pid, [t.pid for t in self.targets if t.proxy])

    def measure(self, target, work):
        """Runs `work`, which returns (units, values), and divides what it cost by the units."""
        before = self.snapshot()
        units, values = work()
        cost = before.until(self.snapshot(), target.pid)
        values["postgres"] = cost.postgres.total / units
        values["client"] = cost.client.total / units
        if target.proxy:
            values["proxy"] = cost.proxy.total / units
            values["proxy user"] = cost.proxy.user / units
            values["proxy system"] = cost.proxy.system / units
            values["sum"] = values["proxy"] + values["postgres"]
        return Sample(values, cost)


def address(server):
    return ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", DATABASE]


def run(command, timeout, stdout=subprocess.PIPE):
    """Output of a client; its last error line is the reason to skip the case."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, text=True,
                              stderr=subprocess.PIPE, timeout=timeout, cwd="/")
    except subprocess.TimeoutExpired:
        raise Skip(f"no end within {timeout} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise Skip((errors or done.stderr.splitlines() or ["failed without a word"])[0])
    return done.stdout


def psql(server, sql, database=DATABASE, stdout=subprocess.PIPE):
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", database]
    return run([postgres_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", *where, "-c", sql], 120,
               stdout)


class Case:
    """`unit` is what the costs are divided by, `rate` what the speed counts."""

    unit = "transaction"
    rate = "tps"
    # Whether it also runs over the native protocol; whether services over HTTP are asked.
    native = False
    rest = False

    def __init__(self, name, title):
        self.name = name
        self.title = title

    def takes(self, target):
        return not target.rest and (self.native or not target.native)

    def run(self, bench, target):
        raise NotImplementedError


class Pgbench(Case):
    def __init__(self, name, title, clients, *options, mode="simple"):
        super().__init__(name, title)
        self.clients = clients
        self.mode = mode
        self.options = options

    def run(self, bench, target):
        self.refuse(target)
        if "-S" not in self.options:
            psql(bench.postgres, "vacuum pgbench_branches, pgbench_tellers")
        return bench.measure(target, lambda: self.work(target, ["-T", str(bench.seconds)],
                                                       bench.seconds + 30))

    def refuse(self, target):
        if self.clients > POOL_SIZE and not target.transactions:
            raise Skip(SESSION_POOLING)
        if self.mode == "prepared" and not target.prepared:
            raise Skip(NO_STATEMENTS)

    def work(self, target, length, timeout):
        threads = str(min(CORES, self.clients))
        output = run([postgres_program("pgbench"), "-n", "-c", str(self.clients), "-j", threads,
                      "-M", self.mode, *self.options, *length, *address(target.server)], timeout)
        done = int(re.search(r"actually processed: (\d+)", output)[1])
        failed = re.search(r"failed transactions: (\d+)", output)
        if done == 0 or (failed and int(failed[1])):
            raise Skip("transactions failed")
        return done, {
            "speed": float(re.search(r"^tps = ([\d.]+)", output, re.M)[1]),
            "latency": float(re.search(r"^latency average = ([\d.]+) ms", output, re.M)[1]) / 1e3,
        }


class Syscalls(Pgbench):
    """System calls are counted in a run of its own: under strace the speed means nothing."""

    TRANSACTIONS = 500

    def run(self, bench, target):
        if not target.proxy:
            raise Skip(NO_PROXY)
        if not shutil.which("strace"):
            raise Skip("strace is not installed")
        table = os.path.join(bench.directory, "syscalls")
        tracer = subprocess.Popen(["strace", "-c", "-f", "-U", "calls,name", "-o", table, "-p",
                                   str(target.pid)], stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            if tracer.poll() is not None:
                raise Skip("strace may not trace here")
            done, _ = self.work(target, ["-t", str(self.TRANSACTIONS)], 60)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
        return self.counted(table, done)

    @staticmethod
    def counted(table, transactions):
        with open(table, encoding="utf-8") as file:
            lines = [line.split() for line in file]
        calls = {line[1]: int(line[0]) for line in lines
                 if len(line) == 2 and line[0].isdigit() and line[1] != "total"}
        most = sorted(calls, key=calls.get, reverse=True)[:4]
        note = ", ".join(f"{name} {calls[name] / transactions:.2f}" for name in most)
        return Sample({"syscalls": sum(calls.values()) / transactions}, note=note)


class Copy(Case):
    """One COPY after the other until the time is over; only they are on the clock."""

    unit = "MB"
    rate = "MB/s"

    def run(self, bench, target):
        return bench.measure(target, lambda: self.work(bench, target))

    def work(self, bench, target):
        megabytes = seconds = 0.0
        while seconds < bench.seconds:
            self.before(bench)
            begun = time.monotonic()
            megabytes += self.copy(bench, target) / 1e6
            seconds += time.monotonic() - begun
        return megabytes, {"speed": megabytes / seconds}

    def before(self, bench):
        pass

    def copy(self, bench, target):
        """Returns the bytes that were copied."""
        raise NotImplementedError


class CopyOut(Copy):
    def copy(self, bench, target):
        psql(target.server, "copy rows_out to stdout", stdout=subprocess.DEVNULL)
        return bench.copy_out_bytes


class CopyIn(Copy):
    def before(self, bench):
        psql(bench.postgres, "truncate rows_in")

    def copy(self, bench, target):
        psql(target.server, f"\\copy rows_in from '{bench.copy_file}'")
        return os.path.getsize(bench.copy_file)


class Load(Case):
    """Work of benches/native: the same over PostgreSQL's protocol and over the native one."""

    native = True

    @staticmethod
    def command(bench, target, *work):
        protocol = "native" if target.native else "postgres"
        return [bench.load, protocol, str(target.server.port), DATABASE, *map(str, work)]

    def once(self, bench, target, *work):
        """Returns how much was done, and the seconds it took."""
        output = run(self.command(bench, target, *work), bench.seconds + 120)
        done = json.loads(output)
        return done["units"], done["seconds"]


class LoadSelect(Load):
    """A prepared statement of one row, `depth` of them under way on one connection."""

    def __init__(self, name, title, depth):
        super().__init__(name, title)
        self.depth = depth

    def run(self, bench, target):
        if not target.prepared:
            raise Skip(NO_STATEMENTS)
        return bench.measure(target, lambda: self.work(bench, target))

    def work(self, bench, target):
        units, seconds = self.once(bench, target, "select", self.depth, bench.seconds)
        return units, {"speed": units / seconds}


class LoadRows(Load):
    """A million rows at a time until the time is over; only they are on the clock."""

    unit = "1,000 rows"
    rate = "rows/s"

    def __init__(self, name, title, what):
        super().__init__(name, title)
        self.what = what

    def run(self, bench, target):
        if not target.prepared:
            raise Skip(NO_STATEMENTS)
        return bench.measure(target, lambda: self.work(bench, target))

    def work(self, bench, target):
        rows = seconds = 0
        while seconds < bench.seconds:
            if self.what == "insert":
                psql(bench.postgres, "truncate typed_in")
            more, took = self.once(bench, target, self.what, TYPED_ROWS)
            rows, seconds = rows + more, seconds + took
        return rows / 1000, {"speed": rows / seconds}


class IdleClients:
    """Clients of the PostgreSQL protocol that stay connected."""

    def __init__(self, server):
        self.server = server
        self.clients = []

    def connect(self):
        for _ in range(IDLE_CLIENTS):
            self.clients.append(Client(self.server.port, DATABASE))

    def query(self, sql):
        for client in self.clients:
            client.query(sql)

    def close(self):
        for client in self.clients:
            client.close()


class IdleNative:
    """The same over the native protocol, in a process of their own."""

    def __init__(self, command):
        self.command = command
        self.process = None

    def connect(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, cwd="/", text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait()

    def query(self, sql):
        self.process.stdin.write(sql + "\n")
        self.process.stdin.flush()
        self.wait()

    def wait(self):
        if not self.process.stdout.readline():
            raise ServerError(self.process.stderr.read().strip())

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


class Memory(Case):
    """What an idle client costs the proxy, in a process started for nothing else."""

    unit = "client"
    native = True
    STEPS = [
        ("logged in", None),
        ("after select 1", "select 1"),
        ("after 60 kB", "select repeat('x', 60000)"),
    ]

    def run(self, bench, target):
        if not target.proxy:
            raise Skip(NO_PROXY)
        fresh = target.restart()
        clients = None
        try:
            fresh.start()
            asked = Target(target.name, fresh, proxy=True, native=target.native)
            clients = (IdleNative(Load.command(bench, asked, "idle", IDLE_CLIENTS))
                       if target.native else IdleClients(fresh))
            return self.steps(fresh, target, clients)
        except (OSError, ServerError) as error:
            raise Skip(f"with {IDLE_CLIENTS} clients: {error}") from None
        finally:
            if clients is not None:
                clients.close()
            fresh.stop()

    def steps(self, server, target, clients):
        empty = resident_bytes(server.pid)
        sample = Sample({"empty": empty})
        for name, sql in self.STEPS:
            if sql and not target.transactions:
                sample.note = SESSION_POOLING
                break
            clients.query(sql) if sql else clients.connect()
            time.sleep(0.5)
            sample.values[name] = (resident_bytes(server.pid) - empty) / IDLE_CLIENTS
        return sample


CASES = [
    Pgbench("select-simple-16", "SELECT, simple queries, 16 clients", 16, "-S"),
    Pgbench("select-extended-16", "SELECT, extended queries, 16 clients", 16, "-S", mode="extended"),
    Pgbench("select-prepared-16", "SELECT, prepared, 16 clients", 16, "-S", mode="prepared"),
    Pgbench("select-simple-64", "SELECT, simple queries, 64 clients", 64, "-S"),
    Pgbench("select-simple-256", "SELECT, simple queries, 256 clients", 256, "-S"),
    Pgbench("tpcb-16", "TPC-B-like, simple queries, 16 clients", 16),
    Pgbench("connect", "a connection for each SELECT, 8 clients", 8, "-S", "-C"),
    Pgbench("latency", "SELECT, simple queries, 1 client", 1, "-S"),
    CopyOut("copy-out", "COPY TO STDOUT, 266 MB"),
    CopyIn("copy-in", "COPY FROM STDIN, 88 MB"),
    LoadSelect("driver-select-1", "SELECT, prepared, a driver, one at a time", 1),
    LoadSelect("driver-select-16", "SELECT, prepared, a driver, 16 under way", 16),
    LoadRows("driver-stream", "1,000,000 rows read by a driver", "stream"),
    LoadRows("driver-insert", "1,000,000 rows inserted by a driver", "insert"),
    Syscalls("syscalls", "system calls, SELECT, simple queries, 16 clients", 16, "-S"),
    Memory("memory", f"{IDLE_CLIENTS} idle clients"),
]
QUICK = ["select-simple-16", "select-simple-64", "connect", "latency", "copy-in", "driver-select-16",
         "driver-stream", "driver-insert", "syscalls", "memory"]
