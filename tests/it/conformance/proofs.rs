//! What the gateway tells by itself, where its contract takes that for proof: it is applied, once, and nobody is asked.

use serde_json::{Value, json};

use paybus::payment::contract::NotificationRole;

use super::fake::{Deed, Ended, Meets, PROCESS, SignedWebhook, Unsupported};
use super::kit::{Kit, TOTAL, VARIANT};
use crate::support::webhook::named;
use crate::support::{Command, Event};

/// Without a look-up, and by no person, a result comes.
pub async fn result(kit: &Kit) -> Ended {
    needs_proof(kit)?;
    for (paid, status) in [(true, "confirmed"), (false, "rejected")] {
        let charge = kit.charge();
        let process = kit.plan(&charge, PROCESS, &[Meets::Pending { paid }])?;
        let charge = charge.with("process", process);
        kit.world.publish(&charge).await;
        assert_eq!(kit.world.event_of(&charge, "command.delayed").await.reason(), "pending");
        prove(kit, &charge).await?;
        kit.fake.complete(charge.payment, paid)?;
        prove(kit, &charge).await?;
        let answer = kit.world.final_event(&charge).await;
        assert_eq!(answer.status(), status, "{}", answer.line());
        // Told once more, and under another name.
        prove(kit, &charge).await?;
        let row = kit.world.payment_row(charge.payment).await;
        assert_eq!(row.get::<_, &str>("status"), status);
        kit.assert_booked(&charge, if paid { &[(Deed::Charge, TOTAL)] } else { &[] });
    }
    Ok(())
}

/// The proof comes where no answer did, late or before anybody misses it.
pub async fn lost_answer(kit: &Kit) -> Ended {
    needs_proof(kit)?;
    let charge = kit.charge_that_meets(&[Meets::LoseAnswer])?;
    kit.world.publish(&charge).await;
    kit.world
        .eventually("the charge", async || match kit.fake.books(charge.payment) {
            Ok(books) if books.is_empty() => Err("nothing is booked"),
            _ => Ok(()),
        })
        .await;
    prove(kit, &charge).await?;
    let answer = kit.world.final_event(&charge).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    kit.assert_keys(&charge, 1);
    Ok(())
}

/// What nobody of ours asked for is learnt, once; what the gateway did not sign is refused.
pub async fn by_hand(kit: &Kit) -> Ended {
    needs_proof(kit)?;
    let charge = kit.charged().await;
    kit.fake.refund_by_hand(charge.payment, "20.00")?;
    let webhook = kit.fake.proofs(charge.payment)?.pop().expect("a proof of the refund");
    let forged = SignedWebhook { body: webhook.body.replacen("20", "90", 1), ..webhook.clone() };
    assert_eq!(kit.deliver(&forged).await, 400);
    for webhook in [&webhook, &webhook] {
        assert_eq!(kit.deliver(webhook).await, 200);
    }
    let learnt = answer_to(kit, &charge, &webhook).await;
    assert_eq!((learnt.kind(), learnt.field("refunded_amount")), ("payment.updated", "20.00"), "{}", learnt.line());
    prove(kit, &charge).await?;
    let refund = kit.world.run(&charge.then("payment.refund", json!({"amount": "10.00"}))).await;
    assert_eq!(refund.field("refunded_amount"), "30.00", "it counts once: {}", refund.line());
    Ok(())
}

fn needs_proof(kit: &Kit) -> Ended {
    match kit.contract().notifications {
        NotificationRole::Hint => Err(Unsupported("its contract: a notification only says where to look")),
        NotificationRole::Proof { .. } => Ok(()),
    }
}

/// The gateway proves all that happened to a payment; returns when all of it is answered.
async fn prove(kit: &Kit, charge: &Command) -> Ended {
    for webhook in kit.fake.proofs(charge.payment)? {
        assert_eq!(kit.deliver(&webhook).await, 200);
        let answer = answer_to(kit, charge, &webhook).await;
        assert_ne!(answer.kind(), "command.failed", "{}", answer.line());
    }
    Ok(())
}

async fn answer_to(kit: &Kit, charge: &Command, webhook: &SignedWebhook) -> Event {
    let news: Value = serde_json::from_str(&webhook.body).expect("JSON");
    let id = news["id"].as_str().expect("an id");
    kit.world.final_event(&named(VARIANT, charge.payment, id)).await
}
