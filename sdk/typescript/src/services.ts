// What the host does for a plugin by name: what it keeps, and requests to the web.

import { PalisadeError } from "./errors.js";
import { isObject } from "./schema.js";
import type { RequestOptions } from "./call.js";

type Ask = (method: string, params: unknown, options?: RequestOptions) => Promise<unknown>;
type Result = { [name: string]: any };

/** An entry of the storage. `ttl`: in how many seconds it expires; undefined: never. */
export interface Entry<T = any> {
  key: string;
  value: T;
  version: number;
  ttl: number | undefined;
}

/** What came of `compareAndSet`. */
export interface Compared {
  /** Whether it was written. */
  stored: boolean;
  /** The version that the entry has now; 0: there is none. */
  version: number;
}

export interface ListOptions extends RequestOptions {
  /** Go on after this key: the `next` of the listing before. */
  after?: string | undefined;
  /** Most entries, 1 to 1000; 100 if not given. */
  limit?: number | undefined;
  /** Whether values come with the keys, as they do if this is not given. */
  values?: boolean | undefined;
}

/** One page of a listing, in the order of the keys. */
export interface Listing<T = any> {
  entries: Entry<T>[];
  /** Where there are more: what to go on after. A page may be empty and yet have a next one. */
  next: string | undefined;
}

/** What came of a transaction: everything was done, or nothing was. */
export interface Transaction {
  committed: boolean;
  /** For each operation the version that its entry had then; 0: there was none. */
  versions: number[];
  /** Which operation, from 0, found another version than it named. */
  conflict: number | undefined;
  /** The version that it found. */
  found: number | undefined;
}

export interface SetOptions extends RequestOptions {
  /** Seconds after which what is set expires. */
  ttl?: number | undefined;
}

/** One operation of a transaction. With `version` only if the entry has it; 0: if there is none. */
export class Operation {
  readonly fields: { [name: string]: unknown };

  private constructor(fields: { [name: string]: unknown }) {
    this.fields = fields;
  }

  /** Writes a value. `ttl` is in seconds. */
  static set(key: string, value: unknown, about: { version?: number; ttl?: number } = {}): Operation {
    return new Operation({ op: "set", key, value: orNull(value), version: about.version, ttl_ms: ms(about.ttl) });
  }

  /** Deletes an entry, if there is one. */
  static delete(key: string, about: { version?: number } = {}): Operation {
    return new Operation({ op: "delete", key, version: about.version });
  }

  /** Does nothing but hold a version against the entry. */
  static check(key: string, version: number): Operation {
    return new Operation({ op: "check", key, version });
  }
}

/**
 * What the plugin keeps, under keys of its own. Each method needs the capability `storage.kv:KEY`.
 *
 * A key has 1 to 256 characters of `A-Z a-z 0-9 . _ - : / @ $ +`, a value is any JSON of at most 1 MiB.
 * What was acknowledged is on disk.
 */
export class Storage {
  readonly #ask: Ask;

  /** The SDK makes it. */
  constructor(ask: Ask) {
    this.#ask = ask;
  }

  /** The value of an entry; undefined where there is none. */
  async get<T = any>(key: string, options?: RequestOptions): Promise<T | undefined> {
    return (await this.entry<T>(key, options))?.value;
  }

  /** An entry with its version; undefined where there is none. */
  async entry<T = any>(key: string, options?: RequestOptions): Promise<Entry<T> | undefined> {
    const result = read("storage.get", await this.#ask("storage.get", { key }, options));
    return result["found"] === true ? entry<T>({ key, ...result }) : undefined;
  }

  /** Writes an entry, and gives its new version. */
  async set(key: string, value: unknown, { ttl, ...options }: SetOptions = {}): Promise<number> {
    const params = { key, value: orNull(value), ttl_ms: ms(ttl) };
    return read("storage.set", await this.#ask("storage.set", params, options))["version"];
  }

  /** Writes an entry if it has the version that was read before; 0: if there is none. */
  async compareAndSet(
    key: string,
    version: number,
    value: unknown,
    { ttl, ...options }: SetOptions = {},
  ): Promise<Compared> {
    const params = { key, version, value: orNull(value), ttl_ms: ms(ttl) };
    const method = "storage.compare_and_set";
    const result = read(method, await this.#ask(method, params, options));
    return { stored: result["stored"], version: result["version"] };
  }

  /** Deletes an entry, and gives whether there was one. */
  async delete(key: string, options?: RequestOptions): Promise<boolean> {
    return read("storage.delete", await this.#ask("storage.delete", { key }, options))["deleted"];
  }

  /** Entries whose key begins with `prefix`. */
  async list<T = any>(prefix = "", options: ListOptions = {}): Promise<Listing<T>> {
    const { after, limit, values = true, ...rest } = options;
    const result = read("storage.list", await this.#ask("storage.list", { prefix, after, limit, values }, rest));
    const entries: Result[] = Array.isArray(result["entries"]) ? result["entries"] : [];
    return { entries: entries.map((row) => entry<T>(row)), next: result["next"] };
  }

  /** Does several operations, 1 to 256: all or none. */
  async transaction(operations: readonly Operation[], options?: RequestOptions): Promise<Transaction> {
    const method = "storage.transaction";
    const params = { operations: operations.map(({ fields }) => fields) };
    const { committed, versions = [], conflict, found } = read(method, await this.#ask(method, params, options));
    return { committed, versions, conflict, found };
  }
}

export interface FetchOptions {
  /** `GET` if not given, with a body `POST`. */
  method?: string | undefined;
  headers?: { readonly [name: string]: string } | readonly (readonly [string, string])[] | undefined;
  /** At most 2 MiB. */
  body?: string | Uint8Array | undefined;
  /** Seconds that everything may take: at most 60; 30 if not given. */
  timeout?: number | undefined;
  /** Whether redirects are followed, as they are if this is not given. */
  redirect?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** An answer of the web, whichever its status: 404 is one. */
export class Response {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: readonly (readonly [string, string])[];
  /** The body, unpacked. */
  readonly body: Uint8Array;
  /** What was requested in the end. */
  readonly url: string;
  readonly redirects: number;

  /** The SDK makes it. */
  constructor(result: Result) {
    const { body = "" } = result;
    this.status = result["status"];
    this.headers = result["headers"] ?? [];
    this.body = typeof body === "string" ? new TextEncoder().encode(body) : body;
    this.url = result["url"];
    this.redirects = result["redirects"] ?? 0;
  }

  /** The first header field of this name. */
  header(name: string): string | undefined {
    const wanted = name.toLowerCase();
    return this.headers.find(([each]) => each === wanted)?.[1];
  }

  /** The body as text; what is not UTF-8 becomes U+FFFD. */
  text(): string {
    return new TextDecoder().decode(this.body);
  }

  /** The body as JSON. */
  json(): any {
    return JSON.parse(this.text());
  }
}

/**
 * Requests to the web. A plugin has no network of its own: the host makes them, where the capability
 * `net.http:HOST:PORT` was granted.
 */
export class Http {
  readonly #ask: Ask;

  /** The SDK makes it. */
  constructor(ask: Ask) {
    this.#ask = ask;
  }

  /** Makes a request. */
  async fetch(url: string, options: FetchOptions = {}): Promise<Response> {
    const { method, headers = [], body, timeout = 30, redirect, signal } = options;
    const list = Array.isArray(headers) ? headers : Object.entries(headers);
    const params = {
      url,
      method,
      headers: list.length > 0 ? list : undefined,
      body,
      timeout_ms: ms(timeout),
      redirect: redirect === false ? false : undefined,
    };
    // The host tells what took too long; this side only must not give up before it.
    const result = await this.#ask("http.fetch", params, { timeout: timeout + 2, signal });
    return new Response(read("http.fetch", result));
  }
}

function entry<T>({ key, value, version, ttl_ms }: Result): Entry<T> {
  return { key, value, version, ttl: typeof ttl_ms === "number" ? ttl_ms / 1000 : undefined };
}

function read(method: string, result: unknown): Result {
  if (isObject(result)) return result;
  throw new PalisadeError("PAL-INTERNAL", `the answer to ${method} is no object`);
}

function ms(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.round(seconds * 1000);
}

function orNull(value: unknown): unknown {
  return value === undefined ? null : value;
}
