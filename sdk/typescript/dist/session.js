// One connection with the host: who asked what, and who waits for which answer.
import { Call, MAX_TIMER_MS } from "./call.js";
import { PalisadeError, fromException } from "./errors.js";
import { closed, frame, toJson, wellFormed } from "./json.js";
import { isObject } from "./schema.js";
import { Wire } from "./wire.js";
const IN_FLIGHT = 256; // requests of ours; the host refuses more
const HOST_IN_FLIGHT = 1024; // requests of the host; the SDK refuses more
const GRACE_SHARE = 0.8; // of the grace of `shutdown` that running calls have
/** Serves one plugin over one socket, until the host closes it. */
export class Session {
    #plugin;
    #wire;
    #calls = new Map();
    #replies = new Map(); // null: nobody waits for it any more
    #ended;
    #finished; // a call ended, while shutdown waits for it
    #nextId = 1;
    #initialized = false;
    #stopping = false;
    #over = false;
    constructor(plugin, socket) {
        this.#plugin = plugin;
        let ended;
        this.#ended = new Promise((resolve, reject) => {
            ended = (breach) => {
                this.#onEnd();
                if (breach === undefined)
                    resolve();
                else
                    reject(breach);
            };
        });
        this.#wire = new Wire(socket, (line) => this.#onLine(line), (breach) => ended(breach));
    }
    /** Resolves when the host has closed; rejects when it broke the protocol. */
    get ended() {
        return this.#ended;
    }
    #onEnd() {
        this.#over = true;
        for (const reply of this.#replies.values())
            reply?.reject(closed());
        this.#replies.clear();
        for (const call of this.#calls.values())
            call.cancel();
        this.#finished?.();
    }
    // What comes in.
    #onLine(line) {
        const message = JSON.parse(line);
        if (!isObject(message))
            throw new Error("a message is not an object");
        const { id, method, params } = message;
        if (method === undefined) {
            this.#onAnswer(message);
        }
        else if (typeof method !== "string") {
            throw new Error("a method is not text");
        }
        else if (id === undefined) {
            if (method === "$/cancel" && isObject(params))
                this.#onCancel(params["id"]);
        }
        else if (typeof id !== "number" && typeof id !== "string") {
            throw new Error("an id is neither number nor text");
        }
        else {
            void this.#onRequest(id, method, params);
        }
    }
    #onAnswer(message) {
        const reply = this.#replies.get(message["id"]);
        this.#replies.delete(message["id"]);
        if ("error" in message)
            reply?.reject(PalisadeError.fromWire(message["error"]));
        else
            reply?.resolve(message["result"]);
    }
    #onCancel(id) {
        const call = this.#calls.get(id);
        if (call?.method !== "shutdown")
            call?.cancel();
    }
    async #onRequest(id, method, params) {
        if (method === "ping")
            return this.#answer(id, {});
        const refusal = this.#refusal(method);
        if (refusal !== undefined)
            return this.#answerError(id, refusal);
        const call = new Call(id, method, (name, about) => this.notify(name, about));
        this.#calls.set(id, call);
        if (method === "initialize")
            this.#initialized = true;
        try {
            if (method === "shutdown") {
                await this.#shutDown(call, params);
                this.#answer(id, {});
            }
            else {
                this.#answer(id, await this.#plugin.dispatch(call, method, params));
            }
        }
        catch (e) {
            // What was stopped by the signal may say so in words of its own.
            const cancelled = call.cancelled && !(e instanceof PalisadeError);
            if (!cancelled && !(e instanceof PalisadeError))
                console.error(e);
            this.#answerError(id, cancelled ? new PalisadeError("PAL-CANCELLED", "cancelled") : fromException(e));
        }
        finally {
            if (this.#calls.get(id) === call)
                this.#calls.delete(id);
            this.#finished?.();
        }
        if (method === "shutdown")
            setTimeout(() => this.#wire.close(), 1000).unref();
    }
    #refusal(method) {
        if (method === "initialize") {
            if (this.#initialized)
                return new PalisadeError("PAL-CONFLICT", "initialize came twice");
        }
        else if (!this.#initialized) {
            return new PalisadeError("PAL-CONFLICT", `${method.slice(0, 128)} came before initialize`);
        }
        else if (this.#stopping) {
            return new PalisadeError("PAL-UNAVAILABLE", "the plugin is shutting down");
        }
        if (this.#calls.size >= HOST_IN_FLIGHT) {
            return new PalisadeError("PAL-LIMIT", `more than ${HOST_IN_FLIGHT} requests in flight`);
        }
        return undefined;
    }
    async #shutDown(call, params) {
        this.#stopping = true;
        const grace = isObject(params) && typeof params["grace_ms"] === "number" ? params["grace_ms"] : 1000;
        const others = () => [...this.#calls.values()].filter((each) => each !== call);
        await new Promise((resolve) => {
            const timer = setTimeout(resolve, Math.min(grace * GRACE_SHARE, MAX_TIMER_MS));
            this.#finished = () => {
                if (others().length > 0 && !this.#over)
                    return;
                clearTimeout(timer);
                resolve();
            };
            this.#finished();
        });
        this.#finished = undefined;
        for (const other of others())
            other.cancel();
        await this.#plugin.stop();
    }
    // Answers.
    #answer(id, result) {
        let data;
        try {
            data = frame(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${toJson(result)}}`);
        }
        catch (e) {
            // The plugin's own fault, so not PAL-PARAMS: that would blame the caller.
            return this.#answerError(id, new PalisadeError("PAL-PLUGIN", `the result: ${e.message}`));
        }
        this.#wire.send(data);
    }
    #answerError(id, error) {
        const wire = error.toWire();
        wire.message = wellFormed(wire.message);
        if (wire.data.hint !== undefined)
            wire.data.hint = wellFormed(wire.data.hint);
        this.#wire.send(frame(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":${JSON.stringify(wire)}}`));
    }
    // What goes out.
    /** Sends a notification, unless it cannot be sent or the host does not keep up. */
    notify(method, params) {
        if (!this.#wire.roomy)
            return;
        try {
            this.#wire.send(frame(`{"jsonrpc":"2.0","method":"${method}","params":${toJson(params)}}`));
        }
        catch (e) {
            if (!(e instanceof PalisadeError))
                throw e;
        }
    }
    /** Asks the host. Rejects with PalisadeError. */
    async request(method, params, options = {}) {
        const { timeout = 30, signal } = options;
        const text = toJson(method === "http.fetch" ? packed(params) : params);
        if (!this.#wire.roomy)
            await this.#wire.room();
        if (signal?.aborted)
            throw new PalisadeError("PAL-CANCELLED", "cancelled");
        if (this.#over)
            throw closed();
        if (this.#replies.size >= IN_FLIGHT) {
            throw new PalisadeError("PAL-LIMIT", `more than ${IN_FLIGHT} requests in flight`);
        }
        const id = this.#nextId++;
        this.#wire.send(frame(`{"jsonrpc":"2.0","id":${id},"method":"${method}","params":${text}}`));
        let timer;
        let abort;
        try {
            const result = await new Promise((resolve, reject) => {
                this.#replies.set(id, { resolve, reject });
                if (timeout < Infinity) {
                    const late = new PalisadeError("PAL-DEADLINE", `${method}: no answer within ${timeout} s`);
                    timer = setTimeout(() => reject(late), Math.min(timeout * 1000, MAX_TIMER_MS));
                }
                abort = () => reject(new PalisadeError("PAL-CANCELLED", "cancelled"));
                signal?.addEventListener("abort", abort);
            });
            return method === "http.fetch" ? unpacked(result) : result;
        }
        finally {
            clearTimeout(timer);
            if (abort !== undefined)
                signal?.removeEventListener("abort", abort);
            if (this.#replies.has(id)) {
                this.#replies.set(id, null); // still in flight for the host, until it answers
                this.#wire.send(`{"jsonrpc":"2.0","method":"$/cancel","params":{"id":${id}}}\n`);
            }
        }
    }
}
/** Bytes stand in JSON as base64. */
function packed(params) {
    if (!isObject(params) || !(params["body"] instanceof Uint8Array))
        return params;
    const { body, ...rest } = params;
    return { ...rest, body_base64: Buffer.from(body).toString("base64") };
}
function unpacked(result) {
    if (!isObject(result) || typeof result["body_base64"] !== "string")
        return result;
    return { ...result, body: Buffer.from(result["body_base64"], "base64") };
}
