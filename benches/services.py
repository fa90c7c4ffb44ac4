"""REST: RustyDB beside a service that was written by hand, and their cases."""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import time
import urllib.request

from cases import TYPED_ROWS, Case, Skip, psql, run
from machine import read, resident_bytes
from servers import DATABASE, POOL_SIZE, Failure, RustyDB, Server

PLAIN, WITH_ROLE, REST = "by hand", "by hand, with role", "RustyDB, with role"
CONNECTIONS = 16
ROLE = "anon"
# Of no worth outside of a run: what it signs is taken by servers on loopback that end with it.
SECRET = hashlib.sha256(os.urandom(32)).hexdigest()
ISSUER = "https://bench.invalid"
SCHEMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rest", "schema.sql")
SELECT_ALL = "select id, name, at, value from typed_out"


def token():
    """A token for the role, good for a day."""
    def encoded(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = {"alg": "HS256", "typ": "JWT"}
    claims = {"iss": ISSUER, "aud": "bench", "sub": ROLE, "role": ROLE,
              "iat": int(time.time()), "exp": int(time.time()) + 86_400}
    signed = b".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
    signature = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + encoded(signature)).decode()


class HandWritten(Server):
    """benches/rest: axum, deadpool-postgres, serde."""

    name = "rest-service"

    def __init__(self, directory, program, postgres, with_role):
        super().__init__(directory)
        self.program = program
        self.postgres = postgres
        self.arguments = ["role", SECRET] if with_role else ["plain"]

    def start(self):
        self.launch([self.program, str(self.postgres.port), DATABASE, *self.arguments])
        self.wait_for(self.read_port)

    def read_port(self):
        with open(self.log, encoding="utf-8") as log:
            line = log.readline()
        if line.endswith("\n"):
            self.port = int(line)
        return self.port is not None


class RestRustyDB(RustyDB):
    """Asks for tokens; writes no line for a request and limits no rate, as the service does not."""

    def start(self):
        config = os.path.join(self.directory, "rustydb.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("\n".join([
                "[pool]", f"max_size = {POOL_SIZE}",
                "[api]", f'database = "{DATABASE}"', 'rest_schemas = ["app"]',
                "[rate_limit]", "enabled = false",
                "[monitoring]", 'log_level = "warn"',
                "[[security.jwt.issuers]]", f'issuer = "{ISSUER}"', 'audience = ["bench"]',
                f'roles = ["{ROLE}"]', f'keys = [{{ secret = "{SECRET}" }}]',
            ]) + "\n")
        os.chmod(config, 0o600)
        data = os.path.join(self.directory, "data")
        backend = f"postgresql://postgres@127.0.0.1:{self.postgres.port}/postgres"
        self.launch([self.program, "--config", config, "--backend", backend, "--data-dir", data,
                     "--port", "0", "--api-port", "0", "--metrics-port", "0",
                     "--unix-socket-dir", "none", *self.arguments])
        self.wait_for(lambda: self.read_port(data) and self.is_ready())

    def read_port(self, data):
        try:
            with open(os.path.join(data, "rustydb.lock"), encoding="utf-8") as file:
                self.port = int(json.load(file)["api"].rpartition(":")[2].strip("/"))
        except (OSError, ValueError, KeyError):
            return False
        return True

    def is_ready(self):
        try:
            url = f"http://127.0.0.1:{self.port}/health/ready"
            return urllib.request.urlopen(url, timeout=2).status == 200
        except OSError:
            return False


class RestCase(Case):
    """A case that only services are asked."""

    unit = "request"
    rate = "requests/s"
    rest = True

    def takes(self, target):
        return target.rest


class Requests(RestCase):
    """The same question on keep-alive connections until the time is over."""

    def __init__(self, name, title, by_hand, rustydb):
        super().__init__(name, title)
        self.by_hand = by_hand
        self.rustydb = rustydb
        self.checked = set()

    def path(self, target):
        return self.rustydb if target.name == REST else self.by_hand

    def run(self, bench, target):
        self.check(bench, target)
        return bench.measure(target, lambda: self.work(bench, target))

    def check(self, bench, target):
        """Before the first run: the answer is that of the service without role."""
        if target.name in self.checked:
            return
        plain = next(other for other in bench.targets if other.name == PLAIN)
        expected, found = (self.once(bench, one) for one in (plain, target))
        if expected != found:
            raise Skip(f"another answer: {json.dumps(found)[:200]}")
        self.checked.add(target.name)

    def once(self, bench, target):
        text = run([bench.rest_load, str(target.server.port), "once", self.path(target),
                    *target.headers], 30)
        answer = json.loads(text)
        return compared(answer if isinstance(answer, list) else [answer])

    def work(self, bench, target):
        output = run([bench.rest_load, str(target.server.port), "requests", str(CONNECTIONS),
                      str(bench.seconds), self.path(target), *target.headers], bench.seconds + 60)
        done = json.loads(output)
        return done["units"], {"speed": done["units"] / done["seconds"]}


def compared(value):
    """Without what services may write in several ways: moments, and numeric as text or number."""
    if isinstance(value, list):
        return [compared(item) for item in value]
    if isinstance(value, dict):
        return {name: float(item) if name == "score" else compared(item)
                for name, item in value.items() if name != "created_at"}
    return value


class Rows(RestCase):
    """All rows of a table as lines; psql copies them for comparison."""

    unit = "1,000 rows"
    rate = "rows/s"

    def takes(self, target):
        return target.name == REST or not target.proxy

    def run(self, bench, target):
        if target.rest:
            # From here on the kernel notes how much memory is used at most.
            with open(f"/proc/{target.pid}/clear_refs", "w", encoding="ascii") as file:
                file.write("5")
            before = resident_bytes(target.pid)
        sample = bench.measure(target, lambda: self.work(bench, target))
        if target.rest:
            peak = int(re.search(r"^VmHWM:\s+(\d+) kB", read(f"/proc/{target.pid}/status"),
                                 re.M)[1]) * 1024
            sample.values["growth"] = max(0, peak - before)
        return sample

    def work(self, bench, target):
        rows = seconds = 0
        while seconds < bench.seconds:
            begun = time.monotonic()
            rows += self.once(bench, target)
            seconds += time.monotonic() - begun
        return rows / 1000, {"speed": rows / seconds}

    @staticmethod
    def once(bench, target):
        if not target.rest:
            psql(target.server, f"copy ({SELECT_ALL}) to stdout", stdout=subprocess.DEVNULL)
            return TYPED_ROWS
        output = run([bench.rest_load, str(target.server.port), "rows", "application/x-ndjson",
                      SELECT_ALL, *target.headers], 120)
        rows = json.loads(output)["units"]
        if rows != TYPED_ROWS:
            raise Failure(f"{rows} rows came of {TYPED_ROWS}")
        return rows


NESTED = ("/rest/v1/author?select=id,name,posts:post!post_author_id_fkey(id,title,"
          "comments:comment!comment_post_id_fkey(id,body))&order=id&limit=10"
          "&posts.order=id&posts.limit=5&posts.comments.order=id&posts.comments.limit=3")

CASES = [
    Requests("rest-key", "one row by key", "/authors/{key}",
             "/rest/v1/author?id=eq.{key}&select=id,name,email"),
    Requests("rest-list", "20 rows × 3 columns", "/authors?limit=20",
             "/rest/v1/author?select=id,name,email&order=id&limit=20"),
    Requests("rest-wide", "100 rows × 9 columns", "/posts?limit=100",
             "/rest/v1/post?select=id,author_id,title,body,score,tags,meta,published,created_at"
             "&order=id&limit=100"),
    Requests("rest-nested", "10 rows with 5 with 3", "/nested", NESTED),
    Rows("rest-rows", "1,000,000 rows as lines of JSON"),
]
