//! The gateway says no.

use paybus::payment::outcome::{Decline, Outcome, Verdict};

use super::adapter::direct_that_meets;
use super::fake::{Deed, Ended, Meets, PROCESS};
use super::kit::{Kit, TOTAL};
use super::money::assert_nothing_taken;

/// Rejected, told why, nothing taken; and the next process is a new try.
async fn declined(kit: &Kit, kind: Decline) -> Ended {
    let charge = kit.charge_that_meets(&[Meets::Decline(kind)])?;
    let answer = kit.world.run(&charge).await;
    assert_eq!((answer.status(), answer.code()), ("rejected", "declined"), "{}", answer.line());
    assert_eq!(answer.field("captured_amount"), "0.00");
    assert_nothing_taken(kit, &charge);
    let again = kit.world.run(&kit.again(&charge)).await;
    assert_eq!((again.status(), again.field("captured_amount")), ("confirmed", TOTAL), "{}", again.line());
    kit.assert_booked(&charge, &[(Deed::Charge, TOTAL)]);
    kit.assert_keys(&charge, 2);
    classed(kit, kind).await
}

/// The adapter tells this kind from the others.
async fn classed(kit: &Kit, kind: Decline) -> Ended {
    let direct = direct_that_meets(kit, PROCESS, &[Meets::Decline(kind)])?;
    match direct.process().await {
        Outcome::Result(result) => assert_eq!(result.verdict, Verdict::Declined(kind)),
        other => panic!("{other:?}"),
    }
    Ok(())
}

pub async fn hard(kit: &Kit) -> Ended {
    declined(kit, Decline::Hard).await
}

pub async fn soft(kit: &Kit) -> Ended {
    declined(kit, Decline::Soft).await
}

pub async fn customer(kit: &Kit) -> Ended {
    declined(kit, Decline::CustomerMustAct).await
}

/// A gateway's words may hold anything, a card number too.
pub async fn words(kit: &Kit) -> Ended {
    let charge = kit.charge_that_meets(&[Meets::DeclineSaying("no money on 4111 1111 1111 1111")])?;
    let answer = kit.world.run(&charge).await;
    assert_eq!(answer.status(), "rejected", "{}", answer.line());
    assert!(answer.message().contains("no money"), "{}", answer.line());
    let events = kit.world.events_of(charge.payment);
    assert!(events.iter().all(|event| !event.body.to_string().contains("4111 1111")), "{}", answer.line());
    Ok(())
}
