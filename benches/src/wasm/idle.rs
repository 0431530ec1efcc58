//! `rss_per_idle_instance`: what one more instance costs this machine in memory when it has been called
//! once and does nothing.
//!
//! Resident set and page tables (`VmRSS` and `VmPTE` of `/proc/self/status`, proc(5)) of a process of its
//! own for each side. Pages that several instances map are counted for each of them. Sizes and limits
//! of this machine (`vm.max_map_count`) are read, not assumed.

use std::{
    process::{Command, ExitCode},
    sync::Arc,
};

use palisade_sandbox::Instance;
use serde::{Deserialize, Serialize};

use super::{
    check,
    extism::{Compiled, Extism},
    guests::Guests,
    message, on,
    ours::{Folder, ask, backend, initialize},
};
use crate::{
    plugin::Result,
    report::{Row, Samples},
};

/// What this program is started with to be the process of one side; the side and the number follow.
pub(crate) const ARGUMENT: &str = "--wasm-idle";

/// Idle instances to be held.
const INSTANCES: u32 = 10_000;
/// Instances that are made first and are on neither side of the subtraction: what is there once.
const FIRST: u32 = 16;
const AIM_KIB: f64 = 64.0;

/// What the process of one side found.
#[derive(Serialize, Deserialize)]
struct Found {
    /// Instances that were held at the end.
    instances: u32,
    /// KiB for each of them: resident set and page tables.
    kib: f64,
    /// Of these, page tables.
    tables_kib: f64,
    /// Mappings for each of them.
    maps: f64,
    /// Mappings of the whole process at the end.
    all_maps: f64,
    /// Why there is not one more.
    refusal: Option<String>,
}

/// KiB of resident set, KiB of page tables, and mappings.
struct Now(f64, f64, f64);

impl Now {
    fn look() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let line = line.ok_or_else(|| format!("no {name} in /proc/self/status"))?;
            Ok(line.trim().trim_end_matches("kB").trim().parse()?)
        };
        let maps = std::fs::read_to_string("/proc/self/maps")?.lines().count();
        Ok(Self(field("VmRSS:")?, field("VmPTE:")?, maps as f64))
    }

    fn each(&self, before: &Self, instances: u32, refusal: Option<String>) -> Found {
        let each = |before: f64, after: f64| (after - before) / f64::from(instances);
        let tables_kib = each(before.1, self.1);
        let kib = each(before.0, self.0) + tables_kib;
        let maps = each(before.2, self.2);
        Found { instances, kib, tables_kib, maps, all_maps: self.2, refusal }
    }
}

/// Ours: as many as were asked for, and one more than the limit, which must be refused.
async fn ours(count: u32) -> Result<Found> {
    let guests = Guests::build()?;
    let text = message(64);
    let folder = Folder::new(&guests.component)?;
    let backend = backend(count + FIRST, &folder.state());
    let prepared = folder.prepare(&backend).await?;
    let mut held: Vec<Arc<dyn Instance>> = Vec::with_capacity((count + FIRST) as usize);
    let mut before = Now::look()?;
    for made in 0..count + FIRST {
        if made == FIRST {
            before = Now::look()?;
        }
        // What the kernel allows in mappings may be less than was asked for: then the limit is met earlier.
        let instance = match folder.launch(&*prepared).await {
            Ok(instance) => instance,
            Err(_) if made > FIRST => break,
            Err(error) => return Err(error),
        };
        initialize(&instance).await?;
        check(ask(&instance, text).await?.bytes(), text)?;
        held.push(instance);
    }
    let after = Now::look()?;
    let Err(refusal) = folder.launch(&*prepared).await else {
        return Err("one instance more than the limit was made".into());
    };
    if refusal.to_string().is_empty() {
        return Err("one instance more than the limit was refused without words".into());
    }
    let made = u32::try_from(held.len())? - FIRST;
    Ok(after.each(&before, made, Some(refusal.to_string())))
}

/// Extism: as many as it can hold of those that were asked for.
fn extism(count: u32) -> Result<Found> {
    let guests = Guests::build()?;
    let text = message(64);
    let compiled: &'static Compiled = Box::leak(Box::new(Extism::load()?.compile(&guests.extism)?));
    let mut held = Vec::with_capacity((count + FIRST) as usize);
    let mut before = Now::look()?;
    let mut refusal: Option<String> = None;
    for made in 0..count + FIRST {
        if made == FIRST {
            before = Now::look()?;
        }
        let asked = compiled.plugin().and_then(|mut plugin| {
            check(&plugin.call(c"echo", text.as_bytes())?, text)?;
            Ok(plugin)
        });
        match asked {
            Ok(plugin) => held.push(plugin),
            Err(error) if made > FIRST => {
                refusal = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let after = Now::look()?;
    let made = u32::try_from(held.len())? - FIRST;
    let found = after.each(&before, made, refusal);
    // Taking thousands apart tells nothing, and the process ends.
    std::mem::forget(held);
    Ok(found)
}

/// This program as the process of one side.
pub(crate) fn process(side: &str, count: &str) -> ExitCode {
    let found = count.parse().map_err(Into::into).and_then(|count| match side {
        "extism" => extism(count),
        _ => on(ours(count)),
    });
    match found.and_then(|found| Ok(serde_json::to_string(&found)?)) {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask_process(side: &str) -> Result<Found> {
    let output = Command::new(std::env::current_exe()?)
        .args([ARGUMENT, side, &INSTANCES.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the process with the instances of {side}: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(crate) fn run() -> Result<Vec<Row>> {
    let (ours, extism) = (ask_process("ours")?, ask_process("extism")?);
    let one = |value: f64| {
        let mut samples = Samples::default();
        samples.push(value);
        samples
    };
    let row = |name: &str, unit, ours: f64, extism: f64| {
        Row::new(name, unit, &one(ours)).against(&one(extism))
    };
    let told = |found: &Found| {
        let why = found.refusal.as_deref().unwrap_or("not refused");
        format!("{} held in {} mappings; one more: {why}", found.instances, found.all_maps)
    };
    let mut all = row("rss_per_idle_instance", "KiB", ours.kib, extism.kib);
    let reached = ours.kib <= AIM_KIB && ours.instances >= INSTANCES;
    all.note = format!("ours {}; Extism {}", told(&ours), told(&extism));
    let all = all.judged(reached, &format!("at most {AIM_KIB}"));
    Ok(vec![
        all,
        row("rss_per_idle_instance.page_tables", "KiB", ours.tables_kib, extism.tables_kib),
        row("rss_per_idle_instance.mappings", "maps", ours.maps, extism.maps),
        Row::new("rss_per_idle_instance.held", "n", &one(f64::from(ours.instances)))
            .against(&one(f64::from(extism.instances))),
    ])
}
