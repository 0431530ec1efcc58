//! The attackers' way out, as a real host makes it: the guard, the proxy and the name server of
//! `palisade-egress`, decided by real rules through a real gate. Only the names are ours: nothing may leave
//! this machine, and what was looked up is what the host judges by.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use palisade_audit::{MemoryRecorder, SystemClock};
use palisade_broker::{Caller, Gate};
use palisade_egress::{
    AddressPolicy, BoxFuture, Guard, Resolve,
    proxy::{Limits, Sockets, serve_way_out},
};
use palisade_model::{CapabilitySet, InstanceId};
use palisade_policy::Rules;
use palisade_sandbox::WayOut;
use palisade_services::egress::Rights;

/// Most records that are kept of one launch.
const RECORDS: usize = 1000;

/// What the operator says about the network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Capabilities that a rule forbids.
    pub forbidden: Vec<String>,
    /// The loopback network that names may lead to.
    pub reachable: &'static str,
}

/// Names of the scene. `flip.example` leads elsewhere at each lookup; what is not known belongs to the
/// attacker, whose own name server would answer and would learn the name.
#[derive(Debug, Default)]
pub struct SceneNames {
    lookups: AtomicUsize,
    strange: Mutex<Vec<String>>,
}

impl SceneNames {
    /// Names that were looked up although no right covers them, in order.
    #[must_use]
    pub fn strange(&self) -> Vec<String> {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let turn = self.lookups.fetch_add(1, Ordering::Relaxed);
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        match name {
            "granted.example" => vec![here],
            "flip.example" => vec![if turn.is_multiple_of(2) { here } else { there }],
            "both.example" => vec![here, there],
            "mapped.example" => {
                vec![std::net::Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped().into()]
            }
            "inner.wild.example" => vec![there],
            _ if name.ends_with(".wild.example") && name != "forbidden.wild.example" => vec![here],
            _ => {
                let mut strange = self.strange.lock().unwrap_or_else(PoisonError::into_inner);
                strange.push(name.to_owned());
                vec![there]
            }
        }
    }
}

impl Resolve for SceneNames {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let found = self.addresses(name);
        Box::pin(async move { Ok(found) })
    }
}

/// One launch's way out.
pub struct Way {
    guard: Guard,
    rights: Arc<Rights>,
    /// What it looked up.
    pub names: Arc<SceneNames>,
}

impl Way {
    /// A way out for an instance with these rights.
    ///
    /// # Errors
    /// When a rule or a network is not one, in words.
    pub fn new(
        instance: InstanceId,
        rights: CapabilitySet,
        limits: &palisade_model::Limits,
        network: &Network,
    ) -> Result<Self, String> {
        let parse = |text: &String| text.parse().map_err(|e| format!("{text}: {e}"));
        let forbidden: CapabilitySet =
            network.forbidden.iter().map(parse).collect::<Result<_, String>>()?;
        let rules = Arc::new(Rules::new(rights, forbidden.iter()));
        let caller = Caller::plugin(instance, rules, limits, Arc::new(SystemClock));
        let gate = Gate::new(Arc::new(MemoryRecorder::new(RECORDS)));
        let names = Arc::new(SceneNames::default());
        let reachable = network.reachable.parse().map_err(|e| format!("{e}"))?;
        let policy = AddressPolicy::new().allow(reachable);
        let guard = Guard::with_resolver(policy, Arc::clone(&names) as Arc<dyn Resolve>);
        Ok(Self { guard, rights: Arc::new(Rights::new(gate, caller)), names })
    }

    /// Serves it until the instance has ended.
    pub fn serve(&self, way: WayOut) -> BoxFuture<'static, ()> {
        let WayOut { proxy, names, direct } = way;
        let sockets = Sockets { proxy, names, direct };
        let rights = Arc::clone(&self.rights);
        Box::pin(serve_way_out(self.guard.clone(), Limits::default(), sockets, rights))
    }
}
