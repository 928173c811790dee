//! Compares the reference in `docs/http-gateway.md` with the adapter: its requests are what is sent, its answers and
//! webhooks are read as it says, and its table of statuses is correct.

use serde_json::Value;

use super::super::answer::{self, Answer, Expected, Subject};
use super::super::webhook::HttpWebhooks;
use super::super::{failure, request};
use super::*;
use crate::gateway::failure::Reach;
use crate::gateway::notification::Webhook;
use crate::gateway::signature::sign;
use crate::payment::model::Metadata;

const PAGE: &str = include_str!("../../../../docs/http-gateway.md");
const ITS_OPERATION: &str = "5b1a6d0c-2f1e-5c3a-9d4b-0c7f6e5d4c3b";
const ASKING: &str = "8c0d9b1e-94b4-5f0e-8f0a-6a1b2c3d4e5f";

/// The examples of a kind: the rest of the opening line, and the text.
fn examples(kind: &str) -> Vec<(&'static str, &'static str)> {
    let opening = format!("json {kind} ");
    let blocks = PAGE.split("\n```").filter_map(|block| block.strip_prefix(opening.as_str()));
    blocks.filter_map(|block| block.split_once('\n')).collect()
}

fn operation() -> Uuid {
    ITS_OPERATION.parse().unwrap()
}

/// The page's example payment.
fn its_payment() -> Payment {
    let mut payment = payment();
    payment.id = "0192f0c1-7c5e-7000-8000-0000000000aa".parse().unwrap();
    payment.order.description = "Book purchase".to_owned();
    payment.order.metadata = Metadata::from([("order".to_owned(), "1021".to_owned())]);
    payment
}

/// The request that is sent for the example of this name.
fn sent(name: &str) -> String {
    let payment = its_payment();
    let (token, nothing) = (Map::from_iter([("token".to_owned(), json!("tok_1"))]), Map::new());
    let process = Ask {
        operation_id: operation(),
        action: Action::Process,
        payment: &payment,
        amount: Some(usd("120")),
        capture: true,
        confirms: false,
        is_final: true,
        reference: None,
        data: &nothing,
    };
    let (amount, reference) = (Some(usd("20")), Some("ch_17"));
    match name {
        "process" => request::action(&Ask { data: &token, ..process }),
        "confirm" => request::action(&Ask { confirms: true, ..process }),
        "capture" => request::action(&Ask { action: Action::Capture, amount, is_final: false, ..process }),
        "refund" => request::action(&Ask { action: Action::Refund, amount, capture: false, reference, ..process }),
        "status" => request::status(&question(&payment, ASKING, true)),
        "status-payment" => request::status(&question(&payment, ASKING, false)),
        "undo" => request::undo(&question(&payment, ITS_OPERATION, true)),
        other => panic!("no request is called {other}"),
    }
}

fn question<'a>(payment: &'a Payment, asking: &str, of_operation: bool) -> Question<'a> {
    let target = of_operation.then(|| Target {
        operation_id: operation(),
        action: Action::Process,
        key: GatewayKey::first(operation()),
        request: None,
        stored_at: Timestamp::UNIX_EPOCH,
        last_sent_at: None,
    });
    Question {
        operation_id: asking.parse().unwrap(),
        target,
        payment,
        references: Vec::new(),
        trace: None,
        timeout: LONG,
    }
}

#[test]
fn its_requests_are_what_goes_out() {
    let examples = examples("request");
    assert_eq!(examples.len(), 7, "{examples:?}");
    for (name, text) in examples {
        let mut sent: Value = serde_json::from_str(&sent(name)).unwrap();
        if name != "process" {
            assert!(sent.as_object_mut().unwrap().remove("payment").is_some(), "{name}");
        }
        let said: Value = serde_json::from_str(text).unwrap();
        assert_eq!(said, sent, "{name}");
    }
}

#[test]
fn its_answers_are_read_as_it_says() {
    let examples = examples("answer");
    assert!(examples.len() >= 8, "{examples:?}");
    for (name, text) in examples {
        let (about, word) = name.split_once(' ').unwrap();
        let action = if about == "refund" { Action::Refund } else { Action::Process };
        let is_answer = matches!(about, "process" | "refund");
        let amount = Some(usd("120"));
        let subject = Subject { operation: operation(), action, captures: true, amount, is_answer };
        let subject = (about != "payment").then_some(subject);
        let expected = Expected { currency: usd("1").currency(), subject };
        let read = match answer::read(text.as_bytes(), expected) {
            Ok(Answer::Result(result)) => result.verdict.as_str(),
            Ok(Answer::NotFound) => "not_found",
            Ok(Answer::Undone(_)) => "undone",
            Ok(Answer::OfOthers(_)) => "of others",
            Err(error) => panic!("{name}: {}", error.message),
        };
        assert_eq!(read, word, "{name}");
    }
}

#[test]
fn its_refusals_end_a_command() {
    let examples = examples("refusal");
    assert!(!examples.is_empty());
    for (status, text) in examples {
        let failure = failure::of_status(status.parse().unwrap(), None, text.as_bytes());
        assert_eq!(failure.reach, Reach::Refused, "{status} {text}");
    }
}

#[test]
fn its_statuses_prove_what_it_says() {
    let word = |status: StatusCode, body: &str| match failure::of_status(status, None, body.as_bytes()).reach {
        Reach::Refused => "refused",
        Reach::NotSent => "not sent",
        Reach::Unknown => "unknown",
    };
    let table = PAGE.lines().skip_while(|line| !line.starts_with("| status | with")).skip(2);
    let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 9, "{rows:?}");
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for status in cells[0].split(", ") {
            let status: StatusCode = status.parse().unwrap();
            for said in [r#"{"message": "no"}"#, r#"{"code": "no"}"#] {
                assert_eq!(word(status, said), cells[1], "{status} {said}");
            }
            for nobodys in ["", "<html>", "{}"] {
                assert_eq!(word(status, nobodys), cells[2], "{status} {nobodys}");
            }
            assert_eq!(word(status, r#"{"result": "approved"}"#), "unknown", "{status} contradicts itself");
        }
    }
}

#[test]
fn its_webhooks_are_taken() {
    let examples = examples("webhook");
    assert_eq!(examples.len(), 3, "{examples:?}");
    for (role, text) in examples {
        let secrets: WebhookSecrets = serde_json::from_value(json!("secret")).unwrap();
        let is_proof = role == "proof";
        let role = if is_proof { WebhookRole::Proof } else { WebhookRole::Hint };
        let webhooks = HttpWebhooks::configured(&secrets, role).unwrap().unwrap();
        let facts = webhooks.verify(&Webhook {
            received_at: Timestamp::from_second(1_700_000_000).unwrap(),
            method: "POST".to_owned(),
            url: "/webhooks/cards".to_owned(),
            headers: vec![("paybus-signature".to_owned(), sign("secret", 1_700_000_000, text.as_bytes()))],
            body: text.as_bytes().to_vec(),
        });
        let facts = facts.unwrap();
        assert_eq!((facts.len(), facts[0].proof.is_some()), (1, is_proof), "{text}");
    }
}
