//! Declines: what Stripe's codes say about retrying.

use serde_json::{Map, Value, json};

use super::reply::ErrorObject;
use crate::gateway::clean::{self, CODE_CHARACTERS_MAX, MESSAGE_CHARACTERS_MAX};
use crate::payment::outcome::{Decline, GatewayResult, Verdict};
use crate::payment::status::FraudStatus;

/// When a retry makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Never with this payment method.
    Never,
    /// Some days later, or with another payment method.
    Later,
    /// At once: there was a technical problem on the way to the issuer.
    Soon,
    /// Once the customer provides other data or authenticates.
    Customer,
}

/// All codes with which a payment attempt is declined. Unknown codes may succeed later.
const DECLINES: &[(&str, Retry)] = &[
    // The issuer could not be reached, or asks for the same request again.
    ("approve_with_id", Retry::Soon),
    ("issuer_not_available", Retry::Soon),
    ("processing_error", Retry::Soon),
    ("reenter_transaction", Retry::Soon),
    ("try_again_later", Retry::Soon),
    // At the issuer's discretion, or because of the state of the account.
    ("call_issuer", Retry::Later),
    ("card_decline_rate_limit_exceeded", Retry::Later),
    ("card_declined", Retry::Later),
    ("card_velocity_exceeded", Retry::Later),
    ("do_not_honor", Retry::Later),
    ("generic_decline", Retry::Later),
    ("insufficient_funds", Retry::Later),
    ("no_action_taken", Retry::Later),
    ("not_permitted", Retry::Later),
    ("payment_method_provider_timeout", Retry::Later),
    ("service_not_allowed", Retry::Later),
    ("transaction_not_allowed", Retry::Later),
    ("withdrawal_count_limit_exceeded", Retry::Later),
    // The customer must act, or mistyped something.
    ("authentication_not_handled", Retry::Customer),
    ("authentication_required", Retry::Customer),
    ("expired_card", Retry::Customer),
    ("incorrect_address", Retry::Customer),
    ("incorrect_cvc", Retry::Customer),
    ("incorrect_number", Retry::Customer),
    ("incorrect_pin", Retry::Customer),
    ("incorrect_zip", Retry::Customer),
    ("invalid_amount", Retry::Customer),
    ("invalid_cvc", Retry::Customer),
    ("invalid_expiry_month", Retry::Customer),
    ("invalid_expiry_year", Retry::Customer),
    ("invalid_number", Retry::Customer),
    ("invalid_pin", Retry::Customer),
    ("mobile_device_authentication_required", Retry::Customer),
    ("offline_pin_required", Retry::Customer),
    ("online_or_offline_pin_required", Retry::Customer),
    ("payment_intent_authentication_failure", Retry::Customer),
    ("payment_method_customer_decline", Retry::Customer),
    ("pin_try_exceeded", Retry::Customer),
    // The card schemes forbid a retry.
    ("card_not_supported", Retry::Never),
    ("currency_not_supported", Retry::Never),
    ("do_not_try_again", Retry::Never),
    ("duplicate_transaction", Retry::Never),
    ("fraudulent", Retry::Never),
    ("highest_risk_level", Retry::Never),
    ("invalid_account", Retry::Never),
    ("live_mode_test_card", Retry::Never),
    ("lost_card", Retry::Never),
    ("merchant_blacklist", Retry::Never),
    ("new_account_information_available", Retry::Never),
    ("pickup_card", Retry::Never),
    ("restricted_card", Retry::Never),
    ("revocation_of_all_authorizations", Retry::Never),
    ("revocation_of_authorization", Retry::Never),
    ("security_violation", Retry::Never),
    ("stolen_card", Retry::Never),
    ("stop_payment_order", Retry::Never),
    ("test_mode_live_card", Retry::Never),
    ("testmode_decline", Retry::Never),
];

/// The network's own codes (ISO 8583 and those of the card schemes) that say more than an issuer's general decline.
const NETWORK_DECLINES: &[(&str, Retry)] = &[
    ("04", Retry::Never),
    ("07", Retry::Never),
    ("14", Retry::Customer),
    ("15", Retry::Never),
    ("19", Retry::Soon),
    ("41", Retry::Never),
    ("43", Retry::Never),
    ("46", Retry::Never),
    ("51", Retry::Later),
    ("54", Retry::Customer),
    ("61", Retry::Later),
    ("82", Retry::Customer),
    ("91", Retry::Soon),
    ("96", Retry::Soon),
    ("1A", Retry::Customer),
    ("N7", Retry::Customer),
    ("R0", Retry::Never),
    ("R1", Retry::Never),
    ("R3", Retry::Never),
];

/// General declines by the issuer, without a reason.
const GENERAL: [&str; 4] = ["card_declined", "do_not_honor", "generic_decline", "no_action_taken"];

/// The shop must not reveal to a thief why these were declined; Stripe requires showing a general decline.
const NOT_FOR_THE_CUSTOMER: [&str; 4] = ["fraudulent", "lost_card", "merchant_blacklist", "stolen_card"];

/// Declined for fraud, by the issuer, Radar or the shop's own block list.
const FRAUD: [&str; 2] = ["fraudulent", "merchant_blacklist"];

impl Retry {
    fn of(error: &ErrorObject) -> Retry {
        match error.advice_code.as_deref() {
            Some("do_not_try_again") => return Retry::Never,
            Some("confirm_card_data") => return Retry::Customer,
            Some("try_again_later") => return Retry::Later,
            _ => {}
        }
        let own = error.own_code().unwrap_or_default();
        let network = error.network_decline_code.as_deref().filter(|_| GENERAL.contains(&own));
        network.and_then(|code| find(NETWORK_DECLINES, code)).or_else(|| find(DECLINES, own)).unwrap_or(Retry::Later)
    }

    fn decline(self) -> Decline {
        match self {
            Retry::Never => Decline::Hard,
            Retry::Later | Retry::Soon => Decline::Soft,
            Retry::Customer => Decline::CustomerMustAct,
        }
    }

    /// The word in `extra_data`.
    fn as_str(self) -> &'static str {
        match self {
            Retry::Never => "never",
            Retry::Later => "later",
            Retry::Soon => "soon",
            Retry::Customer => "customer",
        }
    }
}

fn find(table: &[(&str, Retry)], code: &str) -> Option<Retry> {
    table.iter().find(|(known, _)| *known == code).map(|(_, retry)| *retry)
}

/// The result of a declined payment attempt. Its code and message are suitable for the customer; the full details are
/// in `extra_data`, for the shop.
pub(super) fn declined(error: &ErrorObject) -> GatewayResult {
    let own = error.own_code().unwrap_or("declined");
    let shown = if NOT_FOR_THE_CUSTOMER.contains(&own) { "generic_decline" } else { own };
    let retry = Retry::of(error);
    let message = error.message.as_deref().unwrap_or("The payment was declined.");
    let mut result = GatewayResult::new(Verdict::Declined(retry.decline()));
    result.code = Some(clean::text(shown, CODE_CHARACTERS_MAX));
    result.message = clean::text(message, MESSAGE_CHARACTERS_MAX);
    result.fraud = FRAUD.contains(&own).then(|| (FraudStatus::Reject, format!("declined: {own}")));
    result.extra_data.insert("decline".to_owned(), Value::Object(details(error, own, retry)));
    result
}

fn details(error: &ErrorObject, own: &str, retry: Retry) -> Map<String, Value> {
    let mut details = Map::new();
    details.insert("code".to_owned(), json!(clean::text(own, CODE_CHARACTERS_MAX)));
    details.insert("retry".to_owned(), json!(retry.as_str()));
    for (name, code) in [
        ("charge", &error.charge),
        ("advice_code", &error.advice_code),
        ("network_advice_code", &error.network_advice_code),
        ("network_decline_code", &error.network_decline_code),
    ] {
        if let Some(code) = code {
            details.insert(name.to_owned(), json!(clean::text(code, CODE_CHARACTERS_MAX)));
        }
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(decline_code: &str) -> ErrorObject {
        ErrorObject {
            kind: "card_error".to_owned(),
            code: Some("card_declined".to_owned()),
            decline_code: Some(decline_code.to_owned()),
            message: Some("Your card was declined.".to_owned()),
            ..ErrorObject::default()
        }
    }

    #[test]
    fn each_code_stands_once_in_its_table() {
        for table in [DECLINES, NETWORK_DECLINES] {
            let mut codes: Vec<&str> = table.iter().map(|(code, _)| *code).collect();
            codes.sort_unstable();
            codes.dedup();
            assert_eq!(codes.len(), table.len());
        }
    }

    #[test]
    fn kinds_of_declines() {
        for (code, decline, retry) in [
            ("insufficient_funds", Decline::Soft, "later"),
            ("processing_error", Decline::Soft, "soon"),
            ("stolen_card", Decline::Hard, "never"),
            ("authentication_required", Decline::CustomerMustAct, "customer"),
            ("incorrect_cvc", Decline::CustomerMustAct, "customer"),
            ("a_code_of_next_year", Decline::Soft, "later"),
        ] {
            let result = declined(&error(code));
            assert_eq!(result.verdict, Verdict::Declined(decline), "{code}");
            assert_eq!(result.extra_data["decline"]["retry"], retry, "{code}");
            assert_eq!(result.extra_data["decline"]["code"], code);
        }
    }

    #[test]
    fn advice_goes_before_the_code_and_the_network_before_a_general_refusal() {
        let advised = |advice: &str| ErrorObject { advice_code: Some(advice.to_owned()), ..error("do_not_honor") };
        assert_eq!(Retry::of(&advised("do_not_try_again")), Retry::Never);
        assert_eq!(Retry::of(&advised("confirm_card_data")), Retry::Customer);
        let network = |own: &str, code: &str| ErrorObject { network_decline_code: Some(code.to_owned()), ..error(own) };
        assert_eq!(Retry::of(&network("generic_decline", "43")), Retry::Never);
        assert_eq!(Retry::of(&network("generic_decline", "05")), Retry::Later);
        assert_eq!(Retry::of(&network("expired_card", "43")), Retry::Customer);
    }

    #[test]
    fn what_a_thief_must_not_learn_is_only_for_the_shop() {
        for code in NOT_FOR_THE_CUSTOMER {
            let result = declined(&error(code));
            assert_eq!(result.code.as_deref(), Some("generic_decline"));
            assert_eq!(result.extra_data["decline"]["code"], code);
        }
        assert_eq!(declined(&error("fraudulent")).fraud.map(|(status, _)| status), Some(FraudStatus::Reject));
        assert_eq!(declined(&error("lost_card")).fraud, None);
    }
}
