import type { Socket } from "node:net";
import { PalisadeError } from "./errors.js";
/** Longest message, without its line break. */
export declare const FRAME_BYTES: number;
/** Deepest nesting; the message itself is the first level. */
export declare const DEPTH_LEVELS = 64;
/** JSON text that may stand `inside` levels deep in a message; else PAL-PARAMS. */
export declare function toJson(value: unknown, inside?: number): string;
/** Halves of surrogate pairs become U+FFFD. For texts that must go out whatever they are. */
export declare function wellFormed(text: string): string;
/** A message as it is sent, or PAL-LIMIT. */
export declare function frame(text: string): string;
/** What a request fails with once the host is gone. */
export declare function closed(): PalisadeError;
/** Cuts a stream into lines. Copies each byte once or twice. */
export declare class Lines {
    #private;
    /** The lines that end in `data`. Throws where one is too long. */
    feed(data: Buffer): string[];
}
/** Frames over a Unix stream socket. */
export declare class Wire {
    #private;
    constructor(socket: Socket, onLine: (line: string) => void, onEnd: (breach?: unknown) => void);
    /** Whether the host keeps up. */
    get roomy(): boolean;
    /** Sends a frame at once; what the socket does not take waits in its queue. */
    send(data: string): void;
    /** Resolves once the host keeps up, or fails with PAL-LIMIT, PAL-UNAVAILABLE. */
    room(): Promise<void>;
    /** Ends the connection once everything is sent. */
    close(): void;
}
