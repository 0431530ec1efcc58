// sandbox-runtime as a library, in a node that runs already: for `launch_vs_srt.library`.
//
// Started with the package's folder, the settings file and the program. Says "ready" once the proxies run;
// then starts the program behind the sandbox for each line on stdin, and prints how long it took until its
// first output and until its end, in microseconds.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, settings, program] = process.argv.slice(2);
const { SandboxManager } = await import(pathToFileURL(`${folder}/dist/index.js`).href);
await SandboxManager.initialize(JSON.parse(readFileSync(settings, "utf8")));

function once() {
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint();
    const micros = () => Number(process.hrtime.bigint() - start) / 1000;
    SandboxManager.wrapWithSandbox(program).then((command) => {
      const child = spawn(command, { shell: true, stdio: ["ignore", "pipe", "inherit"] });
      let first, exit;
      child.stdout.on("data", () => (first ??= micros()));
      child.on("error", reject);
      child.on("exit", () => (exit = micros()));
      // After the exit, and after the last output.
      child.on("close", (status) => {
        SandboxManager.cleanupAfterCommand();
        resolve({ status, first: first ?? exit, exit });
      });
    }, reject);
  });
}

console.log("ready");
for await (const _ of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await once()));
}
await SandboxManager.reset();
process.exit(0);
