export interface ErrorDetails {
    /** What decided. The host drops it from a plugin's own errors. */
    rule?: string | undefined;
    /** What to do about it. */
    hint?: string | undefined;
    /** After how many seconds a retry can succeed. */
    retryAfter?: number | undefined;
}
/** The error object of JSON-RPC. */
export interface WireError {
    code: number;
    message: string;
    data: {
        code: string;
        rule?: string;
        hint?: string;
        retry_after_ms?: number;
    };
}
/**
 * A request failed. Requests to the host reject with it; throw it in a handler to answer with it.
 *
 * Match on `code`, never on `message`. Of a plugin's errors the host believes PAL-NOT-FOUND,
 * PAL-PARAMS, PAL-CONFLICT, PAL-CANCELLED and PAL-UNAVAILABLE; any other counts as PAL-PLUGIN.
 */
export declare class PalisadeError extends Error {
    readonly name = "PalisadeError";
    readonly code: string;
    readonly rule: string | undefined;
    readonly hint: string | undefined;
    /** Seconds. */
    readonly retryAfter: number | undefined;
    constructor(code: string, message: string, details?: ErrorDetails);
    /** The JSON-RPC error object. */
    toWire(): WireError;
    /** Reads an error object; what has another shape than it should is left out. */
    static fromWire(error: unknown): PalisadeError;
}
/** Thrown in a hook: what the hook is about shall not happen. `reason` is shown to people. */
export declare class Veto extends Error {
    readonly name = "Veto";
    readonly reason: string;
    constructor(reason: string);
}
/** What a failed handler is answered with. */
export declare function fromException(error: unknown): PalisadeError;
