// What the host does for a plugin by name: what it keeps, and requests to the web.
import { PalisadeError } from "./errors.js";
import { isObject } from "./schema.js";
/** One operation of a transaction. With `version` only if the entry has it; 0: if there is none. */
export class Operation {
    fields;
    constructor(fields) {
        this.fields = fields;
    }
    /** Writes a value. `ttl` is in seconds. */
    static set(key, value, about = {}) {
        return new Operation({ op: "set", key, value: orNull(value), version: about.version, ttl_ms: ms(about.ttl) });
    }
    /** Deletes an entry, if there is one. */
    static delete(key, about = {}) {
        return new Operation({ op: "delete", key, version: about.version });
    }
    /** Does nothing but hold a version against the entry. */
    static check(key, version) {
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
    #ask;
    /** The SDK makes it. */
    constructor(ask) {
        this.#ask = ask;
    }
    /** The value of an entry; undefined where there is none. */
    async get(key, options) {
        return (await this.entry(key, options))?.value;
    }
    /** An entry with its version; undefined where there is none. */
    async entry(key, options) {
        const result = read("storage.get", await this.#ask("storage.get", { key }, options));
        return result["found"] === true ? entry({ key, ...result }) : undefined;
    }
    /** Writes an entry, and gives its new version. */
    async set(key, value, { ttl, ...options } = {}) {
        const params = { key, value: orNull(value), ttl_ms: ms(ttl) };
        return read("storage.set", await this.#ask("storage.set", params, options))["version"];
    }
    /** Writes an entry if it has the version that was read before; 0: if there is none. */
    async compareAndSet(key, version, value, { ttl, ...options } = {}) {
        const params = { key, version, value: orNull(value), ttl_ms: ms(ttl) };
        const method = "storage.compare_and_set";
        const result = read(method, await this.#ask(method, params, options));
        return { stored: result["stored"], version: result["version"] };
    }
    /** Deletes an entry, and gives whether there was one. */
    async delete(key, options) {
        return read("storage.delete", await this.#ask("storage.delete", { key }, options))["deleted"];
    }
    /** Entries whose key begins with `prefix`. */
    async list(prefix = "", options = {}) {
        const { after, limit, values = true, ...rest } = options;
        const result = read("storage.list", await this.#ask("storage.list", { prefix, after, limit, values }, rest));
        const entries = Array.isArray(result["entries"]) ? result["entries"] : [];
        return { entries: entries.map((row) => entry(row)), next: result["next"] };
    }
    /** Does several operations, 1 to 256: all or none. */
    async transaction(operations, options) {
        const method = "storage.transaction";
        const params = { operations: operations.map(({ fields }) => fields) };
        const { committed, versions = [], conflict, found } = read(method, await this.#ask(method, params, options));
        return { committed, versions, conflict, found };
    }
}
/** An answer of the web, whichever its status: 404 is one. */
export class Response {
    status;
    /** Names in lower case. */
    headers;
    /** The body, unpacked. */
    body;
    /** What was requested in the end. */
    url;
    redirects;
    /** The SDK makes it. */
    constructor(result) {
        const { body = "" } = result;
        this.status = result["status"];
        this.headers = result["headers"] ?? [];
        this.body = typeof body === "string" ? new TextEncoder().encode(body) : body;
        this.url = result["url"];
        this.redirects = result["redirects"] ?? 0;
    }
    /** The first header field of this name. */
    header(name) {
        const wanted = name.toLowerCase();
        return this.headers.find(([each]) => each === wanted)?.[1];
    }
    /** The body as text; what is not UTF-8 becomes U+FFFD. */
    text() {
        return new TextDecoder().decode(this.body);
    }
    /** The body as JSON. */
    json() {
        return JSON.parse(this.text());
    }
}
/**
 * Requests to the web. A plugin has no network of its own: the host makes them, where the capability
 * `net.http:HOST:PORT` was granted.
 */
export class Http {
    #ask;
    /** The SDK makes it. */
    constructor(ask) {
        this.#ask = ask;
    }
    /** Makes a request. */
    async fetch(url, options = {}) {
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
function entry({ key, value, version, ttl_ms }) {
    return { key, value, version, ttl: typeof ttl_ms === "number" ? ttl_ms / 1000 : undefined };
}
function read(method, result) {
    if (isObject(result))
        return result;
    throw new PalisadeError("PAL-INTERNAL", `the answer to ${method} is no object`);
}
function ms(seconds) {
    return seconds === undefined ? undefined : Math.round(seconds * 1000);
}
function orNull(value) {
    return value === undefined ? null : value;
}
