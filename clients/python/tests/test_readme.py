"""The README's examples run."""

import contextlib
import io
import pathlib
import re
import unittest

import rustydb

from .server import TLS_CA, TLS_URL, URL

_FOLDER = pathlib.Path(__file__).parents[1]
_EXAMPLE = re.compile(r"(<!-- TLS -->\n)?```python\n(.*?)```", re.DOTALL)
_URLS = re.compile(r'"rustydb://user:password@[^"]*"')


class ReadmeTest(unittest.TestCase):
    @unittest.skipUnless(URL, "RUSTYDB_URL is not set")
    def test_examples(self) -> None:
        text = (_FOLDER / "README.md").read_text(encoding="utf-8")
        examples = _EXAMPLE.findall(text)
        self.assertGreater(len(examples), 12)
        names = {"__name__": "readme"}
        with rustydb.connect(URL) as client:
            client.execute("DROP TABLE IF EXISTS readme_users")
        for tls, code in examples:
            if tls and not (TLS_URL and TLS_CA):
                continue
            code = _URLS.sub(repr(TLS_URL if tls else URL), code)
            code = code.replace('"ca.pem"', repr(TLS_CA))
            with self.subTest(code), contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, "README.md", "exec"), names)
        secure = names.get("secure")
        if isinstance(secure, rustydb.Client):
            secure.close()

    def test_the_version_is_stated_once_and_the_same(self) -> None:
        project = (_FOLDER / "pyproject.toml").read_text(encoding="utf-8")
        self.assertIn(f'\nversion = "{rustydb.__version__}"\n', project)


if __name__ == "__main__":
    unittest.main()
