// The byte stream under a connection: TCP, TLS over it, or a Unix socket.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import * as net from "node:net";
import * as tls from "node:tls";
import { RustyDBError } from "./errors.js";
import type { Endpoint, Settings } from "./options.js";

const ALPN = "rustydb/1";

type TlsSettings = Pick<Settings, "tls" | "tlsCa" | "tlsCert" | "tlsKey">;

/**
 * Opens the stream to one server, as far in TLS as the settings say; `signal` gives up. With
 * `prefer` a server that refuses TLS is asked again without.
 */
export async function openTransport(
  { host, port }: Endpoint, settings: TlsSettings, signal: AbortSignal,
): Promise<net.Socket> {
  if (host.startsWith("/")) {
    const socket = net.connect({ path: `${host}/.s.PGSQL.${port}` });
    return ready(socket, "connect", signal);
  }
  if (settings.tls === "disable") return openPlain(host, port, signal);
  const options = await tlsOptions(host, settings);
  const plain = await openPlain(host, port, signal);
  const secure = tls.connect({ ...options, socket: plain });
  try {
    return await ready(secure, "secureConnect", signal);
  } catch (error) {
    plain.destroy();
    if (signal.aborted) throw error;
    if (settings.tls === "prefer") return openPlain(host, port, signal);
    const message = `TLS with ${host}:${port} failed: ${(error as Error).message}`;
    throw new RustyDBError("08001", "SERVICE_UNAVAILABLE", message, { cause: error });
  }
}

async function openPlain(host: string, port: number, signal: AbortSignal): Promise<net.Socket> {
  const socket = net.connect({ host, port, noDelay: true, keepAlive: true });
  return ready(socket, "connect", signal);
}

/** Waits until the socket can be used; it is destroyed if it cannot. */
function ready<S extends net.Socket>(
  socket: S, event: "connect" | "secureConnect", signal: AbortSignal,
): Promise<S> {
  return new Promise((resolve, reject) => {
    const settle = (error?: unknown): void => {
      socket.off(event, done).off("error", settle).off("close", closed);
      signal.removeEventListener("abort", abort);
      if (error === undefined) return resolve(socket);
      // A late error of a socket that nobody wants must not end the process.
      socket.on("error", () => undefined);
      socket.destroy();
      reject(error);
    };
    const done = (): void => settle();
    const closed = (): void => settle(new Error("the server closed the connection"));
    const abort = (): void => settle(signal.reason);
    socket.on(event, done).on("error", settle).on("close", closed);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
}

async function tlsOptions(host: string, settings: TlsSettings): Promise<tls.ConnectionOptions> {
  const verify = settings.tls === "verify-ca" || settings.tls === "verify-full";
  const [ca, cert, key] = await Promise.all(
    [settings.tlsCa, settings.tlsCert, settings.tlsKey].map(readPem),
  );
  return {
    ca, cert, key,
    ALPNProtocols: [ALPN],
    minVersion: "TLSv1.2",
    rejectUnauthorized: verify,
    // For the server's choice of a certificate; an address cannot be a server name.
    ...(net.isIP(host) === 0 ? { servername: host } : {}),
    checkServerIdentity: (_name, certificate) =>
      settings.tls === "verify-full" ? tls.checkServerIdentity(host, certificate) : undefined,
  };
}

async function readPem(path: string | undefined): Promise<Buffer | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path);
  } catch (cause) {
    const message = `cannot read ${path}: ${(cause as Error).message}`;
    throw new RustyDBError("22023", "VALIDATION_ERROR", message, { cause });
  }
}

const LOOPBACK = new net.BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** Whether nobody on the way can read along. */
export function isPrivate(socket: net.Socket): boolean {
  const address = socket.remoteAddress;
  // Without an address it is a Unix socket (or closed, and nothing is sent any more).
  if (socket instanceof tls.TLSSocket || address === undefined) return true;
  return LOOPBACK.check(address, net.isIPv6(address) ? "ipv6" : "ipv4");
}

/**
 * `tls-server-end-point` (RFC 5929): the hash of the server's certificate, to bind a log-in to the
 * connection. Undefined without TLS, or if the certificate's signature has no hash of its own.
 */
export function channelBinding(socket: net.Socket): Buffer | undefined {
  if (!(socket instanceof tls.TLSSocket)) return undefined;
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return undefined;
  const hash = signatureHash(certificate.raw);
  if (hash === undefined) return undefined;
  return createHash(hash).update(certificate.raw).digest();
}

// Signature algorithms by their object identifiers in DER, and the hash that the binding takes;
// MD5 and SHA-1 are replaced by SHA-256.
const SIGNATURE_HASHES: Record<string, string> = {
  "2a864886f70d010104": "sha256", // md5WithRSAEncryption
  "2a864886f70d010105": "sha256", // sha1WithRSAEncryption
  "2a864886f70d01010b": "sha256", // sha256WithRSAEncryption
  "2a864886f70d01010c": "sha384",
  "2a864886f70d01010d": "sha512",
  "2a8648ce3d0401": "sha256", // ecdsa-with-SHA1
  "2a8648ce3d040302": "sha256", // ecdsa-with-SHA256
  "2a8648ce3d040303": "sha384",
  "2a8648ce3d040304": "sha512",
};

/** The hash of a certificate's signature algorithm. */
export function signatureHash(der: Buffer): string | undefined {
  const certificate = element(der, 0);
  if (certificate === undefined) return undefined;
  const signed = element(der, certificate.start);
  const algorithm = signed && element(der, signed.end);
  const identifier = algorithm && element(der, algorithm.start);
  if (identifier === undefined) return undefined;
  return SIGNATURE_HASHES[der.subarray(identifier.start, identifier.end).toString("hex")];
}

/** Where the content of the DER element at `at` begins and ends. */
function element(der: Buffer, at: number): { start: number; end: number } | undefined {
  const first = der[at + 1];
  if (first === undefined) return undefined;
  const width = first < 0x80 ? 0 : first & 0x7f;
  const start = at + 2 + width;
  if (width > 4 || start > der.length) return undefined;
  const length = width === 0 ? first : der.readUIntBE(at + 2, width);
  return start + length > der.length ? undefined : { start, end: start + length };
}
