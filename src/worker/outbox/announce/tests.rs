//! Which task posts an event, and which one waits. Neither the broker nor the database is reachable here.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bus::{BusSettings, BusTls};
use crate::store::StoreSettings;
use crate::worker::outbox::announce::*;

fn announcer() -> Arc<Announcer> {
    let bus = BusSettings {
        url: "amqp://127.0.0.1:1".into(),
        prefix: "p".to_owned(),
        declare: false,
        tls: BusTls::default(),
        confirm_timeout: Duration::from_secs(1),
        heartbeat: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        delivery_limit: 1,
    };
    let store = StoreSettings {
        url: "postgres://127.0.0.1:1/p".into(),
        tls: None,
        pool: 1,
        statement_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        is_pooled: false,
    };
    let store = Arc::new(Store::new(&store).expect("a store"));
    Announcer::spawn(Publisher::spawn(bus, CancellationToken::new()), store).0
}

fn stored(position: u64) -> OutboxEvent {
    OutboxEvent {
        position: position.cast_signed(),
        payment_id: Uuid::from_u128(1),
        id: Uuid::from_u64_pair(7, position),
        event_type: "payment.updated".to_owned(),
        routing_key: "cards.payment.updated".to_owned(),
        body: "{}".to_owned(),
        correlation_id: None,
        trace: None,
        reply: None,
    }
}

fn unsent(events: Vec<OutboxEvent>) -> Unsent {
    Unsent { events, read_at: Some(Instant::now()), ..Unsent::default() }
}

/// Whether the future is still pending after a while in which nothing happens that could complete it.
async fn waits<F: Future>(wait: &mut std::pin::Pin<Box<F>>) -> bool {
    timeout(Duration::from_millis(20), wait.as_mut()).await.is_err()
}

#[tokio::test]
async fn who_comes_second_waits_until_the_first_has_posted() {
    let announcer = announcer();
    let first = announcer.claim(&[stored(1), stored(2)]).await;
    assert_eq!(first.ids.len(), 2);
    let events = [stored(2), stored(3)];
    let mut second = Box::pin(announcer.claim(&events));
    assert!(waits(&mut second).await, "what comes later goes out later");
    // Nothing is claimed while waiting, or the two could wait for each other.
    assert_eq!(announcer.claim(&[stored(3)]).await.ids.len(), 1);
    first.kept();
    assert_eq!(second.await.ids, [stored(3).id]);
}

#[tokio::test]
async fn a_claim_whose_task_ends_is_given_back() {
    let announcer = announcer();
    let first = announcer.claim(&[stored(1)]).await;
    let events = [stored(1)];
    let mut second = Box::pin(announcer.claim(&events));
    assert!(waits(&mut second).await);
    drop(first);
    assert_eq!(second.await.ids, [stored(1).id]);
}

/// The channel is full because the broker is unreachable: an event that was read together with one that waits for
/// capacity must not overtake it.
#[tokio::test]
async fn an_event_that_waits_for_room_is_not_counted_as_posted() {
    let announcer = announcer();
    let many = (10..10_000).map(stored).collect();
    let mut filling = Box::pin(announcer.announce(Uuid::from_u128(1), unsent(many)));
    assert!(waits(&mut filling).await, "there is no room for so many");
    let events = vec![stored(9_999), stored(10_000)];
    let mut later = Box::pin(announcer.announce(Uuid::from_u128(1), unsent(events)));
    assert!(waits(&mut later).await);
    assert!(!announcer.in_flight.lock().contains_key(&stored(10_000).id));
    // The waiting task gives up its place in the channel's queue as well.
    drop(filling);
    assert!(later.await.is_some());
    for position in [9_999, 10_000] {
        assert_eq!(announcer.in_flight.lock().get(&stored(position).id), Some(&Stage::Posted));
    }
}

#[tokio::test]
async fn new_events_of_a_payment_that_is_set_aside_stay_in_the_outbox() {
    let announcer = announcer();
    let payment = Uuid::from_u128(1);
    let aside = Unsent { set_aside: true, read_at: Some(Instant::now()), ..Unsent::default() };
    let new = vec![from_outbox(stored(2))];
    let promise = announcer.claim(&[stored(2)]).await;
    let announced = announcer.announce_new(payment, aside, new, promise).await;
    assert!(!announced.is_some());
    assert!(announcer.in_flight.lock().is_empty(), "nobody waits for it");
}

/// The channel that takes the events may know their fate before all of them are handed over.
#[tokio::test(flavor = "multi_thread")]
async fn reports_during_a_handover_of_events_are_kept() {
    let announcer = announcer();
    announcer.publisher.aside().stored(Uuid::from_u128(1), Instant::now());
    // More than the channel holds, so that the fate of some is reported before it takes the last.
    let unsent = Unsent { events: (1..=3000).map(stored).collect(), ..Unsent::default() };
    let announced = announcer.announce(Uuid::from_u128(1), unsent).await;
    timeout(Duration::from_secs(10), announced.confirmed()).await.expect("all of them stay behind");
    assert!(announcer.in_flight.lock().is_empty(), "they go out when the payment is released");
}

/// Whether events that were posted long ago may be left to their channel.
async fn leaves(state: &watch::Receiver<ConnectionState>, leave: &Arc<Semaphore>, events: u32) -> bool {
    let long_ago = tokio::time::Instant::now() - CONFIRM_WAIT;
    let mut leaving = Box::pin(may_leave(state.clone(), Arc::clone(leave), long_ago, events));
    match timeout(Duration::from_millis(20), leaving.as_mut()).await {
        Ok(permit) => {
            permit.expect("nothing is shut down").forget();
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn events_are_left_only_while_the_broker_is_there_and_few_are() {
    let leave = Arc::new(Semaphore::new(LEFT_MAX));
    let (broker, state) = watch::channel(ConnectionState::Disconnected("it is away".to_owned()));
    assert!(!leaves(&state, &leave, 1).await, "commands wait for a broker that is away");
    broker.send_replace(ConnectionState::Connected);
    let most = u32::try_from(LEFT_MAX - 1).expect("a number");
    assert!(leaves(&state, &leave, most).await);
    assert!(!leaves(&state, &leave, 2).await, "the channels' memory is bounded");
    assert!(leaves(&state, &leave, 1).await);
    leave.add_permits(LEFT_MAX);
    assert!(leaves(&state, &leave, 2).await, "there is room again");
}

/// The command frees its prefetch slot while the events are still in flight.
#[tokio::test]
async fn events_that_are_left_keep_their_permit_until_their_fate_is_known() {
    let announcer = announcer();
    let announced = announcer.announce(Uuid::from_u128(1), unsent(vec![stored(1), stored(2)])).await;
    let handed_over = announced.0.expect("two events");
    let permit = may_leave(
        watch::channel(ConnectionState::Connected).1,
        Arc::clone(&announcer.leave),
        tokio::time::Instant::now() - CONFIRM_WAIT,
        handed_over.events,
    );
    let permit = permit.await.expect("a permit");
    handed_over.left.get_or_init(|| permit);
    drop(handed_over);
    assert_eq!(announcer.leave.available_permits(), LEFT_MAX - 2);
    assert_eq!(announcer.in_flight.lock().get(&stored(1).id), Some(&Stage::Posted), "nobody sends it a second time");
}
