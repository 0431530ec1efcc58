// The socket: lines in, lines out. This module knows frames, not what they mean.

import type { Socket } from "node:net";

import { PalisadeError } from "./errors.js";
import { FRAME_BYTES, closed } from "./json.js";

/** What may wait for the host to read before requests wait too. */
const QUEUE_BYTES = 8 << 20;
const SEND_MS = 30_000;
const LINE_BREAK = 0x0a;

/** Cuts a stream into lines. Copies each byte once or twice. */
export class Lines {
  #parts: Buffer[] = [];
  #size = 0;

  /** The lines that end in `data`. Throws where one is too long. */
  feed(data: Buffer): string[] {
    const lines: string[] = [];
    let start = 0;
    for (let end = data.indexOf(LINE_BREAK); end >= 0; end = data.indexOf(LINE_BREAK, start)) {
      this.#keep(data.subarray(start, end));
      const line = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts);
      this.#parts = [];
      this.#size = 0;
      start = end + 1;
      const text = line.toString();
      if (text !== "" && text !== "\r") lines.push(text);
    }
    if (start < data.length) this.#keep(data.subarray(start));
    return lines;
  }

  #keep(part: Buffer): void {
    this.#size += part.length;
    // One more: room for a \r.
    if (this.#size > FRAME_BYTES + 1) throw new Error(`a message is longer than ${FRAME_BYTES} bytes`);
    this.#parts.push(part);
  }
}

/** Frames over a Unix stream socket. */
export class Wire {
  readonly #socket: Socket;
  #closed = false;

  constructor(socket: Socket, onLine: (line: string) => void, onEnd: (breach?: unknown) => void) {
    this.#socket = socket;
    const lines = new Lines();
    const end = (breach?: unknown): void => {
      if (this.#closed) return;
      this.#closed = true;
      socket.destroy();
      onEnd(breach);
    };
    socket.on("data", (data: Buffer) => {
      try {
        for (const line of lines.feed(data)) {
          if (this.#closed) return;
          onLine(line);
        }
      } catch (e) {
        end(e);
      }
    });
    socket.on("end", () => end());
    socket.on("close", () => end());
    socket.on("error", () => end());
  }

  /** Whether the host keeps up. */
  get roomy(): boolean {
    return !this.#closed && this.#socket.writableLength < QUEUE_BYTES;
  }

  /** Sends a frame at once; what the socket does not take waits in its queue. */
  send(data: string): void {
    if (!this.#closed) this.#socket.write(data);
  }

  /** Resolves once the host keeps up, or fails with PAL-LIMIT, PAL-UNAVAILABLE. */
  async room(): Promise<void> {
    const deadline = Date.now() + SEND_MS;
    while (!this.roomy) {
      if (this.#closed) throw closed();
      if (Date.now() >= deadline) throw new PalisadeError("PAL-LIMIT", "the host does not read");
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Ends the connection once everything is sent. */
  close(): void {
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), 1000).unref();
  }
}
