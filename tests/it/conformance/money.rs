//! All goes well: what was asked is done once, and stored as it was done.

use serde_json::json;

use super::fake::{Deed, Ended, Meets, On, PROCESS, Unsupported};
use super::kit::{CURRENCY, Kit, TOTAL};
use crate::support::{Command, Event};
use paybus::payment::action::Action;
use paybus::payment::contract::{Captures, Lookup, NotificationRole};

/// Without books nobody can say that a charge was made once.
pub async fn books(kit: &Kit) -> Ended {
    let charge = kit.charged().await;
    let books = kit.fake.books(charge.payment)?;
    assert_eq!((books.len(), books[0].currency.as_str()), (1, CURRENCY), "{books:?}");
    kit.assert_keys(&charge, 1);
    Ok(())
}

pub async fn charge(kit: &Kit) -> Ended {
    let charge = kit.charged().await;
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    let row = kit.world.payment_row(charge.payment).await;
    assert!(!row.get::<_, &str>("transaction_id").is_empty(), "the gateway's reference is kept");
    Ok(())
}

pub async fn capture(kit: &Kit) -> Ended {
    let held = kit.authorized().await;
    let answer = kit.world.run(&held.then("payment.capture", json!({}))).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
    kit.assert_booked(&held, &[(Deed::Authorization, TOTAL), (Deed::Capture, TOTAL)]);
    Ok(())
}

pub async fn capture_in_part(kit: &Kit) -> Ended {
    let held = kit.authorized().await;
    let answer = kit.world.run(&held.then("payment.capture", json!({"amount": "45.50"}))).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "45.50"), "{}", answer.line());
    kit.assert_booked(&held, &[(Deed::Authorization, TOTAL), (Deed::Capture, "45.50")]);
    Ok(())
}

/// An authorization is captured in parts where the contract says so; else it is refused before anything is sent.
pub async fn several_captures(kit: &Kit) -> Ended {
    let held = kit.authorized().await;
    let part = json!({"amount": "45.50", "final": false});
    let answer = kit.world.run(&held.then("payment.capture", part.clone())).await;
    if kit.contract().captures == Captures::Several {
        let sums = |event: &Event| [event.status(), event.field("captured_amount")].map(str::to_owned);
        assert_eq!(sums(&answer), ["preauth", "45.50"], "{}", answer.line());
        // Some gateways refund nothing before the last capture.
        let refund = kit.world.run(&held.then("payment.refund", json!({"amount": "5.50"}))).await;
        let is_refused = (refund.kind(), refund.code()) == ("command.failed", "refused");
        let [once, twice] = if is_refused { ["45.50", "91.00"] } else { ["40.00", "85.50"] };
        assert!(is_refused || sums(&refund) == ["preauth", once], "refunded while more is held: {}", refund.line());
        let second = kit.world.run(&held.then("payment.capture", part)).await;
        assert_eq!(sums(&second), ["preauth", twice], "{}", second.line());
        let rest = kit.world.run(&held.then("payment.release", json!({}))).await;
        assert_eq!(sums(&rest), ["confirmed", twice], "{}", rest.line());
        assert_eq!(rest.field("capturable_amount"), "0.00");
        return Ok(());
    }
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "unsupported"), "{}", answer.line());
    kit.assert_booked(&held, &[(Deed::Authorization, TOTAL)]);
    Err(Unsupported("refused: the first capture is the last"))
}

pub async fn release(kit: &Kit) -> Ended {
    let held = kit.authorized().await;
    let answer = kit.world.run(&held.then("payment.release", json!({}))).await;
    assert_eq!((answer.status(), answer.field("refunded_amount")), ("refunded", "0.00"), "{}", answer.line());
    assert_released(kit, &held);
    Ok(())
}

/// Gateways differ in what sum they give a release: only that it is there, and once.
pub fn assert_released(kit: &Kit, held: &Command) {
    let Ok(books) = kit.fake.books(held.payment) else { return };
    let deeds: Vec<Deed> = books.iter().map(|line| line.deed).collect();
    assert_eq!(deeds, [Deed::Authorization, Deed::Release]);
}

pub async fn refund(kit: &Kit) -> Ended {
    let charge = kit.charged().await;
    let answer = kit.world.run(&charge.then("payment.refund", json!({}))).await;
    let sums = (answer.status(), answer.field("captured_amount"), answer.field("refunded_amount"));
    assert_eq!(sums, ("refunded", "0.00", TOTAL), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL), (Deed::Refund, TOTAL)]);
    Ok(())
}

/// Two equal refunds are two refunds.
pub async fn refund_in_parts(kit: &Kit) -> Ended {
    let charge = kit.charged().await;
    for left in ["90.00", "60.00"] {
        let answer = kit.world.run(&charge.then("payment.refund", json!({"amount": "30.00"}))).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", left), "{}", answer.line());
    }
    let answer = kit.world.run(&charge.then("payment.refund", json!({}))).await;
    assert_eq!((answer.status(), answer.field("refunded_amount")), ("refunded", TOTAL), "{}", answer.line());
    let refunds = [(Deed::Refund, "30.00"), (Deed::Refund, "30.00"), (Deed::Refund, "60.00")];
    kit.assert_booked(&charge, &[&[(Deed::Charge, TOTAL)], &refunds[..]].concat());
    Ok(())
}

pub async fn pending_refund(kit: &Kit) -> Ended {
    let charge = kit.charge();
    let process = kit.plan(&charge, On::Act(Action::Refund), &[Meets::Pending { paid: true }])?;
    let charge = charge.with("process", process);
    kit.world.run(&charge).await;
    let refund = charge.then("payment.refund", json!({"amount": "30.00"}));
    kit.world.publish(&refund).await;
    assert_eq!(kit.world.event_of(&refund, "command.delayed").await.reason(), "pending");
    let beyond = kit.world.run(&charge.then("payment.refund", json!({"amount": "90.01"}))).await;
    assert_eq!(beyond.code(), "invalid_amount", "what is on its way is reserved: {}", beyond.line());
    kit.fake.complete(charge.payment, true)?;
    let answer = later_answer(kit, &refund).await;
    assert_eq!((answer.status(), answer.field("refunded_amount")), ("confirmed", "30.00"), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL), (Deed::Refund, "30.00")]);
    Ok(())
}

pub async fn cancel(kit: &Kit) -> Ended {
    let charge = kit.charge().without("process");
    kit.world.run(&charge).await;
    let answer = kit.world.run(&charge.then("payment.cancel", json!({}))).await;
    assert_eq!(answer.status(), "cancelled", "{}", answer.line());
    let late = kit.world.run(&kit.again(&charge)).await;
    assert_eq!((late.kind(), late.code()), ("command.rejected", "not_allowed"), "{}", late.line());
    assert_nothing_taken(kit, &charge);
    Ok(())
}

/// Nothing but ends is in the books.
pub fn assert_nothing_taken(kit: &Kit, charge: &Command) {
    let Ok(books) = kit.fake.books(charge.payment) else { return };
    assert!(books.iter().all(|line| line.deed == Deed::Cancel), "{books:?}");
}

pub async fn currencies(kit: &Kit) -> Ended {
    for (total, part, left, currency) in [("1200", "200", "1000", "JPY"), ("1.500", "0.500", "1.000", "KWD")] {
        let charge = kit.charge_of(total, currency);
        let answer = kit.world.run(&charge).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", total), "{}", answer.line());
        let answer = kit.world.run(&charge.then("payment.refund", json!({"amount": part}))).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", left), "{}", answer.line());
        kit.assert_booked(&charge, &[(Deed::Charge, total), (Deed::Refund, part)]);
    }
    Ok(())
}

async fn customer_must_act(kit: &Kit, paid: bool) -> Ended<Command> {
    let charge = kit.charge_that_meets(&[Meets::Redirect { paid }])?;
    let input = kit.world.run(&charge).await;
    assert_eq!(input.status(), "input", "{}", input.line());
    assert!(input.field("redirect_url").starts_with("http"), "{}", input.line());
    assert_nothing_taken(kit, &charge);
    Ok(charge)
}

pub async fn customer_pays(kit: &Kit) -> Ended {
    let charge = customer_must_act(kit, true).await?;
    kit.fake.complete(charge.payment, true)?;
    let answer = kit.world.run(&kit.again(&charge)).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    Ok(())
}

pub async fn customer_leaves(kit: &Kit) -> Ended {
    let charge = customer_must_act(kit, false).await?;
    kit.fake.complete(charge.payment, false)?;
    let sync = charge.then("payment.sync", json!({}));
    let answer = kit.world.run(&sync).await;
    if kit.contract().lookup == Lookup::None {
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "unsupported"), "{}", answer.line());
        return Err(Unsupported("its contract: no look-up"));
    }
    assert_eq!((answer.status(), answer.field("captured_amount")), ("rejected", "0.00"), "{}", answer.line());
    assert_nothing_taken(kit, &charge);
    Ok(())
}

/// What the customer approved is confirmed by itself, once, where anybody tells of it; else when the shop goes on.
pub async fn customer_approves(kit: &Kit) -> Ended {
    let charge = kit.charge_that_meets(&[Meets::Approval])?;
    let input = kit.world.run(&charge).await;
    assert_eq!(input.status(), "input", "{}", input.line());
    kit.fake.complete(charge.payment, true)?;
    assert_nothing_taken(kit, &charge);
    let contract = kit.contract();
    let (webhooks, keys) = match (contract.notifications, contract.lookup) {
        (NotificationRole::Proof { .. }, _) => (kit.fake.proofs(charge.payment)?, 2),
        (NotificationRole::Hint, Lookup::None) => (Vec::new(), 3),
        (NotificationRole::Hint, _) => (vec![kit.fake.webhook(charge.payment)?], 2),
    };
    if webhooks.is_empty() {
        kit.world.run(&kit.again(&charge)).await;
    }
    for webhook in &webhooks {
        assert_eq!(kit.deliver(webhook).await, 200);
    }
    let is_charged = |event: &Event| event.subject() == charge.subject() && event.status() == "confirmed";
    let charged = kit.world.event("the charge", is_charged).await;
    assert_eq!(charged.field("captured_amount"), TOTAL, "{}", charged.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    kit.assert_keys(&charge, keys);
    Ok(())
}

pub async fn cancel_of_input(kit: &Kit) -> Ended {
    let charge = customer_must_act(kit, true).await?;
    let answer = kit.world.run(&charge.then("payment.cancel", json!({}))).await;
    assert_eq!(answer.status(), "cancelled", "{}", answer.line());
    assert_nothing_taken(kit, &charge);
    Ok(())
}

pub async fn pending(kit: &Kit) -> Ended {
    for (paid, status) in [(true, "confirmed"), (false, "rejected")] {
        let charge = kit.charge();
        let process = kit.plan(&charge, PROCESS, &[Meets::Pending { paid }])?;
        let charge = charge.with("process", process);
        kit.world.publish(&charge).await;
        let delayed = kit.world.event_of(&charge, "command.delayed").await;
        assert_eq!(delayed.reason(), "pending", "{}", delayed.line());
        kit.fake.complete(charge.payment, paid)?;
        if !paid && kit.contract().lookup == Lookup::None {
            kit.escalated(&charge).await;
            assert_eq!(kit.resolve(&charge, "declined").await.status(), "rejected");
            continue;
        }
        let answer = later_answer(kit, &charge).await;
        assert_eq!(answer.status(), status, "{}", answer.line());
    }
    Ok(())
}

/// The answer of what the gateway accepted: it is looked up, or a person says.
async fn later_answer(kit: &Kit, command: &Command) -> Event {
    if kit.contract().lookup == Lookup::None {
        kit.escalated(command).await;
        return kit.resolve(command, "approved").await;
    }
    kit.world.final_event(command).await
}

/// A review is no decline: the money is there.
pub async fn review(kit: &Kit) -> Ended {
    let charge = kit.charge_that_meets(&[Meets::Review])?;
    let answer = kit.world.run(&charge).await;
    assert_eq!((answer.status(), answer.field("fraud_status")), ("confirmed", "review"), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    Ok(())
}
