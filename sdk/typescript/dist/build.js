#!/usr/bin/env node
// Makes a WebAssembly component of a plugin: `node build.js [MAIN] [-w WORLD.wit] [-o FILE]`.
// @bytecodealliance/componentize-js does the work; it is the plugin's own development dependency.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, extname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
const HERE = dirname(fileURLToPath(import.meta.url));
const COMPILER = "@bytecodealliance/componentize-js";
function main(args) {
    const given = { source: "src/main.js", world: "world.wit", output: "plugin.wasm" };
    for (let i = 0; i < args.length; i++) {
        const name = { "-w": "world", "-o": "output" }[args[i]];
        if (name === undefined)
            given.source = args[i];
        else
            given[name] = args[++i] ?? "";
    }
    return given;
}
/** The world with what it refers to, in one text: the packages stand in blocks of their own. */
function witOf(world) {
    const folder = [join(HERE, "wit"), join(HERE, "../wit")].find(existsSync);
    const files = readdirSync(folder).filter((name) => extname(name) === ".wit").sort();
    const texts = files.map((name) => readFileSync(join(folder, name), "utf8"));
    const declared = /^package (palisade:plugin@[0-9.]+);$/m;
    const name = texts.map((text) => declared.exec(text)?.[1]).find((found) => found !== undefined);
    const body = texts.map((text) => text.replace(declared, "").replaceAll(/^\/\/\/.*$/gm, "")).join("\n");
    return `${readFileSync(world, "utf8")}\npackage ${name} {\n${body}\n}\n`;
}
/** The interfaces of palisade:plugin that a world imports. */
function importsOf(world) {
    const text = readFileSync(world, "utf8").replaceAll(/\/\/.*$/gm, "");
    return [...text.matchAll(/\bimport\s+palisade:plugin\/([a-z-]+)@[0-9.]+\s*;/g)].map((found) => found[1]);
}
/** Copies a plugin's modules; `@palisade/plugin` becomes the SDK for components. */
function stage(from, to, sdk) {
    mkdirSync(to, { recursive: true });
    for (const entry of readdirSync(from, { withFileTypes: true })) {
        const [source, target] = [join(from, entry.name), join(to, entry.name)];
        if (entry.isDirectory()) {
            if (entry.name !== "node_modules")
                stage(source, target, sdk);
        }
        else if ([".js", ".mjs"].includes(extname(entry.name))) {
            const path = relative(to, sdk).split(sep).join("/");
            const text = readFileSync(source, "utf8");
            writeFileSync(target, text.replaceAll(/(["'])@palisade\/plugin\1/g, `"${path}"`));
        }
    }
}
async function build({ source, world, output }) {
    const work = mkdtempSync(join(tmpdir(), "palisade-"));
    try {
        const sdk = join(work, "sdk");
        mkdirSync(sdk);
        const modules = ["call", "component", "errors", "json", "names", "plugin", "schema", "services"];
        for (const name of modules)
            cpSync(join(HERE, `${name}.js`), join(sdk, `${name}.js`));
        stage(dirname(resolve(source)), join(work, "app"), join(sdk, "component.js"));
        const names = importsOf(world);
        const entry = [
            ...names.map((name, i) => `import * as i${i} from "palisade:plugin/${name}@0.1.0";`),
            `import { component } from "./sdk/component.js";`,
            `import "./app/${relative(dirname(resolve(source)), resolve(source))}";`,
            `const made = component({ ${names.map((name, i) => `"${name}": i${i}`).join(", ")} });`,
            `export const { guest, events, hooks, commands, configure, state, shutdown } = made;`,
        ];
        writeFileSync(join(work, "entry.js"), entry.join("\n"));
        const { componentize } = await import(COMPILER);
        const { component } = await componentize({
            sourcePath: join(work, "entry.js"),
            witWorld: witOf(world),
            disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
        });
        writeFileSync(output, component);
    }
    finally {
        rmSync(work, { recursive: true });
    }
}
const given = main(process.argv.slice(2));
for (const path of [given.source, given.world]) {
    if (!existsSync(path)) {
        console.error(`there is no ${path}\nusage: node build.js [MAIN.js] [-w WORLD.wit] [-o FILE.wasm]`);
        process.exit(2);
    }
}
await build(given);
