import { Socket } from "node:net";
import { Plugin as Base } from "./plugin.js";
/** A plugin. Add tools, events, hooks and commands, then `run`. */
export declare class Plugin extends Base {
    /**
     * Serves the host on the socket that Palisade opened, and ends the process when the host ends the
     * plugin. Started by hand with `--contributes`: prints what belongs in the manifest.
     */
    run(fd?: number): void;
    /** As `run`, on a connected Unix stream socket, without ending the process. */
    serve(socket: Socket): Promise<void>;
}
