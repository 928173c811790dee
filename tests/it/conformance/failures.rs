//! Something fails on the way: what was done is found out, and nothing is done twice.

use serde_json::json;

use paybus::payment::action::Action;
use paybus::payment::contract::{AfterServerError, Lookup};

use super::fake::{Deed, Ended, Meets, On, Unsupported};
use super::kit::{BRIEF, Cure, Kit, TOTAL};
use super::money::{assert_nothing_taken, assert_released};
use crate::support::{Command, Event};

/// A charge that was made while its answer went wrong in this way.
async fn charged_unseen(kit: &Kit, way: Meets) -> Ended {
    let charge = kit.charge_that_meets(&[way])?;
    kit.world.publish(&charge).await;
    let answer = kit.end_of_lost_answer(&charge, way).await;
    if kit.is_undone(&charge, &answer, way).await {
        return Ok(());
    }
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    kit.assert_keys(&charge, 1);
    Ok(())
}

pub async fn lost_charge(kit: &Kit) -> Ended {
    charged_unseen(kit, Meets::LoseAnswer).await
}

/// The gateway undoes it once, however often it is told to, and what comes of it is told.
pub async fn undone_charge(kit: &Kit) -> Ended {
    if !kit.contract().undoes() {
        return Err(Unsupported("its contract: nothing is undone"));
    }
    let charge = kit.charge_that_meets(&[Meets::LoseAnswer])?;
    kit.plan(&charge, On::Undo, &[Meets::ErrorBefore, Meets::LoseAnswer])?;
    kit.world.publish(&charge).await;
    let answer = kit.world.final_event(&charge).await;
    assert!(kit.is_undone(&charge, &answer, Meets::LoseAnswer).await, "{}", answer.line());
    // What was undone is no money: the second charge is all there is to give back.
    let refund = kit.world.run(&charge.then("payment.refund", json!({}))).await;
    assert_eq!((refund.status(), refund.field("refunded_amount")), ("refunded", TOTAL), "{}", refund.line());
    Ok(())
}

pub async fn late_charge(kit: &Kit) -> Ended {
    charged_unseen(kit, Meets::NoAnswer).await
}

pub async fn error_after(kit: &Kit) -> Ended {
    charged_unseen(kit, Meets::ErrorAfter).await
}

/// Something that was done to a payment while its answer was lost; its answer.
async fn done_unseen(kit: &Kit, payment: &Command, kind: &str, action: Action) -> Ended<Event> {
    kit.plan(payment, On::Act(action), &[Meets::LoseAnswer])?;
    let command = payment.then(kind, json!({}));
    kit.world.publish(&command).await;
    Ok(kit.end_of_lost_answer(&command, Meets::LoseAnswer).await)
}

pub async fn lost_capture(kit: &Kit) -> Ended {
    let held = kit.authorized().await;
    let answer = done_unseen(kit, &held, "payment.capture", Action::Capture).await?;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
    kit.assert_booked(&held, &[(Deed::Authorization, TOTAL), (Deed::Capture, TOTAL)]);
    Ok(())
}

pub async fn lost_release(kit: &Kit) -> Ended {
    let held = kit.authorized().await;
    let answer = done_unseen(kit, &held, "payment.release", Action::Release).await?;
    assert_eq!(answer.status(), "refunded", "{}", answer.line());
    assert_released(kit, &held);
    Ok(())
}

pub async fn lost_refund(kit: &Kit) -> Ended {
    let charge = kit.charged().await;
    let answer = done_unseen(kit, &charge, "payment.refund", Action::Refund).await?;
    assert_eq!((answer.status(), answer.field("refunded_amount")), ("refunded", TOTAL), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL), (Deed::Refund, TOTAL)]);
    Ok(())
}

/// It may have been received as far as anyone can tell, and was not.
async fn not_charged_unseen(kit: &Kit, way: Meets) -> Ended {
    let charge = kit.charge_that_meets(&[way])?;
    kit.world.publish(&charge).await;
    let cure = kit.cure(way);
    match cure {
        // Under the same key it is safe to send it again; after the proof that nothing was done, under a new one.
        Cure::SameKey | Cure::LookUp | Cure::Undo => {
            let answer = kit.world.final_event(&charge).await;
            assert_eq!(answer.status(), "confirmed", "{}", answer.line());
            kit.assert_keys(&charge, if cure == Cure::SameKey { 1 } else { 2 });
        }
        Cure::FindOnly | Cure::Person => nobody_knows(kit, &charge).await,
    }
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    Ok(())
}

/// Nothing more is sent until a person says that nothing was charged; then the payment can be tried again.
async fn nobody_knows(kit: &Kit, charge: &Command) {
    kit.escalated(charge).await;
    assert_nothing_taken(kit, charge);
    kit.assert_keys(charge, 1);
    let second = kit.world.run(&kit.again(charge)).await;
    assert_eq!(second.code(), "in_progress", "{}", second.line());
    assert_eq!(kit.resolve(charge, "not_charged").await.status(), "error");
    assert_eq!(kit.world.run(&kit.again(charge)).await.status(), "confirmed");
}

pub async fn never_arrived(kit: &Kit) -> Ended {
    not_charged_unseen(kit, Meets::HangBefore).await
}

pub async fn error_before(kit: &Kit) -> Ended {
    not_charged_unseen(kit, Meets::ErrorBefore).await
}

/// A key that is answered with the same error for ever can never succeed: it is not sent again.
pub async fn stored_error(kit: &Kit) -> Ended {
    if kit.contract().keys.process.after_server_error != AfterServerError::Replayed {
        return Err(Unsupported("its contract: a server error is not kept"));
    }
    not_charged_unseen(kit, Meets::StoreError).await
}

/// Past its window a key is a new one to the gateway: nothing is sent under it, the gateway is asked.
pub async fn forgotten_key(kit: &Kit) -> Ended {
    kit.fake.brief_keys()?;
    let mut charge = kit.charge_that_meets(&[Meets::LoseAnswer])?.with("variant", json!(BRIEF));
    BRIEF.clone_into(&mut charge.variant);
    kit.world.publish(&charge).await;
    let answer = match kit.contract().lookup {
        Lookup::None if !kit.contract().undo => {
            kit.escalated(&charge).await;
            kit.resolve(&charge, "approved").await
        }
        Lookup::None | Lookup::Indicative | Lookup::Authoritative => kit.world.final_event(&charge).await,
    };
    if kit.contract().undo {
        assert_eq!((answer.status(), answer.field("captured_amount")), ("error", "0.00"), "{}", answer.line());
        return Ok(());
    }
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    assert_eq!(kit.fake.sent(charge.payment)?.len(), 1, "it was sent once");
    Ok(())
}

/// The gateway works on this key: whatever becomes of that, it is not done twice.
pub async fn busy(kit: &Kit) -> Ended {
    not_charged_unseen(kit, Meets::Busy).await
}

pub async fn too_many(kit: &Kit) -> Ended {
    let charge = kit.charge_that_meets(&[Meets::TooMany(1)])?;
    kit.world.publish(&charge).await;
    let delayed = kit.world.event_of(&charge, "command.delayed").await;
    assert_eq!(delayed.reason(), "rate_limited", "{}", delayed.line());
    let answer = kit.world.final_event(&charge).await;
    assert_eq!(answer.status(), "confirmed", "{}", answer.line());
    let time = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let (emitted_at, next) = (time(&delayed.body["time"]), time(&delayed.data()["next_attempt_at"]));
    let pause = next.duration_since(emitted_at);
    assert!(pause.as_millis() >= 900, "Retry-After was not heeded: {pause:?}");
    assert!(time(&answer.body["time"]) >= next, "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    kit.assert_keys(&charge, 1);
    Ok(())
}

pub async fn duplicates(kit: &Kit) -> Ended {
    let charge = kit.charge();
    kit.world.publish_all(&[charge.clone(), charge.clone(), charge.clone()]).await;
    kit.world.final_event(&charge).await;
    let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
    kit.world.publish_all(&[refund.clone(), charge.clone(), refund.clone()]).await;
    let answer = kit.world.final_event(&refund).await;
    assert_eq!(answer.field("captured_amount"), "100.00", "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL), (Deed::Refund, "20.00")]);
    Ok(())
}

/// The gateway has acted, and whoever knew is dead.
pub async fn death(kit: &Kit) -> Ended {
    let charge = kit.charge();
    kit.dies_at("called", &charge).await;
    kit.world.worker().await;
    let answer = kit.end_of_lost_answer(&charge, Meets::LoseAnswer).await;
    if kit.is_undone(&charge, &answer, Meets::LoseAnswer).await {
        return Ok(());
    }
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    kit.assert_keys(&charge, 1);
    Ok(())
}

/// A connection that is refused proves that nothing was sent: it is tried again, and may be given up.
pub async fn away(kit: &Kit) -> Ended {
    let paid = kit.charged().await;
    kit.fake.stop().await?;
    let charge = kit.charge();
    let refund = paid.then("payment.refund", json!({"amount": "20.00"}));
    kit.world.publish_all(&[charge.clone(), refund.clone()]).await;
    assert_eq!(kit.world.event_of(&charge, "command.delayed").await.reason(), "unreachable");
    let (charged, refunded) = (kit.world.final_event(&charge).await, kit.world.final_event(&refund).await);
    kit.fake.start().await;
    assert_eq!((charged.status(), charged.code()), ("error", "unreachable"), "{}", charged.line());
    assert_eq!((refunded.kind(), refunded.code()), ("command.failed", "unreachable"), "{}", refunded.line());
    let again = kit.world.run(&kit.again(&charge)).await;
    assert_eq!(again.status(), "confirmed", "{}", again.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    kit.assert_booked(&paid, &[(Deed::Charge, TOTAL)]);
    Ok(())
}
