use super::*;
use crate::payment::code::Code;
use crate::payment::outcome::Decline;

const OPERATION_ID: Uuid = Uuid::from_u128(7);
const OURS: Asked<'static> = Asked { payment_id: Uuid::from_u128(9), livemode: Some(false), id: Some("pi_1") };

fn read_with(more: &Value, asked: Asked<'_>) -> Result<Intent, GatewayError> {
    let mut intent = json!({
        "id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 2_050, "amount_received": 2_050,
        "currency": "eur", "livemode": false,
        "metadata": {"paybus_payment": Uuid::from_u128(9).to_string(), "paybus_operation": "x"},
    });
    for (name, value) in more.as_object().unwrap() {
        intent[name] = value.clone();
    }
    if intent["status"] != "succeeded" && more.get("amount_received").is_none() {
        intent["amount_received"] = json!(0);
    }
    Intent::read(intent.as_object().unwrap().clone(), asked)
}

fn read(more: &Value) -> Intent {
    read_with(more, OURS).unwrap()
}

fn verdict(more: &Value) -> Option<Verdict> {
    read(more).of_process(false).unwrap().map(|result| result.verdict)
}

#[test]
fn each_status_for_a_process() {
    let error = json!({"type": "card_error", "code": "card_declined", "decline_code": "lost_card"});
    let page = json!({"type": "redirect_to_url", "redirect_to_url": {"url": "https://hooks.example/3ds"}});
    let redirect_url = Some("https://hooks.example/3ds".to_owned());
    for (more, expected) in [
        (json!({"status": "succeeded"}), Some(Verdict::Approved)),
        (json!({"status": "requires_capture"}), Some(Verdict::Authorized)),
        (json!({"status": "processing"}), Some(Verdict::Pending)),
        (json!({"status": "requires_confirmation"}), None),
        (json!({"status": "requires_payment_method"}), None),
        (
            json!({"status": "requires_payment_method", "last_payment_error": error}),
            Some(Verdict::Declined(Decline::Hard)),
        ),
        (json!({"status": "canceled"}), Some(Verdict::Declined(Decline::Soft))),
        (json!({"status": "requires_action", "next_action": page}), Some(Verdict::CustomerMustAct { redirect_url })),
        (
            json!({"status": "requires_action", "next_action": {"type": "use_stripe_sdk"}}),
            Some(Verdict::Declined(Decline::CustomerMustAct)),
        ),
    ] {
        assert_eq!(verdict(&more), expected, "{more}");
    }
}

#[test]
fn hosted_pages_are_addresses_too() {
    let voucher = json!({"type": "boleto_display_details",
        "boleto_display_details": {"hosted_voucher_url": "https://payments.example/v"}});
    let redirect_url = Some("https://payments.example/v".to_owned());
    let waits = json!({"status": "requires_action", "next_action": voucher});
    assert_eq!(verdict(&waits), Some(Verdict::CustomerMustAct { redirect_url }));
    let odd = json!({"type": "redirect_to_url", "redirect_to_url": {"url": "javascript:alert(1)"}});
    let odd = read(&json!({"status": "requires_action", "next_action": odd})).of_process(false);
    assert_eq!(odd.unwrap_err().code, Code::InvalidAnswer);
}

#[test]
fn sums_are_what_was_taken_or_is_held() {
    let money = |text| Some(Money::parse(text, Currency::from_code("EUR").unwrap()).unwrap());
    let part = read(&json!({"amount_received": 1_000}));
    assert_eq!(part.answers_capture(OPERATION_ID, None).unwrap().unwrap().amount(), money("10"));
    let held = read(&json!({"status": "requires_capture", "amount_capturable": 2_050, "amount_received": 0}));
    assert_eq!(held.of_process(false).unwrap().unwrap().amount(), money("20.50"));
    let bare = read(&json!({"amount_received": null, "latest_charge": {"id": "ch_1", "amount_captured": 700}}));
    assert_eq!(bare.received().unwrap(), money("7"));
}

#[test]
fn a_missing_sum_is_not_taken_for_the_total() {
    for charge in [json!(null), json!("ch_1"), json!({"id": "ch_1"})] {
        let silent = read_with(&json!({"amount_received": null, "latest_charge": charge}), OURS);
        let captured = silent.and_then(|intent| intent.answers_capture(OPERATION_ID, None));
        assert_eq!(captured.unwrap_err().code, Code::InvalidAnswer, "{charge}");
    }
    let mut left_out = json!({"id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 2_050,
        "currency": "eur", "latest_charge": "ch_1"});
    let captured = |intent: &Value| {
        let asked = Money::parse("7", Currency::from_code("EUR").unwrap()).ok();
        Intent::read(intent.as_object().unwrap().clone(), OURS)
            .and_then(|intent| intent.answers_capture(OPERATION_ID, asked))
    };
    let result = captured(&left_out).unwrap().unwrap();
    assert_eq!(
        (result.amount(), result.verdict),
        (Money::parse("7", result.currency.unwrap()).ok(), Verdict::Approved)
    );
    left_out["amountReceived"] = json!(1_000);
    assert_eq!(captured(&left_out).unwrap_err().code, Code::InvalidAnswer);
    let held = read_with(&json!({"status": "requires_capture", "amount_capturable": null}), OURS);
    assert_eq!(held.and_then(|intent| intent.of_process(false)).unwrap_err().code, Code::InvalidAnswer);
    let held = read(&json!({"status": "requires_capture", "amount_received": 0})).of_process(false);
    let asked = Money::parse("20.50", Currency::from_code("EUR").unwrap()).ok();
    assert_eq!(held.unwrap().unwrap().amount(), asked);
}

/// From the status alone, a look-up would conclude that nothing was charged.
#[test]
fn money_that_its_status_denies_is_a_mismatch() {
    for status in ["requires_payment_method", "requires_confirmation", "requires_action", "canceled"] {
        for more in [
            json!({"status": status, "amount_received": 2_050}),
            json!({"status": status, "amount_received": null, "latest_charge": {"id": "c", "amount_captured": 1}}),
        ] {
            assert_eq!(read_with(&more, OURS).unwrap_err().code, Code::Mismatch, "{more}");
        }
        let unreadable = json!({"status": status, "amount_received": -1});
        assert_eq!(read_with(&unreadable, OURS).unwrap_err().code, Code::InvalidAnswer, "{status}");
    }
}

#[test]
fn an_ornament_costs_no_result() {
    for more in [
        json!({"client_secret": 5, "cancellation_reason": [], "next_action": "none", "description": {}}),
        json!({"last_payment_error": {"message": 5, "type": [], "charge": {}}}),
        json!({"latest_charge": {"id": "ch_1", "outcome": "fine", "review": 7, "payment_method_details": []}}),
    ] {
        let read = read(&more).of_process(false).unwrap().unwrap();
        assert_eq!(
            (read.amount().map(|sum| sum.to_string()), read.verdict),
            (Some("20.50".to_owned()), Verdict::Approved)
        );
    }
}

#[test]
fn what_was_taken_and_was_to_be_held_is_a_mismatch() {
    let taken = read(&json!({"status": "succeeded"}));
    assert_eq!(taken.check_held(false).unwrap_err().code, Code::Mismatch);
    assert_eq!(taken.check_held(true), Ok(()));
    assert_eq!(read(&json!({"status": "requires_capture"})).check_held(false), Ok(()));
}

#[test]
fn what_another_operation_makes_of_it() {
    let status = |status: &str| read(&json!({"status": status}));
    let captured = |word| status(word).answers_capture(OPERATION_ID, None).unwrap().map(|result| result.verdict);
    let canceled = |word| status(word).of_cancel(None).map(|result| result.verdict);
    assert_eq!(captured("requires_capture"), None);
    assert_eq!(captured("succeeded"), Some(Verdict::Approved));
    assert!(matches!(captured("canceled"), Some(Verdict::Declined(_))));
    assert_eq!(canceled("requires_action"), None);
    assert_eq!(canceled("canceled"), Some(Verdict::Approved));
    assert!(matches!(canceled("succeeded"), Some(Verdict::Declined(_))));
}

#[test]
fn what_cannot_be_ours_is_a_mismatch_and_what_cannot_be_read_no_answer() {
    for (more, code) in [
        (json!({"id": "pi_2"}), Code::Mismatch),
        (json!({"livemode": true}), Code::Mismatch),
        (json!({"metadata": {"paybus_payment": Uuid::nil().to_string()}}), Code::Mismatch),
        (json!({"object": "charge"}), Code::InvalidAnswer),
        (json!({"id": "../x"}), Code::InvalidAnswer),
        (json!({"id": format!("pi_{}", "x".repeat(253))}), Code::InvalidAnswer),
        (json!({"status": "paid"}), Code::InvalidAnswer),
        (json!({"amount": "20.50"}), Code::InvalidAnswer),
        (json!({"amount": 20.5}), Code::InvalidAnswer),
        (json!({"currency": "zzz"}), Code::InvalidAnswer),
        (json!({"latest_charge": 5}), Code::InvalidAnswer),
        (json!({"latest_charge": {"id": "ch_1", "amount_captured": "5"}}), Code::InvalidAnswer),
        (json!({"amount": null}), Code::InvalidAnswer),
        (json!({"amount_received": "2050"}), Code::InvalidAnswer),
    ] {
        assert_eq!(read_with(&more, OURS).unwrap_err().code, code, "{more}");
    }
    // A different currency is for the engine to judge.
    assert_eq!(read(&json!({"currency": "usd"})).currency.code(), "USD");
    assert!(read_with(&json!({"livemode": true}), Asked { livemode: None, ..OURS }).is_ok());
}
