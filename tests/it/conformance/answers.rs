//! The gateway knows better, or knows more.

use std::collections::BTreeSet;

use serde_json::json;

use paybus::payment::contract::Lookup;

use super::fake::{Deed, Ended, Meets, SignedWebhook, Unsupported};
use super::kit::{Kit, TOTAL};
use crate::support::Event;

/// What the gateway did counts, and the difference is told.
pub async fn other_amount(kit: &Kit) -> Ended {
    let charge = kit.charge_that_meets(&[Meets::OtherAmount("100.00")])?;
    let answer = kit.world.run(&charge).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "100.00"), "{}", answer.line());
    let discrepancy = json!({"asked": TOTAL, "answered": "100.00", "currency": "USD"});
    assert_eq!(answer.data()["discrepancy"], discrepancy, "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, "100.00")]);
    Ok(())
}

/// What stands beside the money costs no money.
pub async fn ornate(kit: &Kit) -> Ended {
    let charge = kit.charge_that_meets(&[Meets::Ornate])?;
    let answer = kit.world.run(&charge).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
    assert!(answer.data().get("discrepancy").is_none(), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    assert!(kit.fake.sent(charge.payment).is_ok_and(|sent| sent.len() == 1), "it was asked once");
    Ok(())
}

/// It is applied to nothing: a person must look.
pub async fn other_currency(kit: &Kit) -> Ended {
    let charge = kit.charge_that_meets(&[Meets::OtherCurrency("EUR")])?;
    kit.world.publish(&charge).await;
    let delayed = kit.world.event_of(&charge, "command.delayed").await;
    assert_eq!(delayed.reason(), "mismatch", "{}", delayed.line());
    kit.world.operation_state(&charge, "unknown").await;
    let second = kit.world.run(&kit.again(&charge)).await;
    assert_eq!(second.code(), "in_progress", "{}", second.line());
    let row = kit.world.payment_row(charge.payment).await;
    assert_eq!(row.get::<_, &str>("status"), "waiting");
    let answer = kit.resolve(&charge, "not_charged").await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("error", "0.00"), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    Ok(())
}

pub async fn sync(kit: &Kit) -> Ended {
    if kit.contract().lookup == Lookup::None {
        return Err(Unsupported("its contract: no look-up"));
    }
    let charge = kit.charged().await;
    kit.fake.refund_by_hand(charge.payment, "20.00")?;
    let answer = kit.world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!((answer.kind(), answer.status()), ("payment.updated", "confirmed"), "{}", answer.line());
    assert_eq!((answer.field("captured_amount"), answer.field("refunded_amount")), ("100.00", "20.00"));
    let again = kit.world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!(again.kind(), "command.succeeded", "a truth learnt twice counts once: {}", again.line());
    Ok(())
}

/// What was let go by capturing less was never taken, and is not given back either.
pub async fn sync_of_part(kit: &Kit) -> Ended {
    if kit.contract().lookup == Lookup::None {
        return Err(Unsupported("its contract: no look-up"));
    }
    let held = kit.authorized().await;
    kit.world.run(&held.then("payment.capture", json!({"amount": "45.50"}))).await;
    kit.world.run(&held.then("payment.refund", json!({"amount": "5.50"}))).await;
    let answer = kit.world.run(&held.then("payment.sync", json!({}))).await;
    assert_eq!((answer.kind(), answer.status()), ("command.succeeded", "confirmed"), "{}", answer.line());
    assert_eq!((answer.field("captured_amount"), answer.field("refunded_amount")), ("40.00", "5.50"));
    Ok(())
}

/// What the gateway tells by itself is asked about, and learnt once; what it did not tell is refused. One that tells nothing
/// says so.
pub async fn notification(kit: &Kit) -> Ended {
    if kit.adapter.notifications().is_none() {
        let charge = kit.charged().await;
        let data = json!({"received_at": "2026-11-22T12:00:00Z", "method": "POST", "url": "/hook", "headers": [],
                          "body_base64": "e30="});
        let answer = kit.world.run(&charge.then("payment.notification", data)).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "unsupported"), "{}", answer.line());
        return Err(Unsupported("it sends none"));
    }
    if kit.contract().lookup == Lookup::None {
        return Err(Unsupported("its contract: no look-up"));
    }
    let charge = kit.charged().await;
    kit.fake.refund_by_hand(charge.payment, "20.00")?;
    let signed = kit.fake.webhook(charge.payment)?;
    let forged = SignedWebhook { body: signed.body.replacen('{', "{ ", 1), ..signed.clone() };
    assert_eq!(kit.deliver(&forged).await, 400);
    assert_eq!(kit.deliver(&signed).await, 200);
    let is_refund = |event: &Event| event.subject() == charge.subject() && event.field("refunded_amount") == "20.00";
    let learnt = kit.world.event("the refund", is_refund).await;
    assert_eq!((learnt.status(), learnt.field("captured_amount")), ("confirmed", "100.00"), "{}", learnt.line());
    assert_eq!(kit.deliver(&signed).await, 200);
    let answer = kit.world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!(answer.field("refunded_amount"), "20.00", "{}", answer.line());
    // The same event may come twice, under one id.
    let learnt = kit.world.log.filter(|event| is_refund(event) && event.kind() == "payment.updated");
    let learnt: BTreeSet<&str> = learnt.iter().map(Event::id).collect();
    assert_eq!(learnt.len(), 1, "a truth learnt twice counts once");
    Ok(())
}
