//! What every event bus must do, as checks that are generic over the bus.
//!
//! A crate that implements [`EventBus`] runs [`run`] in its tests, with the feature `conformance`. Each
//! check gets a bus of its own and uses subjects below `conformance.` only.

use std::{sync::Arc, time::Duration};

use palisade_audit::BoxFuture;
use palisade_model::{Payload, Principal, capability::SubjectPattern};

use crate::{
    BrokerError, Delivery, Event, EventBus, Overflow, Published, Redelivery, SubscribeOptions,
    Subscription,
    bus::{MAX_EVENT_BYTES, MAX_HOPS},
};

/// How long a delivery may take to arrive, and how long none must come to count as none.
const ARRIVES: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(100);

/// Why a bus does not conform.
pub type Misfit = String;

macro_rules! hold {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}

type Check = fn(Arc<dyn EventBus>) -> BoxFuture<'static, Result<(), Misfit>>;

/// Runs every check against a fresh bus of `make`. Gives the name of each and what came of it.
pub async fn run<F, Fut>(make: F) -> Vec<(&'static str, Result<(), Misfit>)>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn EventBus>>,
{
    let checks: [(&'static str, Check); 14] = [
        ("patterns_decide_who_gets_what", |b| Box::pin(patterns(b))),
        ("an_event_arrives_unchanged", |b| Box::pin(unchanged(b))),
        ("order_of_one_publisher_is_kept", |b| Box::pin(order(b))),
        ("drop_oldest_keeps_the_newest", |b| Box::pin(drop_oldest(b))),
        ("drop_newest_keeps_the_oldest", |b| Box::pin(drop_newest(b))),
        ("refuse_tells_the_publisher", |b| Box::pin(refuse(b))),
        ("bytes_are_bounded_too", |b| Box::pin(bytes(b))),
        ("a_slow_subscriber_holds_up_nobody", |b| Box::pin(slow(b))),
        ("once_means_once", |b| Box::pin(once(b))),
        ("at_least_once_comes_again_under_the_same_id", |b| Box::pin(again(b))),
        ("a_missing_acknowledgement_counts_as_a_refusal", |b| Box::pin(overdue(b))),
        ("what_no_bus_takes", |b| Box::pin(refused(b))),
        ("a_dropped_subscription_gets_nothing", |b| Box::pin(unsubscribed(b))),
        ("a_dropped_wait_loses_nothing", |b| Box::pin(cancelled(b))),
    ];
    let mut results = Vec::with_capacity(checks.len());
    for (name, check) in checks {
        results.push((name, check(make().await).await));
    }
    results
}

fn source() -> Arc<Principal> {
    Arc::new(Principal::Client("conformance".into()))
}

fn event(subject: &str, n: u32) -> Event {
    Event::new(subject, Payload::from_json_text(n.to_string()), source())
}

async fn publish(bus: &Arc<dyn EventBus>, event: Event) -> Result<Published, Misfit> {
    bus.publish(event).await.map_err(|e| format!("publish: {e}"))
}

async fn subscribe(
    bus: &Arc<dyn EventBus>,
    pattern: &str,
    options: SubscribeOptions,
) -> Result<Box<dyn Subscription>, Misfit> {
    let pattern = SubjectPattern::parse(pattern)?;
    bus.subscribe(pattern, options).await.map_err(|e| format!("subscribe: {e}"))
}

async fn next(subscription: &mut Box<dyn Subscription>) -> Result<Delivery, Misfit> {
    match tokio::time::timeout(ARRIVES, subscription.next()).await {
        Ok(Some(delivery)) => Ok(delivery),
        Ok(None) => Err("the subscription ended".into()),
        Err(_) => Err("no delivery came".into()),
    }
}

async fn nothing(subscription: &mut Box<dyn Subscription>) -> Result<(), Misfit> {
    match tokio::time::timeout(QUIET, subscription.next()).await {
        Ok(Some(delivery)) => Err(format!("{delivery:?} came unasked")),
        _ => Ok(()),
    }
}

/// Takes and acknowledges `n` deliveries and gives the numbers they carry.
async fn take(subscription: &mut Box<dyn Subscription>, n: usize) -> Result<Vec<u32>, Misfit> {
    let mut numbers = Vec::with_capacity(n);
    for _ in 0..n {
        let delivery = next(subscription).await?;
        numbers.push(delivery.event().data.parse().map_err(|e| e.to_string())?);
        delivery.ack();
    }
    Ok(numbers)
}

fn small(capacity: usize, overflow: Overflow) -> SubscribeOptions {
    SubscribeOptions { capacity, overflow, ..SubscribeOptions::default() }
}

fn at_least_once(max_attempts: u32, ack_timeout: Duration) -> SubscribeOptions {
    let redelivery = Some(Redelivery { max_attempts, ack_timeout });
    SubscribeOptions { redelivery, ..SubscribeOptions::default() }
}

async fn patterns(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let options = SubscribeOptions::default();
    let mut one = subscribe(&bus, "conformance.a", options).await?;
    let mut token = subscribe(&bus, "conformance.*", options).await?;
    let mut rest = subscribe(&bus, "conformance.>", options).await?;
    for (subject, fits) in
        [("conformance.a", 3), ("conformance.b", 2), ("conformance.a.b", 1), ("conformance", 0)]
    {
        let published = publish(&bus, event(subject, fits)).await?;
        hold!(published.queued == fits, "{subject}: {published:?}, expected {fits} queued");
    }
    hold!(take(&mut one, 1).await? == [3], "an exact subject");
    hold!(take(&mut token, 2).await? == [3, 2], "one token");
    hold!(take(&mut rest, 3).await? == [3, 2, 1], "one token or more");
    nothing(&mut one).await?;
    nothing(&mut token).await?;
    nothing(&mut rest).await
}

async fn unchanged(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut first = subscribe(&bus, "conformance.x", SubscribeOptions::default()).await?;
    let mut second = subscribe(&bus, "conformance.x", SubscribeOptions::default()).await?;
    let data = Payload::octets(vec![0, 255, 10, 13]);
    let sent = Event {
        hops: MAX_HOPS,
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..Event::new("conformance.x", data, source())
    };
    publish(&bus, sent.clone()).await?;
    let (a, b) = (next(&mut first).await?, next(&mut second).await?);
    hold!(**a.event() == sent && **b.event() == sent, "{:?} is not what was sent", a.event());
    hold!(a.attempt() == 1, "the first attempt is number {}", a.attempt());
    hold!(a.id() != b.id(), "two deliveries have one id");
    Ok(())
}

async fn order(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut all = subscribe(&bus, "conformance.>", SubscribeOptions::default()).await?;
    let send = |subject: &'static str| {
        let bus = Arc::clone(&bus);
        async move {
            for n in 0..200 {
                publish(&bus, event(subject, n)).await?;
                tokio::task::yield_now().await;
            }
            Ok::<_, Misfit>(())
        }
    };
    let (a, b) = tokio::join!(send("conformance.a"), send("conformance.b"));
    a.and(b)?;
    let (mut a, mut b) = (0u32, 0u32);
    for _ in 0..400 {
        let delivery = next(&mut all).await?;
        let n: u32 = delivery.event().data.parse().map_err(|e| e.to_string())?;
        let expected = if &*delivery.event().subject == "conformance.a" { &mut a } else { &mut b };
        hold!(n == *expected, "{} came where {expected} was due", n);
        *expected += 1;
        delivery.ack();
    }
    Ok(())
}

async fn drop_oldest(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut s = subscribe(&bus, "conformance.x", small(3, Overflow::DropOldest)).await?;
    for n in 0..5 {
        let published = publish(&bus, event("conformance.x", n)).await?;
        let dropped = u32::from(n >= 3);
        let expected = Published { queued: 1, dropped, blocked: 0 };
        hold!(published == expected, "{n}: {published:?}");
    }
    hold!(take(&mut s, 3).await? == [2, 3, 4], "the newest three");
    hold!(s.counters().dropped == 2, "{:?}", s.counters());
    nothing(&mut s).await
}

async fn drop_newest(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut s = subscribe(&bus, "conformance.x", small(3, Overflow::DropNewest)).await?;
    for n in 0..5 {
        let published = publish(&bus, event("conformance.x", n)).await?;
        let dropped = u32::from(n >= 3);
        let expected = Published { queued: 1 - dropped, dropped, blocked: 0 };
        hold!(published == expected, "{n}: {published:?}");
    }
    hold!(take(&mut s, 3).await? == [0, 1, 2], "the oldest three");
    nothing(&mut s).await
}

async fn refuse(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut s = subscribe(&bus, "conformance.x", small(1, Overflow::Refuse)).await?;
    publish(&bus, event("conformance.x", 0)).await?;
    let full = publish(&bus, event("conformance.x", 1)).await?;
    hold!(full == Published { queued: 0, dropped: 0, blocked: 1 }, "{full:?}");
    hold!(take(&mut s, 1).await? == [0], "what was there first");
    let room = publish(&bus, event("conformance.x", 2)).await?;
    hold!(room.queued == 1, "{room:?} although there is room again");
    hold!(take(&mut s, 1).await? == [2], "what came when there was room");
    Ok(())
}

async fn bytes(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let options = SubscribeOptions { max_bytes: 10_000, ..SubscribeOptions::default() };
    let mut s = subscribe(&bus, "conformance.x", options).await?;
    let large = |n: usize| Event::new("conformance.x", Payload::octets(vec![b'x'; n]), source());
    publish(&bus, large(4000)).await?;
    publish(&bus, large(4001)).await?;
    let third = publish(&bus, large(4002)).await?;
    hold!(third == Published { queued: 1, dropped: 1, blocked: 0 }, "{third:?}");
    let never = publish(&bus, large(10_001)).await?;
    hold!(never == Published { queued: 0, dropped: 1, blocked: 0 }, "{never:?}");
    for expected in [4001, 4002] {
        let delivery = next(&mut s).await?;
        let got = delivery.event().data.len();
        hold!(got == expected, "{got} bytes came where {expected} were due");
    }
    nothing(&mut s).await
}

async fn slow(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let asleep = subscribe(&bus, "conformance.x", small(2, Overflow::Refuse)).await?;
    let mut awake = subscribe(&bus, "conformance.x", SubscribeOptions::default()).await?;
    for n in 0..100 {
        let sent = tokio::time::timeout(ARRIVES, publish(&bus, event("conformance.x", n))).await;
        hold!(sent.is_ok(), "a publisher waits for a subscriber that sleeps");
        hold!(take(&mut awake, 1).await? == [n], "event {n} at the one that is awake");
    }
    hold!(asleep.counters().waiting == 2, "{:?}", asleep.counters());
    Ok(())
}

async fn once(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut s = subscribe(&bus, "conformance.x", SubscribeOptions::default()).await?;
    publish(&bus, event("conformance.x", 0)).await?;
    publish(&bus, event("conformance.x", 1)).await?;
    next(&mut s).await?.nack();
    drop(next(&mut s).await?);
    nothing(&mut s).await?;
    hold!(s.counters().given_up == 2, "{:?}", s.counters());
    Ok(())
}

async fn again(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut s = subscribe(&bus, "conformance.x", at_least_once(3, ARRIVES * 2)).await?;
    publish(&bus, event("conformance.x", 0)).await?;
    publish(&bus, event("conformance.x", 1)).await?;
    let first = next(&mut s).await?;
    let id = first.id().clone();
    first.nack();
    let second = next(&mut s).await?;
    hold!(*second.id() == id, "{} came again as {}", id, second.id());
    hold!(second.attempt() == 2, "attempt {}", second.attempt());
    drop(second);
    let third = next(&mut s).await?;
    hold!(*third.id() == id && third.attempt() == 3, "{third:?}");
    third.nack();
    let other = next(&mut s).await?;
    hold!(*other.id() != id, "a delivery came a fourth time of three");
    other.ack();
    nothing(&mut s).await?;
    let counters = s.counters();
    hold!(
        counters.given_up == 1 && counters.acknowledged == 1 && counters.redelivered == 2,
        "{counters:?}"
    );
    Ok(())
}

async fn overdue(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut s = subscribe(&bus, "conformance.x", at_least_once(2, QUIET)).await?;
    publish(&bus, event("conformance.x", 0)).await?;
    let held = next(&mut s).await?;
    let again = next(&mut s).await?;
    hold!(again.id() == held.id() && again.attempt() == 2, "{again:?}");
    held.ack();
    hold!(s.counters().acknowledged == 0, "a late acknowledgement was counted");
    again.ack();
    hold!(s.counters().acknowledged == 1, "{:?}", s.counters());
    nothing(&mut s).await
}

async fn refused(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    for subject in ["", "a b", "a..b", "conformance.*", ">", "a\n"] {
        let result = bus.publish(event(subject, 0)).await;
        hold!(matches!(result, Err(BrokerError::Subject(_))), "{subject:?}: {result:?}");
    }
    let round = Event { hops: MAX_HOPS + 1, ..event("conformance.x", 0) };
    let result = bus.publish(round).await;
    hold!(matches!(result, Err(BrokerError::Loop { .. })), "{result:?}");
    let data = Payload::octets(vec![0; MAX_EVENT_BYTES + 1]);
    let result = bus.publish(Event::new("conformance.x", data, source())).await;
    hold!(matches!(result, Err(BrokerError::EventTooLarge { .. })), "{result:?}");
    Ok(())
}

async fn unsubscribed(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let s = subscribe(&bus, "conformance.x", SubscribeOptions::default()).await?;
    drop(s);
    let published = publish(&bus, event("conformance.x", 0)).await?;
    hold!(published == Published::default(), "{published:?}");
    Ok(())
}

async fn cancelled(bus: Arc<dyn EventBus>) -> Result<(), Misfit> {
    let mut s = subscribe(&bus, "conformance.x", SubscribeOptions::default()).await?;
    nothing(&mut s).await?;
    publish(&bus, event("conformance.x", 7)).await?;
    hold!(take(&mut s, 1).await? == [7], "the event after a wait that was given up");
    Ok(())
}
