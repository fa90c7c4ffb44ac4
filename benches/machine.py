"""What the kernel says: CPU time of processes, memory, and a description of the machine."""

import os
import platform
import re
import time
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Cpu:
    """Seconds of CPU time."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self):
        return self.user + self.system

    def __add__(self, other):
        return Cpu(self.user + other.user, self.system + other.system)

    def __sub__(self, other):
        return Cpu(self.user - other.user, self.system - other.system)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def stat_times(pid):
    """utime, stime, cutime and cstime; the name before them may contain anything but the last ')'."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return [int(field) / TICKS for field in fields[11:15]]


def process_cpu(pid):
    """All threads of one process, also those that have ended."""
    user, system, _, _ = stat_times(pid)
    return Cpu(user, system)


def tree_cpu(pid):
    """A process, its children, and the children it has reaped."""
    for _ in range(20):
        before = children(pid)
        try:
            total = sum((process_cpu(child) for child in before), Cpu())
        except (FileNotFoundError, ProcessLookupError):
            continue
        user, system, reaped_user, reaped_system = stat_times(pid)
        # A child that was reaped in between would count twice.
        if children(pid) == before:
            return total + Cpu(user + reaped_user, system + reaped_system)
    raise RuntimeError("PostgreSQL's processes come and go too fast to be counted")


def children(pid):
    return read(f"/proc/{pid}/task/{pid}/children").split()


def own_cpu():
    """This program and the clients it has run and reaped."""
    times = os.times()
    return Cpu(times.user + times.children_user, times.system + times.children_system)


def resident_bytes(pid):
    return int(re.search(r"^Rss:\s+(\d+) kB", read(f"/proc/{pid}/smaps_rollup"), re.M)[1]) * 1024


@dataclass(frozen=True)
class Cost:
    """What happened between two snapshots."""

    proxy: Cpu
    postgres: Cpu
    client: Cpu
    foreign: float
    stolen: float
    capacity: float


class Snapshot:
    """The CPU times of everything that takes part, and of the whole machine."""

    def __init__(self, postmaster, proxies):
        self.at = time.monotonic()
        user, nice, system, _, _, irq, softirq, stolen = (
            int(field) / TICKS for field in read("/proc/stat").split("\n", 1)[0].split()[1:9]
        )
        # Loopback's soft interrupts run in the time of the process that sends.
        self.busy = user + nice + system + irq + softirq
        self.stolen = stolen
        self.own = own_cpu()
        self.postgres = tree_cpu(postmaster)
        self.proxies = {pid: process_cpu(pid) for pid in proxies}

    def until(self, later, proxy):
        """The cost since this snapshot; `proxy` is the pid of the one that was measured, if any."""
        proxies = {pid: later.proxies[pid] - cpu for pid, cpu in self.proxies.items()}
        postgres = later.postgres - self.postgres
        client = later.own - self.own
        known = sum(proxies.values(), postgres + client).total
        return Cost(
            proxy=proxies.get(proxy, Cpu()),
            postgres=postgres,
            client=client,
            foreign=later.busy - self.busy - known,
            stolen=later.stolen - self.stolen,
            capacity=(later.at - self.at) * CORES,
        )


def description():
    """(what, value) of the machine."""
    model = re.search(r"^model name\s*:\s*(.+)$", read("/proc/cpuinfo"), re.M)
    memory = int(re.search(r"^MemTotal:\s+(\d+)", read("/proc/meminfo"), re.M)[1])
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', read("/etc/os-release"), re.M)
    return [
        ("CPU", f"{model[1].strip() if model else platform.machine()}, {CORES} cores"),
        ("Memory", f"{memory / (1 << 20):.0f} GiB"),
        ("System", f"{system[1] if system else 'Linux'}, kernel {platform.release()}"),
    ]
