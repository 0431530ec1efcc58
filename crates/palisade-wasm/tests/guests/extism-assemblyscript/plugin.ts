// An Extism plugin in AssemblyScript, as its PDK wants it: input, output, variables, configuration, log.
import { Config, Host, LogLevel, Var } from "@extism/as-pdk";

function stop(message: string | null, file: string | null, line: u32, column: u32): void {
  Host.log(LogLevel.Error, message === null ? "no message" : message);
  unreachable();
}

export function reverse(): i32 {
  Host.outputString(Host.inputString().split("").reverse().join(""));
  return 0;
}

export function echo(): void {
  Host.output(Host.input());
}

export function remember(): i32 {
  const before = Var.getString("last");
  Var.set("last", Host.input());
  Host.outputString(before === null ? "nothing" : before);
  return 0;
}

export function greeting(): i32 {
  const greeting = Config.get("greeting");
  Host.log(LogLevel.Info, "greeting " + Host.inputString());
  Host.outputString((greeting === null ? "Hello" : greeting) + ", " + Host.inputString());
  return 0;
}

export function fails(): i32 {
  return 7;
}

export function aborts(): i32 {
  throw new Error("out of ideas");
}
