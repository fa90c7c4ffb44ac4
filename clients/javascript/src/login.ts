// The beginning of a connection: what both sides can do, and who the client is.

import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { unexpected, type Connection } from "./connection.js";
import { RustyDBError, usageError } from "./errors.js";
import type { AuthKind, Settings } from "./options.js";
import { ReplyQueue } from "./replies.js";
import { Scram, type Binding } from "./scram.js";
import { channelBinding, isPrivate } from "./transport.js";
import { compressors, type Compressor } from "./wire/compression.js";
import { MAX_PAYLOAD } from "./wire/frame.js";
import {
  capability, type Auth, type AuthMethod, type AuthReply, type MessageOf, type ServerHello,
} from "./wire/message.js";

/** What was agreed in the handshake, and how the log-in went. */
export interface Greeting {
  hello: ServerHello;
  compressor: Compressor | undefined;
  checksum: boolean;
}

/** Who the server says the client is. */
export type Success = Extract<AuthReply, { kind: "Success" }>["value"];

const VERSION = { major: 1, minor: 0 };

const CAPABILITIES =
  capability.STREAMING | capability.PIPELINING | capability.NOTIFICATIONS |
  capability.BULK_INSERT | capability.PREPARED | capability.SUBSCRIPTIONS;

// All replies before the log-in together are far smaller.
const MOST_LOGIN_BYTES = 1 << 20;

const packageFile = new URL("../package.json", import.meta.url);
let clientVersion: string | undefined;

function version(): string {
  try {
    clientVersion ??= String(JSON.parse(readFileSync(packageFile, "utf8")).version);
  } catch {
    // A bundler has left the file behind.
    clientVersion = "";
  }
  return clientVersion;
}

/** The handshake. */
export async function greet(connection: Connection, settings: Settings): Promise<Greeting> {
  const offered = await compressors(settings.compression);
  const [reply] = await connection.call({
    kind: "Handshake",
    value: {
      kind: "ClientHello",
      value: {
        version: VERSION,
        minVersion: VERSION,
        clientName: "@rustydb/client",
        clientVersion: version(),
        compression: [...offered.keys()],
        capabilities: CAPABILITIES | (settings.checksum ? capability.CHECKSUM : 0),
        extensions: [],
        maxMessageSize: MAX_PAYLOAD,
        streamWindow: settings.streamWindow,
        connectionWindow: settings.connectionWindow,
      },
    },
  });
  if (reply?.kind !== "Handshake" || reply.value.kind !== "ServerHello") {
    throw unexpected(reply, "a ServerHello");
  }
  const hello = reply.value.value;
  if (!(hello.capabilities & capability.PIPELINING)) {
    throw new RustyDBError("0A000", "NOT_SUPPORTED", "the server does not allow pipelining");
  }
  const compressor = offered.get(hello.compression);
  if (compressor === undefined && hello.compression !== "None") {
    throw unexpected(reply, `a compression that was offered, not ${hello.compression}`);
  }
  return { hello, compressor, checksum: (hello.capabilities & capability.CHECKSUM) !== 0 };
}

/** Proves who the client is; gives what the server says about it. */
export async function authenticate(
  connection: Connection, socket: Socket, settings: Settings,
): Promise<Success> {
  const binding = channelBinding(socket);
  const { authMethods } = connection.greeting.hello;
  const can = { bind: binding !== undefined, certify: socket instanceof TLSSocket };
  const method = chooseMethod(settings, authMethods, can);
  if (SECRETS.has(method) && !isPrivate(socket)) {
    const text = "a password, token or key is not sent to another host without TLS";
    throw new RustyDBError("28000", "TLS_REQUIRED", text);
  }
  const replies = new ReplyQueue(MOST_LOGIN_BYTES);
  const start: Auth = {
    kind: "Start",
    value: {
      user: settings.username,
      database: settings.database,
      method,
      applicationName: settings.applicationName,
      connectionClass: settings.connectionClass,
      purity: settings.purity,
      tag: settings.tag,
      parameters: settings.parameters,
    },
  };
  const id = connection.start({ kind: "Auth", value: start }, replies);
  const attempt: Attempt = {
    settings,
    send: (value) => connection.proceed(id, { kind: "Auth", value }),
    next: () => nextReply(replies, settings, attempt.send),
  };
  const reply = await prove(method, attempt, scramBinding(method, binding, socket));
  if (reply.kind !== "Success") throw unexpectedReply(reply);
  for (const [name, value] of reply.value.parameters) connection.parameters.set(name, value);
  return reply.value;
}

interface Attempt {
  settings: Settings;
  send(message: Auth): void;
  next(): Promise<AuthReply>;
}

/** The next reply; a second factor is asked for and sent in between. */
async function nextReply(
  replies: ReplyQueue, settings: Settings, send: (message: Auth) => void,
): Promise<AuthReply> {
  for (;;) {
    const { message } = await replies.take();
    if (message.kind !== "AuthReply") throw unexpected(message, "a reply to the log-in");
    const reply = (message as MessageOf<"AuthReply">).value;
    if (reply.kind !== "MfaRequired") return reply;
    const { challengeId, methods, expiresInSecs } = reply.value;
    if (settings.mfa === undefined) {
      const hint = "Give the option mfa, a function that returns the code.";
      const text = `the server asks for a second factor (${methods.join(", ")})`;
      throw new RustyDBError("28000", "MFA_REQUIRED", text, { hint });
    }
    const code = await settings.mfa({ methods, expiresInSeconds: expiresInSecs });
    send({ kind: "MfaCode", value: { challengeId, code } });
  }
}

async function prove(method: AuthMethod, attempt: Attempt, binding: Binding): Promise<AuthReply> {
  const { settings, send, next } = attempt;
  switch (method) {
    case "ScramSha256":
    case "ScramSha256Plus":
      return proveByScram(attempt, new Scram(secret(settings, "password"), binding));
    case "Password":
    case "Ldap":
      send({ kind: "Password", value: { password: secret(settings, "password") } });
      return next();
    case "Token":
      send({ kind: "Token", value: { token: secret(settings, "token") } });
      return next();
    case "ApiKey":
      send({ kind: "ApiKey", value: { key: secret(settings, "apiKey") } });
      return next();
    case "Saml":
      send({ kind: "Saml", value: { assertion: secret(settings, "token") } });
      return next();
    case "Certificate":
      send({ kind: "Certificate" });
      return next();
    case "Kerberos":
      return proveByGss(attempt);
    case "Trust":
      return next();
  }
}

function secret(settings: Settings, name: "password" | "token" | "apiKey"): string {
  const value = settings[name];
  if (value === undefined) throw usageError(`the log-in needs the option ${name}`);
  return value;
}

async function proveByScram({ settings, send, next }: Attempt, scram: Scram): Promise<AuthReply> {
  const value = { mechanism: scram.mechanism, data: scram.first() };
  send({ kind: "SaslInitial", value });
  const first = await next();
  // A rule of the server trusts this client; who asks for SCRAM wants the server's proof.
  if (first.kind === "Success" && settings.auth === undefined) return first;
  if (first.kind !== "SaslContinue") throw unexpectedReply(first);
  send({ kind: "SaslResponse", value: { data: await scram.final(first.value.data) } });
  const final = await next();
  if (final.kind !== "SaslFinal") throw unexpectedReply(final);
  scram.verify(final.value.data);
  return next();
}

async function proveByGss({ settings, send, next }: Attempt): Promise<AuthReply> {
  if (settings.gss === undefined) throw usageError("auth kerberos needs the option gss");
  let fromServer: Uint8Array | null = null;
  for (;;) {
    send({ kind: "Gss", value: { data: await settings.gss(fromServer) } });
    const reply = await next();
    if (reply.kind !== "GssContinue") return reply;
    fromServer = reply.value.data;
  }
}

function scramBinding(method: AuthMethod, hash: Buffer | undefined, socket: Socket): Binding {
  if (!(socket instanceof TLSSocket)) return { kind: "impossible" };
  if (hash === undefined) return { kind: "impossible" };
  return method === "ScramSha256Plus" ? { kind: "end-point", hash } : { kind: "not-offered" };
}

// Ways to log in that give the secret itself to the server.
const SECRETS = new Set<AuthMethod>(["Password", "Ldap", "Token", "ApiKey", "Saml"]);

const METHODS: Record<AuthKind, AuthMethod> = {
  "scram-sha-256": "ScramSha256",
  password: "Password",
  token: "Token",
  apikey: "ApiKey",
  certificate: "Certificate",
  ldap: "Ldap",
  kerberos: "Kerberos",
  saml: "Saml",
};

type Credentials = Pick<Settings, "auth" | "password" | "token" | "apiKey" | "tlsCert">;

/**
 * The method that the settings ask for, else the first one that is offered and needs only what is
 * there; SCRAM is bound to the TLS connection if that can be. A password is never sent as it is
 * unless the settings say so.
 */
export function chooseMethod(
  settings: Credentials, offered: AuthMethod[], can: { bind: boolean; certify: boolean },
): AuthMethod {
  const plus = can.bind && offered.includes("ScramSha256Plus");
  const wanted = settings.auth ? [METHODS[settings.auth]] : byCredentials(settings, can.certify);
  const method = wanted
    .map((each) => (each === "ScramSha256" && plus ? "ScramSha256Plus" : each))
    .find((each) => offered.includes(each));
  if (method !== undefined) return method;
  const text = settings.auth
    ? `the server does not offer the log-in ${settings.auth}`
    : "no way to log in fits what was given";
  throw new RustyDBError("28000", "AUTHENTICATION_FAILED", text, {
    detail: `The server offers ${offered.join(", ") || "none"}.`,
    hint: "Give a password, a token or a key, or name a way with auth.",
  });
}

function byCredentials(settings: Credentials, canCertify: boolean): AuthMethod[] {
  const given: [boolean, AuthMethod][] = [
    [settings.token !== undefined, "Token"],
    [settings.apiKey !== undefined, "ApiKey"],
    [settings.password !== undefined, "ScramSha256"],
    [settings.tlsCert !== undefined && canCertify, "Certificate"],
    [true, "Trust"],
  ];
  return given.filter(([isGiven]) => isGiven).map(([, method]) => method);
}

function unexpectedReply(reply: AuthReply): RustyDBError {
  const text = `the server answered the log-in with ${reply.kind}`;
  return new RustyDBError("08P01", "PROTOCOL_VIOLATION", text, { severity: "Fatal" });
}
