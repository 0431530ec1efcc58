// JSON as texts that may be sent: what is too deep, too long or half a character is refused here, before it
// ends a connection.

import { PalisadeError } from "./errors.js";

/** Longest message, without its line break. */
export const FRAME_BYTES = 4 << 20;
/** Deepest nesting; the message itself is the first level. */
export const DEPTH_LEVELS = 64;
/** JSON text that may stand `inside` levels deep in a message; else PAL-PARAMS. */
export function toJson(value: unknown, inside = 1): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (e) {
    // RangeError: the stack ended before the nesting did.
    const why = e instanceof RangeError ? "nested too deep, or too long" : (e as Error).message;
    throw new PalisadeError("PAL-PARAMS", `not sendable: ${why}`);
  }
  text ??= "null"; // undefined and functions
  const levels = DEPTH_LEVELS - inside;
  // So many levels take two characters each.
  if (text.length > 2 * levels || text.includes("\\ud")) check(text, levels);
  return text;
}

/** Both would end the connection; better one failed request. */
function check(text: string, levels: number): void {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) {
      // A string: to its end.
      for (i++; text.charCodeAt(i) !== 0x22; i++) {
        if (text.charCodeAt(i) !== 0x5c) continue;
        i++;
        // JSON.stringify escapes a surrogate only if it stands alone.
        if (text.charCodeAt(i) === 0x75 && /^d[89a-f]/.test(text.substring(i + 1, i + 3))) {
          throw new PalisadeError("PAL-PARAMS", "not sendable: half a surrogate pair");
        }
      }
    } else if (c === 0x7b || c === 0x5b) {
      if (++depth > levels) {
        throw new PalisadeError("PAL-PARAMS", `not sendable: nested more than ${levels} deep`);
      }
    } else if (c === 0x7d || c === 0x5d) {
      depth--;
    }
  }
}

/** Halves of surrogate pairs become U+FFFD. For texts that must go out whatever they are. */
export function wellFormed(text: string): string {
  return new TextDecoder().decode(new TextEncoder().encode(text));
}

/** A message as it is sent, or PAL-LIMIT. */
export function frame(text: string): string {
  if (text.length > FRAME_BYTES || (text.length > FRAME_BYTES / 3 && new TextEncoder().encode(text).length > FRAME_BYTES)) {
    throw new PalisadeError("PAL-LIMIT", `the message is longer than ${FRAME_BYTES} bytes`);
  }
  return text + "\n";
}

/** What a request fails with once the host is gone. */
export function closed(): PalisadeError {
  return new PalisadeError("PAL-UNAVAILABLE", "the connection with the host is closed");
}
