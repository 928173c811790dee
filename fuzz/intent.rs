//! Reads Stripe's payment intents: an approval is of what was received, to the last digit and in that currency, and there is
//! none where that cannot be read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use paybus::gateway::stripe::read_payment_intent;
use paybus::payment::outcome::{Outcome, Verdict};
use paybus::payment::transaction::TransactionKind;
use rust_decimal::Decimal;
use serde_json::{Map, Value};
use uuid::Uuid;

/// What was received, in Stripe's units, as far as the object says so.
fn received(object: &Map<String, Value>) -> Option<i64> {
    let of_charge = || object.get("latest_charge")?.get("amount_captured")?.as_i64();
    object.get("amount_received").and_then(Value::as_i64).or_else(of_charge)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(bytes) else { return };
    let Outcome::Result(result) = read_payment_intent(object.clone(), Uuid::nil()) else { return };
    let units = received(&object);
    match result.verdict {
        Verdict::Approved => {
            assert_eq!(object["status"], "succeeded");
            let decimals =
                |amount: Decimal| [0, 2, 3].map(|decimals| Decimal::new(units.unwrap_or(-1), decimals) == amount);
            let taken = result.transactions.iter().filter(|it| it.kind == TransactionKind::Capture);
            let taken: Decimal = taken.map(|it| it.amount.amount()).sum();
            if units.is_some() {
                assert!(decimals(taken).contains(&true), "{taken} of {units:?}");
            }
        }
        Verdict::Authorized => assert_eq!(object["status"], "requires_capture"),
        Verdict::Declined(_) => assert!(units.is_none_or(|units| units == 0), "declined, and {units:?} received"),
        Verdict::Pending | Verdict::Ready | Verdict::CustomerMustAct { .. } => {}
    }
    let named = object["currency"].as_str().map(str::to_ascii_uppercase);
    assert_eq!(result.currency.map(|currency| currency.code().to_owned()), named);
    assert!(result.transactions.iter().all(|it| Some(it.amount.currency()) == result.currency));
});
