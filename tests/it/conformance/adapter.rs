//! The cases against the adapter itself: what one call, or one question, proves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use paybus::payment::action::Action;
use paybus::payment::code::Code;
use paybus::payment::contract::Lookup;
use paybus::payment::outcome::{Found, GatewayError, Outcome};

use super::fake::{Deed, Ended, Meets, On, PROCESS, Unsupported};
use super::kit::{Kit, TOTAL, VARIANT};
use crate::support::direct::{Direct, TIMEOUT, object, usd};

/// A payment of this kit's gateway.
pub fn direct(kit: &Kit) -> Direct {
    let gateway = &kit.world.settings()[&format!("variants.{VARIANT}.gateway")];
    Direct::new(Arc::clone(&kit.adapter), gateway, usd(TOTAL), kit.fake.process())
}

/// One whose next calls, or questions, meet something.
pub fn direct_that_meets(kit: &Kit, on: On, meets: &[Meets]) -> Ended<Direct> {
    let mut direct = direct(kit);
    direct.data = object(kit.fake.plan(direct.payment.id, on, meets)?);
    Ok(direct)
}

fn assert_charged(kit: &Kit, direct: &Direct, times: usize) -> Ended {
    let books = kit.fake.books(direct.payment.id)?;
    assert_eq!(books.iter().filter(|line| line.deed == Deed::Charge).count(), times, "{books:?}");
    Ok(())
}

/// Nothing was proved: it may have been received.
fn unknown(outcome: Outcome) -> GatewayError {
    match outcome {
        Outcome::Unknown(error) => error,
        other => panic!("unknown was expected: {other:?}"),
    }
}

/// It is proved that nothing was received.
fn not_sent(outcome: Outcome) -> GatewayError {
    match outcome {
        Outcome::NotSent(error) => error,
        other => panic!("not sent was expected: {other:?}"),
    }
}

pub async fn same_bytes(kit: &Kit) -> Ended {
    let direct = direct(kit);
    assert_eq!(direct.body(Action::Process, usd(TOTAL)), direct.body(Action::Process, usd(TOTAL)));
    Ok(())
}

pub async fn same_key(kit: &Kit) -> Ended {
    if kit.contract().keys.process.window.is_none() {
        return Err(Unsupported("its contract: no keys"));
    }
    let direct = direct(kit);
    let (first, second) = (direct.process().await, direct.process().await);
    let approves = |outcome: &Outcome| matches!(outcome, Outcome::Result(result) if result.approves());
    assert!(approves(&first) && approves(&second), "{first:?}, {second:?}");
    assert_eq!(first, second, "the same key is answered the same");
    assert_charged(kit, &direct, 1).or(Ok(()))
}

/// A bug of ours must not become a second charge.
pub async fn other_content(kit: &Kit) -> Ended {
    if kit.contract().keys.process.window.is_none() {
        return Err(Unsupported("its contract: no keys"));
    }
    let direct = direct(kit);
    kit.fake.books(direct.payment.id)?;
    direct.process().await;
    let second = direct.send(Action::Process, usd("1.00")).await;
    assert!(!matches!(&second, Outcome::Result(_) | Outcome::NotSent(_)), "{second:?}");
    assert_charged(kit, &direct, 1)
}

/// The answer was lost, so that the payment knows no reference of the gateway's: ours has to do.
pub async fn found(kit: &Kit) -> Ended {
    let direct = direct_that_meets(kit, PROCESS, &[Meets::LoseAnswer])?;
    unknown(direct.process().await);
    if kit.contract().lookup == Lookup::None {
        let found = direct.ask(Some(Action::Process)).await;
        assert!(matches!(&found, Found::Failed(error) if error.code == Code::Unsupported), "{found:?}");
        return Err(Unsupported("its contract: no look-up"));
    }
    tokio::time::sleep(kit.contract().settle_window).await;
    match direct.ask(Some(Action::Process)).await {
        Found::Result(result) => {
            assert!(result.approves(), "{result:?}");
            let moved = result.transactions.iter().find(|it| it.is_done_for(direct.operation));
            assert!(moved.is_some_and(|it| it.amount == usd(TOTAL)), "{result:?}");
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}

pub async fn not_found(kit: &Kit) -> Ended {
    match kit.contract().lookup {
        Lookup::None => Err(Unsupported("its contract: no look-up")),
        Lookup::Indicative | Lookup::Authoritative => {
            let found = direct(kit).ask(Some(Action::Process)).await;
            assert_eq!(found, Found::Nothing);
            Ok(())
        }
    }
}

/// That nobody could be asked is no answer.
pub async fn look_up_fails(kit: &Kit) -> Ended {
    if kit.contract().lookup == Lookup::None {
        return Err(Unsupported("its contract: no look-up"));
    }
    let ways = [Meets::ErrorBefore, Meets::HangBefore, Meets::Garbage, Meets::Unauthorized, Meets::TooMany(1)];
    for way in ways {
        let mut direct = direct(kit);
        let processed = direct.process().await;
        direct.learn(&processed);
        kit.fake.plan(direct.payment.id, On::Ask, &[way; 3])?;
        let found = direct.ask(Some(Action::Process)).await;
        assert!(matches!(found, Found::Failed(_)), "{way:?}: {found:?}");
    }
    Ok(())
}

pub async fn unreadable(kit: &Kit) -> Ended {
    for way in [Meets::Garbage, Meets::HalfAnswer, Meets::ErrorAfter] {
        let direct = direct_that_meets(kit, PROCESS, &[way])?;
        let error = unknown(direct.process().await);
        let code = if way == Meets::ErrorAfter { Code::GatewayError } else { Code::InvalidAnswer };
        assert_eq!(error.code, code, "{way:?}");
        assert_charged(kit, &direct, 1)?;
    }
    Ok(())
}

pub async fn elsewhere(kit: &Kit) -> Ended {
    for status in [301, 302, 303, 307, 308] {
        let direct = direct_that_meets(kit, PROCESS, &[Meets::Elsewhere(status)])?;
        let outcome = direct.process().await;
        assert!(matches!(outcome, Outcome::NotSent(_) | Outcome::Unknown(_)), "{status}: {outcome:?}");
        assert_charged(kit, &direct, 0)?;
    }
    Ok(())
}

/// No fault of the command: it is tried until the credentials are mended.
pub async fn unauthorized(kit: &Kit) -> Ended {
    let direct = direct_that_meets(kit, PROCESS, &[Meets::Unauthorized])?;
    assert_eq!(not_sent(direct.process().await).code, Code::Misconfigured);
    assert_charged(kit, &direct, 0)
}

pub async fn in_time(kit: &Kit) -> Ended {
    let direct = direct_that_meets(kit, PROCESS, &[Meets::NoAnswer])?;
    let begun = Instant::now();
    let error = unknown(direct.process().await);
    let took = begun.elapsed();
    assert_eq!(error.code, Code::Timeout);
    assert!(took < TIMEOUT + Duration::from_secs(1), "{took:?}");
    Ok(())
}

pub async fn secrets(kit: &Kit) -> Ended {
    let Some(secret) = kit.fake.secret() else {
        return Err(Unsupported("it has no secret"));
    };
    let direct = direct_that_meets(kit, PROCESS, &[Meets::Unauthorized])?;
    let outcome = format!("{:?}", direct.process().await);
    let probe = format!("{:?}", kit.adapter.probe().await);
    for text in [
        &format!("{:?}", kit.adapter),
        kit.adapter.account(),
        &outcome,
        &probe,
        &direct.body(Action::Process, usd(TOTAL)),
    ] {
        assert!(!text.contains(secret), "a secret is told: {text}");
    }
    Ok(())
}

/// The probe tells as well as a call does.
pub async fn nobody_listens(kit: &Kit) -> Ended {
    let probe = kit.adapter.probe().await;
    assert!(probe.is_ok(), "{probe:?}");
    kit.fake.stop().await?;
    // Without a connection of before: that one breaks only when it is used, and then nobody knows.
    let adapter = kit.new_adapter();
    let mut direct = direct(kit);
    direct.adapter = Arc::clone(&adapter);
    let (outcome, probe) = (direct.process().await, adapter.probe().await);
    kit.fake.start().await;
    assert_eq!(not_sent(outcome).code, Code::Unreachable);
    assert!(probe.is_err(), "{probe:?}");
    Ok(())
}
