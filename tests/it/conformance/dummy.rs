//! `dummy` is its own fake: the `process` object steers it, and it keeps no books.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use paybus::payment::outcome::Decline;

use super::fake::{Booked, Ended, Fake, Meets, On, PROCESS, Sent, SignedWebhook, Unsupported};

const NO_BOOKS: Unsupported = Unsupported("it keeps no books");
const NO_WIRE: Unsupported = Unsupported("it is in the process");

/// The gateway in the worker.
pub struct DummyFake;

impl Fake for DummyFake {
    fn name(&self) -> &'static str {
        "dummy"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("gateway", "dummy".to_owned())]
    }

    fn brief_keys(&self) -> Ended<Vec<(&'static str, String)>> {
        Err(Unsupported("its keys' window is fixed"))
    }

    fn secret(&self) -> Option<&'static str> {
        None
    }

    fn process(&self) -> Value {
        json!({})
    }

    fn plan(&self, _payment: Uuid, on: On, meets: &[Meets]) -> Ended<Value> {
        if on != PROCESS {
            return Err(Unsupported("only its process can be planned"));
        }
        match meets {
            [Meets::Decline(Decline::Hard)] => Ok(json!({"status": "rejected"})),
            [Meets::Decline(Decline::Soft)] => Ok(json!({"token": "tok_declined_insufficient_funds"})),
            [Meets::Decline(Decline::CustomerMustAct)] => Ok(json!({"token": "tok_declined_expired_card"})),
            [Meets::DeclineSaying(_)] => Err(Unsupported("it has no words of its own")),
            [Meets::Redirect { paid }] => {
                Ok(json!({"gateway_response": "3ds-redirect", "verification_result": verification(*paid)}))
            }
            [Meets::Pending { paid }] => Ok(json!({"status": "waiting", "verification_result": verification(*paid)})),
            [Meets::Review] => Ok(json!({"fraud_status": "review"})),
            [Meets::LoseAnswer] => Ok(json!({"lose_answer": true})),
            [Meets::NoAnswer] => Ok(json!({"latency_ms": 5_000})),
            [Meets::OtherAmount(_) | Meets::OtherCurrency(_)] => Err(Unsupported("it does what is asked")),
            _ => Err(NO_WIRE),
        }
    }

    /// How it ends was said when it began.
    fn complete(&self, _payment: Uuid, _paid: bool) -> Ended {
        Ok(())
    }

    fn refund_by_hand(&self, _payment: Uuid, _amount: &'static str) -> Ended {
        Err(NO_BOOKS)
    }

    fn webhook(&self, _payment: Uuid) -> Ended<SignedWebhook> {
        Err(Unsupported("it sends none"))
    }

    fn books(&self, _payment: Uuid) -> Ended<Vec<Booked>> {
        Err(NO_BOOKS)
    }

    fn sent(&self, _payment: Uuid) -> Ended<Vec<Sent>> {
        Err(NO_BOOKS)
    }

    fn stop(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async { Err(NO_WIRE) })
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

fn verification(paid: bool) -> &'static str {
    if paid { "confirmed" } else { "rejected" }
}
