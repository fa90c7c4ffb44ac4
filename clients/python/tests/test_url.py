"""Connection strings."""

import unittest
from typing import Any

from rustydb import UsageError
from rustydb._engine.runtime import Address, is_local
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
        config = parse("rustydb://u@")
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
        self.assertTrue(parse("rustydb://u@", checksum=True).checksum)
        config = parse("rustydb://u@", parameters={"TimeZone": "UTC"})
        self.assertEqual(config.parameters, (("TimeZone", "UTC"),))

    def test_unix_sockets(self) -> None:
        config = parse("rustydb://u@%2Fvar%2Frun:6000/d")
        self.assertEqual(Address(*config.hosts[0]).path, "/var/run/.s.PGSQL.6000")
        self.assertIsNone(Address("h", 1).path)

    def test_who_is_on_this_machine(self) -> None:
        for peer in ["/run/s", "", ("127.0.0.1", 1), ("::1", 1, 0, 0), ("::ffff:127.0.0.1", 1)]:
            self.assertTrue(is_local(peer), peer)
        for peer in [None, ("192.0.2.1", 1), ("fe80::1%eth0", 1, 0, 2), ("::ffff:192.0.2.1", 1)]:
            self.assertFalse(is_local(peer), peer)

    def test_the_order_of_compression(self) -> None:
        present = compression.available()
        wanted = [CompressionType.Snappy, CompressionType.Zstd]
        config = parse("rustydb://u@?compression=snappy,zstd,snappy")
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
                parse(url.replace("://h", "://u@h"))
        unknown: list[dict[str, Any]] = [{"nothing": 1}, {"parameters": {"work_mem": 1}}]
        for options in unknown:
            with self.subTest(options), self.assertRaises(UsageError):
                parse("rustydb://u@", **options)

    def test_what_is_missing_is_said(self) -> None:
        for url, said in [
            ("rustydb://h/d", "no user is named"),
            ("rustydb://u@h?auth=scram-sha-256", "auth=scram-sha-256 needs a password"),
            ("rustydb://u@h?auth=password", "auth=password needs a password"),
            ("rustydb://u@h?auth=ldap", "auth=ldap needs a password"),
            ("rustydb://u@h?auth=token", "auth=token needs the option token"),
            ("rustydb://u@h?auth=token&api_key=k", "auth=token needs the option token"),
            ("rustydb://u@h?auth=saml", "auth=saml needs the option token"),
            ("rustydb://u@h?auth=apikey", "auth=apikey needs the option api_key"),
            ("rustydb://u@h?auth=certificate", "auth=certificate needs the option tls_cert"),
        ]:
            with self.subTest(url), self.assertRaises(UsageError) as refused:
                parse(url)
            self.assertIn(said, str(refused.exception))
        self.assertEqual(parse("rustydb://h?token=t").user, "")
        self.assertEqual(parse("rustydb://h?api_key=k").user, "")

    def test_there_is_no_tls_on_unix_sockets(self) -> None:
        for hosts in ["%2Frun", "h,%2Frun"]:
            for tls in ["require", "verify-ca", "verify-full"]:
                with self.subTest(tls), self.assertRaises(UsageError) as refused:
                    parse(f"rustydb://u@{hosts}/d?tls={tls}")
                self.assertIn("there is no TLS on a Unix socket", str(refused.exception))
            parse(f"rustydb://u@{hosts}/d?tls=prefer")


if __name__ == "__main__":
    unittest.main()
