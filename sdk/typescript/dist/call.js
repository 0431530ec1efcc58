// One request of the host while a handler works on it, and what a plugin and its transport ask of each other.
import { PalisadeError } from "./errors.js";
export const MAX_TIMER_MS = 2 ** 31 - 1;
/** One request of the host while a handler works on it. */
export class Call {
    /** The host's id of the request. */
    id;
    method;
    #abort = new AbortController();
    #notify;
    /** The SDK makes these. */
    constructor(id, method, notify) {
        this.id = id;
        this.method = method;
        this.#notify = notify;
    }
    /** Whether the host no longer wants the answer. */
    get cancelled() {
        return this.#abort.signal.aborted;
    }
    /** Aborted when the host no longer wants the answer; pass it on to whatever can be stopped. */
    get signal() {
        return this.#abort.signal;
    }
    /** Throws PAL-CANCELLED if the host no longer wants the answer. */
    check() {
        if (this.cancelled)
            throw new PalisadeError("PAL-CANCELLED", "cancelled");
    }
    /** Sleeps; ends early and gives true when cancelled. */
    wait(seconds) {
        return new Promise((resolve) => {
            const done = () => {
                clearTimeout(timer);
                this.signal.removeEventListener("abort", done);
                resolve(this.cancelled);
            };
            const timer = setTimeout(done, Math.min(seconds * 1000, MAX_TIMER_MS));
            if (this.cancelled)
                done();
            else
                this.signal.addEventListener("abort", done);
        });
    }
    /** Tells the host how far the work has come, in units of your choice. */
    progress(done, total, message) {
        this.#notify("$/progress", { id: this.id, done, total, message: message?.slice(0, 2000) });
    }
    /** Marks the call as not wanted. The SDK does this; a handler has no need to. */
    cancel() {
        this.#abort.abort(new PalisadeError("PAL-CANCELLED", "cancelled"));
    }
}
