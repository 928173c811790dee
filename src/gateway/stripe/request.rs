//! What is sent for an operation: written once, stored with it, and sent unchanged on every attempt.

use form_urlencoded::Serializer;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::amount::{self, AmountError};
use super::process::{ID_CHARACTERS_MAX, Process};
use crate::gateway::{Action, Ask};
use crate::payment::code::{Code, Rejection};
use crate::payment::outcome::GatewayError;

/// Metadata name of our payment's id.
pub(super) const PAYMENT: &str = "paybus_payment";
/// Metadata name of our operation's id.
pub(super) const OPERATION: &str = "paybus_operation";
/// The last path segment of captures.
pub(super) const CAPTURE_PATH: &str = "capture";
/// Prefix of the metadata names of capture marks.
const CAPTURE: &str = "paybus_";
/// Requests an authorization that supports several captures.
const MULTICAPTURE: &str = "payment_method_options[card][request_multicapture]";
/// What is expanded in every answer with a payment intent: its charge, and that charge's review.
pub(super) const CHARGE: &str = "latest_charge.review";

/// What is sent for an operation. The strings are encoded forms.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Plan {
    /// Charges or authorizes: creates a payment intent or continues the payment's.
    Process {
        /// The payment's payment intent.
        #[serde(skip_serializing_if = "Option::is_none")]
        payment_intent: Option<String>,
        /// The requests for continuing or creating; `None` without a payment method, in which case the payment intent
        /// is only read.
        #[serde(skip_serializing_if = "Option::is_none")]
        forms: Option<ProcessForms>,
        /// Stripe.js may complete it.
        use_stripe_sdk: bool,
    },
    /// A single request.
    Post {
        /// The path below the API's base URL.
        path: String,
        form: String,
    },
    /// Nothing is sent, because there is nothing at Stripe to cancel.
    Nothing,
    /// Nothing can be sent. Stored by an earlier release; such a command is rejected now.
    Refuse {
        /// The reason.
        message: String,
    },
}

/// The requests that a process may need.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ProcessForms {
    /// Creates and confirms a payment intent.
    pub create: String,
    /// Marks the existing one with this operation, and sets the payment method.
    pub mark: String,
    /// Confirms it.
    pub confirm: String,
}

/// Request options from the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options<'a> {
    /// Suffix of the statement descriptor, after the account's own prefix.
    pub suffix: Option<&'a str>,
    /// Whether authorizations request several captures.
    pub multicapture: bool,
}

impl Plan {
    /// Plans an operation.
    ///
    /// # Errors
    /// Stripe does not support such a request.
    pub fn of(ask: &Ask<'_>, options: Options<'_>) -> Result<Plan, Rejection> {
        match ask.action {
            Action::Process => process(ask, options),
            Action::Capture => capture(ask, options),
            Action::Refund => refund(ask),
            Action::Release => payment_intent(ask).map(|id| release(ask, id)),
            Action::Cancel => Ok(payment_intent(ask).map_or(Plan::Nothing, cancel)),
        }
    }

    /// Writes the stored form.
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the stored form.
    pub fn read(body: &str) -> Result<Plan, GatewayError> {
        serde_json::from_str(body)
            .map_err(|_| GatewayError::new(Code::Refused, "the stored request was not written by this gateway"))
    }
}

fn process(ask: &Ask<'_>, options: Options<'_>) -> Result<Plan, Rejection> {
    let process = Process::read(ask.data)?;
    let known = payment_intent(ask).ok();
    if known.is_none() && process.payment_method.is_none() {
        let message = "process.payment_method: is required, because there is no payment intent to continue";
        return Err(Rejection::new(Code::InvalidData, message));
    }
    let forms = match &process.payment_method {
        Some(method) => Some(ProcessForms {
            create: create(ask, &process, method, options)?,
            mark: mark(ask, &process, method),
            confirm: confirmation(Form::new(), &process).end(),
        }),
        None => None,
    };
    Ok(Plan::Process { payment_intent: known, forms, use_stripe_sdk: process.use_stripe_sdk })
}

/// Creates a payment intent and confirms it at once.
fn create(ask: &Ask<'_>, process: &Process, method: &str, options: Options<'_>) -> Result<String, Rejection> {
    let total = ask.amount.unwrap_or(ask.payment.order.total);
    let form = Form::new()
        .field("amount", &units(amount::to_units(total))?)
        .field("currency", &total.currency().code().to_ascii_lowercase())
        .field("confirm", "true");
    let form = method_of(form, ask, process, method);
    let form = match &process.automatic_payment_methods {
        Some(automatic) => form
            .field("automatic_payment_methods[enabled]", if automatic.enabled { "true" } else { "false" })
            .optional("automatic_payment_methods[allow_redirects]", automatic.allow_redirects.map(|it| it.as_str())),
        None => form,
    };
    let description = Some(ask.payment.order.description.as_str()).filter(|text| !text.is_empty());
    let form = form
        .optional("description", description)
        .optional("statement_descriptor_suffix", options.suffix)
        .optional(MULTICAPTURE, (options.multicapture && !ask.capture).then_some("if_available"))
        .field(&format!("metadata[{PAYMENT}]"), &ask.payment.id.to_string());
    Ok(confirmation(form, process).end())
}

/// Marks the existing payment intent with this operation. Setting another payment method cancels whatever the customer
/// still had to do for the previous one.
fn mark(ask: &Ask<'_>, process: &Process, method: &str) -> String {
    method_of(Form::new(), ask, process, method).field("expand[]", CHARGE).end()
}

/// Payment method fields, for creating as well as for continuing.
fn method_of(form: Form, ask: &Ask<'_>, process: &Process, method: &str) -> Form {
    let mut form = form
        .field("capture_method", if ask.capture { "automatic" } else { "manual" })
        .field("payment_method", method)
        .optional("customer", process.customer.as_deref())
        .optional("setup_future_usage", process.setup_future_usage.map(|usage| usage.as_str()))
        .field(&format!("metadata[{OPERATION}]"), &ask.operation_id.to_string());
    if process.automatic_payment_methods.is_none() {
        if process.payment_method_types.is_empty() {
            form = form.field("payment_method_types[]", "card");
        }
        for kind in &process.payment_method_types {
            form = form.field("payment_method_types[]", kind);
        }
    }
    form
}

/// The fields of a confirmation.
fn confirmation(form: Form, process: &Process) -> Form {
    form.optional("return_url", process.return_url.as_deref())
        .optional("use_stripe_sdk", process.use_stripe_sdk.then_some("true"))
        .optional("off_session", process.off_session.then_some("true"))
        .optional("mandate", process.mandate.as_deref())
        .field("expand[]", CHARGE)
}

/// A capture. It leaves a mark on the payment intent, which tells its amount from that of other captures.
fn capture(ask: &Ask<'_>, options: Options<'_>) -> Result<Plan, Rejection> {
    let path = format!("payment_intents/{}/{CAPTURE_PATH}", payment_intent(ask)?);
    let amount = units(amount::to_units(ask.amount.unwrap_or(ask.payment.order.total)))?;
    let is_final = if ask.is_final { "true" } else { "false" };
    let form = Form::new()
        .field("amount_to_capture", &amount)
        .optional("final_capture", options.multicapture.then_some(is_final))
        .field(&format!("metadata[{}]", capture_mark(ask.operation_id)), &amount)
        .end();
    Ok(Plan::Post { path, form })
}

fn refund(ask: &Ask<'_>) -> Result<Plan, Rejection> {
    let amount = ask.amount.unwrap_or(ask.payment.amounts.captured);
    let form = Form::new()
        .field("payment_intent", &charged(ask)?)
        .field("amount", &units(amount::to_units(amount))?)
        .field(&format!("metadata[{PAYMENT}]"), &ask.payment.id.to_string())
        .field(&format!("metadata[{OPERATION}]"), &ask.operation_id.to_string())
        .end();
    Ok(Plan::Post { path: "refunds".to_owned(), form })
}

/// After a partial capture nothing can be canceled: a last capture of nothing releases the rest.
fn release(ask: &Ask<'_>, payment_intent: String) -> Plan {
    if ask.payment.amounts.captured.is_zero() && ask.payment.amounts.refunded.is_zero() {
        return cancel(payment_intent);
    }
    let form = Form::new().field("amount_to_capture", "0").field("final_capture", "true").end();
    Plan::Post { path: format!("payment_intents/{payment_intent}/{CAPTURE_PATH}"), form }
}

fn cancel(payment_intent: String) -> Plan {
    Plan::Post { path: format!("payment_intents/{payment_intent}/cancel"), form: String::new() }
}

/// The payment intent to refund.
fn charged(ask: &Ask<'_>) -> Result<String, Rejection> {
    match ask.reference {
        Some(reference) if is_payment_intent(reference) => Ok(reference.to_owned()),
        Some(_) => Err(Rejection::new(Code::InvalidData, "reference: must be a payment intent, pi_...")),
        None => payment_intent(ask),
    }
}

/// The payment intent named in a refund's form.
pub(super) fn refunded_intent(form: &str) -> Option<String> {
    let mut fields = form_urlencoded::parse(form.as_bytes());
    fields.find(|(name, _)| name == "payment_intent").map(|(_, id)| id.into_owned())
}

/// The metadata name under which a payment intent keeps a capture's amount, in Stripe's units. Names have at most 40
/// characters.
pub(super) fn capture_mark(operation: Uuid) -> String {
    format!("{CAPTURE}{}", operation.simple())
}

/// The capture to which a mark's metadata name belongs.
pub(super) fn marked_capture(name: &str) -> Option<Uuid> {
    let id = name.strip_prefix(CAPTURE).filter(|id| id.len() == 32)?;
    Uuid::try_parse(id).ok()
}

/// The payment's payment intent, if known.
fn payment_intent(ask: &Ask<'_>) -> Result<String, Rejection> {
    let id = ask.payment.transaction_id.as_str();
    if is_payment_intent(id) {
        return Ok(id.to_owned());
    }
    Err(Rejection::new(Code::NotAllowed, "the payment has no payment intent at Stripe"))
}

/// Whether a text is the id of a payment intent, and safe in a path.
pub(super) fn is_payment_intent(id: &str) -> bool {
    let is_word = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    id.starts_with("pi_") && is_word && id.len() <= ID_CHARACTERS_MAX
}

fn units(amount: Result<i64, AmountError>) -> Result<String, Rejection> {
    let rejection = |error| Rejection::new(Code::InvalidAmount, format!("amount: {error}"));
    amount.map(|units| units.to_string()).map_err(rejection)
}

/// A form being encoded.
struct Form(Serializer<'static, String>);

impl Form {
    fn new() -> Form {
        Form(Serializer::new(String::new()))
    }

    fn field(mut self, name: &str, value: &str) -> Form {
        self.0.append_pair(name, value);
        self
    }

    fn optional(self, name: &str, value: Option<&str>) -> Form {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    fn end(mut self) -> String {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::payment::model::{Billing, Order, Payment};
    use crate::payment::money::{Currency, Money};

    const OURS: &str = "metadata%5Bpaybus_operation%5D=00000000-0000-0000-0000-000000000007";

    fn money(text: &str) -> Money {
        Money::parse(text, Currency::from_code("EUR").unwrap()).unwrap()
    }

    fn payment(transaction_id: &str) -> Payment {
        let order = Order {
            variant: "cards".to_owned(),
            total: money("120"),
            tax: money("0"),
            delivery: money("0"),
            description: "Book & pen".to_owned(),
            billing: Billing::default(),
            customer_ip_address: None,
            metadata: crate::payment::model::Metadata::new(),
        };
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let mut payment = Payment::new(Uuid::from_u128(9), order, "stripe", "acct_1", now);
        payment.transaction_id = transaction_id.to_owned();
        payment
    }

    fn plan(action: Action, transaction_id: &str, data: &Value, capture: bool) -> Plan {
        planned(action, transaction_id, data, capture).unwrap()
    }

    fn planned(action: Action, transaction_id: &str, data: &Value, capture: bool) -> Result<Plan, Rejection> {
        let payment = payment(transaction_id);
        let amount = if action == Action::Cancel { None } else { Some(money("20.5")) };
        let data = data.as_object().unwrap();
        let operation_id = Uuid::from_u128(7);
        let ask = Ask {
            operation_id,
            action,
            payment: &payment,
            amount,
            capture,
            confirms: false,
            is_final: true,
            reference: None,
            data,
        };
        Plan::of(&ask, Options { suffix: Some("SHOP"), multicapture: false })
    }

    #[test]
    fn a_first_process_makes_a_payment_intent() {
        let data = json!({"payment_method": "pm_1", "return_url": "https://shop.example/back?a=b"});
        let Plan::Process { payment_intent: None, forms: Some(forms), use_stripe_sdk: false } =
            plan(Action::Process, "", &data, true)
        else {
            panic!("another plan");
        };
        let expected = format!(
            "amount=2050&currency=eur&confirm=true&capture_method=automatic&payment_method=pm_1&{OURS}\
             &payment_method_types%5B%5D=card&description=Book+%26+pen&statement_descriptor_suffix=SHOP\
             &metadata%5Bpaybus_payment%5D=00000000-0000-0000-0000-000000000009\
             &return_url=https%3A%2F%2Fshop.example%2Fback%3Fa%3Db&expand%5B%5D=latest_charge.review"
        );
        assert_eq!(forms.create, expected);
    }

    #[test]
    fn a_later_process_goes_on_with_it() {
        let data = json!({"payment_method": "pm_1", "use_stripe_sdk": true, "customer": "cus_1"});
        let Plan::Process { payment_intent: Some(id), forms: Some(forms), use_stripe_sdk: true } =
            plan(Action::Process, "pi_1", &data, false)
        else {
            panic!("another plan");
        };
        assert_eq!(id, "pi_1");
        let mark = format!(
            "capture_method=manual&payment_method=pm_1&customer=cus_1&{OURS}&payment_method_types%5B%5D=card\
             &expand%5B%5D=latest_charge.review"
        );
        assert_eq!(forms.mark, mark);
        assert_eq!(forms.confirm, "use_stripe_sdk=true&expand%5B%5D=latest_charge.review");
        let looked_at = plan(Action::Process, "pi_1", &json!({}), true);
        let expected = Plan::Process { payment_intent: Some("pi_1".to_owned()), forms: None, use_stripe_sdk: false };
        assert_eq!(looked_at, expected);
    }

    #[test]
    fn all_else_is_one_request() {
        let post = |path: &str, form: &str| Plan::Post { path: path.to_owned(), form: form.to_owned() };
        let refund = format!(
            "payment_intent=pi_1&amount=2050&metadata%5Bpaybus_payment%5D=00000000-0000-0000-0000-000000000009&{OURS}"
        );
        let mark = "metadata%5Bpaybus_00000000000000000000000000000007%5D=2050";
        let capture = format!("amount_to_capture=2050&{mark}");
        for (action, expected) in [
            (Action::Capture, post("payment_intents/pi_1/capture", &capture)),
            (Action::Refund, post("refunds", &refund)),
            (Action::Release, post("payment_intents/pi_1/cancel", "")),
            (Action::Cancel, post("payment_intents/pi_1/cancel", "")),
        ] {
            assert_eq!(plan(action, "pi_1", &json!({}), true), expected, "{action}");
        }
        assert_eq!(plan(Action::Cancel, "", &json!({}), true), Plan::Nothing);
        for (action, id) in [(Action::Capture, ""), (Action::Refund, "pi_1/../x"), (Action::Process, "")] {
            let refused = planned(action, id, &json!({}), true);
            assert!(refused.is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_captures_mark_fits_a_name_and_reads_back() {
        let mark = capture_mark(Uuid::from_u128(7));
        assert!(mark.len() <= 40, "Stripe refuses longer names: {mark}");
        assert_eq!(marked_capture(&mark), Some(Uuid::from_u128(7)));
        for name in [PAYMENT, OPERATION, "paybus_", "order"] {
            assert_eq!(marked_capture(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_stored_reads_back() {
        let plan = plan(Action::Process, "pi_1", &json!({"payment_method": "pm_1"}), true);
        assert_eq!(Plan::read(&plan.write()), Ok(plan));
        assert!(Plan::read("").is_err());
    }
}
