//! The fake of `http`: the gateway that all tests use, under any contract that its settings can declare.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use paybus::payment::outcome::Decline;

use super::fake::{Booked, Deed, Ended, Fake, Meets, On, Sent, SignedWebhook, Unsupported};
use super::kit::{TOTAL, VARIANT};
use crate::support::fake_gateway::{CallRecord, FakeGateway};
use crate::support::{Behaviour, Webhook};

const TOKEN: &str = "conformance-token";
const WEBHOOK_SECRET: &str = "whsec_conformance";

/// A gateway behind HTTP.
pub struct HttpFake {
    name: &'static str,
    contract: &'static [(&'static str, &'static str)],
    gateway: FakeGateway,
}

impl HttpFake {
    /// Starts it; `contract` is what its settings declare beside the usual.
    pub async fn start(name: &'static str, contract: &'static [(&'static str, &'static str)]) -> HttpFake {
        HttpFake { name, contract, gateway: FakeGateway::start().await }
    }
}

impl Fake for HttpFake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let usual = [
            ("gateway", "http"),
            ("token", TOKEN),
            ("webhook_secret", WEBHOOK_SECRET),
            ("settle_window", "300ms"),
            ("multicapture", "true"),
        ];
        let settings = usual.iter().chain(self.contract).map(|(key, value)| (*key, (*value).to_owned()));
        settings.chain([("url", self.gateway.url())]).collect()
    }

    fn brief_keys(&self) -> Ended<Vec<(&'static str, String)>> {
        Ok(vec![("key_window", "1s".to_owned())])
    }

    fn secret(&self) -> Option<&'static str> {
        Some(TOKEN)
    }

    fn process(&self) -> Value {
        json!({})
    }

    fn plan(&self, payment: Uuid, on: On, meets: &[Meets]) -> Ended<Value> {
        let operation = match on {
            On::Act(action) => action.as_str(),
            On::Ask => "status",
            On::Undo => "undo",
        };
        let behaviours = meets.iter().map(behaviour).collect::<Ended<Vec<Behaviour>>>()?;
        self.gateway.plan_operation(payment, operation, behaviours);
        Ok(self.process())
    }

    fn complete(&self, payment: Uuid, paid: bool) -> Ended {
        self.gateway.complete(payment, paid);
        Ok(())
    }

    fn refund_by_hand(&self, payment: Uuid, amount: &'static str) -> Ended {
        self.gateway.move_by_hand(payment, "refund", amount, "USD");
        Ok(())
    }

    fn webhook(&self, payment: Uuid) -> Ended<SignedWebhook> {
        Ok(signed_webhook(json!({"payment_id": payment, "type": "news"})))
    }

    fn proofs(&self, payment: Uuid) -> Ended<Vec<SignedWebhook>> {
        Ok(self.gateway.proofs(payment).into_iter().map(signed_webhook).collect())
    }

    fn books(&self, payment: Uuid) -> Ended<Vec<Booked>> {
        let effects = self.gateway.effects(payment).into_iter();
        let booked =
            effects.map(|effect| Booked { deed: deed(effect.kind), amount: effect.amount, currency: effect.currency });
        Ok(booked.collect())
    }

    fn sent(&self, payment: Uuid) -> Ended<Vec<Sent>> {
        let acts = |call: &CallRecord| !matches!(call.operation.as_str(), "status" | "undo");
        let calls = self.gateway.calls_of(payment).into_iter().filter(acts);
        Ok(calls.map(|call| Sent { key: call.key.unwrap_or_default(), content: call.body.to_vec() }).collect())
    }

    fn stop(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async {
            self.gateway.close().await;
            Ok(())
        })
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.gateway.open() })
    }
}

/// News as they come, under an id of their own.
fn signed_webhook(mut news: Value) -> SignedWebhook {
    news["id"] = json!(Uuid::new_v4());
    let webhook = Webhook::signed(VARIANT, WEBHOOK_SECRET, &news);
    let signature = webhook.signature.expect("a signature");
    SignedWebhook { header: "Paybus-Signature", signature, body: webhook.body }
}

fn deed(kind: &str) -> Deed {
    match kind {
        "charge" => Deed::Charge,
        "authorization" => Deed::Authorization,
        "capture" => Deed::Capture,
        "release" => Deed::Release,
        "refund" => Deed::Refund,
        "cancel" => Deed::Cancel,
        "void" => Deed::Undo,
        other => panic!("an effect that is called {other}"),
    }
}

fn behaviour(meets: &Meets) -> Ended<Behaviour> {
    Ok(match *meets {
        Meets::Decline(Decline::Hard) => Behaviour::Decline("insufficient_funds".to_owned()),
        Meets::Decline(_) => return Err(Unsupported("its protocol has one kind of decline")),
        Meets::DeclineSaying(words) => Behaviour::Say(json!({"result": "declined", "message": words})),
        Meets::Redirect { .. } => Behaviour::Redirect("https://bank.example/3ds".to_owned()),
        Meets::Approval => Behaviour::Approval("https://wallet.example/approve".to_owned()),
        Meets::Pending { .. } => Behaviour::Pending,
        Meets::Review => Behaviour::Say(json!({"fraud_status": "review", "fraud_message": "a new card"})),
        Meets::OtherAmount(amount) => Behaviour::WrongAmount(amount.to_owned()),
        Meets::OtherCurrency(currency) => Behaviour::WrongCurrency(currency.to_owned()),
        Meets::Ornate => Behaviour::Say(json!({
            "amount": format!("{TOTAL}00"), "message": 51, "code": ["00"], "fraud_message": {}, "extra_data": "none",
            "redirect_url": {"href": "/"}, "transaction_id": 17,
        })),
        Meets::LoseAnswer => Behaviour::DropAfter,
        Meets::NoAnswer => Behaviour::HangAfter,
        Meets::ErrorAfter => Behaviour::Error500After,
        Meets::Garbage => Behaviour::Garbage,
        Meets::HalfAnswer => Behaviour::Truncated,
        Meets::HangBefore => Behaviour::HangBefore,
        Meets::ErrorBefore => Behaviour::Status(503, None),
        Meets::StoreError => return Err(Unsupported("its contract: a server error is not kept")),
        Meets::Busy => Behaviour::Status(409, None),
        Meets::TooMany(seconds) => Behaviour::Status(429, Some(seconds)),
        Meets::Unauthorized => Behaviour::Status(401, None),
        Meets::Elsewhere(status) => Behaviour::Status(status, None),
    })
}
