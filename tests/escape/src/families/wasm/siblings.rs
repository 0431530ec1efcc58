//! 113: what one guest does to the others of the same host, of the same compiled code and of other code.

use std::time::{Duration, Instant};

use palisade_model::{ErrorCode, Failure};
use serde_json::{Value, json};

use super::{
    Case,
    Control::{Careless, Lifted},
    Verdict,
    imports::with,
    room::{INSTANCES, Room, Running, Terms, odd, outcome},
    succeeded,
};
use crate::trouble::Result;

/// How long the attack goes on.
const WHILE: Duration = Duration::from_millis(800);
/// The longest that a quick call of a sibling may take meanwhile.
const PATIENCE: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(20);

macro_rules! case {
    ($variant:expr, $name:expr, $attack:expr, $control:expr) => {
        Case {
            number: 113,
            variant: $variant,
            name: $name,
            attack: |room| Box::pin($attack(room)),
            control: $control,
            without: &[],
        }
    };
}

pub(super) const CASES: &[Case] = &[
    case!(
        "loops",
        "eight instances that compute for ever",
        |room| beside(room, "spin", json!({}), 8),
        Careless(|_| Box::pin(blocked_runtime()))
    ),
    case!(
        "bulk",
        "eight instances that each write 8 MiB with one instruction",
        |room| beside(room, "bulk", json!({"bytes": 8 << 20}), 8),
        Careless(|_| Box::pin(blocked_runtime()))
    ),
    case!(
        "host-calls",
        "eight instances that ask the host without end",
        |room| beside(room, "spin-log", json!({}), 8),
        Careless(|_| Box::pin(blocked_runtime()))
    ),
    case!("deadline", "a deadline of one, while another computes", deadline, Lifted),
    case!("trap", "traps of one, while another computes", trap, Careless(|_| Box::pin(panicked()))),
    case!("memory", "all memory of one, while another needs some", memory, Lifted),
    case!("instances", "every instance that there may be", instances, Lifted),
    case!("share", "more than its share of the processors", share, Lifted),
    case!("lock", "a call that holds the others of its plugin up", lock, Lifted),
];

async fn plugin(room: &Room, terms: Terms) -> Result<Running> {
    let wasm = room.guests().plugin.clone();
    match room.start(&wasm, terms).await? {
        Ok(running) => Ok(running),
        Err(refused) => odd(format!("a guest is refused: {refused}")),
    }
}

/// Many do something endless; meanwhile a sibling is called again and again.
async fn beside(room: Room, tool: &'static str, args: Value, count: usize) -> Result<Verdict> {
    let sibling = plugin(&room, with(&[])).await?;
    let mut attackers = Vec::new();
    for _ in 0..count {
        attackers.push(plugin(&room, with(&[])).await?);
    }
    // Tasks of their own, as calls of different callers are.
    let busy: Vec<_> = attackers
        .into_iter()
        .map(|attacker| {
            let args = args.clone();
            tokio::spawn(async move { attacker.call(tool, &args, WHILE).await.err() })
        })
        .collect();
    let (begun, mut slowest, mut calls) = (Instant::now(), Duration::ZERO, 0);
    while begun.elapsed() < WHILE {
        let at = Instant::now();
        if let Err(failure) = sibling.call("count", &json!({}), LONG).await {
            return Ok(succeeded(format!("the sibling failed: {failure}")));
        }
        slowest = slowest.max(at.elapsed());
        calls += 1;
        tokio::task::yield_now().await;
    }
    for ended in busy {
        let ended = ended.await.unwrap_or(None);
        if ended.as_ref().map(|failure| failure.code) != Some(ErrorCode::Deadline) {
            return Ok(("ended:not as it should".into(), format!("{ended:?}")));
        }
    }
    let detail = format!("{calls} calls meanwhile, the slowest {slowest:?}");
    // Behind walls all of them are processes, which the kernel gives their turns, and the host answers all.
    let (patience, least) = if room.engine() > 0 { (2 * PATIENCE, 3) } else { (PATIENCE, 10) };
    if slowest > patience || calls < least {
        return Ok(succeeded(detail));
    }
    Ok(("contained".into(), detail))
}

/// What becomes of a runtime whose tasks never stop for others.
async fn blocked_runtime() -> Result<bool> {
    let slowest = std::thread::spawn(|| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.ok()?;
        let slowest = runtime.block_on(async {
            for _ in 0..8 {
                tokio::spawn(async {
                    let begun = Instant::now();
                    while begun.elapsed() < WHILE {
                        std::hint::spin_loop();
                    }
                });
            }
            let at = Instant::now();
            let _ = tokio::spawn(async {}).await;
            at.elapsed()
        });
        Some(slowest)
    });
    Ok(slowest.join().ok().flatten().is_some_and(|slowest| slowest > PATIENCE))
}

/// A panic in the same process, where nobody catches it, takes the others with it.
async fn panicked() -> Result<bool> {
    let worker = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        Some(runtime.block_on(async {
            let (one, two) = (std::future::ready(1), async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                std::panic::resume_unwind(Box::new("as told"))
            });
            let (one, (), ()) = tokio::join!(one, two, std::future::pending::<()>());
            one
        }))
    });
    Ok(worker.join().is_err())
}

/// Whether a sibling that computes for a while gets to its end.
async fn working(room: &Room, meanwhile: impl AsyncFn(&Running) -> Result<()>) -> Result<Verdict> {
    let (one, two) = (plugin(room, with(&[])).await?, plugin(room, with(&[])).await?);
    let work = tokio::spawn(async move {
        let time = Duration::from_millis(600);
        let answer = two.call("work", &json!({"ms": time.as_millis() as u64}), LONG).await;
        (answer, two)
    });
    meanwhile(&one).await?;
    Ok(match work.await {
        Ok((Ok(_), _)) => ("contained".into(), "the sibling came to its end".into()),
        Ok((Err(failure), _)) => succeeded(failure.to_string()),
        Err(error) => succeeded(error.to_string()),
    })
}

async fn deadline(room: Room) -> Result<Verdict> {
    if room.lifted {
        // The sibling's own deadline does end it.
        let sibling = plugin(&room, with(&[])).await?;
        let ended = sibling.call("work", &json!({"ms": 600}), Duration::from_millis(100)).await;
        return Ok(match ended {
            Err(failure) if failure.code == ErrorCode::Deadline => succeeded("it was ended"),
            other => ("ended:answer".into(), format!("{other:?}")),
        });
    }
    working(&room, async |one| {
        for _ in 0..10 {
            let _ = one.call("spin", &json!({}), Duration::from_millis(30)).await;
        }
        Ok(())
    })
    .await
}

async fn trap(room: Room) -> Result<Verdict> {
    working(&room, async |one| {
        for _ in 0..30 {
            let _ = one.call("trap", &json!({}), LONG).await;
        }
        Ok(())
    })
    .await
}

async fn memory(room: Room) -> Result<Verdict> {
    let (one, two) = (plugin(&room, with(&[])).await?, plugin(&room, with(&[])).await?);
    let all = json!({"bytes": 12 << 20});
    let _ = one.call("hold", &all, LONG).await;
    // Where they are one plugin with one limit, the second does not get it.
    let other = if room.lifted { &one } else { &two };
    Ok(match other.call("hold", &all, LONG).await {
        Ok(_) => ("contained".into(), "the sibling got its memory".into()),
        Err(failure) => succeeded(failure.to_string()),
    })
}

async fn instances(room: Room) -> Result<Verdict> {
    if room.lifted {
        // What many plugins can do together, one must not do alone.
        let mut all = Vec::new();
        for _ in 0..=INSTANCES {
            let wasm = room.guests().plugin.clone();
            match room.start(&wasm, with(&[])).await? {
                Ok(running) => all.push(running),
                Err(failure) if failure.code == ErrorCode::LimitExceeded => {
                    return Ok(succeeded(failure.to_string()));
                }
                Err(failure) => return Ok(outcome(&failure)),
            }
        }
        return Ok(("contained".into(), format!("{} instances", all.len())));
    }
    // One plugin with as large a pool as it may declare, all of it in use.
    let most = INSTANCES / 2;
    let terms = with(&[]).memory(1 << 30).pool(most);
    let greedy = plugin(&room, terms).await?;
    let waits: Vec<_> = (0..most).map(|_| greedy.call("sleep", &SLEEP, LONG)).collect();
    let launching = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let wasm = room.guests().plugin.clone();
        room.start(&wasm, with(&[])).await
    };
    let (answers, launched) = tokio::join!(all(waits), launching);
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    Ok(match launched? {
        Ok(_) => ("contained".into(), format!("{refused} of {most} calls had no instance")),
        Err(failure) if failure.code == ErrorCode::LimitExceeded => succeeded(failure.to_string()),
        Err(failure) => outcome(&failure),
    })
}

static SLEEP: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| json!({"ms": 1500}));

/// Waits for all of them at once.
async fn all<T>(
    calls: Vec<impl Future<Output = std::result::Result<T, Failure>>>,
) -> Vec<std::result::Result<T, Failure>> {
    let mut calls: Vec<_> = calls.into_iter().map(|call| (Box::pin(call), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (call, answer) in &mut calls {
            if answer.is_none() {
                match call.as_mut().poll(cx) {
                    std::task::Poll::Ready(done) => *answer = Some(done),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    calls.into_iter().filter_map(|(_, answer)| answer).collect()
}

async fn share(room: Room) -> Result<Verdict> {
    let mut terms = with(&[]);
    terms.limits.cpu = room.limit(0.2, 1.0);
    let running = plugin(&room, terms).await?;
    let begun = Instant::now();
    let _ = running.call("spin", &json!({}), Duration::from_millis(1500)).await;
    let used = running.instance.usage().await.cpu.unwrap_or_default();
    let allowed = begun.elapsed().mul_f64(0.2) + Duration::from_millis(120);
    let detail = format!("{used:?} of at most {allowed:?}");
    Ok(if used > allowed { succeeded(detail) } else { ("contained".into(), detail) })
}

async fn lock(room: Room) -> Result<Verdict> {
    let running = plugin(&room, with(&[])).await?;
    let time = room.limit(Duration::from_millis(300), Duration::from_secs(2));
    let nothing = json!({});
    let first = running.call("spin", &nothing, time);
    let second = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let at = Instant::now();
        let answer = running.call("count", &json!({}), Duration::from_secs(1)).await;
        (answer, at.elapsed())
    };
    let (_, (answer, took)) = tokio::join!(first, second);
    Ok(match answer {
        Ok(_) => ("contained".into(), format!("the next call waited {took:?}")),
        Err(failure) => succeeded(failure.to_string()),
    })
}
