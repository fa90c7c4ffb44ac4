// A fake server and clients of it for each test, and what the tests look for.

import assert from "node:assert/strict";
import { afterEach, beforeEach } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { RustyDBClient } from "../src/index.js";
import { FakeServer, type Request } from "./fake.js";

/** The server of the test that runs. */
export let server: FakeServer;
/** Its clients, which are disconnected at its end. */
export let clients: RustyDBClient[];

export function useFakeServer(): void {
  beforeEach(async () => {
    server = await FakeServer.start();
    clients = [];
  });

  afterEach(async () => {
    // Most servers of these tests do not answer any more.
    for (const { socket } of server.peers) socket.destroy();
    await Promise.all(clients.map((client) => client.disconnect()));
    await server.stop();
  });
}

export function client(options = ""): RustyDBClient {
  const made = new RustyDBClient({ url: server.url(options) });
  clients.push(made);
  return made;
}

/** The requests, in order, as they come. */
export function recorded(answer: (request: Request) => void = () => undefined): Request[] {
  const requests: Request[] = [];
  server.onRequest = (request) => {
    requests.push(request);
    answer(request);
  };
  return requests;
}

export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (condition()) return;
    await sleep(10);
  }
  assert.fail(`waited in vain: ${what}`);
}

export const sqlOf = ({ message }: Request): string | undefined =>
  message.kind === "Query" ? message.value.sql : undefined;
