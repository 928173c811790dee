//! What happens at Stripe by itself, done by hand:
//!
//! | request | what happens |
//! | --- | --- |
//! | `GET /authenticate/{id}`, also `?fail=1` | the customer of a payment intent authenticates, and is sent back |
//! | `POST /_control/dispute` `payment_intent=`, `status=`, `reason=` | a dispute is opened, or goes on (`lost`, `won`) |
//! | `POST /_control/review` `payment_intent=`, `reason=` | a person ends the review (`approved`, ...) |
//! | `POST /_control/refund` `refund=`, `status=` | a refund ends (`succeeded`, `failed`) |
//! | `POST /_control/expire_keys` | idempotency keys are forgotten |
//! | `POST /_control/fault` `payment=`, `meets=` | the next process of our payment meets this: `unavailable` (503), `lose_answer` (it happens), `error` (500, kept under the key) |
//! | `POST /_control/webhook` `url=`, `secret=` | everything from now on is told there, signed |

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde_json::{Value, json};

use super::books::Answer;
use super::{Fault, Plan, Shared, form, webhook};

pub async fn authenticate(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let fails = query.unwrap_or_default().contains("fail");
    let done = shared.state().objects.authenticate(&id, !fails);
    webhook::collect(&shared);
    match done {
        Ok(Value::String(back)) => Redirect::to(&back).into_response(),
        Ok(_) => Html("Done; you may close this page.").into_response(),
        Err(answer) => plain(answer),
    }
}

pub async fn control(State(shared): State<Arc<Shared>>, Path(what): Path<String>, body: Bytes) -> Response {
    let form = form::read(&body);
    let text = |name: &str| form[name].as_str().unwrap_or_default();
    let done = match what.as_str() {
        "dispute" => {
            let reason = form["reason"].as_str().unwrap_or("general");
            shared.state().objects.dispute(text("payment_intent"), text("status"), reason)
        }
        "review" => shared.state().objects.close_review(text("payment_intent"), text("reason")),
        "refund" => shared.state().objects.end_refund(text("refund"), text("status")),
        "expire_keys" => {
            shared.state().keys.expire();
            Ok(json!({}))
        }
        "fault" => match fault(text("meets")) {
            Some(fault) => {
                let (payment, kinds) = (Some(text("payment").to_owned()), vec!["create", "confirm"]);
                shared.state().plans.push(Plan { payment, kinds, faults: [fault].into() });
                Ok(json!({}))
            }
            None => return StatusCode::BAD_REQUEST.into_response(),
        },
        "webhook" => {
            let endpoint = webhook::Endpoint { url: text("url").to_owned(), secret: text("secret").to_owned() };
            shared.state().webhook = Some(endpoint);
            Ok(json!({}))
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    webhook::collect(&shared);
    match done {
        Ok(object) => axum::Json(object).into_response(),
        Err(answer) => plain(answer),
    }
}

fn fault(word: &str) -> Option<Fault> {
    match word {
        "unavailable" => Some(Fault::status(503)),
        "lose_answer" => Some(Fault::LoseAnswer),
        "error" => Some(Fault::Stored500 { acts: false }),
        _ => None,
    }
}

fn plain(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, axum::Json(answer.body)).into_response()
}
