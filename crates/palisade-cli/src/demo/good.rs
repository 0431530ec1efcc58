//! The useful plugins, and whether they did their work.

use std::time::{Duration, Instant};

use palisade_host::{GrantOptions, LoadOptions, Plugin};
use palisade_model::{Capability, ErrorCode, Failure, GuaranteeSet, Kind};
use serde::Serialize;
use serde_json::{Value, json};

use super::{set_up, sink::Counting, stage};
use crate::{session::Session, terminal::Progress, trouble::Trouble, words};

/// Calls whose median is shown.
const CALLS: usize = 200;
/// SHA-256 of `abc` (FIPS 180-4, example).
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// One piece of work.
#[derive(Debug, Serialize)]
pub(super) struct Work {
    pub(super) plugin: &'static str,
    /// What was asked of it.
    pub(super) task: &'static str,
    pub(super) ok: bool,
    /// What came of it.
    pub(super) result: String,
    pub(super) micros: u64,
}

/// The useful plugins, running once [`Troupe::work`] has been called.
pub(super) struct Troupe {
    counter: Plugin,
    chatter: Plugin,
    checksum: Plugin,
}

/// Loads a plugin of the stage.
pub(super) async fn load(
    session: &Session,
    stage: &stage::Stage,
    name: &str,
    backend: Option<&str>,
) -> Result<Plugin, Trouble> {
    let mut options = LoadOptions::new();
    if let Some(backend) = backend {
        options = options.backend(backend);
    }
    Ok(session.control.load(stage.at("plugins").join(name), options).await?)
}

/// Grants a folder of the stage for the time of the demo.
pub(super) async fn grant(
    plugin: &Plugin,
    kind: Kind,
    stage: &stage::Stage,
    folder: &str,
) -> Result<(), Trouble> {
    // The temporary folder may lie behind a link (TMPDIR); rights name real paths.
    let real = stage.at(folder).canonicalize().map_err(set_up)?;
    let capability = Capability::new(kind, &format!("{}/**", real.display())).map_err(|e| {
        Failure::new(ErrorCode::Usage, format!("the temporary folder cannot be granted: {e}"))
            .hint("name another one in TMPDIR")
    })?;
    plugin.grant_with(capability, GrantOptions::new().for_this_host()).await?;
    Ok(())
}

impl Troupe {
    pub(super) async fn load(
        session: &Session,
        stage: &stage::Stage,
        backend: Option<&str>,
    ) -> Result<Self, Trouble> {
        Ok(Self {
            counter: load(session, stage, "word-counter", backend).await?,
            chatter: load(session, stage, "markov-chatter", backend).await?,
            checksum: load(session, stage, "checksum", backend).await?,
        })
    }

    /// Whether this machine has walls at all.
    pub(super) async fn check_walls(&self) -> Result<(), Trouble> {
        crate::consent::verdict(&self.checksum.plan().await?)
    }

    /// The walls that the running plugins stand behind.
    pub(super) fn walls(&self) -> (&'static str, GuaranteeSet) {
        let guarantees = self.checksum.achieved().map(|a| a.guarantees).unwrap_or_default();
        (self.checksum.status().backend.unwrap_or("none"), guarantees)
    }

    /// Has everybody work. An error means that a plugin could not be started; wrong work is in the list.
    pub(super) async fn work(
        &mut self,
        stage: &stage::Stage,
        sink: &Counting,
        progress: &Progress,
    ) -> Result<Vec<Work>, Trouble> {
        let mut works = Vec::new();
        progress.step("checksum");
        works.push(started("checksum", "start, a native program", &self.checksum).await?);
        works.push(self.digest().await);
        works.push(self.many_digests().await);
        progress.step("word-counter");
        works.push(self.ungranted().await);
        grant(&self.counter, Kind::FsRead, stage, "texts").await?;
        works
            .push(started("word-counter", "start, with that folder granted", &self.counter).await?);
        works.push(self.count(stage).await);
        progress.step("markov-chatter");
        works.push(
            started("markov-chatter", "start, in another plugin dialect", &self.chatter).await?,
        );
        works.push(self.chat().await);
        works.push(self.remember(sink).await?);
        Ok(works)
    }

    /// Whether a plugin that has nothing to do with the hostile one still answers, and how fast.
    pub(super) async fn neighbour(&self) -> Option<Duration> {
        let began = Instant::now();
        let answer = self.checksum.call("sha256", &json!({"text": "abc"})).await.ok()?;
        let value: Value = answer.parse().ok()?;
        (value.get("sha256").and_then(Value::as_str) == Some(ABC)).then(|| began.elapsed())
    }

    async fn digest(&self) -> Work {
        let began = Instant::now();
        let answer = value(self.checksum.call("sha256", &json!({"text": "abc"})).await);
        let digest =
            answer.as_ref().ok().and_then(|v| v.get("sha256")?.as_str().map(str::to_owned));
        let result = match (&digest, &answer) {
            (Some(digest), _) => format!("{}…", digest.chars().take(16).collect::<String>()),
            (None, Ok(other)) => other.to_string(),
            (None, Err(failure)) => failure.to_string(),
        };
        Work::new("checksum", "SHA-256 of \"abc\"", digest.as_deref() == Some(ABC), result, began)
    }

    async fn many_digests(&self) -> Work {
        let began = Instant::now();
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            times.extend(self.neighbour().await);
        }
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let result = format!("{} answered; a call takes {}", times.len(), words::time(median));
        Work::new("checksum", "200 calls, each recorded", times.len() == CALLS, result, began)
    }

    /// Nothing is granted yet, so it must not start.
    async fn ungranted(&self) -> Work {
        let began = Instant::now();
        let (ok, result) = match self.counter.start().await {
            Err(failure) if failure.code == ErrorCode::Denied => {
                (true, "denied: it needs a folder, and nobody has granted one".to_owned())
            }
            Err(failure) => (false, failure.to_string()),
            Ok(()) => (false, "started, which it should not".to_owned()),
        };
        Work::new("word-counter", "start, with nothing granted", ok, result, began)
    }

    async fn count(&self, stage: &stage::Stage) -> Work {
        let began = Instant::now();
        let path = stage.at("texts").canonicalize().unwrap_or_else(|_| stage.at("texts"));
        let answer = value(self.counter.call("count", &json!({"path": path, "top": 3})).await);
        let (ok, result) = match answer {
            Ok(counted) => {
                let number = |name: &str| counted.get(name).and_then(Value::as_u64);
                let ok = number("files") == Some(3) && number("words") == Some(stage::TEXT_WORDS);
                let top = counted
                    .get("top")
                    .and_then(Value::as_array)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let top: Vec<&str> = top.iter().filter_map(|e| e.get("word")?.as_str()).collect();
                let counts = (number("files").unwrap_or(0), number("words").unwrap_or(0));
                (
                    ok,
                    format!(
                        "{} files, {} words, most often: {}",
                        counts.0,
                        counts.1,
                        top.join(", ")
                    ),
                )
            }
            Err(failure) => (false, failure.to_string()),
        };
        Work::new("word-counter", "count words in the granted folder", ok, result, began)
    }

    async fn chat(&self) -> Work {
        let began = Instant::now();
        let say = || async {
            let answer = self.chatter.call("say", &json!({"seed": 3, "words": 9})).await;
            value(answer)
                .map(|v| v.get("text").and_then(Value::as_str).unwrap_or_default().to_owned())
        };
        let (ok, result) = match (say().await, say().await) {
            (Ok(one), Ok(two)) => (
                one == two && one.split(' ').count() == 9,
                format!("\"{}\"", palisade_model::text::escape(&one, 80)),
            ),
            (Err(failure), _) | (_, Err(failure)) => (false, failure.to_string()),
        };
        Work::new("markov-chatter", "say nine words, twice the same", ok, result, began)
    }

    /// What it learns is there after a restart.
    async fn remember(&self, sink: &Counting) -> Result<Work, Trouble> {
        let began = Instant::now();
        let learn = |text: &'static str| async move {
            let answer = value(self.chatter.call("learn", &json!({"text": text})).await)?;
            Ok::<_, Failure>(answer.get("pairs").and_then(Value::as_u64))
        };
        let before = learn("palisade pickets stand closely together today").await?;
        self.chatter.stop().await?;
        self.chatter.start().await?;
        let after = learn("").await?;
        let ok = before.is_some() && before == after && sink.has_line("learnt before");
        let result = format!("stopped, started: {} pairs of words still known", after.unwrap_or(0));
        Ok(Work::new("markov-chatter", "learn, and remember it", ok, result, began))
    }
}

impl Work {
    fn new(
        plugin: &'static str,
        task: &'static str,
        ok: bool,
        result: String,
        began: Instant,
    ) -> Self {
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Self { plugin, task, ok, result, micros }
    }
}

async fn started(
    plugin: &'static str,
    task: &'static str,
    running: &Plugin,
) -> Result<Work, Trouble> {
    let began = Instant::now();
    running.start().await?;
    let backend = running.status().backend.unwrap_or("no");
    Ok(Work::new(plugin, task, true, format!("runs behind {backend} walls"), began))
}

fn value(answer: Result<palisade_model::Payload, Failure>) -> Result<Value, Failure> {
    answer?.parse().map_err(|e| Failure::new(ErrorCode::PluginError, e.to_string()))
}
