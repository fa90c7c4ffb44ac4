#!/usr/bin/env python3
"""Measures RustyDB beside PgBouncer and PostgreSQL itself. README.md says what and how."""

import argparse
import dataclasses
import datetime
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import machine
import cases
import services
from cases import SESSION_POOLING, Bench, Pgbench, Skip, Target, psql
from report import DIRECT, NATIVE, PGBOUNCER, RUSTYDB, Results, markdown, number
from servers import (Failure, PgBouncer, Postgres, RustyDB, pools_transactions, postgres_program,
                     version_line)

CASES = cases.CASES + services.CASES
QUICK = [*cases.QUICK, "rest-key", "rest-nested", "rest-rows"]
HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__, epilog="cases: " + ", ".join(names))
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default 5)")
    parser.add_argument("--seconds", type=int, metavar="N", help="length of one run (default 8)")
    parser.add_argument("--cases", metavar="A,B", help="only these cases")
    parser.add_argument("--binary", metavar="PATH", help="RustyDB (default: cargo's release binary)")
    parser.add_argument("--load", metavar="PATH",
                        help="the program of benches/native (default: cargo's release binary)")
    parser.add_argument("--rest", metavar="DIRECTORY",
                        help="with the programs of benches/rest (default: cargo's release binaries)")
    parser.add_argument("--rustydb-args", default="", metavar="ARGS", help="more arguments for RustyDB")
    parser.add_argument("--output", metavar="FILE",
                        help="where the Markdown goes (default: RESULTS.md here; --quick: nowhere)")
    parser.add_argument("--quick", action="store_true",
                        help="one round, 2 seconds, few cases: checks the harness")
    options = parser.parse_args()
    chosen = options.cases.split(",") if options.cases else QUICK if options.quick else names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(names)}")
    options.cases = [case for case in CASES if case.name in chosen]
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (2 if options.quick else 8)
    if options.output is None and not options.quick:
        options.output = os.path.join(HERE, "RESULTS.md")
    return options


def described(options):
    """The options as RESULTS.md shows them: nothing of the machine's directories."""
    text = f"--rounds {options.rounds} --seconds {options.seconds}"
    if len(options.cases) < len(CASES):
        text += " --cases " + ",".join(case.name for case in options.cases)
    if options.rustydb_args:
        text += " --rustydb-args " + shlex.quote(options.rustydb_args)
    return text


def release_binary(name):
    """Where cargo puts it."""
    output = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"],
                            cwd=HERE, capture_output=True, text=True, check=True, timeout=60).stdout
    path = os.path.join(json.loads(output)["target_directory"], "release", name)
    if not os.path.exists(path):
        raise Failure(f"{name} is not built: make bench builds it")
    return path


class Run:
    """Everything that was started, so that all of it is ended."""

    def __init__(self, options):
        self.options = options
        self.results = Results()
        self.servers = []
        self.targets = []
        self.directory = tempfile.mkdtemp(prefix="rustydb-bench-")
        os.chmod(self.directory, 0o711)

    def make(self, kind, *parts):
        """A server with a directory of its own; not started yet."""
        path = os.path.join(self.directory, f"{kind.name}-{len(self.servers)}")
        os.mkdir(path, 0o700)
        server = kind(path, *parts)
        self.servers.append(server)
        return server

    def close(self):
        for server in reversed(self.servers):
            server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self):
        say("starting PostgreSQL and filling its tables")
        postgres = self.make(Postgres)
        load = os.path.abspath(self.options.load or release_binary("native-load"))
        postgres.start()
        self.bench = Bench(postgres, self.targets, self.options.seconds, self.directory, load,
                           self.rest_binary("rest-load"))
        self.bench.prepare()
        self.targets.append(Target(DIRECT, postgres, proxy=False))
        self.start_pgbouncer(postgres)
        binary = os.path.abspath(self.options.binary or release_binary("rustydb"))
        self.add_proxy(RUSTYDB, RustyDB, binary, postgres, shlex.split(self.options.rustydb_args))
        self.targets.append(dataclasses.replace(self.targets[-1], name=NATIVE, native=True))
        if any(case.rest for case in self.options.cases):
            self.start_services(binary, postgres)

    def rest_binary(self, name):
        directory = self.options.rest
        return os.path.abspath(os.path.join(directory, name)) if directory else release_binary(name)

    def start_services(self, binary, postgres):
        psql(postgres, f"\\i {services.SCHEMA}")
        psql(postgres, "vacuum analyze")
        program = self.rest_binary("rest-service")
        headers = (f"Authorization: Bearer {services.token()}",)
        more = shlex.split(self.options.rustydb_args)
        for name, headers, kind, *parts in [
            (services.PLAIN, (), services.HandWritten, program, postgres, False),
            (services.WITH_ROLE, headers, services.HandWritten, program, postgres, True),
            (services.REST, headers, services.RestRustyDB, binary, postgres, more),
        ]:
            server = self.make(kind, *parts)
            server.start()
            self.targets.append(Target(name, server, proxy=True, rest=True, headers=headers))

    def start_pgbouncer(self, postgres):
        program = shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")
        if program is None:
            return self.skip("all", PGBOUNCER, "is not installed: scripts/ensure-pgbouncer")
        return self.add_proxy(PGBOUNCER, PgBouncer, program, postgres)

    def add_proxy(self, name, kind, *parts):
        server = self.make(kind, *parts)
        server.start()
        transactions = pools_transactions(server)
        self.targets.append(Target(
            name, server, proxy=True, transactions=transactions,
            prepared=server.tracks_statements or not transactions,
            restart=lambda: self.make(kind, *parts)))
        say(f"{name} pools {'transactions' if transactions else 'sessions'}")

    def skip(self, case, target, reason):
        self.results.skip(case, target, reason)
        say(f"  {case:20} {target:15} skipped: {reason}")

    def warm_up(self):
        case = Pgbench("warm-up", "", 16, "-S")
        for target in (one for one in self.targets if not one.native and not one.rest):
            case.work(target, ["-T", "1"], 30)

    def round(self, index):
        say(f"round {index + 1} of {self.options.rounds}")
        for offset, case in enumerate(self.options.cases):
            targets = [target for target in self.targets if case.takes(target)]
            turn = (index + offset) % len(targets)
            for target in targets[turn:] + targets[:turn]:
                self.one(case, target, index)
        foreign, stolen = self.results.foreign(index)
        say(f"  CPU time of other processes {foreign:.1%}, stolen {stolen:.1%}")

    def one(self, case, target, index):
        if (case.name, target.name) in self.results.skipped:
            return
        try:
            sample = case.run(self.bench, target)
        except Skip as reason:
            self.skip(case.name, target.name, str(reason))
            return
        self.results.add(case.name, target.name, index, sample)
        if sample.note == SESSION_POOLING:
            self.skip(f"{case.name}, with statements", target.name, sample.note)
        say(f"  {case.name:20} {target.name:15} {brief(case, sample)}")

    def report(self):
        versions = [("PostgreSQL", version_line(postgres_program("postgres")))]
        versions += [(target.name, target.server.version) for target in self.targets
                     if target.proxy and not target.native and not target.rest]
        date = datetime.date.today().isoformat()
        return markdown(self.results, self.options.cases, self.targets,
                        [*machine.description(), *versions, ("Date", date)], described(self.options))


def brief(case, sample):
    """One line on the terminal."""
    values = sample.values
    if "speed" not in values:
        return ", ".join(f"{key} {number(value)}" for key, value in values.items())
    text = f"{number(values['speed'])} {case.rate}"
    for key in ("proxy user", "proxy system", "postgres", "client"):
        if key in values:
            text += f", {key} {number(values[key] * 1e6)} µs"
    return text


def say(text):
    print(text, flush=True)


def prepare_process():
    """Room for thousands of sockets, here and in the servers; SIGTERM runs what `finally` says."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main():
    options = arguments()
    prepare_process()
    run = Run(options)
    try:
        run.start()
        run.warm_up()
        for index in range(options.rounds):
            run.round(index)
        text = run.report()
    except (Failure, Skip) as error:
        sys.exit(str(error))
    finally:
        run.close()
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    say("\n" + text)


if __name__ == "__main__":
    main()
