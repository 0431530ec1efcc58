import type { RequestOptions } from "./call.js";
type Ask = (method: string, params: unknown, options?: RequestOptions) => Promise<unknown>;
type Result = {
    [name: string]: any;
};
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
export declare class Operation {
    readonly fields: {
        [name: string]: unknown;
    };
    private constructor();
    /** Writes a value. `ttl` is in seconds. */
    static set(key: string, value: unknown, about?: {
        version?: number;
        ttl?: number;
    }): Operation;
    /** Deletes an entry, if there is one. */
    static delete(key: string, about?: {
        version?: number;
    }): Operation;
    /** Does nothing but hold a version against the entry. */
    static check(key: string, version: number): Operation;
}
/**
 * What the plugin keeps, under keys of its own. Each method needs the capability `storage.kv:KEY`.
 *
 * A key has 1 to 256 characters of `A-Z a-z 0-9 . _ - : / @ $ +`, a value is any JSON of at most 1 MiB.
 * What was acknowledged is on disk.
 */
export declare class Storage {
    #private;
    /** The SDK makes it. */
    constructor(ask: Ask);
    /** The value of an entry; undefined where there is none. */
    get<T = any>(key: string, options?: RequestOptions): Promise<T | undefined>;
    /** An entry with its version; undefined where there is none. */
    entry<T = any>(key: string, options?: RequestOptions): Promise<Entry<T> | undefined>;
    /** Writes an entry, and gives its new version. */
    set(key: string, value: unknown, { ttl, ...options }?: SetOptions): Promise<number>;
    /** Writes an entry if it has the version that was read before; 0: if there is none. */
    compareAndSet(key: string, version: number, value: unknown, { ttl, ...options }?: SetOptions): Promise<Compared>;
    /** Deletes an entry, and gives whether there was one. */
    delete(key: string, options?: RequestOptions): Promise<boolean>;
    /** Entries whose key begins with `prefix`. */
    list<T = any>(prefix?: string, options?: ListOptions): Promise<Listing<T>>;
    /** Does several operations, 1 to 256: all or none. */
    transaction(operations: readonly Operation[], options?: RequestOptions): Promise<Transaction>;
}
export interface FetchOptions {
    /** `GET` if not given, with a body `POST`. */
    method?: string | undefined;
    headers?: {
        readonly [name: string]: string;
    } | readonly (readonly [string, string])[] | undefined;
    /** At most 2 MiB. */
    body?: string | Uint8Array | undefined;
    /** Seconds that everything may take: at most 60; 30 if not given. */
    timeout?: number | undefined;
    /** Whether redirects are followed, as they are if this is not given. */
    redirect?: boolean | undefined;
    signal?: AbortSignal | undefined;
}
/** An answer of the web, whichever its status: 404 is one. */
export declare class Response {
    readonly status: number;
    /** Names in lower case. */
    readonly headers: readonly (readonly [string, string])[];
    /** The body, unpacked. */
    readonly body: Uint8Array;
    /** What was requested in the end. */
    readonly url: string;
    readonly redirects: number;
    /** The SDK makes it. */
    constructor(result: Result);
    /** The first header field of this name. */
    header(name: string): string | undefined;
    /** The body as text; what is not UTF-8 becomes U+FFFD. */
    text(): string;
    /** The body as JSON. */
    json(): any;
}
/**
 * Requests to the web. A plugin has no network of its own: the host makes them, where the capability
 * `net.http:HOST:PORT` was granted.
 */
export declare class Http {
    #private;
    /** The SDK makes it. */
    constructor(ask: Ask);
    /** Makes a request. */
    fetch(url: string, options?: FetchOptions): Promise<Response>;
}
export {};
