// Errors as they stand on the wire: a stable text, a number, one sentence.
const NUMBERS = new Map([
    ["PAL-NOT-FOUND", -32601],
    ["PAL-PARAMS", -32602],
    ["PAL-USAGE", -32602],
    ["PAL-MANIFEST", -32602],
    ["PAL-INTERNAL", -32603],
    ["PAL-DENIED", -32001],
    ["PAL-RATE", -32002],
    ["PAL-CONFLICT", -32003],
    ["PAL-DEADLINE", -32004],
    ["PAL-CANCELLED", -32005],
    ["PAL-LIMIT", -32006],
    ["PAL-PLUGIN", -32007],
    ["PAL-PROTOCOL", -32008],
    ["PAL-CRASHED", -32009],
    ["PAL-POLICY-KILL", -32010],
    ["PAL-NO-BACKEND", -32011],
    ["PAL-RECORD", -32012],
    ["PAL-UNAVAILABLE", -32013],
]);
// The host cuts at 2000 characters; a longer text would only cost room.
const MAX_TEXT = 2000;
/**
 * A request failed. Requests to the host reject with it; throw it in a handler to answer with it.
 *
 * Match on `code`, never on `message`. Of a plugin's errors the host believes PAL-NOT-FOUND,
 * PAL-PARAMS, PAL-CONFLICT, PAL-CANCELLED and PAL-UNAVAILABLE; any other counts as PAL-PLUGIN.
 */
export class PalisadeError extends Error {
    name = "PalisadeError";
    code;
    rule;
    hint;
    /** Seconds. */
    retryAfter;
    constructor(code, message, details = {}) {
        super(message);
        this.code = code;
        this.rule = details.rule;
        this.hint = details.hint;
        this.retryAfter = details.retryAfter;
    }
    /** The JSON-RPC error object. */
    toWire() {
        const data = { code: this.code };
        if (this.rule !== undefined)
            data.rule = cut(this.rule);
        if (this.hint !== undefined)
            data.hint = cut(this.hint);
        if (this.retryAfter !== undefined)
            data.retry_after_ms = Math.max(0, Math.round(this.retryAfter * 1000));
        return { code: NUMBERS.get(this.code) ?? -32000, message: cut(this.message), data };
    }
    /** Reads an error object; what has another shape than it should is left out. */
    static fromWire(error) {
        const { code: number, message, data } = record(error);
        const { code, rule, hint, retry_after_ms: wait } = record(data);
        const byNumber = [...NUMBERS].find(([, each]) => each === number)?.[0];
        return new PalisadeError(text(code) ?? byNumber ?? "PAL-INTERNAL", text(message) ?? "", {
            rule: text(rule),
            hint: text(hint),
            retryAfter: typeof wait === "number" ? wait / 1000 : undefined,
        });
    }
}
/** Thrown in a hook: what the hook is about shall not happen. `reason` is shown to people. */
export class Veto extends Error {
    name = "Veto";
    reason;
    constructor(reason) {
        super(reason);
        this.reason = cut(reason);
    }
}
/** What a failed handler is answered with. */
export function fromException(error) {
    if (error instanceof PalisadeError)
        return error;
    if (error instanceof Error) {
        return new PalisadeError("PAL-PLUGIN", error.message === "" ? error.name : `${error.name}: ${error.message}`);
    }
    return new PalisadeError("PAL-PLUGIN", String(error));
}
function record(value) {
    return typeof value === "object" && value !== null ? value : {};
}
function text(value) {
    return typeof value === "string" ? value : undefined;
}
/** At most MAX_TEXT characters, whole ones. */
function cut(value) {
    return value.length <= MAX_TEXT ? value : [...value.slice(0, MAX_TEXT * 2)].slice(0, MAX_TEXT).join("");
}
