/**
 * As `index`, for a plugin that is a WebAssembly component: Palisade calls what it exports, and it calls
 * what it imports. `build.js` puts this in the place of `@palisade/plugin`.
 */
import { Plugin as Base } from "./plugin.js";
export * from "./names.js";
/** What the world imports: the bindings of each interface by its name. */
type Imports = {
    [name: string]: any;
};
type Params = {
    [name: string]: any;
};
/** A plugin. Add tools, events, hooks and commands, then `run`. */
export declare class Plugin extends Base {
    /** Makes it the plugin of this component. */
    run(): void;
}
/** The functions that answer for the handler interfaces, for the plugin that was run. */
export declare function component(imports: Imports): Params;
