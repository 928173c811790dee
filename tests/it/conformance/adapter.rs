//! The cases against the adapter itself: what one call, or one question, proves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use paybus::gateway::{Ask, Call, Gateway, Question, Request, Target};
use paybus::payment::code::Code;
use paybus::payment::contract::Lookup;
use paybus::payment::model::{Billing, Order, Payment};
use paybus::payment::money::{Currency, Money};
use paybus::payment::operation::Action;
use paybus::payment::outcome::{Found, GatewayKey, Outcome, Trouble};

use super::fake::{Deed, Ended, Meets, On, PROCESS, Unsupported};
use super::kit::{CURRENCY, Kit, TOTAL, VARIANT};

/// How long one call may take here.
const TIMEOUT: Duration = Duration::from_millis(700);

/// A payment that is known to the adapter alone, and its process.
pub struct Direct<'a> {
    kit: &'a Kit,
    adapter: Arc<dyn Gateway>,
    payment: Payment,
    operation: Uuid,
    data: Map<String, Value>,
}

impl<'a> Direct<'a> {
    pub fn new(kit: &'a Kit) -> Direct<'a> {
        let order = Order {
            variant: VARIANT.to_owned(),
            total: money(TOTAL),
            tax: money("0"),
            delivery: money("0"),
            description: "a case".to_owned(),
            billing: Billing::default(),
            customer_ip_address: None,
        };
        let gateway = kit.world.settings()[&format!("variants.{VARIANT}.gateway")].clone();
        let payment = Payment::new(Uuid::new_v4(), order, &gateway, kit.adapter.account(), Timestamp::now());
        Direct {
            kit,
            adapter: Arc::clone(&kit.adapter),
            payment,
            operation: Uuid::new_v4(),
            data: object(kit.fake.process()),
        }
    }

    /// What the next calls, or questions, meet.
    pub fn meets(&mut self, on: On, meets: &[Meets]) -> Ended {
        self.data = object(self.kit.fake.plan(self.payment.id, on, meets)?);
        Ok(())
    }

    fn body(&self, amount: &str) -> String {
        self.adapter.prepare(&Ask {
            operation_id: self.operation,
            action: Action::Process,
            payment: &self.payment,
            amount: Some(money(amount)),
            capture: true,
            data: &self.data,
        })
    }

    /// Sends the process.
    pub async fn process(&self) -> Outcome {
        self.send(TOTAL).await
    }

    /// The same, and takes over the gateway's reference, as the engine does.
    async fn processed(&mut self) {
        match self.process().await {
            Outcome::Result(result) => self.payment.transaction_id = result.transaction_id.expect("a reference"),
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, amount: &str) -> Outcome {
        let body = self.body(amount);
        let call = Call {
            operation_id: self.operation,
            payment_id: self.payment.id,
            action: Action::Process,
            key: GatewayKey::first(self.operation),
            attempt: 1,
            body: &body,
            amount: Some(money(amount)),
            currency: self.payment.currency(),
            capture: true,
            stored_at: self.payment.created,
            traceparent: None,
            tracestate: None,
            timeout: TIMEOUT,
        };
        self.adapter.call(call).await
    }

    /// Asks what became of the process.
    async fn ask(&self) -> Found {
        let request = Request { amount: Some(money(TOTAL)), capture: true, body: self.body(TOTAL) };
        let target = Target {
            operation_id: self.operation,
            action: Action::Process,
            key: GatewayKey::first(self.operation),
            request: Some(&request),
            stored_at: self.payment.created,
            last_sent_at: Some(Timestamp::now()),
        };
        let question = Question {
            operation_id: Uuid::new_v4(),
            target: Some(target),
            payment: &self.payment,
            traceparent: None,
            tracestate: None,
            timeout: TIMEOUT,
        };
        self.adapter.look_up(question).await
    }

    fn assert_charged(&self, times: usize) -> Ended {
        let books = self.kit.fake.books(self.payment.id)?;
        assert_eq!(books.iter().filter(|line| line.deed == Deed::Charge).count(), times, "{books:?}");
        Ok(())
    }
}

fn money(text: &str) -> Money {
    Money::parse(text, Currency::from_code(CURRENCY).expect("a currency")).expect("an amount")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

/// Nothing was proved: it may have been received.
fn unknown(outcome: Outcome) -> Trouble {
    match outcome {
        Outcome::Unknown(trouble) => trouble,
        other => panic!("unknown was expected: {other:?}"),
    }
}

/// It is proved that nothing was received.
fn not_sent(outcome: Outcome) -> Trouble {
    match outcome {
        Outcome::NotSent(trouble) => trouble,
        other => panic!("not sent was expected: {other:?}"),
    }
}

pub async fn same_bytes(kit: &Kit) -> Ended {
    let direct = Direct::new(kit);
    assert_eq!(direct.body(TOTAL), direct.body(TOTAL));
    Ok(())
}

pub async fn same_key(kit: &Kit) -> Ended {
    if kit.contract().key_window.is_none() {
        return Err(Unsupported("its contract: no keys"));
    }
    let direct = Direct::new(kit);
    let (first, second) = (direct.process().await, direct.process().await);
    let approves = |outcome: &Outcome| matches!(outcome, Outcome::Result(result) if result.approves());
    assert!(approves(&first) && approves(&second), "{first:?}, {second:?}");
    assert_eq!(first, second, "the same key is answered the same");
    direct.assert_charged(1).or(Ok(()))
}

/// A bug of ours must not become a second charge.
pub async fn other_content(kit: &Kit) -> Ended {
    if kit.contract().key_window.is_none() {
        return Err(Unsupported("its contract: no keys"));
    }
    let direct = Direct::new(kit);
    kit.fake.books(direct.payment.id)?;
    direct.process().await;
    let second = direct.send("1.00").await;
    assert!(!matches!(&second, Outcome::Result(_) | Outcome::NotSent(_)), "{second:?}");
    direct.assert_charged(1)
}

/// The answer was lost, so that the payment knows no reference of the gateway's: ours has to do.
pub async fn found(kit: &Kit) -> Ended {
    let mut direct = Direct::new(kit);
    direct.meets(PROCESS, &[Meets::LoseAnswer])?;
    unknown(direct.process().await);
    if kit.contract().lookup == Lookup::None {
        let found = direct.ask().await;
        assert!(matches!(&found, Found::Failed(trouble) if trouble.code == Code::Unsupported), "{found:?}");
        return Err(Unsupported("its contract: no look-up"));
    }
    tokio::time::sleep(kit.contract().settle_window).await;
    match direct.ask().await {
        Found::Result(result) => {
            assert!(result.approves(), "{result:?}");
            assert!(result.amount.is_none_or(|amount| amount == money(TOTAL)), "{result:?}");
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}

pub async fn not_found(kit: &Kit) -> Ended {
    match kit.contract().lookup {
        Lookup::None => Err(Unsupported("its contract: no look-up")),
        Lookup::Indicative | Lookup::Authoritative => {
            let found = Direct::new(kit).ask().await;
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
        let mut direct = Direct::new(kit);
        direct.processed().await;
        direct.meets(On::Ask, &[way; 3])?;
        let found = direct.ask().await;
        assert!(matches!(found, Found::Failed(_)), "{way:?}: {found:?}");
    }
    Ok(())
}

pub async fn unreadable(kit: &Kit) -> Ended {
    for way in [Meets::Garbage, Meets::HalfAnswer, Meets::ErrorAfter] {
        let mut direct = Direct::new(kit);
        direct.meets(PROCESS, &[way])?;
        let trouble = unknown(direct.process().await);
        let code = if way == Meets::ErrorAfter { Code::GatewayError } else { Code::InvalidAnswer };
        assert_eq!(trouble.code, code, "{way:?}");
        direct.assert_charged(1)?;
    }
    Ok(())
}

pub async fn elsewhere(kit: &Kit) -> Ended {
    for status in [301, 302, 303, 307, 308] {
        let mut direct = Direct::new(kit);
        direct.meets(PROCESS, &[Meets::Elsewhere(status)])?;
        let outcome = direct.process().await;
        assert!(matches!(outcome, Outcome::NotSent(_) | Outcome::Unknown(_)), "{status}: {outcome:?}");
        direct.assert_charged(0)?;
    }
    Ok(())
}

/// No fault of the command: it is tried until the credentials are mended.
pub async fn unauthorized(kit: &Kit) -> Ended {
    let mut direct = Direct::new(kit);
    direct.meets(PROCESS, &[Meets::Unauthorized])?;
    assert_eq!(not_sent(direct.process().await).code, Code::Misconfigured);
    direct.assert_charged(0)
}

pub async fn in_time(kit: &Kit) -> Ended {
    let mut direct = Direct::new(kit);
    direct.meets(PROCESS, &[Meets::NoAnswer])?;
    let begun = Instant::now();
    let trouble = unknown(direct.process().await);
    let took = begun.elapsed();
    assert_eq!(trouble.code, Code::Timeout);
    assert!(took < TIMEOUT + Duration::from_secs(1), "{took:?}");
    Ok(())
}

pub async fn secrets(kit: &Kit) -> Ended {
    let Some(secret) = kit.fake.secret() else {
        return Err(Unsupported("it has no secret"));
    };
    let mut direct = Direct::new(kit);
    direct.meets(PROCESS, &[Meets::Unauthorized])?;
    let outcome = format!("{:?}", direct.process().await);
    let probe = format!("{:?}", kit.adapter.probe().await);
    for text in [&format!("{:?}", kit.adapter), kit.adapter.account(), &outcome, &probe, &direct.body(TOTAL)] {
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
    let direct = Direct { adapter: Arc::clone(&adapter), ..Direct::new(kit) };
    let (outcome, probe) = (direct.process().await, adapter.probe().await);
    kit.fake.start().await;
    assert_eq!(not_sent(outcome).code, Code::Unreachable);
    assert!(probe.is_err(), "{probe:?}");
    Ok(())
}
