//! `palisade demo`: useful plugins at work and a hostile one contained, with a table of what each tried.
//!
//! Runs with a state folder, texts and temptations of its own, removed at the end.

mod attempts;
mod good;
mod plugins;
mod report;
mod sink;
mod stage;

use std::{sync::Arc, time::Instant};

use palisade_model::{ErrorCode, Failure, GuaranteeSet};
use palisade_policy::OperatorPolicy;

use crate::{
    cli,
    session::Session,
    terminal::{Paint, Progress},
    trouble::Trouble,
};

/// The files and servers of the demo cannot be set up or looked at.
fn set_up(error: std::io::Error) -> Trouble {
    Failure::new(ErrorCode::Internal, format!("the demo cannot be set up: {error}"))
        .hint("it needs a temporary folder (TMPDIR) that can be written, and loopback")
        .into()
}

/// Runs the command.
pub(crate) async fn demo(args: &cli::native::Demo) -> Result<(), Trouble> {
    let began = Instant::now();
    let progress = Progress::new(!args.output.json);
    progress.step("setting the stage");
    let stage = stage::Stage::build().map_err(set_up)?;
    let sink = Arc::new(sink::Counting::default());
    let log = Arc::clone(&sink) as Arc<dyn palisade_services::log::LogSink>;
    let session = Session::open(
        Some(&stage.at("state")),
        OperatorPolicy::default(),
        args.audit.file.as_deref(),
        Some(log),
    )
    .await?;
    let result = play(args, &session, &stage, &sink, &progress).await;
    progress.done();
    // Whatever happened, nothing is left running; a failure to end in order is not the demo's subject.
    let _ = session.host.shutdown().await;
    let (backend, guarantees, good, attempts) = result?;
    let report = report::Report {
        backend,
        guarantees,
        good,
        attempts,
        seconds: began.elapsed().as_secs_f64(),
    };
    if args.output.json {
        crate::terminal::json(&report.to_json());
    } else {
        crate::terminal::out(report.to_text(Paint::stdout()));
    }
    if report.is_good() { Ok(()) } else { Err(Trouble::Said(1)) }
}

type Played = (&'static str, GuaranteeSet, Vec<good::Work>, Vec<attempts::Attempted>);

async fn play(
    args: &cli::native::Demo,
    session: &Session,
    stage: &stage::Stage,
    sink: &sink::Counting,
    progress: &Progress,
) -> Result<Played, Trouble> {
    let mut troupe = good::Troupe::load(session, stage, args.backend.name.as_deref()).await?;
    troupe.check_walls().await?;
    let works = troupe.work(stage, sink, progress).await?;
    let hostile = attempts::load(session, stage, args.backend.name.as_deref()).await?;
    let (backend, guarantees) = troupe.walls();
    let attempted = attempts::all(&hostile, &troupe, stage, sink, progress).await?;
    Ok((backend, guarantees, works, attempted))
}
