"""Connection strings."""

import unittest
from typing import Any

from rustydb import UsageError
from rustydb._engine.runtime import Address
from rustydb._wire import compression
from rustydb._wire.messages import AuthMethod, CompressionType, Purity
from rustydb._wire.url import Config, parse


class UrlTest(unittest.TestCase):
    def test_all_parts(self) -> None:
        config = parse(
            "rustydb://a%40b:p%2Fw%3A@db1:5433,[::1]:1,db3/my%20db?timeout=3.5&pool_size=4"
            "&min_pool_size=1&idle_timeout=9&tls=verify-full&tls_ca=/ca.pem&tls_cert=c&tls_key=k"
            "&auth=token&token=t%26t&api_key=k&compression=none&checksum=true"
            "&application_name=app&connection_class=c&purity=self&tag=t"
            "&stream_window=65536&connection_window=131072"
        )
        self.assertEqual(
            config,
            Config(
                hosts=(("db1", 5433), ("::1", 1), ("db3", 5432)),
                user="a@b",
                password="p/w:",
                database="my db",
                timeout=3.5,
                pool_size=4,
                min_pool_size=1,
                idle_timeout=9.0,
                tls="verify-full",
                tls_ca="/ca.pem",
                tls_cert="c",
                tls_key="k",
                auth=AuthMethod.Token,
                token="t&t",
                api_key="k",
                compression=(),
                checksum=True,
                application_name="app",
                connection_class="c",
                purity=Purity.Self,
                tag="t",
                stream_window=65536,
                connection_window=131072,
            ),
        )
        self.assertNotIn("p/w", repr(config))
        self.assertNotIn("t&t", repr(config))

    def test_defaults(self) -> None:
        config = parse("rustydb://")
        self.assertEqual(config.hosts, (("localhost", 5432),))
        self.assertEqual((config.timeout, config.pool_size, config.tls), (30.0, 10, "prefer"))
        self.assertIsNone(config.password)
        self.assertIsNone(config.auth)
        self.assertEqual(list(config.compression), compression.available())
        self.assertEqual(parse("rustydb://u:@h/").password, "")

    def test_keyword_arguments_win(self) -> None:
        config = parse("rustydb://a:b@h/d?timeout=1", user="x", password="@", timeout=2, tls=None)
        self.assertEqual((config.user, config.password, config.timeout), ("x", "@", 2.0))
        self.assertEqual(config.database, "d")
        self.assertTrue(parse("rustydb://", checksum=True).checksum)

    def test_unix_sockets(self) -> None:
        config = parse("rustydb://u@%2Fvar%2Frun:6000/d")
        self.assertEqual(Address(*config.hosts[0]).path, "/var/run/.s.PGSQL.6000")
        self.assertIsNone(Address("h", 1).path)

    def test_the_order_of_compression(self) -> None:
        present = compression.available()
        wanted = [CompressionType.Snappy, CompressionType.Zstd]
        config = parse("rustydb://?compression=snappy,zstd,snappy")
        self.assertEqual(list(config.compression), [each for each in wanted if each in present])

    def test_what_is_wrong(self) -> None:
        for url in [
            "",
            "localhost",
            "postgresql://localhost",
            "rustydb:/localhost",
            "rustydb://h:0",
            "rustydb://h:65536",
            "rustydb://h:x",
            "rustydb://[::1",
            "rustydb://[::1]5432",
            "rustydb://%ff@h",
            "rustydb://h?nothing=1",
            "rustydb://h?timeout",
            "rustydb://h?timeout=-1",
            "rustydb://h?timeout=nan",
            "rustydb://h?timeout=x",
            "rustydb://h?pool_size=0",
            "rustydb://h?pool_size=2&min_pool_size=3",
            "rustydb://h?tls=maybe",
            "rustydb://h?tls_key=k",
            "rustydb://h?auth=magic",
            "rustydb://h?auth=kerberos",
            "rustydb://h?compression=gzip",
            "rustydb://h?checksum=1",
            "rustydb://h?purity=x",
            "rustydb://h?stream_window=65535",
            "rustydb://h?connection_window=2147483648",
        ]:
            with self.subTest(url), self.assertRaises(UsageError):
                parse(url)
        options: dict[str, Any] = {"nothing": 1}
        with self.assertRaises(UsageError):
            parse("rustydb://", **options)


if __name__ == "__main__":
    unittest.main()
