//! An application with a `main` of its own that runs one plugin.
//!
//! ```text
//! cargo run -p palisade --example embed -- FOLDER [TOOL [JSON]]
//! ```
//!
//! Loads the plugin in FOLDER, shows what it asks for, grants it for this run only, starts it behind
//! walls, calls TOOL (default: the first that the manifest declares) and prints the answer.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use palisade::prelude::*;
use serde_json::{Value, json};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct UserQuery {
    id: u64,
}

#[derive(serde::Serialize, schemars::JsonSchema)]
struct UserProfile {
    name: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            if let Some(hint) = &failure.hint {
                eprintln!("  help: {hint}");
            }
            ExitCode::from(failure.code.exit_status())
        }
    }
}

async fn run(args: Vec<String>) -> Result<(), Failure> {
    let usage = |what: &str| Failure::new(ErrorCode::Usage, what);
    let mut args = args.into_iter();
    let folder = args.next().ok_or_else(|| usage("embed FOLDER [TOOL [JSON]]"))?;

    let profiles = Service::new("get_user_profile", |_cx, query: UserQuery| async move {
        Ok(UserProfile { name: format!("user number {}", query.id) })
    });
    let host = Host::builder().backends(palisade::backends()).service(profiles).build().await?;

    let plugin = host.load(&folder).await?;
    let plan = plugin.plan().await?;
    println!("{} {} asks for:", plan.name, plan.version);
    for right in &plan.requested {
        let reason = right.reason.as_deref().unwrap_or("no reason given");
        println!("  {} ({} risk): {reason}", right.capability, right.risk);
    }
    plugin.grant_requested_with(GrantOptions::new().for_this_host()).await?;
    plugin.start().await?;

    let declared = plan.contributes.iter().find(|c| c.capability.to_string().starts_with("tool:"));
    let tool = match (args.next(), declared) {
        (Some(tool), _) => tool,
        (None, Some(tool)) => tool.capability.scope().to_string(),
        (None, None) => return Err(usage("the plugin declares no tool")),
    };
    let input: Value = match args.next() {
        Some(text) => serde_json::from_str(&text).map_err(|e| usage(&format!("JSON: {e}")))?,
        None => json!({}),
    };
    let answer = plugin.call(&tool, &input).await?;
    println!("{}", String::from_utf8_lossy(answer.bytes()));
    host.shutdown().await
}
