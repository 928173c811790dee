//! The fake gateway refuses what a real one refuses. Its record of what it did is the reference for all other checks.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::fake_gateway::FakeGateway;
use crate::support::{Behaviour, eventually};

/// A payment at the gateway.
struct Payment<'a> {
    gateway: &'a FakeGateway,
    id: Uuid,
    url: String,
}

impl Payment<'_> {
    fn at(gateway: &FakeGateway) -> Payment<'_> {
        Payment { gateway, id: Uuid::new_v4(), url: gateway.url() }
    }

    /// Posts an operation with an amount under a new key; returns the result.
    async fn post(&self, operation: &str, amount: &str) -> String {
        self.post_as(Uuid::new_v4(), operation, amount, "confirmed").await
    }

    async fn post_as(&self, id: Uuid, operation: &str, amount: &str, status: &str) -> String {
        let body = json!({"operation_id": id, "operation": operation, "amount": amount, "currency": "USD",
                          "payment": {"id": self.id, "status": status}, "capture": status != "preauth"});
        let request = reqwest::Client::new().post(format!("{}/{operation}", self.url));
        let answer = request.header("idempotency-key", id.to_string()).body(body.to_string()).send().await;
        let answer: Value = answer.expect("an answer").json().await.expect("JSON");
        answer["result"].as_str().expect("a result").to_owned()
    }

    /// Asks for the outcome of an operation, or for the whole payment.
    async fn look_up(&self, target: Option<Uuid>) -> Value {
        let mut body = json!({"operation_id": Uuid::new_v4(), "operation": "status", "currency": "USD",
                              "payment": {"id": self.id, "status": "confirmed"}});
        if let Some(target) = target {
            body["target_operation_id"] = json!(target);
        }
        let request = reqwest::Client::new().post(format!("{}/status", self.url)).body(body.to_string());
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    fn refused(&self) -> Vec<String> {
        self.gateway.refused().into_iter().map(|refused| refused.reason).collect()
    }
}

#[tokio::test]
async fn it_moves_no_more_than_there_is() {
    let gateway = FakeGateway::start().await;
    let charged = Payment::at(&gateway);
    assert_eq!(charged.post("process", "100.00").await, "approved");
    assert_eq!(charged.post("refund", "60.00").await, "approved");
    gateway.plan_operation(charged.id, "refund", vec![Behaviour::Pending]);
    assert_eq!(charged.post("refund", "30.00").await, "pending");
    assert_eq!(charged.post("refund", "10.01").await, "declined", "what is accepted is reserved");
    gateway.complete(charged.id, true);
    assert_eq!(charged.post("refund", "10.00").await, "approved");
    assert_eq!(charged.refused(), ["more than can be refunded"]);

    let held = Payment::at(&gateway);
    assert_eq!(held.post_as(Uuid::new_v4(), "process", "100.00", "preauth").await, "approved");
    assert_eq!(held.post("capture", "100.01").await, "declined");
    assert_eq!(held.post("capture", "60.00").await, "approved");
    assert_eq!(held.post("capture", "40.00").await, "declined");
    assert_eq!(held.post("release", "40.00").await, "declined");
    let captured: Decimal = gateway.captures(held.id).iter().map(|capture| capture.amount).sum();
    assert_eq!(captured, Decimal::new(60, 0));

    let voided = Payment::at(&gateway);
    assert_eq!(voided.post_as(Uuid::new_v4(), "process", "100.00", "preauth").await, "approved");
    assert_eq!(voided.post("release", "100.00").await, "approved");
    assert_eq!(voided.post("release", "100.00").await, "declined");
    assert_eq!(voided.post("capture", "100.00").await, "declined");
    assert_eq!(gateway.refused().len(), 6);
}

/// A cancel used to take over the answer of the process that the customer had just paid, and was approved.
#[tokio::test]
async fn what_the_customer_has_paid_is_not_cancelled() {
    let gateway = FakeGateway::start().await;
    let payment = Payment::at(&gateway);
    gateway.plan_operation(payment.id, "process", vec![Behaviour::Redirect("https://bank.example/3ds".to_owned())]);
    assert_eq!(payment.post_as(Uuid::new_v4(), "process", "100.00", "waiting").await, "pending");
    gateway.complete(payment.id, true);
    assert_eq!(payment.post_as(Uuid::new_v4(), "cancel", "0", "input").await, "declined");
    assert_eq!((gateway.charges(payment.id).len(), gateway.cancels(payment.id).len()), (1, 0));
}

#[tokio::test]
async fn without_keys_the_same_request_is_carried_out_again() {
    let gateway = FakeGateway::start().await;
    let (with, without) = (Payment::at(&gateway), Payment { url: gateway.keyless_url(), ..Payment::at(&gateway) });
    let id = Uuid::new_v4();
    for payment in [&with, &with, &without, &without] {
        assert_eq!(payment.post_as(id, "process", "100.00", "waiting").await, "approved");
    }
    assert_eq!((gateway.charges(with.id).len(), gateway.charges(without.id).len()), (1, 2));
}

#[tokio::test]
async fn a_misleading_look_up_reports_what_is_or_was_true() {
    let gateway = FakeGateway::start().await;
    let charged = Payment::at(&gateway);
    let [first, second] = [Uuid::new_v4(), Uuid::new_v4()];
    charged.post("process", "100.00").await;
    charged.post_as(first, "refund", "10.00", "confirmed").await;
    charged.post_as(second, "refund", "20.00", "confirmed").await;
    let late = Behaviour::Late(Duration::from_millis(100));
    let plan = vec![Behaviour::Another, Behaviour::Approve, Behaviour::Repeat, late];
    gateway.plan_operation(charged.id, "status", plan);
    let other = charged.look_up(Some(second)).await;
    assert_eq!((&other["operation_id"], &other["amount"]), (&json!(first), &json!("10.00")));
    let answer = charged.look_up(Some(second)).await;
    assert_eq!((&answer["operation_id"], &answer["amount"]), (&Value::Null, &json!("20.00")));
    assert_eq!(charged.look_up(Some(second)).await, answer);

    let refund = async {
        eventually("the look-up to be there", async || {
            gateway.met().remove("answers a look-up late").ok_or("it is not there")
        })
        .await;
        charged.post("refund", "5.00").await
    };
    let (old, refunded) = tokio::join!(charged.look_up(None), refund);
    assert_eq!((&old["refunded_amount"], refunded.as_str()), (&json!("30.00"), "approved"));
    assert_eq!(charged.look_up(None).await["refunded_amount"], "35.00");
    let met = gateway.met();
    assert_eq!((met.len(), met.values().sum::<usize>()), (3, 3), "{met:?}");
}
