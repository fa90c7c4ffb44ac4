// Connection strings and options.

import assert from "node:assert/strict";
import { userInfo } from "node:os";
import { describe, it } from "node:test";
import { chooseMethod } from "../src/login.js";
import { parseUrl, settingsFrom, type ClientOptions } from "../src/options.js";
import type { AuthMethod } from "../src/wire/message.js";

describe("connection strings", () => {
  it("the example of the protocol", () => {
    const url = "rustydb://admin:secret@localhost:5432/mydb?timeout=30&pool_size=10";
    assert.deepEqual(parseUrl(url), {
      username: "admin",
      password: "secret",
      hosts: [{ host: "localhost", port: 5432 }],
      database: "mydb",
      timeout: 30,
      poolSize: 10,
    });
  });

  it("every part may be encoded, several hosts and IPv6 are understood", () => {
    const url = "rustydb://a%40b:p%3A%2F%3Fw%25@[::1]:1,h2,%2Frun%2Frustydb:5/d%20b?tag=a%3Db%26c";
    assert.deepEqual(parseUrl(url), {
      username: "a@b",
      password: "p:/?w%",
      hosts: [
        { host: "::1", port: 1 },
        { host: "h2", port: 5432 },
        { host: "/run/rustydb", port: 5 },
      ],
      database: "d b",
      tag: "a=b&c",
    });
  });

  it("every option", () => {
    const options =
      "timeout=1.5&pool_size=2&min_pool_size=1&idle_timeout=3&tls=verify-full&tls_ca=/ca" +
      "&tls_cert=/c&tls_key=/k&auth=token&token=t&api_key=k&compression=lz4,snappy&checksum=true" +
      "&application_name=app&connection_class=web&purity=self&tag=x&stream_window=65536" +
      "&connection_window=131072";
    assert.deepEqual(parseUrl(`rustydb://h?${options}`), {
      hosts: [{ host: "h", port: 5432 }],
      timeout: 1.5, poolSize: 2, minPoolSize: 1, idleTimeout: 3, tls: "verify-full",
      tlsCa: "/ca", tlsCert: "/c", tlsKey: "/k", auth: "token", token: "t", apiKey: "k",
      compression: ["lz4", "snappy"], checksum: true, applicationName: "app",
      connectionClass: "web", purity: "self", tag: "x", streamWindow: 65_536,
      connectionWindow: 131_072,
    });
    assert.deepEqual(parseUrl("rustydb://?compression=none").compression, []);
  });

  it("mistakes are refused", () => {
    const urls = [
      "postgresql://h/d", "postgres://h/d", "http://h", "rustydb:/h", "rustydb://h:x/d",
      "rustydb://a,,b", "rustydb://h?unknown=1", "rustydb://h?toString=1", "rustydb://h?timeout=x",
      "rustydb://h?checksum=yes", "rustydb://%zz@h", "rustydb://h:0", "rustydb://h:70000",
      "rustydb://h?pool_size=0", "rustydb://h?pool_size=1.5", "rustydb://h?tls=maybe",
      "rustydb://h?compression=zip", "rustydb://h?purity=old", "rustydb://h?stream_window=1",
      "rustydb://h?timeout=99999999", "rustydb://h?pool_size=2&min_pool_size=3",
      "rustydb://h?auth=none", "rustydb://[::1",
    ];
    for (const url of urls) {
      assert.throws(() => settingsFrom({ url }), { sqlstate: "22023" }, url);
    }
  });
});

describe("options", () => {
  it("have the protocol's defaults", () => {
    const settings = settingsFrom({});
    const user = userInfo().username;
    assert.deepEqual(settings.endpoints, [{ host: "localhost", port: 5432 }]);
    assert.equal(settings.username, user);
    assert.equal(settings.database, user);
    assert.equal(settings.timeoutMs, 30_000);
    assert.equal(settings.poolSize, 10);
    assert.equal(settings.minPoolSize, 0);
    assert.equal(settings.idleTimeoutMs, 600_000);
    assert.equal(settings.tls, "prefer");
    assert.equal(settings.auth, "scram-sha-256");
    assert.deepEqual(settings.compression, ["Zstd", "Lz4", "Snappy"]);
    assert.equal(settings.checksum, false);
    assert.equal(settings.streamWindow, 1_048_576);
    assert.equal(settings.connectionWindow, 16_777_216);
  });

  it("go before the connection string", () => {
    const url = "rustydb://a:b@h1,h2:7/d?timeout=1";
    const given: ClientOptions = { url, host: "other", port: 9, password: undefined, timeout: 2 };
    const settings = settingsFrom(given);
    assert.deepEqual(settings.endpoints, [{ host: "other", port: 9 }]);
    assert.equal(settings.password, "b");
    assert.equal(settings.timeoutMs, 2000);
  });

  it("a token or a key needs no name", () => {
    const byToken = settingsFrom({ token: "t" });
    assert.deepEqual([byToken.auth, byToken.username], ["token", ""]);
    const byKey = settingsFrom({ apiKey: "k" });
    assert.deepEqual([byKey.auth, byKey.username], ["apikey", ""]);
  });
});

describe("the method of the log-in", () => {
  const scram = { auth: "scram-sha-256", password: "p" } as const;
  const without = { auth: "scram-sha-256", password: undefined } as const;
  const cases: [Parameters<typeof chooseMethod>[0], AuthMethod[], boolean, AuthMethod | null][] = [
    [scram, ["ScramSha256"], false, "ScramSha256"],
    [scram, ["ScramSha256", "ScramSha256Plus"], true, "ScramSha256Plus"],
    [scram, ["ScramSha256", "ScramSha256Plus"], false, "ScramSha256"],
    [scram, ["Trust", "ScramSha256"], false, "ScramSha256"],
    [without, ["ScramSha256", "Trust"], false, "Trust"],
    [scram, ["Trust"], false, "Trust"],
    [scram, ["Password"], true, null],
    [{ auth: "password", password: "p" }, ["ScramSha256", "Password"], true, "Password"],
    [{ auth: "token", password: undefined }, ["Trust"], true, null],
  ];
  for (const [settings, offered, canBind, expected] of cases) {
    it(`${settings.auth} of ${offered.join(", ")}: ${expected}`, () => {
      const choose = () => chooseMethod(settings, offered, canBind);
      if (expected === null) assert.throws(choose, { sqlstate: "28000" });
      else assert.equal(choose(), expected);
    });
  }
});
