//! How fast one plugin may ask for new destinations.
//!
//! Each costs a record of its own and, where it is granted by a wildcard, a lookup: without a bound a
//! plugin could fill the disk with the one and flood a name server with the other. Destinations that were
//! asked for lately cost nothing, since their records are counted together.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::Authority;

/// How many destinations are remembered.
const REMEMBERED: usize = 64;
/// Time that each new one costs: 50 a second in the long run.
const EACH: Duration = Duration::from_millis(20);
/// How many may come at once after a pause.
const BURST: u32 = 200;

/// The pace of one plugin.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last ones, the latest at the end.
    recent: VecDeque<Authority>,
    /// When all that were asked for so far are paid for.
    paid: Option<Instant>,
}

impl Pace {
    /// Waits until `authority` may be asked for.
    pub(super) async fn turn(&self, authority: &Authority) {
        if let Some(at) = self.cost(authority, Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// When its turn is; `None` is now.
    fn cost(&self, authority: &Authority, now: Instant) -> Option<Instant> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = state.recent.iter().position(|known| known == authority) {
            let known = state.recent.remove(at)?;
            state.recent.push_back(known);
            return None;
        }
        if state.recent.len() >= REMEMBERED {
            state.recent.pop_front();
        }
        state.recent.push_back(authority.clone());
        let paid = state.paid.map_or(now, |paid| paid.max(now)) + EACH;
        state.paid = Some(paid);
        let turn = paid.checked_sub(EACH * BURST)?;
        (turn > now).then_some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(i: usize) -> Authority {
        Authority::parse(&format!("n{i}.example:443")).unwrap()
    }

    #[test]
    fn new_destinations_without_end_come_at_the_pace_and_known_ones_at_once() {
        let (pace, now) = (Pace::default(), Instant::now());
        let burst = BURST as usize;
        assert!((0..burst).all(|i| pace.cost(&authority(i), now).is_none()));
        let wait = |i: usize| pace.cost(&authority(i), now).map(|turn| turn - now);
        assert_eq!(wait(burst), Some(EACH));
        assert_eq!(wait(burst + 1), Some(2 * EACH));
        assert_eq!(wait(burst), None, "known");
        assert_eq!(wait(0), Some(3 * EACH), "long forgotten");
        assert_eq!(pace.0.lock().unwrap().recent.len(), REMEMBERED);
        // A pause pays for what was taken.
        let later = now + EACH * (BURST + 10);
        assert_eq!(pace.cost(&authority(burst + 7), later), None);
    }
}
