"""What the Python programs share: the transcript, the cases, and where the server is."""

import hashlib
import os
import pathlib
import sys

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
USER = os.environ["PGUSER"]
PASSWORD = os.environ["PGPASSWORD"]
DATABASE = os.environ["PGDATABASE"]
CLIENTS = int(os.environ["DRIVER_CLIENTS"])
CASES = pathlib.Path(__file__).resolve().parent.parent / "cases"

sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def cases(name):
    return (CASES / name).read_text(encoding="utf-8").removesuffix("\n").split("\n")


def values():
    return [line.split("\t") for line in cases("values.txt")]


def say(*what):
    """A line of the transcript; it must not depend on time, process numbers or object numbers."""
    print(*(w if isinstance(w, str) else repr(w) for w in what), flush=True)


def section(name):
    say(f"--- {name}")


def digest(value):
    data = value if isinstance(value, (bytes, bytearray, memoryview)) else value.encode()
    return f"{len(data)} bytes, {hashlib.md5(data).hexdigest()}"
