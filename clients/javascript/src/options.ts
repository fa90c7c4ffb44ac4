// What a client can be told: as options of the constructor or as a connection string.

import { usageError } from "./errors.js";
import type { CompressionType, Purity } from "./wire/message.js";

/** How far TLS goes: `prefer` is plain if the server refuses TLS, `require` checks nothing. */
export type TlsMode = "disable" | "prefer" | "require" | "verify-ca" | "verify-full";

/** How the client proves who it is. No RustyDB takes `ldap`, `kerberos` and `saml` yet. */
export type AuthKind =
  | "scram-sha-256" | "password" | "token" | "apikey" | "certificate" | "ldap" | "kerberos"
  | "saml";

/** What the server asks for when it wants a second factor. */
export interface MfaChallenge {
  /** Ways to answer, for example `totp`. */
  methods: string[];
  /** How long the answer is awaited. */
  expiresInSeconds: number;
}

/** Options of `new RustyDBClient`. Every one of them but the functions can stand in `url` too. */
export interface ClientOptions {
  /** `rustydb://user:password@host:port/database?option=value`; other options go before it. */
  url?: string;
  /** Host name, address, or directory of a Unix socket (begins with `/`). Default `localhost`. */
  host?: string;
  /** Default 5432. */
  port?: number;
  /** Several servers, tried in this order; instead of `host` and `port`. */
  hosts?: { host: string; port?: number }[];
  /** The role. Needed, except with a token or a key, which name it themselves. */
  username?: string;
  password?: string;
  /** Default: the name of the user. */
  database?: string;
  /** Seconds to connect, and for each request. 0: no limit. Default 30. */
  timeout?: number;
  /** Most connections of the pool, at least 1. Default 10. */
  poolSize?: number;
  /** Connections that are kept although idle. Default 0. */
  minPoolSize?: number;
  /** Seconds after which an idle connection is closed. 0: never. Default 600. */
  idleTimeout?: number;
  /** Default `prefer`. */
  tls?: TlsMode;
  /** Path of a PEM file with the certificates to trust, instead of those that Node trusts. */
  tlsCa?: string;
  /** Path of the client's certificate, PEM. */
  tlsCert?: string;
  /** Path of its key, PEM. */
  tlsKey?: string;
  /**
   * Only this way to log in. Default: the first of these that is given and that the server offers:
   * the token, the key, the password (by SCRAM-SHA-256), the certificate; else nothing.
   */
  auth?: AuthKind;
  /** A JWT or OAuth access token; the base64 assertion with `auth: "saml"`. */
  token?: string;
  apiKey?: string;
  /** In order of preference; `[]` for none. Default zstd, lz4, snappy. */
  compression?: ("zstd" | "lz4" | "snappy")[];
  /** Whether every frame carries a CRC-32C. Default false. */
  checksum?: boolean;
  /** Default `@rustydb/client`. */
  applicationName?: string;
  /** Sessions of one class may be handed on to each other by the server's session pool. */
  connectionClass?: string;
  /** Whether a used session is welcome: `new`, `self` or `any`. */
  purity?: "new" | "self" | "any";
  /** Which of the used sessions is preferred. */
  tag?: string;
  /** Bytes that may be under way for one stream, at least 65,536. Default 1,048,576. */
  streamWindow?: number;
  /** Bytes that may be under way for one connection, at least 65,536. Default 16,777,216. */
  connectionWindow?: number;
  /** Settings of the session, for example `{ TimeZone: "UTC", search_path: "app" }`. */
  parameters?: Record<string, string>;
  /** What int8 becomes: `bigint`, or its decimal digits. Default `bigint`. */
  int8?: "bigint" | "string";
  /** What json and jsonb become: the parsed value, or their text. Default `value`. */
  json?: "value" | "text";
  /** What timestamptz becomes: a `Date` (milliseconds), or text to the microsecond. */
  timestamptz?: "date" | "text";
  /** Gives the code of the second factor when the server asks for one. */
  mfa?: (challenge: MfaChallenge) => string | Promise<string>;
  /** GSSAPI for `auth: "kerberos"`: the next token for what the server said (null at first). */
  gss?: (fromServer: Uint8Array | null) => Uint8Array | Promise<Uint8Array>;
}

/** Where a server listens. */
export interface Endpoint {
  host: string;
  port: number;
}

/** How values of results look; a part of the options. */
export interface ValueFormat {
  int8: "bigint" | "string";
  json: "value" | "text";
  timestamptz: "date" | "text";
}

/** The options, all of them, checked. */
export interface Settings extends ValueFormat {
  endpoints: Endpoint[];
  username: string;
  password: string | undefined;
  database: string;
  timeoutMs: number;
  poolSize: number;
  minPoolSize: number;
  idleTimeoutMs: number;
  tls: TlsMode;
  tlsCa: string | undefined;
  tlsCert: string | undefined;
  tlsKey: string | undefined;
  auth: AuthKind | undefined;
  token: string | undefined;
  apiKey: string | undefined;
  compression: CompressionType[];
  checksum: boolean;
  applicationName: string;
  connectionClass: string | null;
  purity: Purity | null;
  tag: string | null;
  streamWindow: number;
  connectionWindow: number;
  parameters: [string, string][];
  mfa: ClientOptions["mfa"];
  gss: ClientOptions["gss"];
}

const DEFAULT_PORT = 5432;
const MIN_WINDOW = 65_536;
const MAX_WINDOW = 2 ** 31 - 1;
const TLS_MODES: TlsMode[] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
const AUTH_KINDS: AuthKind[] = [
  "scram-sha-256", "password", "token", "apikey", "certificate", "ldap", "kerberos", "saml",
];
// What a way to log in takes.
const NEEDS: Record<AuthKind, "password" | "token" | "apiKey" | "tlsCert" | "gss"> = {
  "scram-sha-256": "password", password: "password", ldap: "password", token: "token",
  saml: "token", apikey: "apiKey", certificate: "tlsCert", kerberos: "gss",
};
const COMPRESSIONS = { zstd: "Zstd", lz4: "Lz4", snappy: "Snappy" } as const;
const PURITIES = { new: "New", self: "Self", any: "Any" } as const;

/** Merges the connection string and the other options, and fills in the defaults. */
export function settingsFrom(options: ClientOptions): Settings {
  const { url, ...others } = options;
  const given: ClientOptions = { ...(url === undefined ? {} : parseUrl(url)), ...defined(others) };
  checkNames(given);
  const servers = endpoints(given);
  const username = given.username ?? "";
  const settings: Settings = {
    endpoints: servers,
    username,
    password: given.password,
    database: given.database ?? username,
    timeoutMs: milliseconds("timeout", given.timeout ?? 30),
    poolSize: integer("poolSize", given.poolSize ?? 10, 1, 10_000),
    minPoolSize: integer("minPoolSize", given.minPoolSize ?? 0, 0, given.poolSize ?? 10),
    idleTimeoutMs: milliseconds("idleTimeout", given.idleTimeout ?? 600),
    tls: oneOf("tls", given.tls ?? "prefer", TLS_MODES),
    tlsCa: given.tlsCa,
    tlsCert: given.tlsCert,
    tlsKey: given.tlsKey,
    auth: given.auth && oneOf("auth", given.auth, AUTH_KINDS),
    token: given.token,
    apiKey: given.apiKey,
    compression: (given.compression ?? ["zstd", "lz4", "snappy"]).map(
      (name) => COMPRESSIONS[oneOf("compression", name, ["zstd", "lz4", "snappy"])],
    ),
    checksum: oneOf("checksum", given.checksum ?? false, [true, false]),
    applicationName: given.applicationName ?? "@rustydb/client",
    connectionClass: given.connectionClass ?? null,
    purity: given.purity ? PURITIES[oneOf("purity", given.purity, ["new", "self", "any"])] : null,
    tag: given.tag ?? null,
    streamWindow: integer("streamWindow", given.streamWindow ?? 1 << 20, MIN_WINDOW, MAX_WINDOW),
    connectionWindow: integer(
      "connectionWindow", given.connectionWindow ?? 1 << 24, MIN_WINDOW, MAX_WINDOW,
    ),
    parameters: Object.entries(given.parameters ?? {}),
    int8: oneOf("int8", given.int8 ?? "bigint", ["bigint", "string"]),
    json: oneOf("json", given.json ?? "value", ["value", "text"]),
    timestamptz: oneOf("timestamptz", given.timestamptz ?? "date", ["date", "text"]),
    mfa: given.mfa,
    gss: given.gss,
  };
  checkTogether(settings);
  return settings;
}

// All names of options; the compiler sees to it that none is missing.
const NAMES: Record<keyof Omit<ClientOptions, "url">, true> = {
  host: true, port: true, hosts: true, username: true, password: true, database: true,
  timeout: true, poolSize: true, minPoolSize: true, idleTimeout: true, tls: true, tlsCa: true,
  tlsCert: true, tlsKey: true, auth: true, token: true, apiKey: true, compression: true,
  checksum: true, applicationName: true, connectionClass: true, purity: true, tag: true,
  streamWindow: true, connectionWindow: true, parameters: true, int8: true, json: true,
  timestamptz: true, mfa: true, gss: true,
};

/** A name that is not known may be a limit or a check that does not happen. */
function checkNames(given: ClientOptions): void {
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(NAMES, name));
  if (unknown === undefined) return;
  const known = `Known are url, ${Object.keys(NAMES).join(", ")}.`;
  throw usageError(`there is no option ${JSON.stringify(unknown)}`, known);
}

/** What only several options together show. */
function checkTogether(settings: Settings): void {
  const { auth, tls, endpoints, username, token, apiKey } = settings;
  if (auth !== undefined && settings[NEEDS[auth]] === undefined) {
    throw usageError(`auth=${auth} needs the option ${NEEDS[auth]}`);
  }
  if ((settings.tlsCert === undefined) !== (settings.tlsKey === undefined)) {
    throw usageError("tlsCert and tlsKey must be given together");
  }
  const needsTls = tls !== "disable" && tls !== "prefer";
  if (needsTls && endpoints.some(({ host }) => host.startsWith("/"))) {
    throw usageError("there is no TLS on a Unix socket: use tls=disable or tls=prefer");
  }
  if (username === "" && token === undefined && apiKey === undefined) {
    throw usageError("no user is named", "Give the option username, or rustydb://user@host/…");
  }
}

function defined(options: ClientOptions): ClientOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function endpoints(given: ClientOptions): Endpoint[] {
  const hosts = given.host === undefined && given.hosts !== undefined
    ? given.hosts
    : [{ host: given.host ?? "localhost", port: given.port }];
  if (hosts.length === 0) throw usageError("hosts is empty");
  return hosts.map(({ host, port }) => ({
    host,
    port: integer("port", port ?? given.port ?? DEFAULT_PORT, 1, 65_535),
  }));
}

function integer(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw usageError(`${name} must be an integer between ${least} and ${most}, not ${value}`);
  }
  return value;
}

// Node's timers take no more than this.
const MAX_MS = 2 ** 31 - 1;

/** Seconds to milliseconds. */
export function milliseconds(name: string, seconds: number): number {
  if (!(seconds >= 0 && seconds * 1000 <= MAX_MS)) {
    throw usageError(`${name} must be between 0 and 2147483 seconds, not ${seconds}`);
  }
  return Math.ceil(seconds * 1000);
}

function oneOf<T extends string | boolean>(name: string, value: T, all: readonly T[]): T {
  if (!all.includes(value)) {
    throw usageError(`${name} must be one of ${all.join(", ")}, not ${value}`);
  }
  return value;
}

// How each option of a connection string is read.
const URL_OPTIONS: Record<string, (text: string, name: string) => ClientOptions> = {
  timeout: (text, name) => ({ timeout: numeric(text, name) }),
  pool_size: (text, name) => ({ poolSize: numeric(text, name) }),
  min_pool_size: (text, name) => ({ minPoolSize: numeric(text, name) }),
  idle_timeout: (text, name) => ({ idleTimeout: numeric(text, name) }),
  tls: (text) => ({ tls: text as TlsMode }),
  tls_ca: (text) => ({ tlsCa: text }),
  tls_cert: (text) => ({ tlsCert: text }),
  tls_key: (text) => ({ tlsKey: text }),
  auth: (text) => ({ auth: text as AuthKind }),
  token: (text) => ({ token: text }),
  api_key: (text) => ({ apiKey: text }),
  compression: (text) => ({
    compression: text === "none" ? [] : (text.split(",") as ClientOptions["compression"]),
  }),
  checksum: (text, name) => ({ checksum: truth(text, name) }),
  application_name: (text) => ({ applicationName: text }),
  connection_class: (text) => ({ connectionClass: text }),
  purity: (text) => ({ purity: text as ClientOptions["purity"] }),
  tag: (text) => ({ tag: text }),
  stream_window: (text, name) => ({ streamWindow: numeric(text, name) }),
  connection_window: (text, name) => ({ connectionWindow: numeric(text, name) }),
};

function numeric(text: string, name: string): number {
  if (!/^\d+(\.\d+)?$/.test(text)) throw usageError(`${name} must be a number, not ${text}`);
  return Number(text);
}

function truth(text: string, name: string): boolean {
  if (text !== "true" && text !== "false") throw usageError(`${name} must be true or false`);
  return text === "true";
}

/** Reads `rustydb://user:password@host:port,host:port/database?option=value&…`. */
export function parseUrl(url: string): ClientOptions {
  if (/^postgres(ql)?:\/\//.test(url)) {
    throw usageError(
      "postgresql:// is PostgreSQL's own protocol, which this library does not speak",
      "Write rustydb:// (the port is the same), or use a PostgreSQL driver.",
    );
  }
  const scheme = "rustydb://";
  if (!url.startsWith(scheme)) throw usageError("a connection string begins with rustydb://");
  const [, authority = "", path, query] = /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(
    url.slice(scheme.length),
  )!;
  const options: ClientOptions = {};
  const at = authority.lastIndexOf("@");
  if (at >= 0) {
    const [user = "", password] = splitOnce(authority.slice(0, at), ":");
    if (user !== "") options.username = decode(user);
    if (password !== undefined) options.password = decode(password);
  }
  const servers = authority.slice(at + 1);
  if (servers !== "") options.hosts = servers.split(",").map(parseHost);
  if (path) options.database = decode(path);
  for (const part of (query ?? "").split("&")) {
    if (part !== "") Object.assign(options, parseOption(part));
  }
  return options;
}

function parseHost(text: string): Endpoint {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d+))?$/.exec(text);
  const host = match && (match[1] ?? decode(match[2]!));
  if (!match || !host) throw usageError(`${JSON.stringify(text)} is no host:port`);
  return { host, port: match[3] === undefined ? DEFAULT_PORT : Number(match[3]) };
}

function parseOption(part: string): ClientOptions {
  const [name, value = ""] = splitOnce(part, "=").map(decode) as [string, string?];
  if (!Object.hasOwn(URL_OPTIONS, name)) {
    const known = `Known are ${Object.keys(URL_OPTIONS).join(", ")}.`;
    throw usageError(`a connection string has no option ${JSON.stringify(name)}`, known);
  }
  return URL_OPTIONS[name]!(value, name);
}

function splitOnce(text: string, separator: string): [string] | [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw usageError("a percent sign in the connection string is not followed by two hex digits");
  }
}
