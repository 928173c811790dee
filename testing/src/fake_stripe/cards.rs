//! Stripe's published test tokens, and what each does.

/// What a token does when it is charged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// It goes through.
    Approve,
    /// It is declined: code, decline code and message.
    Decline(&'static str, Option<&'static str>, &'static str),
}

/// When a customer must authenticate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Authentication {
    /// Never.
    None,
    /// Always while the customer is there; off session it is declined.
    Always,
}

/// What Radar thinks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Risk {
    Normal,
    /// Placed in review.
    Elevated,
    /// Goes through all the same.
    Highest,
    /// Blocked.
    Blocked,
}

/// How its refunds go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Refunds {
    Succeed,
    /// Pending; ended by hand.
    Pending,
}

/// A test token.
#[derive(Debug, Clone, Copy)]
pub struct Card {
    pub token: &'static str,
    pub last4: &'static str,
    pub effect: Effect,
    pub authentication: Authentication,
    pub risk: Risk,
    pub refunds: Refunds,
    /// Disputed as soon as it is charged.
    pub dispute: Option<&'static str>,
}

const fn card(token: &'static str, last4: &'static str) -> Card {
    Card {
        token,
        last4,
        effect: Effect::Approve,
        authentication: Authentication::None,
        risk: Risk::Normal,
        refunds: Refunds::Succeed,
        dispute: None,
    }
}

const fn declined(token: &'static str, last4: &'static str, decline_code: &'static str) -> Card {
    let effect = Effect::Decline("card_declined", Some(decline_code), "Your card was declined.");
    Card { effect, ..card(token, last4) }
}

const fn refused(token: &'static str, last4: &'static str, code: &'static str, message: &'static str) -> Card {
    Card { effect: Effect::Decline(code, None, message), ..card(token, last4) }
}

const fn risky(token: &'static str, last4: &'static str, risk: Risk) -> Card {
    Card { risk, ..card(token, last4) }
}

const fn authenticated(card: Card) -> Card {
    Card { authentication: Authentication::Always, ..card }
}

const fn disputed(token: &'static str, last4: &'static str, reason: &'static str) -> Card {
    Card { dispute: Some(reason), ..card(token, last4) }
}

/// Every token that is known.
pub const CARDS: &[Card] = &[
    card("pm_card_visa", "4242"),
    card("pm_card_mastercard", "4444"),
    declined("pm_card_visa_chargeDeclined", "0002", "generic_decline"),
    declined("pm_card_visa_chargeDeclinedInsufficientFunds", "9995", "insufficient_funds"),
    declined("pm_card_visa_chargeDeclinedLostCard", "9987", "lost_card"),
    declined("pm_card_visa_chargeDeclinedStolenCard", "9979", "stolen_card"),
    declined("pm_card_visa_chargeDeclinedVelocityLimitExceeded", "6975", "card_velocity_exceeded"),
    declined("pm_card_chargeCustomerFail", "0341", "generic_decline"),
    refused("pm_card_chargeDeclinedExpiredCard", "0069", "expired_card", "Your card has expired."),
    refused("pm_card_chargeDeclinedIncorrectCvc", "0127", "incorrect_cvc", "Your card's security code is incorrect."),
    refused(
        "pm_card_chargeDeclinedProcessingError",
        "0119",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
    ),
    authenticated(card("pm_card_threeDSecure2Required", "3220")),
    authenticated(card("pm_card_threeDSecureRequired", "3063")),
    authenticated(card("pm_card_authenticationRequired", "3184")),
    authenticated(declined("pm_card_threeDSecureRequiredChargeDeclined", "1629", "generic_decline")),
    card("pm_card_threeDSecureOptional", "3055"),
    Card {
        effect: Effect::Decline("card_declined", Some("fraudulent"), "Your card was declined."),
        ..risky("pm_card_radarBlock", "0019", Risk::Blocked)
    },
    risky("pm_card_riskLevelHighest", "4954", Risk::Highest),
    risky("pm_card_riskLevelElevated", "9235", Risk::Elevated),
    Card { refunds: Refunds::Pending, ..card("pm_card_pendingRefund", "7726") },
    card("pm_card_refundFail", "5126"),
    disputed("pm_card_createDispute", "0259", "fraudulent"),
    disputed("pm_card_createDisputeProductNotReceived", "2685", "product_not_received"),
    disputed("pm_card_createDisputeInquiry", "1976", "general"),
];

/// The card of a token.
pub fn find(token: &str) -> Option<&'static Card> {
    CARDS.iter().find(|card| card.token == token)
}
