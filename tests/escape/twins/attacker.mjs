// The Node twin of the attacker; see attacker.py.
import child_process from "node:child_process";
import dgram from "node:dgram";
import fs from "node:fs";
import inspector from "node:inspector";
import net from "node:net";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { Worker, SHARE_ENV } from "node:worker_threads";

const OUTSIDE = process.argv.length > 2;
const TABLE = new Map();
const require = createRequire(import.meta.url);

class Blocked extends Error {}

function attempt(number, variant, name, control, run) {
  TABLE.set(`${number} ${variant}`, { number, variant, name, control, run });
}

function secret(params, data) {
  if (!params.secret || !data.toString().includes(params.secret)) throw new Blocked("not the secret");
  return "read";
}

function victim(params, work) {
  if (params.host_pid) return work(params.host_pid);
  const child = child_process.spawn("/bin/sleep", ["30"], { stdio: "ignore" });
  try {
    return work(child.pid);
  } finally {
    child.kill("SIGKILL");
  }
}

const connected = (options) => new Promise((done, failed) => {
  const socket = net.connect(options, () => { socket.destroy(); done("connected"); });
  socket.setTimeout(3000, () => { socket.destroy(); failed(new Blocked("no answer")); });
  socket.on("error", failed);
});

const worker = (code, data) => new Promise((done, failed) => {
  const thread = new Worker(code, { eval: true, workerData: data, env: SHARE_ENV });
  thread.on("message", done);
  thread.on("error", failed);
});

attempt(1, "secret", "readFileSync of a secret file of the host", "params", (p) => secret(p, fs.readFileSync(p.secret_path)));
attempt(1, "secret-worker", "the same in a worker thread", "params", async (p) => {
  const said = await worker(
    "const {parentPort, workerData} = require('worker_threads'); try { parentPort.postMessage({data: require('fs').readFileSync(workerData, 'utf8')}) } catch (e) { parentPort.postMessage({code: e.code}) }",
    p.secret_path);
  if (said.code) throw Object.assign(new Error("in the worker"), { code: said.code });
  return secret(p, said.data);
});
attempt(1, "secret-binding", "by the interpreter's own binding, without its fs module", "params", (p) => {
  const binding = process.binding("fs");
  const fd = binding.open(p.secret_path, 0, 0o666);
  return secret(p, fs.readFileSync(fd));
});
attempt(1, "require", "the secret as a module, quoted in the error", "params", (p) => {
  const copy = p.secret_path;
  try {
    require.extensions[".json"]({ exports: {} }, copy);
  } catch (e) {
    if (e.code === "ENOENT" || e.code === "EACCES") throw e;
    return secret(p, fs.readFileSync(copy));
  }
  throw new Blocked("no error");
});
attempt(2, "absolute", "create a file outside the grant", "params", (p) => {
  const file = `${p.outside_dir}/twin`;
  fs.writeFileSync(file, "", { flag: "wx" });
  fs.unlinkSync(file);
  return file;
});
attempt(2, "symlink", "write through a symlink planted in the grant", "params", (p) => {
  const link = `${p.granted}/twin-link`;
  fs.symlinkSync(p.outside_file, link);
  try {
    fs.closeSync(fs.openSync(link, "a"));
    return link;
  } finally {
    fs.unlinkSync(link);
  }
});
attempt(2, "report", "a diagnostic report outside the grant", "params", (p) => {
  const file = `${p.outside_dir}/twin-report`;
  try {
    process.report.writeReport(file);
    if (!fs.existsSync(file)) throw new Blocked("no report was written");
    return file;
  } finally {
    fs.rmSync(file, { force: true });
  }
});
attempt(8, "init-environ", "the environment of process 1", "root", () => fs.readFileSync("/proc/1/environ").length || "read");
attempt(8, "host-environ", "the environment of the host's process", "run", (p) => victim(p, (pid) => `${fs.readFileSync(`/proc/${pid}/environ`).length} bytes`));
attempt(8, "init-root", "/proc/1/root and the secret's path", "root+params", (p) => secret(p, fs.readFileSync("/proc/1/root" + p.secret_path)));
attempt(12, "setuid", "process.setuid(0)", "root", () => { process.setuid(0); return "uid 0"; });
attempt(28, "kill-host", "process.kill of the host's process", "run", (p) => victim(p, (pid) => { process.kill(pid, "SIGKILL"); return "sent"; }));
attempt(28, "inspect-host", "SIGUSR1, which opens an inspector in a Node host", "run", (p) => victim(p, (pid) => { process.kill(pid, "SIGUSR1"); return "sent"; }));
attempt(31, "path", "connect to a Unix socket of the host", "params", (p) => connected({ path: p.unix_path }));
attempt(32, "abstract", "connect to an abstract socket of the host", "params", (p) => connected({ path: "\0" + p.abstract }));
attempt(36, "tcp4", "TCP to a service of the host", "params", (p) => connected({ host: "127.0.0.1", port: p.tcp_port }));
attempt(36, "fetch", "fetch from a service of the host", "params", async (p) => {
  try {
    await fetch(`http://127.0.0.1:${p.tcp_port}/`, { signal: AbortSignal.timeout(2000) });
    return "answered";
  } catch (e) {
    const cause = e.cause ?? e;
    // An answer that is no HTTP is an answer.
    if (String(cause.code).startsWith("HPE_") || /parse|socket/i.test(cause.message) && !cause.errno) return "answered";
    throw cause;
  }
});
attempt(36, "udp4", "UDP to a service of the host", "params", (p) => new Promise((done, failed) => {
  const socket = dgram.createSocket("udp4");
  const end = (f, v) => { socket.close(); f(v); };
  socket.on("message", () => end(done, "answered"));
  socket.on("error", (e) => end(failed, e));
  socket.send("twin", p.udp_port, "127.0.0.1", (e) => { if (e) end(failed, e); });
  setTimeout(() => end(failed, new Blocked("no answer")), 1000).unref();
}));
attempt(36, "inspector", "open an inspector for the host's other programs", "run", () => {
  inspector.open(0, "127.0.0.1");
  const url = inspector.url();
  inspector.close();
  if (!url) throw new Blocked("no inspector");
  return url;
});
attempt(55, "shell", "child_process with a shell", "run", () => { child_process.execSync("true", { stdio: "ignore" }); return "a shell ran"; });
attempt(55, "spawn-binding", "the same by the interpreter's own binding", "run", () => {
  const { spawn } = process.binding("spawn_sync");
  const options = { file: "/bin/true", args: ["true"], envPairs: [], stdio: [{ type: "ignore" }, { type: "ignore" }, { type: "ignore" }] };
  const result = spawn(options);
  if (result.error) throw Object.assign(new Error("spawn"), { errno: result.error, code: os_name(result.error) });
  return "executed";
});
attempt(55, "copy-grant", "a copy of a program in the grant", "params", (p) => {
  const file = `${p.granted}/twin-program`;
  const source = OUTSIDE ? "/bin/true" : process.execPath;
  fs.copyFileSync(source, file);
  fs.chmodSync(file, 0o755);
  try {
    const result = child_process.spawnSync(file, OUTSIDE ? [] : ["-e", "0"], { env: {} });
    if (result.error) throw result.error;
    return "executed";
  } finally {
    fs.unlinkSync(file);
  }
});
attempt(55, "addon", "a native addon from the grant", "params", (p) => {
  const maps = fs.readFileSync("/proc/self/maps", "utf8");
  const source = maps.match(/\/\S*lib(?:m|c)\.so\S*/)?.[0];
  if (!source) throw new Blocked("no shared object to copy");
  const file = path.join(p.granted, "twin.node");
  fs.copyFileSync(source, file);
  try {
    process.dlopen({ exports: {} }, file);
    return "loaded";
  } catch (e) {
    // Loaded, and then found to be no addon.
    if (/self-register|not a valid|undefined symbol/.test(e.message)) return "loaded";
    throw new Blocked(e.message);
  } finally {
    fs.unlinkSync(file);
  }
});
attempt(55, "wasm", "pages of code made by WebAssembly", "run", () => {
  // (module (func (export "f") (result i32) i32.const 42))
  const bytes = Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 6, 1, 4, 0, 65, 42, 11]);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes));
  if (exports.f() !== 42) throw new Blocked("it did not run");
  return "made at run time";
});
attempt(56, "loader", "variables that change a loader or interpreter", "run", () => {
  if (OUTSIDE) process.env.NODE_OPTIONS = "--palisade";
  const bad = Object.keys(process.env).filter((n) => /^(LD_|NODE_OPTIONS|NODE_PATH|PYTHON|GCONV|BASH_ENV)/.test(n));
  if (!bad.length) throw new Blocked("none of them");
  return String(bad);
});
attempt(57, "environ-worker", "words of the launcher in a worker's environment", "run", async (p) => {
  const words = p.forbidden_values?.length ? p.forbidden_values : ["x"];
  if (OUTSIDE) process.env.WORD = words[0];
  const text = await worker("require('worker_threads').parentPort.postMessage(JSON.stringify(process.env))");
  if (!words.some((w) => text.includes(w))) throw new Blocked("none of them");
  return "found";
});
attempt(68, "set-id", "leave a set-id file in the grant", "params", (p) => {
  const file = `${p.granted}/twin-suid`;
  fs.writeFileSync(file, "");
  try {
    fs.chmodSync(file, 0o4755);
    return "left";
  } finally {
    fs.unlinkSync(file);
  }
});

function os_name(number) {
  return Object.entries(os.constants.errno).find(([, n]) => n === -number)?.[0];
}

async function make(number, variant, params) {
  const found = TABLE.get(`${number} ${variant}`);
  const outcome = { number, variant, errno: null, detail: "" };
  if (!found) return { ...outcome, outcome: "impossible", detail: "no such attempt" };
  try {
    return { ...outcome, outcome: "succeeded", detail: String(await found.run(params)) };
  } catch (e) {
    const code = typeof e.code === "string" && /^E[A-Z0-9]+$/.test(e.code) ? e.code : null;
    return { ...outcome, outcome: "blocked", errno: code, detail: String(e.message) };
  }
}

function serve() {
  const wire = new net.Socket({ fd: 3 });
  let rest = "";
  wire.setEncoding("utf8");
  wire.on("data", async (part) => {
    const lines = (rest + part).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const message = JSON.parse(line);
      if (message.id === undefined) continue;
      let result = {};
      if (message.method === "initialize") result = { protocol: 1 };
      if (message.method === "call") {
        const { number, variant, params } = message.params.args;
        result = await make(number, variant, params);
      }
      wire.write(JSON.stringify({ jsonrpc: "2.0", id: message.id, result }) + "\n");
      if (message.method === "shutdown") wire.end(() => process.exit(0));
    }
  });
  wire.on("end", () => process.exit(0));
}

if (!OUTSIDE) {
  serve();
} else if (process.argv[2] === "list") {
  const row = ({ number, variant, name, control }) => ({ number, variant, name, control, harmful: false, judge: "attacker" });
  console.log(JSON.stringify([...TABLE.values()].map(row)));
} else {
  console.log(JSON.stringify(await make(Number(process.argv[3]), process.argv[4], JSON.parse(process.argv[6]))));
  process.exit(0);
}
