// SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side, without I/O.

import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { RustyDBError } from "./errors.js";
import { saslprep } from "./saslprep.js";

const KEY_LENGTH = 32;
// PostgreSQL's default is 4096. A server that asks for far more wants the client's time.
const MAX_ITERATIONS = 10_000_000;

const deriveKey = promisify(pbkdf2);

/** How the log-in is bound to the TLS connection. */
export type Binding =
  /** To the hash of the server's certificate. */
  | { kind: "end-point"; hash: Buffer }
  /** Not, although this side could: the server did not offer it. */
  | { kind: "not-offered" }
  /** Not: there is no TLS. */
  | { kind: "impossible" };

/** One log-in. */
export class Scram {
  readonly mechanism: "SCRAM-SHA-256" | "SCRAM-SHA-256-PLUS";
  readonly #password: string;
  readonly #header: string;
  readonly #binding: Binding;
  readonly #nonce: string;
  #serverSignature: Buffer | undefined;

  /** The name of the user travels in the protocol's own message, so SCRAM's is empty. */
  constructor(password: string, binding: Binding, nonce = randomBytes(18).toString("base64")) {
    this.#password = saslprep(password);
    this.#binding = binding;
    this.#nonce = nonce;
    const bound = binding.kind === "end-point";
    this.mechanism = bound ? "SCRAM-SHA-256-PLUS" : "SCRAM-SHA-256";
    this.#header = bound
      ? "p=tls-server-end-point,,"
      : binding.kind === "not-offered" ? "y,," : "n,,";
  }

  /** What the client says first. */
  first(): Buffer {
    return Buffer.from(this.#header + this.#firstBare());
  }

  #firstBare(): string {
    return `n=,r=${this.#nonce}`;
  }

  /** The proof, in answer to the server's first message. */
  async final(serverFirst: Uint8Array): Promise<Buffer> {
    const first = Buffer.from(serverFirst).toString("utf8");
    const [, nonce = "", salt = "", count = ""] =
      /^r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/=]+),i=(\d{1,9})(?:,.*)?$/s.exec(first) ?? [];
    const iterations = Number(count);
    if (!nonce.startsWith(this.#nonce) || nonce.length === this.#nonce.length) {
      throw failure("the server's nonce is not the continuation of the client's");
    }
    if (iterations < 1 || iterations > MAX_ITERATIONS) {
      throw failure(`the server asks for ${iterations} iterations`);
    }
    const channel = Buffer.concat([
      Buffer.from(this.#header),
      this.#binding.kind === "end-point" ? this.#binding.hash : Buffer.alloc(0),
    ]);
    const withoutProof = `c=${channel.toString("base64")},r=${nonce}`;
    const authMessage = `${this.#firstBare()},${first},${withoutProof}`;
    const salted = await deriveKey(
      this.#password, Buffer.from(salt, "base64"), iterations, KEY_LENGTH, "sha256",
    );
    const clientKey = hmac(salted, "Client Key");
    const storedKey = createHash("sha256").update(clientKey).digest();
    const proof = hmac(storedKey, authMessage);
    for (let i = 0; i < proof.length; i++) proof[i]! ^= clientKey[i]!;
    this.#serverSignature = hmac(hmac(salted, "Server Key"), authMessage);
    return Buffer.from(`${withoutProof},p=${proof.toString("base64")}`);
  }

  /** Checks that the server knows the password too. */
  verify(serverFinal: Uint8Array): void {
    const text = Buffer.from(serverFinal).toString("utf8");
    const [, encoded = ""] = /^v=([A-Za-z0-9+/=]+)(?:,.*)?$/s.exec(text) ?? [];
    const signature = Buffer.from(encoded, "base64");
    const expected = this.#serverSignature;
    if (
      expected === undefined || signature.length !== expected.length ||
      !timingSafeEqual(signature, expected)
    ) {
      throw failure("the server could not prove that it knows the password");
    }
  }
}

function hmac(key: Buffer, message: string): Buffer {
  return createHmac("sha256", key).update(message).digest();
}

function failure(message: string): RustyDBError {
  return new RustyDBError("28000", "AUTHENTICATION_FAILED", message, { severity: "Fatal" });
}
