// A plugin as a program: the protocol on a socket.

import { fstatSync } from "node:fs";
import { Socket } from "node:net";

import { Plugin as Base, attach } from "./plugin.js";
import { Session } from "./session.js";

/** A plugin. Add tools, events, hooks and commands, then `run`. */
export class Plugin extends Base {
  /**
   * Serves the host on the socket that Palisade opened, and ends the process when the host ends the
   * plugin. Started by hand with `--contributes`: prints what belongs in the manifest.
   */
  run(fd = 3): void {
    if (!isSocket(fd)) {
      if (process.argv.length === 3 && process.argv[2] === "--contributes") {
        console.log(JSON.stringify(this.contributes(), null, 2));
        return;
      }
      console.error(
        `This is a Palisade plugin: there is no socket on descriptor ${fd}. Start it with\n` +
          "  palisade run DIR\nor print what belongs in its manifest with --contributes.",
      );
      process.exit(1);
    }
    this.serve(new Socket({ fd, readable: true, writable: true })).then(
      () => process.exit(0),
      (e: Error) => {
        console.error(`palisade: the connection ended: ${e.message}`);
        process.exit(1);
      },
    );
  }

  /** As `run`, on a connected Unix stream socket, without ending the process. */
  async serve(socket: Socket): Promise<void> {
    const session = new Session(attach(this, undefined), socket);
    attach(this, session);
    try {
      await session.ended;
    } finally {
      attach(this, undefined);
    }
  }
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}
