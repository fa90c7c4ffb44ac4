"""From nothing to a connection that is logged in."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Awaitable, Callable

from .. import errors
from .._version import VERSION
from .._wire import messages as m
from .._wire.frames import MAX_PAYLOAD
from .._wire.protocol import Request
from .._wire.scram import Scram, ScramError, end_point
from .._wire.url import Config
from .link import Link, Turn, unexpected
from .runtime import Address, Deadline, Runtime, TlsRefused, Transport

NAME = "rustydb-python"

# Errors after which another host may be better.
_ELSEWHERE = ("08", "53", "57P")

# Ways to log in that give the secret itself to the server.
_SECRETS = (
    m.AuthMethod.Password,
    m.AuthMethod.Ldap,
    m.AuthMethod.Token,
    m.AuthMethod.ApiKey,
    m.AuthMethod.Saml,
)

# Asks for the code of a second factor; gets the methods that the server offers.
AskCode = Callable[[list[str]], str | Awaitable[str]]


def tls_context(config: Config) -> ssl.SSLContext | None:
    """How to encrypt, or None for not at all.

    Raises `UsageError` if the files cannot be used.
    """
    if config.tls == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = config.tls == "verify-full"
    # As libpq does: whoever names an authority wants it to be asked.
    verified = config.tls.startswith("verify") or (config.tls == "require" and config.tls_ca)
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    context.set_alpn_protocols(["rustydb/1"])
    try:
        if config.tls_ca:
            context.load_verify_locations(config.tls_ca)
        elif verified:
            context.load_default_certs()
        if config.tls_cert:
            context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise errors.UsageError(f"the TLS files cannot be used: {error}") from None
    return context


class Connector:
    """Makes connections to the hosts of a configuration."""

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        ask_code: AskCode | None,
        on_notice: Callable[[m.Notice], None] | None,
    ):
        self._runtime = runtime
        self._on_notice = on_notice
        self._config = config
        self._ask_code = ask_code
        self._tls = tls_context(config)
        # Hosts that have refused TLS; they are not asked again.
        self._plain: set[Address] = set()

    async def connect(self, deadline: Deadline) -> Link:
        """A connection to the first host that takes one.

        Raises `Error` of the last host if none does.
        """
        addresses = [Address(host, port) for host, port in self._config.hosts]
        for number, address in enumerate(addresses, 1):
            try:
                return await self._connect(address, deadline)
            except errors.RequestTimeout:
                raise errors.ConnectionFailed(
                    f"{address} did not answer in time", sqlstate="08001"
                ) from None
            except errors.Error as error:
                if number == len(addresses) or not error.sqlstate.startswith(_ELSEWHERE):
                    raise
        raise errors.UsageError("no host is named")

    async def _connect(self, address: Address, deadline: Deadline) -> Link:
        transport = await self._transport(address, deadline)
        link = Link(self._runtime, transport, self._hello())
        link.on_notice = self._on_notice
        try:
            async with Turn(link, deadline) as turn:
                await turn.final(link.protocol.hello_request, m.ServerHello)
                await Login(self._config, turn, self._ask_code).run()
        except BaseException:
            link.close()
            raise
        return link

    async def _transport(self, address: Address, deadline: Deadline) -> Transport:
        # There is no TLS on a Unix socket; where it is needed, the configuration was refused.
        tls = None if address.path or address in self._plain else self._tls
        try:
            return await self._runtime.connect(address, tls, deadline.left())
        except TlsRefused as refused:
            if self._config.tls != "prefer" or refused.untrusted:
                raise errors.ConnectionFailed(
                    f"{address}: TLS failed: {refused}", sqlstate="08001"
                ) from None
            self._plain.add(address)
            return await self._transport(address, deadline)
        except TimeoutError:
            raise errors.RequestTimeout(f"{address} did not answer in time") from None
        except OSError as error:
            raise errors.ConnectionFailed(
                f"{address} cannot be reached: {error.strerror or error}", sqlstate="08001"
            ) from None

    def _hello(self) -> m.ClientHello:
        config = self._config
        wanted = (
            m.Capability.STREAMING
            | m.Capability.PIPELINING
            | m.Capability.NOTIFICATIONS
            | m.Capability.BULK_INSERT
            | m.Capability.PREPARED
            | m.Capability.SUBSCRIPTIONS
        )
        if config.checksum:
            wanted |= m.Capability.CHECKSUM
        return m.ClientHello(
            version=m.Version(1, 0),
            min_version=m.Version(1, 0),
            client_name=NAME,
            client_version=VERSION,
            compression=list(config.compression),
            capabilities=int(wanted),
            extensions=[],
            max_message_size=MAX_PAYLOAD,
            stream_window=config.stream_window,
            connection_window=config.connection_window,
        )


class Login:
    """One attempt to log in."""

    def __init__(self, config: Config, turn: Turn, ask_code: AskCode | None):
        self._config = config
        self._turn = turn
        self._ask_code = ask_code
        self._transport = turn.link.transport

    async def run(self) -> None:
        """Raises `AuthenticationError` if the server refuses."""
        method = self._method()
        config = self._config
        start = m.AuthStart(
            user=config.user,
            database=config.database or config.user,
            method=method,
            application_name=config.application_name,
            connection_class=config.connection_class,
            purity=config.purity,
            tag=config.tag,
            parameters=list(config.parameters),
        )
        request = self._turn.submit(start)
        if method in (m.AuthMethod.ScramSha256, m.AuthMethod.ScramSha256Plus):
            self._finish(await self._scram(request, method))
            return
        credentials = self._credentials(method)
        if credentials is not None:
            self._send(request, credentials)
        self._finish(await self._reply(request))

    def _offered(self) -> list[m.AuthMethod]:
        server = self._turn.link.protocol.server
        return server.auth_methods if server is not None else []

    def _method(self) -> m.AuthMethod:
        config, offered = self._config, self._offered()
        wanted = [config.auth] if config.auth is not None else self._by_credentials()
        if m.AuthMethod.ScramSha256 in wanted and self._binding() is not None:
            wanted.insert(wanted.index(m.AuthMethod.ScramSha256), m.AuthMethod.ScramSha256Plus)
        for method in wanted:
            if method in offered:
                self._check_private(method)
                return method
        names = ", ".join(method.name for method in offered) or "none"
        raise errors.AuthenticationError(
            "no way to log in fits the credentials that were given",
            sqlstate="28000",
            code="AUTHENTICATION_FAILED",
            detail=f"the server offers {names}",
            hint="give a password, a token or a key, or name a method with auth=",
        )

    def _by_credentials(self) -> list[m.AuthMethod]:
        # A password is not sent in the clear unless that is asked for with `auth`.
        config, wanted = self._config, []
        if config.token is not None:
            wanted.append(m.AuthMethod.Token)
        if config.api_key is not None:
            wanted.append(m.AuthMethod.ApiKey)
        if config.password is not None:
            wanted.append(m.AuthMethod.ScramSha256)
        if config.tls_cert is not None and self._transport.encrypted:
            wanted.append(m.AuthMethod.Certificate)
        wanted.append(m.AuthMethod.Trust)
        return wanted

    def _binding(self) -> bytes | None:
        certificate = self._transport.certificate
        return end_point(certificate) if certificate else None

    def _credentials(self, method: m.AuthMethod) -> m.Message | None:
        config = self._config
        if method in (m.AuthMethod.Password, m.AuthMethod.Ldap):
            return m.AuthPassword(_given(config.password, "password"))
        if method == m.AuthMethod.Token:
            return m.AuthToken(_given(config.token, "token"))
        if method == m.AuthMethod.ApiKey:
            return m.AuthApiKey(_given(config.api_key, "api_key"))
        if method == m.AuthMethod.Saml:
            return m.AuthSaml(_given(config.token, "token"))
        if method == m.AuthMethod.Certificate:
            return m.AuthCertificate()
        return None

    def _check_private(self, method: m.AuthMethod) -> None:
        if method in _SECRETS and not self._transport.private:
            raise errors.AuthenticationError(
                "a password, token or key is not sent to another host without TLS",
                sqlstate="28000",
                code="TLS_REQUIRED",
            )

    async def _scram(self, request: Request, method: m.AuthMethod) -> m.Message:
        """Proves that the password is known; the reply that ends the log-in."""
        binding = self._binding()
        plus = method == m.AuthMethod.ScramSha256Plus
        password = _given(self._config.password, "password")
        scram = Scram(password, binding if plus else None, binding is not None)
        self._send(request, m.AuthSaslInitial(scram.mechanism, scram.first()))
        try:
            first = await self._reply(request)
            if isinstance(first, m.AuthSuccess) and self._config.auth is None:
                # A rule of the server trusts this user; `auth` would insist on the server's proof.
                return first
            if not isinstance(first, m.SaslContinue):
                raise unexpected(first)
            self._send(request, m.AuthSaslResponse(scram.final(first.data)))
            final = await self._reply(request)
            if not isinstance(final, m.SaslFinal):
                raise unexpected(final)
            scram.verify(final.data)
        except ScramError as error:
            raise errors.AuthenticationError(
                str(error), sqlstate="28000", code="AUTHENTICATION_FAILED"
            ) from None
        return await self._reply(request)

    def _send(self, request: Request, message: m.Message) -> None:
        self._turn.link.protocol.proceed(request, message)

    async def _reply(self, request: Request) -> m.Message:
        """The next reply that is no question for a second factor."""
        message = await self._turn.answer(request)
        while isinstance(message, m.MfaRequired):
            if self._ask_code is None:
                raise errors.AuthenticationError(
                    "the server asks for a second factor",
                    sqlstate="28000",
                    code="AUTHENTICATION_FAILED",
                    hint="give connect() a function as ask_code",
                )
            code = self._ask_code(message.methods)
            if inspect.isawaitable(code):
                code = await code
            self._send(request, m.AuthMfaCode(message.challenge_id, code))
            message = await self._turn.answer(request)
        return message

    def _finish(self, message: m.Message) -> None:
        if not isinstance(message, m.AuthSuccess):
            raise unexpected(message)
        self._turn.link.parameters.update(message.parameters)


def _given(text: str | None, name: str) -> str:
    if text is None:
        raise errors.UsageError(f"this way to log in needs {name}")
    return text
