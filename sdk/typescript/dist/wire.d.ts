import type { Socket } from "node:net";
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
