"""Connection strings: `rustydb://user:password@host:port/database?options`."""

from __future__ import annotations

import dataclasses
import urllib.parse
from typing import Any

from ..errors import UsageError
from . import compression as algorithms
from .flow import MOST
from .messages import AuthMethod, CompressionType, Purity

DEFAULT_PORT = 5432
# The smallest window that the protocol allows.
SMALLEST_WINDOW = 65_536

_METHODS = {
    "scram-sha-256": AuthMethod.ScramSha256,
    "password": AuthMethod.Password,
    "token": AuthMethod.Token,
    "apikey": AuthMethod.ApiKey,
    "certificate": AuthMethod.Certificate,
    "ldap": AuthMethod.Ldap,
    "kerberos": AuthMethod.Kerberos,
    "saml": AuthMethod.Saml,
}
_TLS = ("disable", "prefer", "require", "verify-ca", "verify-full")
_COMPRESSION = {
    "zstd": CompressionType.Zstd,
    "lz4": CompressionType.Lz4,
    "snappy": CompressionType.Snappy,
}
# What a way to log in takes: the field, and what it is called to the user.
_NEEDS = {
    AuthMethod.ScramSha256: ("password", "a password"),
    AuthMethod.Password: ("password", "a password"),
    AuthMethod.Ldap: ("password", "a password"),
    AuthMethod.Token: ("token", "the option token"),
    AuthMethod.Saml: ("token", "the option token"),
    AuthMethod.ApiKey: ("api_key", "the option api_key"),
    AuthMethod.Certificate: ("tls_cert", "the option tls_cert"),
}
_PURITY = {"new": Purity.New, "self": Purity.Self, "any": Purity.Any}


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """How to reach a server, and as whom. Times are in seconds, windows in bytes."""

    hosts: tuple[tuple[str, int], ...] = (("localhost", DEFAULT_PORT),)
    user: str = ""
    password: str | None = dataclasses.field(default=None, repr=False)
    database: str = ""
    timeout: float = 30.0
    pool_size: int = 10
    min_pool_size: int = 0
    idle_timeout: float = 600.0
    tls: str = "prefer"
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    # None: whatever the credentials allow.
    auth: AuthMethod | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    api_key: str | None = dataclasses.field(default=None, repr=False)
    compression: tuple[CompressionType, ...] = tuple(algorithms.available())
    checksum: bool = False
    application_name: str = "rustydb-python"
    connection_class: str | None = None
    purity: Purity | None = None
    tag: str | None = None
    stream_window: int = 1_048_576
    connection_window: int = 16_777_216
    # Settings of the session.
    parameters: tuple[tuple[str, str], ...] = ()


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e9:
        raise UsageError(f"{name} is a number of seconds, not {text!r}")
    return seconds


def _count(name: str, text: str, least: int, most: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
    if not least <= number <= most:
        raise UsageError(f"{name} is a number from {least} to {most}, not {text!r}")
    return number


def _window(name: str, text: str) -> int:
    return _count(name, text, SMALLEST_WINDOW, MOST)


def _choice(name: str, text: str, choices: Any) -> Any:
    if text not in choices:
        raise UsageError(f"{name} is one of {', '.join(choices)}, not {text!r}")
    return choices[text] if isinstance(choices, dict) else text


def _flag(name: str, text: str) -> bool:
    return bool(_choice(name, text.lower(), {"true": True, "false": False}))


def _algorithms(name: str, text: str) -> tuple[CompressionType, ...]:
    if text in ("none", ""):
        return ()
    wanted = [_choice(name, part.strip(), _COMPRESSION) for part in text.split(",")]
    present = algorithms.available()
    return tuple(dict.fromkeys(each for each in wanted if each in present))


def _text(name: str, text: str) -> str:
    return text


_OPTIONS: dict[str, Any] = {
    "timeout": _seconds,
    "pool_size": lambda name, text: _count(name, text, 1, 10_000),
    "min_pool_size": lambda name, text: _count(name, text, 0, 10_000),
    "idle_timeout": _seconds,
    "tls": lambda name, text: _choice(name, text, _TLS),
    "tls_ca": _text,
    "tls_cert": _text,
    "tls_key": _text,
    "auth": lambda name, text: _choice(name, text, _METHODS),
    "token": _text,
    "api_key": _text,
    "compression": _algorithms,
    "checksum": _flag,
    "application_name": _text,
    "connection_class": _text,
    "purity": lambda name, text: _choice(name, text.lower(), _PURITY),
    "tag": _text,
    "stream_window": _window,
    "connection_window": _window,
}


def parse(url: str, **overrides: Any) -> Config:
    """The configuration of a URL. Options of the same names as in the URL, and `user`, `password`,
    `database` and `parameters`, may be given as keyword arguments, which win.

    Raises `UsageError` for anything that is not understood.
    """
    scheme, mark, rest = url.partition("://")
    if scheme != "rustydb" or not mark:
        raise UsageError("the URL of a server begins with rustydb://")
    rest, _, query = rest.partition("?")
    authority, _, database = rest.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    user, colon, password = credentials.partition(":") if at else ("", "", "")
    values: dict[str, Any] = {
        "hosts": _hosts(hosts),
        "user": _unquote(user),
        "password": _unquote(password) if colon else None,
        "database": _unquote(database),
    }
    for name, text in _pairs(query):
        values[name] = _option(name, text)
    for name, given in overrides.items():
        if name in ("user", "password", "database"):
            values[name] = given
        elif name == "parameters":
            values[name] = _settings(given)
        elif given is not None:
            values[name] = _option(name, str(given))
    return _checked(Config(**values))


def _checked(config: Config) -> Config:
    if config.min_pool_size > config.pool_size:
        raise UsageError("min_pool_size is larger than pool_size")
    if bool(config.tls_key) and not config.tls_cert:
        raise UsageError("tls_key needs tls_cert")
    if config.auth == AuthMethod.Kerberos:
        raise UsageError("this library has no Kerberos; use another method", sqlstate="0A000")
    _check_login(config)
    if config.tls not in ("disable", "prefer") and any(h.startswith("/") for h, _ in config.hosts):
        raise UsageError("there is no TLS on a Unix socket: use tls=disable or tls=prefer")
    if not config.user and config.token is None and config.api_key is None:
        raise UsageError("no user is named: rustydb://user@host/database")
    return config


def _check_login(config: Config) -> None:
    if config.auth in _NEEDS:
        field, name = _NEEDS[config.auth]
        if getattr(config, field) is None:
            chosen = next(text for text, method in _METHODS.items() if method == config.auth)
            raise UsageError(f"auth={chosen} needs {name}")


def _settings(given: Any) -> tuple[tuple[str, str], ...]:
    settings = tuple(dict(given or {}).items())
    if not all(isinstance(text, str) for pair in settings for text in pair):
        raise UsageError("parameters are names and values of settings, all of them str")
    return settings


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = []
    for part in query.split("&") if query else []:
        name, mark, text = part.partition("=")
        if not mark:
            raise UsageError(f"the option {name!r} of the URL has no value")
        pairs.append((_unquote(name), _unquote(text)))
    return pairs


def _option(name: str, text: str) -> Any:
    if name not in _OPTIONS:
        raise UsageError(f"there is no option {name!r}; there are {', '.join(_OPTIONS)}")
    return _OPTIONS[name](name, text)


def _unquote(text: str) -> str:
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UsageError("a part of the URL is not percent-encoded UTF-8") from None


def _hosts(text: str) -> tuple[tuple[str, int], ...]:
    return tuple(_host(part) for part in text.split(","))


def _host(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise UsageError(f"{text!r} is not a host")
        port = port[1:]
    else:
        host, _, port = text.partition(":")
        host = _unquote(host)
    number = _count("the port", port, 1, 65_535) if port else DEFAULT_PORT
    return host or "localhost", number
