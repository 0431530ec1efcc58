#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod common;
use std::sync::Arc;
use common::*;
use palisade_commands::resolve;

#[tokio::test(flavor = "multi_thread")]
async fn try_one() {
    let Ok(text) = std::env::var("TRY") else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    let rights = std::env::var("TRY_RIGHTS").unwrap_or_default();
    let rights: Vec<&str> = rights.split_whitespace().collect();
    let context = context(&[place("try/uvenv/bin")], &[]);
    let options = options(&place("try/cache"));
    let begun = std::time::Instant::now();
    let start = resolve::start_of(&argv(&words), &context, &options, Arc::new(Loud)).await;
    println!("resolved in {:?}", begun.elapsed());
    let start = match start { Ok(s) => s, Err(e) => { println!("FAILED resolve: {e}"); let f: palisade_model::Failure = e.into(); println!("{f:?}"); panic!() } };
    println!("{:?} {:?} code {:?} env {:?} id {} notes {:?}", start.program.file, start.program.args, start.code, start.env, start.identity, start.notes);
    let begun = std::time::Instant::now();
    let mut server = match launch(&start, &rights).await { Ok(s) => s, Err(e) => { println!("FAILED launch {e}"); panic!() } };
    match server.tools().await {
        Ok(tools) => println!("OK {:?} {} tools: {tools:?}", begun.elapsed(), tools.len()),
        Err(e) => { println!("FAILED {e}"); panic!() }
    }
    for line in server.host.lines.lock().unwrap().iter().take(20) { println!("  log: {line}"); }
    if let Ok(call) = std::env::var("TRY_CALL") {
        let (tool, args) = call.split_once(' ').unwrap_or((&call, "{}"));
        println!("{:?}", server.call(tool, serde_json::from_str(args).unwrap()).await);
    }
}
