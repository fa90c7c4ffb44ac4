// Connection strings and options.

import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { describe, it } from "node:test";
import { chooseMethod } from "../src/login.js";
import { parseUrl, settingsFrom, type ClientOptions } from "../src/options.js";
import { isPrivate } from "../src/transport.js";
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
      const options = { url, username: "u" };
      assert.throws(() => settingsFrom(options), { sqlstate: "22023" }, url);
    }
  });
});

describe("options", () => {
  it("have the protocol's defaults", () => {
    const settings = settingsFrom({ username: "ann" });
    assert.deepEqual(settings.endpoints, [{ host: "localhost", port: 5432 }]);
    assert.equal(settings.username, "ann");
    assert.equal(settings.database, "ann");
    assert.equal(settings.timeoutMs, 30_000);
    assert.equal(settings.poolSize, 10);
    assert.equal(settings.minPoolSize, 0);
    assert.equal(settings.idleTimeoutMs, 600_000);
    assert.equal(settings.tls, "prefer");
    assert.equal(settings.auth, undefined);
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
    assert.equal(settingsFrom({ token: "t" }).username, "");
    assert.equal(settingsFrom({ apiKey: "k" }).username, "");
    assert.throws(() => settingsFrom({ password: "p" }), /no user is named/);
  });

  it("with a name that is not known are refused", () => {
    for (const name of ["poolsize", "pool_size", "toString", "user", "__proto__"]) {
      const options = JSON.parse(`{"username": "u", ${JSON.stringify(name)}: 1}`);
      const said = { sqlstate: "22023", message: `there is no option ${JSON.stringify(name)}` };
      assert.throws(() => settingsFrom(options), said);
    }
    assert.ok(settingsFrom({ username: "u", ...{ poolsize: undefined } }));
    const checksum = "false" as unknown as boolean;
    assert.throws(() => settingsFrom({ username: "u", checksum }), /checksum must be/);
  });

  it("name what a way to log in takes", () => {
    const cases: [ClientOptions, string][] = [
      [{ auth: "scram-sha-256" }, "password"], [{ auth: "password" }, "password"],
      [{ auth: "ldap" }, "password"], [{ auth: "token", apiKey: "k" }, "token"],
      [{ auth: "saml" }, "token"], [{ auth: "apikey", token: "t" }, "apiKey"],
      [{ auth: "certificate" }, "tlsCert"], [{ auth: "kerberos" }, "gss"],
    ];
    for (const [options, missing] of cases) {
      const message = `auth=${options.auth} needs the option ${missing}`;
      assert.throws(() => settingsFrom({ username: "u", ...options }), { message });
    }
    assert.throws(() => settingsFrom({ username: "u", tlsCert: "c" }), /together/);
  });

  it("that need TLS do not go with a Unix socket", () => {
    for (const tls of ["require", "verify-ca", "verify-full"] as const) {
      const said = /there is no TLS on a Unix socket/;
      assert.throws(() => settingsFrom({ username: "u", host: "/run", tls }), said);
      assert.throws(() => settingsFrom({ url: "rustydb://u@h,%2Frun/d", tls }), said);
    }
    assert.ok(settingsFrom({ username: "u", host: "/run", tls: "prefer" }));
  });
});

describe("the method of the log-in", () => {
  type Given = Partial<Parameters<typeof chooseMethod>[0]>;
  const scram = { auth: "scram-sha-256", password: "p" } as const;
  const password = { password: "p" };
  const both: AuthMethod[] = ["ScramSha256", "ScramSha256Plus"];
  const secrets: AuthMethod[] = ["Trust", "ScramSha256", "ApiKey", "Token"];
  const cases: [Given, AuthMethod[], boolean, AuthMethod | null][] = [
    [scram, ["ScramSha256"], false, "ScramSha256"],
    [scram, both, true, "ScramSha256Plus"],
    [scram, both, false, "ScramSha256"],
    [scram, ["Trust", "ScramSha256"], false, "ScramSha256"],
    [scram, ["Trust"], false, null],
    [scram, ["Password"], true, null],
    [{ auth: "password", ...password }, ["ScramSha256", "Password"], true, "Password"],
    [{ auth: "token", token: "t" }, ["Trust"], true, null],
    [{}, ["ScramSha256", "Trust"], false, "Trust"],
    [{}, ["ScramSha256", "Token"], false, null],
    [password, both, true, "ScramSha256Plus"],
    [password, ["Trust", "Password"], true, "Trust"],
    [password, ["Password"], true, null],
    [{ ...password, token: "t", apiKey: "k" }, secrets, false, "Token"],
    [{ ...password, apiKey: "k" }, secrets, false, "ApiKey"],
    [{ ...password, token: "t" }, ["ScramSha256"], false, "ScramSha256"],
    [{ tlsCert: "c" }, ["ScramSha256", "Certificate"], true, "Certificate"],
    [{ tlsCert: "c" }, ["ScramSha256", "Certificate"], false, null],
  ];
  for (const [given, offered, isTls, expected] of cases) {
    it(`${JSON.stringify(given)} of ${offered.join(", ")}: ${expected}`, () => {
      const can = { bind: isTls, certify: isTls };
      const none = {
        auth: undefined, password: undefined, token: undefined, apiKey: undefined,
        tlsCert: undefined,
      };
      const choose = () => chooseMethod({ ...none, ...given }, offered, can);
      if (expected === null) assert.throws(choose, { sqlstate: "28000" });
      else assert.equal(choose(), expected);
    });
  }
});

describe("what goes in clear", () => {
  const socket = (remoteAddress?: string) => ({ remoteAddress }) as Socket;
  it("stays on this machine", () => {
    for (const address of [undefined, "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]) {
      assert.equal(isPrivate(socket(address)), true, address);
    }
    for (const address of ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0"]) {
      assert.equal(isPrivate(socket(address)), false, address);
    }
  });
});
