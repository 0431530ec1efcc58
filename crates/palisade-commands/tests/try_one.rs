#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod common;
use common::*;
use palisade_commands::resolve;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn try_one() {
    let Ok(text) = std::env::var("TRY") else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    let rights = std::env::var("TRY_RIGHTS").unwrap_or_default();
    let rights: Vec<&str> = rights.split_whitespace().collect();
    let uv = if std::env::var_os("NO_UV").is_some() { "try/none" } else { "try/uvenv/bin" };
    let context = context(&[place(uv)], &[]);
    let options = options(&place(&std::env::var("TRY_CACHE").unwrap_or("try/cache".into())));
    let mut context = context;
    if let Ok(path) = std::env::var("TRY_PATH") {
        context.env.insert("PATH".into(), path);
    }
    let begun = std::time::Instant::now();
    let start = resolve::start_of(&argv(&words), &context, &options, Arc::new(Loud)).await;
    println!("resolved in {:?}", begun.elapsed());
    let start = match start {
        Ok(s) => s,
        Err(e) => {
            println!("FAILED resolve: {e}");
            let f: palisade_model::Failure = e.into();
            println!("{f:?}");
            panic!()
        }
    };
    println!(
        "{:?} {:?} code {:?} env {:?} id {} notes {:?}",
        start.program.file, start.program.args, start.code, start.env, start.identity, start.notes
    );
    let begun = std::time::Instant::now();
    let programs: Vec<String> =
        start.programs.iter().map(|p| format!("exec:{}", p.display())).collect();
    let rights: Vec<&str> = rights.into_iter().chain(programs.iter().map(String::as_str)).collect();
    println!("{rights:?}");
    let mut server = match launch(&start, &rights).await {
        Ok(s) => s,
        Err(e) => {
            println!("FAILED launch {e}");
            panic!()
        }
    };
    match server.tools().await {
        Ok(tools) => println!("OK {:?} {} tools: {tools:?}", begun.elapsed(), tools.len()),
        Err(e) => {
            println!("FAILED {e}");
            panic!()
        }
    }
    for line in server.host.lines.lock().unwrap().iter().take(20) {
        println!("  log: {line}");
    }
    if let Ok(call) = std::env::var("TRY_CALL") {
        let (tool, args) = call.split_once(' ').unwrap_or((&call, "{}"));
        println!("{:?}", server.call(tool, serde_json::from_str(args).unwrap()).await);
    }
}
/// Prints the client's lines, for a test that fails.
pub(crate) struct Loud;

impl resolve::Watch for Loud {
    fn line(&self, line: &str) {
        eprintln!("  client: {line}");
    }
    fn egress(&self, entry: &palisade_egress::Entry<'_>) {
        eprintln!("  egress: {} {:?}", entry.authority, entry.verdict);
    }
}
