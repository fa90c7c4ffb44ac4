// SCRAM-SHA-256 against the example of RFC 7677, and SASLprep against those of RFC 4013.

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import { saslprep } from "../src/saslprep.js";
import { Scram } from "../src/scram.js";
import { signatureHash } from "../src/transport.js";

const NONCE = "rOprNGfwEbeRWgbNEkqO";

describe("SCRAM-SHA-256", () => {
  const serverFirst = Buffer.from(
    `r=${NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`,
  );

  it("proves the password, and checks the server's proof", async () => {
    // The RFC's example names the user in SCRAM itself; here it is empty, as in the protocol.
    const scram = new Scram("pencil", { kind: "impossible" }, NONCE);
    assert.equal(scram.mechanism, "SCRAM-SHA-256");
    assert.equal(scram.first().toString(), `n,,n=,r=${NONCE}`);
    const final = (await scram.final(serverFirst)).toString();
    assert.match(final, /^c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj\)hNlF\$k0,p=/);
    const expected = await reference("pencil", `n=,r=${NONCE}`, serverFirst.toString(), "biws");
    assert.equal(final, expected.final);
    scram.verify(Buffer.from(`v=${expected.signature}`));
    for (const bad of ["v=AAAA", "e=other-error", "", `v=${expected.signature.slice(0, -4)}`]) {
      assert.throws(() => scram.verify(Buffer.from(bad)), { sqlstate: "28000" }, bad);
    }
  });

  it("binds to the TLS connection", async () => {
    const hash = Buffer.alloc(32, 7);
    const scram = new Scram("pencil", { kind: "end-point", hash }, NONCE);
    assert.equal(scram.mechanism, "SCRAM-SHA-256-PLUS");
    assert.equal(scram.first().toString(), `p=tls-server-end-point,,n=,r=${NONCE}`);
    const channel = Buffer.concat([Buffer.from("p=tls-server-end-point,,"), hash]);
    const final = (await scram.final(serverFirst)).toString();
    assert.ok(final.startsWith(`c=${channel.toString("base64")},r=`));
    const unoffered = new Scram("pencil", { kind: "not-offered" }, NONCE);
    assert.equal(unoffered.first().toString(), `y,,n=,r=${NONCE}`);
  });

  it("refuses what a server must not say", async () => {
    const scram = new Scram("pencil", { kind: "impossible" }, NONCE);
    const bad = [
      "", "x", "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
      `r=${NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`,
      `r=${NONCE}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0`,
      `r=${NONCE}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=999999999`,
      `r=${NONCE}x,s=,i=4096`,
    ];
    for (const text of bad) {
      await assert.rejects(scram.final(Buffer.from(text)), { sqlstate: "28000" }, text);
    }
    const early = new Scram("pencil", { kind: "impossible" }, NONCE);
    assert.throws(() => early.verify(Buffer.from("v=")), { sqlstate: "28000" });
  });
});

/** The formulas of RFC 5802 §3 once more, written with WebCrypto. */
async function reference(password: string, firstBare: string, serverFirst: string, c: string) {
  const { subtle } = globalThis.crypto;
  const bytes = (text: string) => new TextEncoder().encode(text);
  const [, nonce, salt, count] = /^r=(.*),s=(.*),i=(\d+)$/.exec(serverFirst)!;
  const key = await subtle.importKey("raw", bytes(password), "PBKDF2", false, ["deriveBits"]);
  const parameters = {
    name: "PBKDF2", hash: "SHA-256", salt: Buffer.from(salt!, "base64"), iterations: Number(count),
  };
  const salted = await subtle.deriveBits(parameters, key, 256);
  const sign = async (secret: ArrayBuffer, text: string): Promise<ArrayBuffer> => {
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    const imported = await subtle.importKey("raw", secret, algorithm, false, ["sign"]);
    return subtle.sign("HMAC", imported, bytes(text));
  };
  const withoutProof = `c=${c},r=${nonce}`;
  const message = `${firstBare},${serverFirst},${withoutProof}`;
  const clientKey = await sign(salted, "Client Key");
  const signature = Buffer.from(await sign(await subtle.digest("SHA-256", clientKey), message));
  const proof = Buffer.from(clientKey).map((byte, i) => byte ^ signature[i]!);
  const server = Buffer.from(await sign(await sign(salted, "Server Key"), message));
  return {
    final: `${withoutProof},p=${Buffer.from(proof).toString("base64")}`,
    signature: server.toString("base64"),
  };
}

describe("SASLprep", () => {
  const cases: [string, string][] = [
    ["user", "user"], ["USER", "USER"], ["I\u00adX", "IX"], ["\u00aa", "a"], ["\u2168", "IX"],
    ["pass\u00a0word", "pass word"], ["\u0041\u030a", "\u00c5"],
    // Refused by SASLprep, so taken as it is.
    ["\u0007\u00aa", "\u0007\u00aa"], ["\u0627\u0031", "\u0627\u0031"], ["\u00ad", "\u00ad"],
    ["\u0627a\u0628", "\u0627a\u0628"], ["\u0627 \u0628", "\u0627 \u0628"],
  ];
  for (const [given, expected] of cases) {
    it(JSON.stringify(given), () => assert.equal(saslprep(given), expected));
  }
});

describe("the hash for channel binding", () => {
  // Self-signed, made for this test: ECDSA with SHA-384 and with SHA-256.
  const certificates: [string, string][] = [
    ["sha384", [
      "-----BEGIN CERTIFICATE-----",
      "MIIBdDCCARugAwIBAgIUJ2lY8cjU2TfkFLAGTNonjqEbVmswCgYIKoZIzj0EAwMw",
      "DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjExMjI0MjRaGA8yMTI2MTAyODEyMjQy",
      "NFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIQk",
      "rP5w3J2vJpIkbf5AFXvyXfCVr9qT+v3IfoM7DLfevbS107MDqMk2FQO9pgvFss0Y",
      "yiD7odbrmw9jJb7+9vqjUzBRMB0GA1UdDgQWBBRY8/A+tKt28a5KmLVmq19cIqYV",
      "5TAfBgNVHSMEGDAWgBRY8/A+tKt28a5KmLVmq19cIqYV5TAPBgNVHRMBAf8EBTAD",
      "AQH/MAoGCCqGSM49BAMDA0cAMEQCICgtQMGpBZbXRXr+1RJhY/IK9i4i90Y5DIr9",
      "DAbvFPA4AiB8jDNFPOONNzrUPE1HQOcXL+lkHscUSXG//yJK9BOOKA==",
      "-----END CERTIFICATE-----",
    ].join("\n")],
    ["sha256", [
      "-----BEGIN CERTIFICATE-----",
      "MIIBdTCCARugAwIBAgIUH8ehB80syolQgGUTKzZi0nuhTUUwCgYIKoZIzj0EAwIw",
      "DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjExMjI0MjRaGA8yMTI2MTAyODEyMjQy",
      "NFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABL4O",
      "IABc98V+ws02UpPvz5h/Z1IOYw1WXl0bok5zVeYvTyWwJA+j8VZCVYxFpD6fWgiu",
      "LomXlIDQehtICCN7cuijUzBRMB0GA1UdDgQWBBSwNddbslVp/1f0eYTtZhbshat+",
      "xzAfBgNVHSMEGDAWgBSwNddbslVp/1f0eYTtZhbshat+xzAPBgNVHRMBAf8EBTAD",
      "AQH/MAoGCCqGSM49BAMCA0gAMEUCIQCTJ31UsAS9Br9dLNAZZ0pFNGWqs+eF7vqq",
      "ffle7WZL5gIgP6o97GyzHRtQz/MAyFvtQq9NWoauGbKfgl7u48ISeys=",
      "-----END CERTIFICATE-----",
    ].join("\n")],
  ];
  for (const [hash, pem] of certificates) {
    it(hash, () => assert.equal(signatureHash(new X509Certificate(pem).raw), hash));
  }

  it("is none for what is no certificate", () => {
    for (const bytes of [[], [0x30], [0x30, 0x82, 0x01], [0x30, 0x03, 0x30, 0x01, 0x00]]) {
      assert.equal(signatureHash(Buffer.from(bytes)), undefined);
    }
  });
});
