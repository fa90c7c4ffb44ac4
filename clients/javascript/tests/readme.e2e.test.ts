// Every example of README.md, one after the other, as it stands there.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { connect, own, skip, url } from "./e2e.js";

const source = process.env["RUSTYDB_CLIENT_SOURCE"];

/** One module of all examples: imports first, each block in its scope, `client` in that of all. */
function moduleFrom(readme: string): string {
  const blocks = [...readme.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code!);
  assert.ok(blocks.length >= 10);
  const library = JSON.stringify(new URL("../src/index.js", import.meta.url).href);
  const imports = new Set<string>();
  const code = blocks.map((block) => {
    const body = block.replace(/^import \{ (.*?) \} from "@rustydb\/client";$/gm, (_, names) => {
      for (const name of (names as string).split(", ")) imports.add(name);
      return "";
    });
    return body.includes("const client =") ? body : `{\n${body}}\n`;
  });
  const options = /\{\n {2}host: [^}]*\}/;
  assert.match(code.join("\n"), options);
  return `import { ${[...imports].join(", ")} } from ${library};\n` +
    code.join("\n").replace(options, `{ url: ${JSON.stringify(url)} }`)
      .replaceAll("readme_account", own("account"))
      .replaceAll('"jobs"', JSON.stringify(own("jobs")))
      .replaceAll("'jobs'", `'${own("jobs")}'`);
}

describe("README.md", { skip: skip || (source === undefined && "no source") }, () => {
  it("its examples run, and print what they say", { timeout: 60_000 }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "rustydb-readme-"));
    const printed: string[] = [];
    t.mock.method(console, "log", (...values: unknown[]) => printed.push(values.join(" ")));
    try {
      const file = join(folder, "readme.mjs");
      writeFileSync(file, moduleFrom(readFileSync(join(source!, "README.md"), "utf8")));
      await import(pathToFileURL(file).href);
    } finally {
      rmSync(folder, { recursive: true });
      const client = connect();
      await client.execute(`drop table if exists ${own("account")}`);
      await client.disconnect();
    }
    const said = ["5000050000", "10000", "CANCELLED", "TIMEOUT", "SELECT", "pg_catalog"];
    for (const expected of said) {
      assert.ok(printed.includes(expected), `${expected} is not in\n${printed.join("\n")}`);
    }
    assert.ok(printed.some((line) => line.startsWith(`CONFLICT ${own("account")}_pkey`)));
  });
});
