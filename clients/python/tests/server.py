"""What the tests against a running server have in common."""

import contextlib
import os
import unittest
import urllib.parse
from collections.abc import Iterator
from typing import Any

import rustydb

URL = os.environ.get("RUSTYDB_URL", "")
TLS_URL = os.environ.get("RUSTYDB_TLS_URL", "")
TLS_CA = os.environ.get("RUSTYDB_TLS_CA", "")
SELF_SIGNED_URL = os.environ.get("RUSTYDB_SELF_SIGNED_URL", "")
SELF_SIGNED_CERT = os.environ.get("RUSTYDB_SELF_SIGNED_CERT", "")

# Other tests may use the same database.
PREFIX = f"py_{os.getpid()}"


def with_options(url: str, **options: Any) -> str:
    """A URL with more options."""
    return url + ("&" if "?" in url else "?") + urllib.parse.urlencode(options)


@unittest.skipUnless(URL, "RUSTYDB_URL is not set")
class ServerTest(unittest.TestCase):
    """Tests with a client and names of their own."""

    client: rustydb.Client

    @classmethod
    def setUpClass(cls) -> None:
        cls.client = rustydb.connect(URL)
        cls.addClassCleanup(cls.client.close)

    def name(self, suffix: str = "") -> str:
        """A name that nobody else uses."""
        return f"{PREFIX}_{self.id().rpartition('.')[2]}{suffix}"[:63]

    @contextlib.contextmanager
    def table(self, columns: str) -> Iterator[str]:
        """A table for a while."""
        name = self.name()
        self.client.execute(f"CREATE TABLE {name} ({columns})")
        try:
            yield name
        finally:
            self.client.execute(f"DROP TABLE {name}")

    def refused(self, sqlstate: str) -> Any:
        """Expects an error with a SQLSTATE."""
        return _Refused(self, sqlstate)


class _Refused:
    def __init__(self, test: unittest.TestCase, sqlstate: str):
        self._test = test
        self._sqlstate = sqlstate
        self.error: rustydb.Error

    def __enter__(self) -> "_Refused":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        self._test.assertIsNotNone(error, f"no error {self._sqlstate}")
        if not isinstance(error, rustydb.Error):
            return False
        self._test.assertEqual(error.sqlstate, self._sqlstate, str(error))
        self.error = error
        return True
