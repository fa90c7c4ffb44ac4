"""Figures of all rounds as Markdown."""

import statistics

from cases import Memory
from services import PLAIN, REST, WITH_ROLE, Requests, Rows

DIRECT, PGBOUNCER, RUSTYDB, NATIVE = "direct", "PgBouncer", "RustyDB", "RustyDB, native"


class Results:
    """Samples by (case, target, round), and what was skipped."""

    def __init__(self):
        self.samples = {}
        self.skipped = {}
        self.rounds = 0

    def add(self, case, target, number, sample):
        self.samples[case, target, number] = sample
        self.rounds = max(self.rounds, number + 1)

    def skip(self, case, target, reason):
        self.skipped[case, target] = reason

    def values(self, case, target, key):
        """{round: value}"""
        found = {}
        for number in range(self.rounds):
            sample = self.samples.get((case, target, number))
            if sample and key in sample.values:
                found[number] = sample.values[key]
        return found

    def paired(self, case, target, other, key, operation):
        """Median of what `operation` makes of the values of the same rounds, or None."""
        mine, others = self.values(case, target, key), self.values(case, other, key)
        pairs = [operation(mine[number], others[number]) for number in mine if number in others]
        return statistics.median(pairs) if pairs else None

    def ratio(self, case, target, other, key):
        return self.paired(case, target, other, key, lambda a, b: a / b if b else float("nan"))

    def foreign(self, number):
        """Shares of the machine that went to others, and that the hypervisor took."""
        costs = [s.cost for (_, _, n), s in self.samples.items() if n == number and s.cost]
        capacity = sum(cost.capacity for cost in costs) or 1.0
        return (max(0.0, sum(cost.foreign for cost in costs)) / capacity,
                sum(cost.stolen for cost in costs) / capacity)


def number(value):
    """Three significant digits, all those before the point."""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(values, scale=1.0):
    """median (min–max)"""
    if not values:
        return "–"
    scaled = [value * scale for value in values.values()]
    middle = number(statistics.median(scaled))
    if len(scaled) == 1:
        return middle
    return f"{middle} ({number(min(scaled))}–{number(max(scaled))})"


def times(value):
    return "–" if value is None else f"{value:.2f}"


def table(head, rows, text=2):
    """The first `text` columns are words, the others numbers."""
    if not rows:
        return []
    lines = ["| " + " | ".join(head) + " |",
             "|---" * text + "|---:" * (len(head) - text) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def speed_rows(results, cases, targets):
    for case in (case for case in cases if not case.rest):
        for target in targets:
            speed = results.values(case.name, target, "speed")
            if speed:
                against = [None if target == other else other for other in (DIRECT, PGBOUNCER)]
                yield [case.title, target, f"{spread(speed)} {case.rate}", *(
                    times(other and results.ratio(case.name, target, other, "speed"))
                    for other in against)]


def cpu_rows(results, cases, targets):
    for case in (case for case in cases if not case.rest):
        for target in targets:
            values = {key: results.values(case.name, target, key) for key in
                      ("proxy", "proxy user", "proxy system", "postgres", "client")}
            if values["postgres"]:
                compared = results.ratio(case.name, target, PGBOUNCER, "proxy")
                yield [f"{case.title}, each {case.unit}", target,
                       *(spread(values[key], 1e6) for key in ("proxy", "proxy user", "proxy system")),
                       times(None if target == PGBOUNCER else compared),
                       spread(values["postgres"], 1e6), spread(values["client"], 1e6)]


def latency_rows(results, cases, targets):
    for case in (case for case in cases if case.name == "latency"):
        for target in targets:
            values = results.values(case.name, target, "latency")
            if values:
                added = results.paired(case.name, target, DIRECT, "latency", lambda a, b: a - b)
                added = None if target == DIRECT else added
                yield [case.title, target, spread(values, 1e6),
                       "–" if added is None else number(added * 1e6)]


def syscall_rows(results, cases, targets):
    for case in (case for case in cases if case.name == "syscalls"):
        for target in targets:
            calls = results.values(case.name, target, "syscalls")
            if calls:
                note = results.samples[case.name, target, max(calls)].note
                yield [case.title, target, note, spread(calls)]


def memory_rows(results, cases, targets):
    for case in (case for case in cases if isinstance(case, Memory)):
        for target in targets:
            empty = results.values(case.name, target, "empty")
            if empty:
                yield [case.title, target, spread(empty, 1 / (1 << 20)), *(
                    spread(results.values(case.name, target, step), 1 / 1024)
                    for step, _ in Memory.STEPS)]


def native_rows(results, cases, _):
    for case in (case for case in cases if case.native):
        speed = results.ratio(case.name, NATIVE, RUSTYDB, "speed")
        if speed is not None:
            yield [case.title, times(speed), times(results.ratio(case.name, NATIVE, DIRECT, "speed")),
                   *(times(results.ratio(case.name, NATIVE, RUSTYDB, key))
                     for key in ("proxy", "postgres", "client"))]


def rest_rows(results, cases, _):
    for case in (case for case in cases if isinstance(case, Requests)):
        for target in (PLAIN, WITH_ROLE, REST):
            speed, service, postgres, total = (
                results.values(case.name, target, key)
                for key in ("speed", "proxy", "postgres", "sum"))
            if speed:
                yield [case.title, target, spread(speed), spread(service, 1e6),
                       spread(postgres, 1e6), spread(total, 1e6), *(
                           times(None if target == other else
                                 results.ratio(case.name, target, other, "sum"))
                           for other in (PLAIN, WITH_ROLE))]


def streamed_rows(results, cases, _):
    for case in (case for case in cases if isinstance(case, Rows)):
        for target in (DIRECT, REST):
            speed = results.values(case.name, target, "speed")
            if speed:
                compared = results.ratio(case.name, target, DIRECT, "speed")
                yield [case.title, "psql, COPY TO STDOUT" if target == DIRECT else target,
                       spread(speed), times(None if target == DIRECT else compared),
                       *(spread(results.values(case.name, target, key), 1e6)
                         for key in ("proxy", "postgres", "client")),
                       spread(results.values(case.name, target, "growth"), 1 / (1 << 20))]


def foreign_lines(results):
    shares = [results.foreign(n) for n in range(results.rounds)]
    text = "; ".join(f"round {n + 1}: {foreign:.0%} others, {stolen:.0%} stolen"
                     for n, (foreign, stolen) in enumerate(shares))
    return [
        "The clients, the proxy and PostgreSQL share the cores. Share of the machine's CPU time that",
        f"went to other processes, or was stolen by the hypervisor, during the measurements: {text}.",
        "",
    ]


def markdown(results, cases, targets, machine, options):
    """The whole of RESULTS.md."""
    names = [target.name for target in targets]
    lines = ["# Results", "", f"Written by `benches/run.py {options}`; what the columns mean is in",
             "[README.md](README.md). Values are the median of the rounds (minimum–maximum), ratios the",
             "median of the ratios within each round.", ""]
    lines += table(["Machine", ""], [list(row) for row in machine]) + foreign_lines(results)
    sections = [
        ("Speed", ["Case", "Target", "Speed", "× direct", "× PgBouncer"], speed_rows),
        ("CPU time in µs", ["Case", "Target", "Proxy", "user", "system", "proxy × PgBouncer",
                            "PostgreSQL", "client"], cpu_rows),
        ("The native protocol beside PostgreSQL's",
         ["Case", "speed × RustyDB", "speed × direct", "proxy's CPU × RustyDB",
          "PostgreSQL's CPU × RustyDB", "client's CPU × RustyDB"], native_rows),
        ("REST: CPU time in µs for each request, 16 connections",
         ["Case", "Target", "requests/s", "service", "PostgreSQL", "sum", "sum × by hand",
          "sum × by hand, with role"], rest_rows),
        ("REST: rows of a large result, CPU time in µs for each 1,000",
         ["Case", "Target", "rows/s", "× psql", "service", "PostgreSQL", "client",
          "growth of memory in MiB"], streamed_rows),
        ("Latency in µs", ["Case", "Target", "Average", "added to direct"], latency_rows),
        ("System calls of the proxy for each transaction",
         ["Case", "Target", "Most frequent", "all"], syscall_rows),
        ("Memory", ["Case", "Target", "MiB without clients",
                    *(f"KiB for each client {step}" for step, _ in Memory.STEPS)], memory_rows),
    ]
    for title, head, rows in sections:
        words = {syscall_rows: 3, native_rows: 1}.get(rows, 2)
        body = table(head, list(rows(results, cases, names)), text=words)
        lines += [f"## {title}", "", *body] if body else []
    skipped = [[case, target, reason] for (case, target), reason in results.skipped.items()]
    if skipped:
        lines += ["## Skipped", "", *table(["Case", "Target", "Reason"], skipped, text=3)]
    return "\n".join(lines).rstrip() + "\n"
