// One request of the host while a handler works on it, and what a plugin and its transport ask of each other.

import { PalisadeError } from "./errors.js";

export const MAX_TIMER_MS = 2 ** 31 - 1;

/** One request of the host while a handler works on it. */
export class Call {
  /** The host's id of the request. */
  readonly id: number | string;
  readonly method: string;
  readonly #abort = new AbortController();
  readonly #notify: (method: string, params: unknown) => void;

  /** The SDK makes these. */
  constructor(id: number | string, method: string, notify: (method: string, params: unknown) => void) {
    this.id = id;
    this.method = method;
    this.#notify = notify;
  }

  /** Whether the host no longer wants the answer. */
  get cancelled(): boolean {
    return this.#abort.signal.aborted;
  }

  /** Aborted when the host no longer wants the answer; pass it on to whatever can be stopped. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Throws PAL-CANCELLED if the host no longer wants the answer. */
  check(): void {
    if (this.cancelled) throw new PalisadeError("PAL-CANCELLED", "cancelled");
  }

  /** Sleeps; ends early and gives true when cancelled. */
  wait(seconds: number): Promise<boolean> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.signal.removeEventListener("abort", done);
        resolve(this.cancelled);
      };
      const timer = setTimeout(done, Math.min(seconds * 1000, MAX_TIMER_MS));
      if (this.cancelled) done();
      else this.signal.addEventListener("abort", done);
    });
  }

  /** Tells the host how far the work has come, in units of your choice. */
  progress(done: number, total?: number, message?: string): void {
    this.#notify("$/progress", { id: this.id, done, total, message: message?.slice(0, 2000) });
  }

  /** Marks the call as not wanted. The SDK does this; a handler has no need to. */
  cancel(): void {
    this.#abort.abort(new PalisadeError("PAL-CANCELLED", "cancelled"));
  }
}

/** How a request to the host is made. */
export interface RequestOptions {
  /** Deadline in seconds, 30 if not given; Infinity for none. */
  timeout?: number | undefined;
  /** Cancels the request; a call's `signal`, say. */
  signal?: AbortSignal | undefined;
}

/** What a session asks of the plugin. */
export interface Dispatcher {
  /** Handles any method but ping and shutdown. May throw, and may take its time. */
  dispatch(call: Call, method: string, params: unknown): unknown;
  /** Runs the stop handlers. */
  stop(): Promise<void>;
}

/** The way to the host. */
export interface Link {
  /** Asks the host. Rejects with PalisadeError. */
  request(method: string, params: unknown, options?: RequestOptions): Promise<unknown>;
  /** Sends a notification, unless it cannot be sent or the host does not keep up. */
  notify(method: string, params: unknown): void;
}
