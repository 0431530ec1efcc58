//! Plugins in Java and in the languages of shells, behind the real walls.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use palisade_model::{Guarantee, Level};
use palisade_process::{
    Options, ProcessBackend,
    filter::{self, Choice},
};
use palisade_sandbox::{Backend as _, ExitCause, Instance, Runtime, Wire, stream::ByteWire};
use palisade_seccomp::{Action, Arch, SeccompData, profiles::Profile};
use serde_json::{Value, json};
use support::{Bench, bench, call};
use tokio::io::AsyncReadExt as _;

fn process() -> ProcessBackend {
    ProcessBackend::new(Options::default())
}

/// Answers each line with one; the tool says what to try. JSON is taken apart by hand: the class library
/// has nothing for it.
const MAIN: &str = r#"
import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.util.concurrent.*;
import java.util.regex.*;

public class Main {
    static String attempt(String what) throws Exception {
        switch (what) {
            case "heap": return "" + Runtime.getRuntime().maxMemory();
            case "processors": return "" + Runtime.getRuntime().availableProcessors();
            case "version": return System.getProperty("java.specification.version");
            case "secret": return Files.readString(Path.of("/etc/shadow"));
            case "write": Files.writeString(Path.of("/plugin/x"), "x"); return "written";
            case "data": Files.writeString(Path.of("/data/x"), "x"); return Files.readString(Path.of("/data/x"));
            case "connect": new Socket().connect(new InetSocketAddress("10.1.2.3", 443), 1000); return "connected";
            case "run": return "" + new ProcessBuilder("/usr/bin/id").start().waitFor();
            case "profile": {
                var program = new ProcessBuilder("/plugin/profile").start();
                return new String(program.getInputStream().readAllBytes());
            }
            case "trust": {
                var store = java.security.KeyStore.getInstance(java.security.KeyStore.getDefaultType());
                var factory = javax.net.ssl.TrustManagerFactory.getInstance("PKIX");
                factory.init((java.security.KeyStore) null);
                return "" + ((javax.net.ssl.X509TrustManager) factory.getTrustManagers()[0]).getAcceptedIssuers().length;
            }
            case "threads": {
                // Compiled code, collectors and a pool: enough work for all of the machine's own threads.
                var pool = Executors.newFixedThreadPool(4);
                var sums = new java.util.ArrayList<Future<Long>>();
                for (int t = 0; t < 8; t++) {
                    sums.add(pool.submit(() -> {
                        long sum = 0;
                        for (int i = 0; i < 3_000_000; i++) { sum += new int[] {i}.length + i % 7; }
                        return sum;
                    }));
                }
                long all = 0;
                for (var sum : sums) { all += sum.get(); }
                System.gc();
                pool.shutdown();
                return "" + all;
            }
            case "fill": {
                var kept = new java.util.ArrayList<byte[]>();
                try { while (true) { kept.add(new byte[1 << 20]); } }
                catch (OutOfMemoryError e) { int n = kept.size(); kept.clear(); return "full at " + n; }
            }
            case "exit": System.exit(5);
            default: return "unknown";
        }
    }

    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in));
        var id = Pattern.compile("\"id\":\\s*([^,}]+)");
        var tool = Pattern.compile("\"tool\":\\s*\"([a-z]+)\"");
        for (String line; (line = in.readLine()) != null; ) {
            var whose = id.matcher(line);
            if (!whose.find()) continue;
            String answer;
            var what = tool.matcher(line);
            try { answer = what.find() ? attempt(what.group(1)) : "none"; }
            catch (Throwable e) { answer = "refused: " + e; }
            answer = answer.replaceAll("[\"\\\\\n]", " ");
            System.out.println("{\"id\":" + whose.group(1) + ",\"result\":\"" + answer + "\"}");
            System.out.flush();
        }
    }
}
"#;

/// Every Java of this machine: the one in PATH, and those where distributions put them.
fn javas() -> Vec<String> {
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let mut homes: Vec<PathBuf> = installed.map(|e| e.path()).filter(|p| !p.is_symlink()).collect();
    homes.sort();
    let full = homes.into_iter().map(|home| home.join("bin/java")).filter(|j| j.is_file());
    ["java".to_owned()].into_iter().chain(full.map(|j| j.display().to_string())).collect()
}

fn compiled() -> Option<PathBuf> {
    let is_there = |name: &str| Command::new(name).arg("-version").output().is_ok();
    if !is_there("javac") || !is_there("java") {
        // `cargo xtask test` installs it, and CI runs that.
        assert!(std::env::var_os("CI").is_none(), "in CI nothing may be skipped");
        eprintln!("SKIPPED: there is no Java development kit (default-jdk-headless)");
        return None;
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("java-plugin");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("Main.java"), MAIN).unwrap();
    let ok = |command: &mut Command| {
        let output = command.current_dir(&place).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    ok(Command::new("javac").args(["--release", "11", "Main.java"]));
    ok(Command::new("jar").args(["-c", "-f", "plugin.jar", "-e", "Main", "Main.class"]));
    Some(place.join("plugin.jar"))
}

fn java(command: &str, jar: &Path, args: &[&str]) -> Bench {
    let mut bench = bench(Runtime::Native, "plugin.jar", &fs::read(jar).unwrap());
    bench.artifact.program.file = command.to_owned();
    bench.artifact.program.args = args.iter().map(ToString::to_string).collect();
    bench.spec.wire = Wire::Jsonl(palisade_dialect::jsonl::Jsonl::default());
    bench
}

/// Calls that some profiles have and others do not, each with arguments that come to nothing. Whoever runs it
/// hands on its filter; it says which of them the kernel knows here.
const PROFILE: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    const struct { const char *name; long number; } calls[] = {
        {"io_setup", SYS_io_setup}, {"mq_open", SYS_mq_open},
        {"shmget", SYS_shmget}, {"remap_file_pages", SYS_remap_file_pages},
    };
    for (unsigned n = 0; n < 4; n++) {
        syscall(calls[n].number, 0L, 0L, 0L, 0L, 0L);
        if (errno != ENOSYS) printf("%s ", calls[n].name);
        errno = 0;
    }
    return 0;
}
"#;

/// What that program says under a profile's filter.
async fn calls_of(profile: Profile) -> String {
    let facts = process().probe().await;
    let memory_is_policed = facts.guarantees.level(Guarantee::MemoryCapped) < Level::Kernel;
    let cpu_is_policed = facts.guarantees.level(Guarantee::CpuCapped) < Level::Kernel;
    let choice = Choice { profile, memory_is_policed, cpu_is_policed, no_jit: false };
    let (policy, arch) = (filter::loaded(choice, false).unwrap(), Arch::native().unwrap());
    let names = ["io_setup", "mq_open", "shmget", "remap_file_pages"];
    let known = names.into_iter().filter(|name| {
        let call = SeccompData::call(arch, name, [0; 6]).unwrap();
        policy.decide(&call, arch) != Action::ENOSYS
    });
    known.collect::<Vec<_>>().join(" ")
}

/// Puts it into a plugin's folder.
fn add_profile(bench: &Bench) {
    let root = &bench.artifact.content.root;
    fs::write(root.join("profile.c"), PROFILE).unwrap();
    let compiled = Command::new("cc")
        .args(["-static", "-Wall", "-Werror", "-o"])
        .args([root.join("profile"), root.join("profile.c")])
        .status();
    assert!(compiled.expect("a C compiler").success());
}

/// The kernel has loaded a filter that the profile of compiled programs is wider than, and so is Python's.
/// Those of Java, shells and Node.js let the same calls pass: which name a runtime has is tested in
/// `src/filter.rs`.
async fn is_of(profile: Profile, said: &str) {
    assert_eq!(said.trim(), calls_of(profile).await, "{profile}");
    assert_ne!(said.trim(), calls_of(Profile::Native).await, "{profile} is not the native one");
}

#[tokio::test]
async fn a_compiled_plugin_has_the_widest_profile() {
    let mut bench = bench(Runtime::Native, "profile.c", PROFILE.as_bytes());
    add_profile(&bench);
    bench.artifact.program.file = "profile".into();
    let (wire, ends) = ByteWire::new();
    bench.spec.wire = Wire::Bytes(wire);
    let instance = bench.launch(&process()).await.unwrap();
    let (mut ends, mut said) = (ends.await.unwrap(), String::new());
    ends.from.read_to_string(&mut said).await.unwrap();
    assert_eq!(said.trim(), calls_of(Profile::Native).await);
    assert!(instance.wait().await.is_clean());
}

#[tokio::test]
async fn a_java_plugin_has_the_profile_of_java() {
    let Some(jar) = compiled() else { return };
    // Its own helper for starting programs is not among what is shown.
    let starting = "-Djdk.lang.Process.launchMechanism=VFORK";
    let bench = java("java", &jar, &[starting, "-jar", "plugin.jar"]);
    add_profile(&bench);
    let instance = bench.launch(&process()).await.unwrap();
    is_of(Profile::Jvm, &asked(&instance, "profile").await).await;
}

#[tokio::test]
async fn a_shell_plugin_has_the_profile_of_shells() {
    for first_line in ["#!/bin/sh", "#!/usr/bin/env bash"] {
        let script = format!("{first_line}\nattempt() {{\n/plugin/profile\n}}\n{LOOP}");
        let bench = bench(Runtime::Native, "plugin", script.as_bytes());
        add_profile(&bench);
        let instance = bench.launch(&process()).await.unwrap();
        is_of(Profile::Shell, &asked(&instance, "try").await).await;
    }
}

async fn asked(instance: &Arc<dyn Instance>, what: &str) -> String {
    let params = json!({"tool": what, "args": []}).to_string();
    let answer = call(instance, "call", &params).await;
    let value: Value = answer.unwrap_or_else(|e| panic!("{what}: {e}")).parse().unwrap();
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_java_plugin_runs_within_its_limits() {
    let Some(jar) = compiled() else { return };
    for command in javas() {
        let bench = java(&command, &jar, &["-jar", "plugin.jar"]);
        let instance = bench.launch(&process()).await.unwrap_or_else(|e| panic!("{command}: {e}"));
        let say = async |what: &str| asked(&instance, what).await;
        assert!(say("version").await.parse::<u32>().is_ok_and(|v| v >= 11));
        // Half of 256 MiB, less what the collector keeps for itself.
        let heap: u64 = say("heap").await.parse().unwrap();
        assert!((100 << 20..=128 << 20).contains(&heap), "{command}: a heap of {heap} bytes");
        assert_eq!(say("processors").await, "1");
        assert_eq!(say("data").await, "x");
        for forbidden in ["secret", "write", "connect", "run"] {
            let said = say(forbidden).await;
            assert!(said.starts_with("refused"), "{command}: {forbidden}: {said}");
        }
        assert!(say("trust").await.parse::<u32>().is_ok_and(|n| n > 10), "no certificates");
        assert!(say("threads").await.parse::<u64>().is_ok());
        // The heap is full before the wall is reached: Java's own error, and the plugin lives on.
        assert!(say("fill").await.starts_with("full at"), "{command}");
        assert_eq!(say("data").await, "x");
        let usage = instance.usage().await;
        assert!(usage.memory.is_some_and(|m| m < 256 << 20), "{usage:?}");
        let exit = instance.stop(Duration::from_secs(5)).await;
        assert!(exit.is_clean(), "{command}: {exit}");
    }
}

#[tokio::test]
async fn what_the_author_says_about_the_heap_wins() {
    let Some(jar) = compiled() else { return };
    let bench = java("java", &jar, &["-Xmx32m", "-cp", "/plugin/plugin.jar", "Main"]);
    let instance = bench.launch(&process()).await.unwrap();
    let heap: u64 = asked(&instance, "heap").await.parse().unwrap();
    assert!(heap <= 33 << 20, "{heap}");
    let ended = call(&instance, "call", r#"{"tool":"exit","args":[]}"#).await;
    assert!(ended.is_err());
    assert_eq!(instance.wait().await.cause, ExitCause::Exited(5));
}

#[tokio::test]
async fn a_folder_that_only_looks_like_java_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().canonicalize().unwrap().join("jdk/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy("/bin/true", bin.join("java")).unwrap();
    fs::set_permissions(bin.join("java"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut bench = bench(Runtime::Native, "plugin.jar", b"");
    bench.artifact.program.file = bin.join("java").display().to_string();
    let error = bench.launch(&process()).await.err().expect("no Java");
    assert!(error.to_string().contains("lib/modules"), "{error}");
}

/// The plugin's side of the wire in a shell: a line in, a line out. `try` is defined by the test.
const LOOP: &str = r#"
while IFS= read -r line <&3; do
  id=${line#*\"id\":}; id=${id%%,*}; id=${id%%\}*}
  case $line in
    *'"method":"shutdown"'*) printf '{"jsonrpc":"2.0","id":%s,"result":null}\n' "$id" >&3; exit 0 ;;
    *'"method":"call"'*) printf '{"jsonrpc":"2.0","id":%s,"result":"%s"}\n' "$id" "$(echo $(attempt 2>&1))" >&3 ;;
  esac
done
"#;

async fn shell(first_line: &str, attempt: &str, granted: &[&str]) -> String {
    let script = format!("{first_line}\nattempt() {{\n{attempt}\n}}\n{LOOP}");
    let mut bench = bench(Runtime::Native, "plugin", script.as_bytes());
    for program in granted {
        bench.grant(&format!("exec:{program}"));
    }
    let instance = bench.launch(&process()).await.unwrap_or_else(|e| panic!("{first_line}: {e}"));
    let answer = asked(&instance, "try").await;
    let exit = instance.stop(Duration::from_secs(5)).await;
    assert!(exit.is_clean(), "{first_line}: {exit}");
    answer
}

#[tokio::test]
async fn shell_scripts_run_with_the_tools_they_are_granted() {
    // Pipes, here-documents, substitutions, jobs, traps, arithmetic, files.
    let work = r#"
cd /data
cat > words <<END
pear
apple
END
printf 'fig\n' >> words
(sleep 0.05; echo late > late) & wait $!
(trap 'echo trapped > trap' EXIT)
n=$(sort words | head -n 2 | tr '\n' ',')
echo "$n$((6 * 7)) $(wc -l < words) $(cat late trap) $(cut -c 1-3 words | tail -n 1) $(id -u)""#;
    let tools = ["cat", "sleep", "sort", "head", "tr", "wc", "cut", "tail", "id"]
        .map(|t| format!("/usr/bin/{t}"));
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    for line in ["#!/bin/sh", "#!/bin/bash", "#!/usr/bin/env bash", "#!/usr/bin/dash -u"] {
        assert_eq!(
            shell(line, work, &tools).await,
            "apple,fig,42 3 late trapped fig 1000",
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_shell_sees_no_tool_that_it_was_not_granted() {
    let attempt = "command -v sort || echo none; cat /etc/shadow; echo x > /plugin/x";
    let said = shell("#!/bin/sh", attempt, &[]).await;
    assert!(said.starts_with("none"), "{said}");
    assert!(said.contains("cat: not found") && said.contains("/plugin/x"), "{said}");
    let with_cat =
        shell("#!/bin/bash", "cat /etc/shadow; echo > /dev/tcp/10.1.2.3/443", &["/usr/bin/cat"]);
    let said = with_cat.await;
    assert!(
        said.contains("No such file") && said.contains("/dev/tcp/10.1.2.3/443: Permission denied"),
        "{said}"
    );
}

#[tokio::test]
async fn bash_by_command_with_a_script_as_argument() {
    let script = format!(
        "attempt() {{ local -a a=(1 2 3); echo \"${{#a[@]}} ${{a[*]}} $BASH_VERSINFO\"; }}\n{LOOP}"
    );
    let mut bench = bench(Runtime::Native, "plugin.bash", script.as_bytes());
    bench.artifact.program.file = "bash".into();
    bench.artifact.program.args = vec!["plugin.bash".into()];
    let instance = bench.launch(&process()).await.unwrap();
    assert!(asked(&instance, "try").await.starts_with("3 1 2 3 "));
}
