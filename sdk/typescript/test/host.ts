// A host of one plugin, for tests: the other end of a socket, driven by hand.

import { createServer, connect, type Socket } from "node:net";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Plugin } from "../src/index.js";

type Message = { [name: string]: any };

/** Two connected sockets. Node has no socketpair. */
async function pair(): Promise<[Socket, Socket]> {
  const folder = mkdtempSync(join(tmpdir(), "palisade-test-"));
  const path = join(folder, "s");
  const server = createServer();
  try {
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const ours = connect(path);
    return [ours, await accepted];
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
}

export class FakeHost {
  readonly #socket: Socket;
  readonly #waiting: ((message: Message) => void)[] = [];
  readonly #arrived: Message[] = [];
  /** How `serve` ended. */
  readonly served: Promise<void>;
  initialized: Message = {};

  private constructor(socket: Socket, served: Promise<void>) {
    this.#socket = socket;
    this.served = served;
    let buffer = "";
    socket.setEncoding("utf8");
    socket.on("error", () => {});
    socket.on("data", (data: string) => {
      const lines = (buffer + data).split("\n");
      buffer = lines.pop()!;
      for (const line of lines) {
        const message = JSON.parse(line) as Message;
        const next = this.#waiting.shift();
        if (next) next(message);
        else this.#arrived.push(message);
      }
    });
  }

  static async start(plugin: Plugin): Promise<FakeHost> {
    const [ours, theirs] = await pair();
    const host = new FakeHost(ours, plugin.serve(theirs));
    host.served.catch(() => {});
    host.initialized = await host.ask(1, "initialize", { protocol: { min: 1, max: 1 } });
    return host;
  }

  send(message: Message): void {
    this.sendText(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
  }

  sendText(text: string): void {
    this.#socket.write(text);
  }

  next(): Promise<Message> {
    const message = this.#arrived.shift();
    return message ? Promise.resolve(message) : new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Sends a request and gives its answer; what comes before it is dropped. */
  async ask(id: number, method: string, params?: unknown): Promise<Message> {
    this.send({ id, method, params });
    for (;;) {
      const message = await this.next();
      if (message["id"] === id && !("method" in message)) return message;
    }
  }

  call(id: number, tool: string, args: object = {}): Promise<Message> {
    return this.ask(id, "call", { tool, args });
  }

  close(): void {
    this.#socket.destroy();
  }
}
