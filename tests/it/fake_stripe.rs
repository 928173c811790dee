//! Checks the in-memory Stripe against Stripe's own description of its objects: the adapter must be tested with objects
//! like those that it will meet. The lists are of API version 2023-08-16.

use serde_json::{Value, json};

use crate::support::fake_stripe::FakeStripe;

/// The type of a field. Kinds with `Or` may also be null.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    TextOrNull,
    Integer,
    Bool,
    Object,
    ObjectOrNull,
    List,
    IdOrObjectOrNull,
}

use Kind::{Bool, IdOrObjectOrNull, Integer, List, Object, ObjectOrNull, Text, TextOrNull};

const PAYMENT_INTENT: &[(&str, Kind)] = &[
    ("id", Text),
    ("object", Text),
    ("amount", Integer),
    ("amount_capturable", Integer),
    ("amount_received", Integer),
    ("capture_method", Text),
    ("cancellation_reason", TextOrNull),
    ("client_secret", TextOrNull),
    ("confirmation_method", Text),
    ("created", Integer),
    ("currency", Text),
    ("customer", IdOrObjectOrNull),
    ("description", TextOrNull),
    ("last_payment_error", ObjectOrNull),
    ("latest_charge", IdOrObjectOrNull),
    ("livemode", Bool),
    ("metadata", Object),
    ("next_action", ObjectOrNull),
    ("payment_method", IdOrObjectOrNull),
    ("payment_method_types", List),
    ("review", IdOrObjectOrNull),
    ("status", Text),
];

const CHARGE: &[(&str, Kind)] = &[
    ("id", Text),
    ("object", Text),
    ("amount", Integer),
    ("amount_captured", Integer),
    ("amount_refunded", Integer),
    ("billing_details", Object),
    ("captured", Bool),
    ("created", Integer),
    ("currency", Text),
    ("disputed", Bool),
    ("failure_code", TextOrNull),
    ("failure_message", TextOrNull),
    ("livemode", Bool),
    ("metadata", Object),
    ("outcome", ObjectOrNull),
    ("paid", Bool),
    ("payment_intent", IdOrObjectOrNull),
    ("payment_method_details", ObjectOrNull),
    ("refunded", Bool),
    ("review", IdOrObjectOrNull),
    ("status", Text),
];

const REFUND: &[(&str, Kind)] = &[
    ("id", Text),
    ("object", Text),
    ("amount", Integer),
    ("charge", IdOrObjectOrNull),
    ("created", Integer),
    ("currency", Text),
    ("metadata", ObjectOrNull),
    ("payment_intent", IdOrObjectOrNull),
    ("reason", TextOrNull),
    ("status", TextOrNull),
];

const DISPUTE: &[(&str, Kind)] = &[
    ("id", Text),
    ("object", Text),
    ("amount", Integer),
    ("balance_transactions", List),
    ("charge", IdOrObjectOrNull),
    ("created", Integer),
    ("currency", Text),
    ("evidence", Object),
    ("evidence_details", Object),
    ("is_charge_refundable", Bool),
    ("livemode", Bool),
    ("metadata", Object),
    ("payment_intent", IdOrObjectOrNull),
    ("reason", Text),
    ("status", Text),
];

const REVIEW: &[(&str, Kind)] = &[
    ("id", Text),
    ("object", Text),
    ("charge", IdOrObjectOrNull),
    ("closed_reason", TextOrNull),
    ("created", Integer),
    ("livemode", Bool),
    ("open", Bool),
    ("opened_reason", Text),
    ("reason", Text),
];

const OUTCOME: &[(&str, Kind)] = &[
    ("network_status", TextOrNull),
    ("reason", TextOrNull),
    ("risk_level", Text),
    ("seller_message", TextOrNull),
    ("type", Text),
];

const CARD_ERROR: &[(&str, Kind)] = &[
    ("type", Text),
    ("code", Text),
    ("decline_code", Text),
    ("message", Text),
    ("charge", Text),
    ("doc_url", Text),
    ("payment_intent", Object),
];

const EVENT: &[(&str, Kind)] = &[
    ("id", Text),
    ("object", Text),
    ("api_version", TextOrNull),
    ("created", Integer),
    ("data", Object),
    ("livemode", Bool),
    ("pending_webhooks", Integer),
    ("request", ObjectOrNull),
    ("type", Text),
];

fn fits(value: &Value, kind: Kind) -> bool {
    match kind {
        Text => value.is_string(),
        TextOrNull => value.is_string() || value.is_null(),
        Integer => value.is_i64() || value.is_u64(),
        Bool => value.is_boolean(),
        Object => value.is_object(),
        ObjectOrNull => value.is_object() || value.is_null(),
        List => value.is_array(),
        IdOrObjectOrNull => value.is_string() || value.is_object() || value.is_null(),
    }
}

fn check(what: &str, object: &Value, fields: &[(&str, Kind)]) {
    for (name, kind) in fields {
        let value = object.get(*name).unwrap_or_else(|| panic!("{what} has no {name}: {object}"));
        assert!(fits(value, *kind), "{what}.{name} must be {kind:?}: {value}");
    }
}

async fn post(stripe: &FakeStripe, path: &str, form: &str) -> (u16, Value) {
    let request = reqwest::Client::new().post(format!("{}/v1/{path}", stripe.url()));
    let response = request.bearer_auth("sk_test_x").body(form.to_owned()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn get(stripe: &FakeStripe, path: &str) -> Value {
    let request = reqwest::Client::new().get(format!("{}/v1/{path}", stripe.url()));
    request.bearer_auth("sk_test_x").send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn its_objects_are_stripes() {
    let stripe = FakeStripe::start();
    let form = |token: &str| {
        format!("amount=1099&currency=usd&confirm=true&payment_method={token}&expand[]=latest_charge.review")
    };
    for token in ["pm_card_visa", "pm_card_riskLevelElevated", "pm_card_createDispute"] {
        let (status, intent) = post(&stripe, "payment_intents", &form(token)).await;
        assert_eq!((status, &intent["status"]), (200, &json!("succeeded")));
        check("payment_intent", &intent, PAYMENT_INTENT);
        check("charge", &intent["latest_charge"], CHARGE);
        check("outcome", &intent["latest_charge"]["outcome"], OUTCOME);
        if token == "pm_card_riskLevelElevated" {
            check("review", &intent["latest_charge"]["review"], REVIEW);
        }
        let id = intent["id"].as_str().unwrap();
        let (_, refund) = post(&stripe, "refunds", &format!("payment_intent={id}&amount=100")).await;
        check("refund", &refund, REFUND);
    }
    check("dispute", &get(&stripe, "disputes?limit=1").await["data"][0], DISPUTE);
    for event in stripe.events() {
        check("event", &event, EVENT);
    }
    let (status, answer) = post(&stripe, "payment_intents", &form("pm_card_visa_chargeDeclined")).await;
    assert_eq!(status, 402);
    check("error", &answer["error"], CARD_ERROR);
    check("payment_intent", &answer["error"]["payment_intent"], PAYMENT_INTENT);
}

#[tokio::test]
async fn its_lists_go_page_by_page_from_the_newest() {
    let stripe = FakeStripe::start();
    let mut made = Vec::new();
    for _ in 0..5 {
        let (_, intent) = post(&stripe, "payment_intents", "amount=1099&currency=usd").await;
        made.push(intent["id"].as_str().unwrap().to_owned());
    }
    made.reverse();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&stripe, &format!("payment_intents?limit=2{after}")).await;
        let ids = page["data"].as_array().unwrap().iter().map(|intent| intent["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        after = format!("&starting_after={}", seen.last().unwrap());
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(seen, made);
    let early = get(&stripe, "payment_intents?created[lte]=1000000000").await;
    assert_eq!(early["data"], json!([]));
}

#[tokio::test]
async fn its_search_brings_what_is_indexed() {
    let stripe = FakeStripe::start();
    let make = async |payment: &str| {
        let form = format!("amount=1099&currency=usd&metadata[paybus_payment]={payment}");
        post(&stripe, "payment_intents", &form).await.1["id"].clone()
    };
    let (first, _others, second) = (make("a").await, make("b").await, make("a").await);
    stripe.stop_indexing();
    make("a").await;
    let found = get(&stripe, "payment_intents/search?limit=100&query=metadata['paybus_payment']:'a'").await;
    let ids: Vec<&Value> = found["data"].as_array().unwrap().iter().map(|intent| &intent["id"]).collect();
    assert_eq!(ids, [&second, &first]);
    assert_eq!((&found["has_more"], &found["object"]), (&json!(false), &json!("search_result")));
}

#[tokio::test]
async fn its_keys_are_kept_as_stripe_keeps_them() {
    let stripe = FakeStripe::start();
    let client = reqwest::Client::new();
    let send = async |form: &str| {
        let request = client.post(format!("{}/v1/payment_intents", stripe.url())).bearer_auth("sk_test_x");
        let response = request.header("idempotency-key", "k").body(form.to_owned()).send().await.unwrap();
        let replayed = response.headers().contains_key("idempotent-replayed");
        (response.status().as_u16(), replayed, response.json::<Value>().await.unwrap())
    };
    let declined = "amount=1099&currency=usd&confirm=true&payment_method=pm_card_visa_chargeDeclined";
    let (first, again) = (send(declined).await, send(declined).await);
    assert_eq!((first.0, first.1, again.0, again.1), (402, false, 402, true));
    assert_eq!(first.2, again.2);
    let other = send("amount=1&currency=usd").await;
    assert_eq!((other.0, &other.2["error"]["type"]), (400, &json!("idempotency_error")));
    stripe.expire_keys();
    assert!(!send(declined).await.1);
}
