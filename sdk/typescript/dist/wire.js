// The socket: lines in, lines out. This module knows frames, not what they mean.
import { PalisadeError } from "./errors.js";
/** Longest message, without its line break. */
export const FRAME_BYTES = 4 << 20;
/** Deepest nesting; the message itself is the first level. */
export const DEPTH_LEVELS = 64;
/** What may wait for the host to read before requests wait too. */
const QUEUE_BYTES = 8 << 20;
const SEND_MS = 30_000;
const LINE_BREAK = 0x0a;
/** JSON text that may stand `inside` levels deep in a message; else PAL-PARAMS. */
export function toJson(value, inside = 1) {
    let text;
    try {
        text = JSON.stringify(value);
    }
    catch (e) {
        // RangeError: the stack ended before the nesting did.
        const why = e instanceof RangeError ? "nested too deep, or too long" : e.message;
        throw new PalisadeError("PAL-PARAMS", `not sendable: ${why}`);
    }
    text ??= "null"; // undefined and functions
    const levels = DEPTH_LEVELS - inside;
    // So many levels take two characters each.
    if (text.length > 2 * levels || text.includes("\\ud"))
        check(text, levels);
    return text;
}
/** Both would end the connection; better one failed request. */
function check(text, levels) {
    let depth = 0;
    for (let i = 0; i < text.length; i++) {
        const c = text.charCodeAt(i);
        if (c === 0x22) {
            // A string: to its end.
            for (i++; text.charCodeAt(i) !== 0x22; i++) {
                if (text.charCodeAt(i) !== 0x5c)
                    continue;
                i++;
                // JSON.stringify escapes a surrogate only if it stands alone.
                if (text.charCodeAt(i) === 0x75 && /^d[89a-f]/.test(text.substring(i + 1, i + 3))) {
                    throw new PalisadeError("PAL-PARAMS", "not sendable: half a surrogate pair");
                }
            }
        }
        else if (c === 0x7b || c === 0x5b) {
            if (++depth > levels) {
                throw new PalisadeError("PAL-PARAMS", `not sendable: nested more than ${levels} deep`);
            }
        }
        else if (c === 0x7d || c === 0x5d) {
            depth--;
        }
    }
}
/** Halves of surrogate pairs become U+FFFD. For texts that must go out whatever they are. */
export function wellFormed(text) {
    return Buffer.from(text).toString();
}
/** A message as it is sent, or PAL-LIMIT. */
export function frame(text) {
    if (text.length > FRAME_BYTES || (text.length > FRAME_BYTES / 3 && Buffer.byteLength(text) > FRAME_BYTES)) {
        throw new PalisadeError("PAL-LIMIT", `the message is longer than ${FRAME_BYTES} bytes`);
    }
    return text + "\n";
}
/** What a request fails with once the host is gone. */
export function closed() {
    return new PalisadeError("PAL-UNAVAILABLE", "the connection with the host is closed");
}
/** Cuts a stream into lines. Copies each byte once or twice. */
export class Lines {
    #parts = [];
    #size = 0;
    /** The lines that end in `data`. Throws where one is too long. */
    feed(data) {
        const lines = [];
        let start = 0;
        for (let end = data.indexOf(LINE_BREAK); end >= 0; end = data.indexOf(LINE_BREAK, start)) {
            this.#keep(data.subarray(start, end));
            const line = this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts);
            this.#parts = [];
            this.#size = 0;
            start = end + 1;
            const text = line.toString();
            if (text !== "" && text !== "\r")
                lines.push(text);
        }
        if (start < data.length)
            this.#keep(data.subarray(start));
        return lines;
    }
    #keep(part) {
        this.#size += part.length;
        // One more: room for a \r.
        if (this.#size > FRAME_BYTES + 1)
            throw new Error(`a message is longer than ${FRAME_BYTES} bytes`);
        this.#parts.push(part);
    }
}
/** Frames over a Unix stream socket. */
export class Wire {
    #socket;
    #closed = false;
    constructor(socket, onLine, onEnd) {
        this.#socket = socket;
        const lines = new Lines();
        const end = (breach) => {
            if (this.#closed)
                return;
            this.#closed = true;
            socket.destroy();
            onEnd(breach);
        };
        socket.on("data", (data) => {
            try {
                for (const line of lines.feed(data)) {
                    if (this.#closed)
                        return;
                    onLine(line);
                }
            }
            catch (e) {
                end(e);
            }
        });
        socket.on("end", () => end());
        socket.on("close", () => end());
        socket.on("error", () => end());
    }
    /** Whether the host keeps up. */
    get roomy() {
        return !this.#closed && this.#socket.writableLength < QUEUE_BYTES;
    }
    /** Sends a frame at once; what the socket does not take waits in its queue. */
    send(data) {
        if (!this.#closed)
            this.#socket.write(data);
    }
    /** Resolves once the host keeps up, or fails with PAL-LIMIT, PAL-UNAVAILABLE. */
    async room() {
        const deadline = Date.now() + SEND_MS;
        while (!this.roomy) {
            if (this.#closed)
                throw closed();
            if (Date.now() >= deadline)
                throw new PalisadeError("PAL-LIMIT", "the host does not read");
            await new Promise((resolve) => setTimeout(resolve, 10));
        }
    }
    /** Ends the connection once everything is sent. */
    close() {
        this.#socket.end();
        setTimeout(() => this.#socket.destroy(), 1000).unref();
    }
}
