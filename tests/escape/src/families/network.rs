//! Attempts 36 to 41 with a way out: the attacker was granted some of the network, and the real guard
//! serves it. Everything goes to loopback addresses that the suite itself holds.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    attacker::Attempt,
    control::Controls,
    families::ablation,
    judge,
    launch::{Boxed, Terms, Walls},
    record::{Launcher, Row},
    scene::{Ground, Stage},
    trouble::{Result, Trouble},
    turns::Turns,
    way_out::Network,
};

/// What stands behind the variant of an attempt that is also made without a way out.
pub const WITH: &str = "@way-out";
/// Where the proxy and the name server are, as seen from inside.
const PROXY: u16 = 3128;
const NAMES: u16 = 53;
/// How many run at once.
const AT_ONCE: usize = 6;
/// How long a neighbour waits for visitors.
const HOLD: Duration = Duration::from_millis(1500);

/// Whether an attempt is made with a way out, and whether only so.
#[must_use]
pub fn takes(attempt: &Attempt) -> bool {
    matches!(attempt.number, 36..=41)
}

/// Whether an attempt makes no sense without a way out.
#[must_use]
pub fn only_with(number: u16) -> bool {
    matches!(number, 37..=39)
}

/// Whether an attempt is made without a layer. Those below the guard decide about most; about 38 and 39 the guard
/// alone does. (Nothing is made alone here: a way out cannot be opened in the host's own network.)
fn is_thinned(attempt: &Attempt) -> bool {
    !matches!(attempt.number, 38 | 39)
}

fn port(params: &Map<String, Value>, name: &str) -> u64 {
    params.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// What the attacker may reach, and what the operator says.
fn terms(stage: &Stage, attempt: &Attempt) -> Terms {
    let services = &stage.services.params;
    let (web, tls) = (port(services, "web_port"), port(services, "tls_port"));
    let http = |host: &str, port: u64| format!("net.http:{host}:{port}");
    let mut grants = vec![
        http("granted.example", tls),
        // A right to any bytes, so that those are tried as well. Nobody listens.
        "net.tcp:127.0.0.1:9".to_owned(),
    ];
    let names = ["granted", "*.wild", "flip", "both", "mapped"];
    grants.extend(names.map(|name| http(&format!("{name}.example"), web)));
    Terms {
        grants,
        network: Some(Network {
            forbidden: vec!["net.http:forbidden.wild.example:*".into()],
            // Where names may lead is in question in 37 only. In the others the address must not be what
            // saves a name that was read wrongly.
            reachable: if attempt.number == 37 { "127.0.0.1/32" } else { "127.0.0.0/8" },
        }),
        ..Terms::default()
    }
}

/// The parameters of an attempt inside: the same as outside, with the proxy and the name server there.
fn params(stage: &Stage, attempt: &Attempt, ground: &Ground) -> Map<String, Value> {
    let mut params = stage.params(ground, true);
    params.extend(judge::params(stage, attempt, ground, true));
    for name in ["proxy_port", "proxy_by_host", "proxy_by_length", "proxy_own"] {
        params.insert(name.into(), json!(PROXY));
    }
    params.insert("names_port".into(), json!(NAMES));
    params
}

/// Runs the family; with `whole_only`, no layer is taken away.
///
/// # Errors
/// When the walls cannot be built at all, or the way out is shut to what was granted.
pub async fn run(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempts: &[Attempt],
    whole_only: bool,
) -> Result<Vec<Row>> {
    let (walls, thinner) = ablation::walls(stage, launcher, whole_only).await?;
    let attempts: Vec<&Attempt> = attempts.iter().filter(|a| takes(a)).collect();
    is_open(stage, &attempts, &walls).await?;
    let controls = Controls::start(stage, attempts.iter().copied());
    let mut turns = Turns::new(AT_ONCE);
    for attempt in attempts {
        let (stage, attempt) = (Arc::clone(stage), attempt.clone());
        let (walls, thinner) = (Arc::clone(&walls), thinner.clone());
        turns.take(async move { one(&stage, launcher, &attempt, &walls, &thinner).await });
    }
    let mut rows = turns.rows().await?;
    controls.tell(&mut rows).await?;
    Ok(rows)
}

/// A way out that lets nothing through would refuse every attempt. So what was granted is asked for first,
/// by attempts whose first half is in order: a plain request, and a tunnel. (That handshakes pass is
/// seen in number 39 itself.)
async fn is_open(stage: &Stage, attempts: &[&Attempt], walls: &Walls) -> Result<()> {
    for (number, variant) in [(38, "pipelined"), (39, "plain-second")] {
        let Some(attempt) = attempts.iter().find(|a| (a.number, &*a.variant) == (number, variant))
        else {
            continue;
        };
        let ground = stage.ground()?;
        let mut params = params(stage, attempt, &ground);
        params.insert("reached".into(), json!(crate::services::web::GRANTED));
        let boxed = walls.launch(&ground, &terms(stage, attempt)).await?;
        let seen = boxed.attempt(number, variant, &params, Duration::from_secs(20)).await;
        boxed.end().await;
        ground.clear();
        if seen.outcome() != "SUCCEEDED" {
            return Err(Trouble(format!(
                "the way out is shut to what was granted: {number} {variant}: {}",
                seen.detail()
            )));
        }
    }
    Ok(())
}

async fn one(
    stage: &Arc<Stage>,
    launcher: Launcher,
    attempt: &Attempt,
    walls: &Walls,
    thinner: &ablation::Thinner,
) -> Result<Row> {
    let (outcome, detail) = inside(stage, attempt, walls).await?;
    let mut without = ablation::Without::new();
    let thinner = ablation::of(thinner, attempt.number, &attempt.variant);
    for (layer, walls) in thinner.filter(|_| is_thinned(attempt)) {
        let (thin, _) = inside(stage, attempt, walls).await?;
        without.insert(layer.to_owned(), thin);
    }
    let variant = match only_with(attempt.number) {
        true => attempt.variant.clone(),
        false => format!("{}{WITH}", attempt.variant),
    };
    let mut row = Row::new(attempt.number, &variant, &attempt.name, launcher).seen(outcome, detail);
    row.without = without;
    Ok(row)
}

/// One attempt behind one set of walls, judged by who was visited and which names were looked up.
async fn inside(stage: &Arc<Stage>, attempt: &Attempt, walls: &Walls) -> Result<(String, String)> {
    let ground = stage.ground()?;
    let mut params = params(stage, attempt, &ground);
    let neighbour = Neighbour::move_in(stage, attempt, walls, &mut params).await?;
    let watch = judge::Watch::begin(stage, attempt, &mut params);
    let result = match walls.launch(&ground, &terms(stage, attempt)).await {
        Err(e) => (format!("blocked:{}", e.code()), e.to_string()),
        Ok(boxed) => {
            let deadline = Terms::default().deadline;
            let seen = boxed.attempt(attempt.number, &attempt.variant, &params, deadline).await;
            let mut harm = watch.end();
            let strange = boxed.host.way().map(|way| way.names.strange()).unwrap_or_default();
            if !strange.is_empty() {
                harm = Some(format!("names were looked up: {}", strange.join(", ")));
            }
            boxed.end().await;
            if let Some(neighbour) = neighbour {
                harm = harm.or(neighbour.move_out().await?);
            }
            judge::judge(stage, attempt, &ground, &seen, harm, walls.options.without)
        }
    };
    ground.clear();
    Ok(result)
}

/// Another plugin with a way out of its own, for number 41: it listens, or may reach what the attacker may
/// not.
struct Neighbour {
    boxed: Arc<Boxed>,
    ground: Ground,
    params: Map<String, Value>,
    visits: usize,
    stage: Arc<Stage>,
    role: Role,
    listening: Option<tokio::task::JoinHandle<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Relays on a port or a name of its own network.
    Listens(u16, &'static str),
    /// Was granted a service.
    Reaches,
}

impl Neighbour {
    async fn move_in(
        stage: &Arc<Stage>,
        attempt: &Attempt,
        walls: &Walls,
        params: &mut Map<String, Value>,
    ) -> Result<Option<Self>> {
        let role = match (attempt.number, attempt.variant.as_str()) {
            (41, "relay") => Role::Listens(36, "listen"),
            (41, "abstract") => Role::Listens(32, "bind"),
            (41, "own-listener") => Role::Reaches,
            _ => return Ok(None),
        };
        let ground = stage.ground()?;
        let mut own = self::params(stage, attempt, &ground);
        let service = stage.services.neighbours.port;
        let mut terms = terms(stage, attempt);
        terms.grants.push(format!("net.tcp:127.0.0.1:{service}"));
        let boxed = Arc::new(walls.launch(&ground, &terms).await?);
        let listening = match role {
            Role::Reaches => None,
            Role::Listens(number, variant) => {
                let name = format!("palisade-escape-relay-{}-{}", std::process::id(), ground.slot);
                own.insert("abstract_free".into(), json!(name));
                own.insert("listen_port".into(), json!(service));
                own.insert("hold_ms".into(), json!(HOLD.as_millis() as u64));
                params.insert("abstract".into(), json!(name));
                params.insert("relay_port".into(), json!(service));
                let (boxed, own) = (Arc::clone(&boxed), own.clone());
                let task = tokio::spawn(async move {
                    let patience = HOLD + Duration::from_secs(10);
                    boxed.attempt(number, variant, &own, patience).await.detail()
                });
                // It listens a moment after it was asked to.
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some(task)
            }
        };
        params.insert("neighbour_port".into(), json!(service));
        let visits = stage.services.neighbours.visits();
        let stage = Arc::clone(stage);
        Ok(Some(Self { boxed, ground, params: own, visits, stage, role, listening }))
    }

    /// What the attacker reached of it; an error where the neighbour could not do its own part, since then
    /// nothing was shown.
    async fn move_out(self) -> Result<Option<String>> {
        // Neighbours that reach it themselves are counted as well, each after its attacker was.
        let came = match self.role {
            Role::Reaches => self.stage.services.neighbours.visits() - self.visits,
            Role::Listens(..) => 0,
        };
        let mut harm =
            (came > 0).then(|| format!("{came} visits to what only the neighbour was granted"));
        if let Some(listening) = self.listening {
            let said = listening.await.map_err(|e| Trouble(e.to_string()))?;
            // Landlock keeps plugins from listening; without it they may, in their own network.
            if !said.starts_with("listening") && said != "bind or listen" {
                return Err(Trouble(format!("the neighbour does not listen: {said}")));
            }
            if said.contains("a connection came") {
                harm = Some("the neighbour's relay was reached".into());
            }
        }
        if self.role == Role::Reaches {
            let mut params = self.params.clone();
            params.insert("neighbour_port".into(), json!(self.stage.services.neighbours.port));
            let wait = Duration::from_secs(20);
            let seen = self.boxed.attempt(41, "own-listener", &params, wait).await;
            if seen.outcome() != "SUCCEEDED" {
                let said = seen.detail();
                return Err(Trouble(format!("the neighbour does not reach its own: {said}")));
            }
        }
        self.boxed.end().await;
        self.ground.clear();
        Ok(harm)
    }
}
