// What the end-to-end tests share: the server, names of their own, a proxy that can be cut.

import { once } from "node:events";
import * as net from "node:net";
import { randomBytes } from "node:crypto";
import { RustyDBClient, type ClientOptions } from "../src/index.js";
import { parseUrl } from "../src/options.js";

/** The server to test against; without it the tests are skipped. */
export const url = process.env["RUSTYDB_URL"];

export const skip = url === undefined ? "RUSTYDB_URL is not set" : false;

/** Names of tables and channels that no other run uses. */
export const own = (name: string): string => `js_${suffix}_${name}`;
const suffix = randomBytes(4).toString("hex");

export function connect(options: ClientOptions = {}): RustyDBClient {
  return new RustyDBClient({ url, ...options });
}

/** Passes bytes on to the server until it is told to cut all connections. */
export class Proxy {
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  /** Connections that came. */
  count = 0;

  private constructor(to: string) {
    const [target] = parseUrl(to).hosts!;
    this.#server = net.createServer((socket) => {
      this.count += 1;
      const onward = net.connect({ host: target!.host, port: target!.port ?? 5432 });
      for (const [from, to] of [[socket, onward], [onward, socket]] as const) {
        this.#sockets.add(from);
        from.on("error", () => undefined);
        from.on("close", () => {
          this.#sockets.delete(from);
          to.destroy();
        });
        from.pipe(to);
      }
    });
  }

  /** Passes on to the host of the connection string, from a port of this address. */
  static async start(to = url!, address = "127.0.0.1"): Promise<Proxy> {
    const proxy = new Proxy(to);
    proxy.#server.listen(0, address);
    await once(proxy.#server, "listening");
    return proxy;
  }

  /** Options that lead to the server through the proxy. */
  get options(): ClientOptions {
    const { address, port } = this.#server.address() as net.AddressInfo;
    return { host: address, port };
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }
}
