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
