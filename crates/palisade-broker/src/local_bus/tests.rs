use palisade_model::{Payload, Principal};
use proptest::prelude::*;

use super::*;
use crate::Redelivery;

#[tokio::test]
async fn it_conforms() {
    let results = crate::conformance::run(|| async { LocalBus::new() as Arc<dyn EventBus> }).await;
    assert_eq!(results.len(), 14);
    for (check, result) in results {
        assert_eq!(result, Ok(()), "{check}");
    }
}

#[tokio::test]
async fn it_says_that_it_is_volatile_and_ends_its_subscriptions() {
    let bus = LocalBus::new();
    assert!(!bus.is_durable());
    let pattern = SubjectPattern::parse("a").unwrap();
    let mut subscription = bus.subscribe(pattern, SubscribeOptions::default()).await.unwrap();
    let event = Event::new("a", Payload::null(), Arc::new(Principal::Application));
    bus.publish(event).await.unwrap();
    drop(bus);
    assert!(subscription.next().await.is_some(), "what waited is still delivered");
    assert!(subscription.next().await.is_none());
}

#[tokio::test]
async fn an_end_of_the_bus_wakes_who_waits() {
    let bus = LocalBus::new();
    let pattern = SubjectPattern::parse("a").unwrap();
    let mut subscription = bus.subscribe(pattern, SubscribeOptions::default()).await.unwrap();
    let waits = tokio::spawn(async move { subscription.next().await.is_none() });
    tokio::task::yield_now().await;
    drop(bus);
    assert!(waits.await.unwrap());
}

#[tokio::test]
async fn subscriptions_are_bounded_and_ended_ones_make_room() {
    let bus = LocalBus::new();
    let pattern = SubjectPattern::parse("a").unwrap();
    let mut held = Vec::new();
    for _ in 0..MAX_SUBSCRIPTIONS {
        held.push(bus.add(pattern.clone(), SubscribeOptions::default()).unwrap());
    }
    let over = bus.add(pattern.clone(), SubscribeOptions::default()).map(|_| ()).unwrap_err();
    assert_eq!(over, BrokerError::TooManySubscriptions(MAX_SUBSCRIPTIONS));
    held.pop();
    assert!(bus.add(pattern, SubscribeOptions::default()).is_ok());
}

#[tokio::test]
async fn nothing_is_dropped_for_an_event_that_would_not_fit_anyway() {
    let bus = LocalBus::new();
    let ack_timeout = std::time::Duration::from_secs(3600);
    let redelivery = Some(Redelivery { max_attempts: 2, ack_timeout });
    let options = SubscribeOptions { max_bytes: 3000, redelivery, ..SubscribeOptions::default() };
    let mut s = bus.add(SubjectPattern::parse("a").unwrap(), options).unwrap();
    let event = |n| Event::new("a", Payload::octets(vec![0; n]), Arc::new(Principal::Application));
    bus.publish(event(2000)).await.unwrap();
    let _held = s.next().await.unwrap();
    bus.publish(event(10)).await.unwrap();
    let published = bus.publish(event(1000)).await.unwrap();
    assert_eq!(published, Published { queued: 0, dropped: 1, blocked: 0 });
    assert_eq!(s.counters().waiting, 1, "the small one still waits");
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Publish(u16),
    Ack,
    Nack,
    Hold,
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u16..2000).prop_map(Op::Publish),
        2 => Just(Op::Ack),
        2 => Just(Op::Nack),
        1 => Just(Op::Hold),
        1 => Just(Op::Release),
    ]
}

proptest! {
    /// Nothing is lost or made up: what was queued was acknowledged, given up, dropped after all, or is
    /// still there; and the bounds hold at each step.
    #[test]
    fn every_delivery_is_accounted_for(
        ops in prop::collection::vec(op(), 1..200),
        capacity in 1usize..8,
        overflow in prop_oneof![
            Just(Overflow::DropOldest), Just(Overflow::DropNewest), Just(Overflow::Refuse)
        ],
        attempts in prop::option::of(1u32..4),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bus = LocalBus::new();
            let redelivery = attempts.map(|max_attempts| Redelivery {
                max_attempts,
                ack_timeout: std::time::Duration::from_secs(3600),
            });
            let options = SubscribeOptions { capacity, max_bytes: 4000, overflow, redelivery };
            let pattern = SubjectPattern::parse("a").unwrap();
            let mut s = bus.subscribe(pattern, options).await.unwrap();
            let (mut queued, mut dropped, mut blocked) = (0u64, 0u64, 0u64);
            let mut held = Vec::new();
            let mut with_handler = 0u64;
            for op in ops {
                match op {
                    Op::Publish(size) => {
                        let data = Payload::octets(vec![0; usize::from(size)]);
                        let event = Event::new("a", data, Arc::new(Principal::Application));
                        let p = bus.publish(event).await.unwrap();
                        queued += u64::from(p.queued);
                        dropped += u64::from(p.dropped);
                        blocked += u64::from(p.blocked);
                    }
                    Op::Release => drop(held.pop()),
                    take if s.counters().waiting > 0 => {
                        let delivery = s.next().await.unwrap();
                        match take {
                            Op::Ack => delivery.ack(),
                            Op::Nack => delivery.nack(),
                            _ => held.push(delivery),
                        }
                    }
                    _ => {}
                }
                with_handler = held.len() as u64;
                let c = s.counters();
                prop_assert!(c.waiting + c.unacknowledged <= capacity as u64);
                prop_assert_eq!((c.queued, c.dropped, c.blocked), (queued, dropped, blocked));
            }
            let c = s.counters();
            // Only what was queued before can be dropped for a newer one.
            let evicted = if overflow == Overflow::DropOldest {
                c.queued - c.acknowledged - c.given_up - c.waiting - with_handler
            } else {
                0
            };
            prop_assert!(evicted <= c.dropped);
            if redelivery.is_some() {
                prop_assert_eq!(c.unacknowledged, with_handler);
            }
            prop_assert_eq!(
                c.queued,
                c.acknowledged + c.given_up + c.waiting + with_handler + evicted
            );
            Ok(())
        })?;
    }
}
