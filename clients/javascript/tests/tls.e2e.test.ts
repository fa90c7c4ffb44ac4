// TLS, and the log-in over it, against a server.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RustyDBClient, type ClientOptions } from "../src/index.js";
import { parseUrl } from "../src/options.js";
import { Proxy } from "./e2e.js";

const url = process.env["RUSTYDB_TLS_URL"];
const tlsCa = process.env["RUSTYDB_TLS_CA"];
const skip = url === undefined || tlsCa === undefined
  ? "RUSTYDB_TLS_URL and RUSTYDB_TLS_CA are not set"
  : false;

async function isEncrypted(options: ClientOptions): Promise<boolean> {
  const client = new RustyDBClient({ url, ...options });
  try {
    await client.connect();
    const text = "x".repeat(200_000);
    const { rows } = await client.query("select length($1) as n", [text]);
    assert.deepEqual(rows, [{ n: text.length }]);
    return true;
  } finally {
    await client.disconnect();
  }
}

describe("TLS", { skip }, () => {
  for (const tls of ["prefer", "require"] as const) {
    it(`${tls} asks for no certificate`, async () => assert.ok(await isEncrypted({ tls })));
  }

  it("verify-ca trusts the given authority, and no other", async () => {
    assert.ok(await isEncrypted({ tls: "verify-ca", tlsCa }));
    await assert.rejects(isEncrypted({ tls: "verify-ca" }), { sqlstate: "08001" });
  });

  it("verify-full also checks the name", async () => {
    assert.ok(await isEncrypted({ tls: "verify-full", tlsCa }));
    // Another address of the same machine, for which the certificate is not made.
    const proxy = await Proxy.start(url, "127.0.0.2");
    try {
      const other = { tlsCa, ...proxy.options };
      assert.ok(await isEncrypted({ tls: "verify-ca", ...other }));
      await assert.rejects(isEncrypted({ tls: "verify-full", ...other }), {
        sqlstate: "08001", message: /does not match/,
      });
    } finally {
      await proxy.stop();
    }
  });

  it("a self-signed certificate is its own authority", async (t) => {
    const own = process.env["RUSTYDB_SELF_SIGNED_URL"];
    const cert = process.env["RUSTYDB_SELF_SIGNED_CERT"];
    if (own === undefined || cert === undefined) return t.skip("RUSTYDB_SELF_SIGNED_… are not set");
    assert.ok(await isEncrypted({ url: own, tls: "verify-full", tlsCa: cert }));
    await assert.rejects(isEncrypted({ url: own, tls: "verify-full" }), { sqlstate: "08001" });
  });

  it("a wrong password is refused", async () => {
    if (parseUrl(url!).password === undefined) return;
    await assert.rejects(isEncrypted({ tls: "require", password: "wrong" }), {
      sqlstate: "28P01", code: "AUTHENTICATION_FAILED",
    });
  });

  it("a file that is not there is named", async () => {
    const missing = isEncrypted({ tls: "verify-ca", tlsCa: "/nowhere/ca.pem" });
    await assert.rejects(missing, { sqlstate: "22023", message: /\/nowhere\/ca\.pem/ });
  });
});
