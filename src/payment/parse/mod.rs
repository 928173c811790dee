//! Parses command data: each field is checked against the table of fields, then read.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::code::{Code, Rejection};
use super::command::{
    AmountText, Body, Capture, CommandType, CommandWanted, EventsWanted, NewPayment, Pause, Process, Refund, Resolve,
    Retry,
};
use super::fact::{FACTS, read_facts};
use super::field;
use super::model::{Billing, Metadata, Order};
use super::money::{Currency, Money};

impl Body {
    /// Parses a command's data; for a notification, the part that is stored.
    ///
    /// # Errors
    /// Names the first field that is missing, unknown or invalid.
    pub fn parse(kind: CommandType, data: &Map<String, Value>) -> Result<Body, Rejection> {
        // A notification arrives with the fields of a `Webhook`; after verification only its facts remain.
        if kind != CommandType::Notification {
            field::check(kind, data)?;
        }
        let data = Data(data);
        Ok(match kind {
            CommandType::Create => Body::Create(Box::new(new_payment(data)?)),
            CommandType::Process => Body::Process(Process {
                data: data.object("process").unwrap_or_default(),
                capture: data.boolean("capture"),
            }),
            CommandType::Capture => Body::Capture(Capture {
                amount: data.amount("amount"),
                is_final: data.boolean("final").unwrap_or(true),
            }),
            CommandType::Release => Body::Release,
            CommandType::Refund => Body::Refund(Refund {
                amount: data.amount("amount"),
                reference: Some(data.owned("reference")).filter(|text| !text.is_empty()),
            }),
            CommandType::Cancel => Body::Cancel,
            CommandType::Sync => Body::Sync,
            CommandType::Notification => Body::Notification(read_facts(data.0.get(FACTS))?),
            CommandType::Resolve => Body::Resolve(Box::new(resolve(data)?)),
            CommandType::Retry => Body::Retry(Retry { operation: data.operation()?, at: field::time(data.text("at")) }),
            CommandType::Withdraw => Body::Withdraw(data.operation()?),
            CommandType::Resend => Body::Resend(data.text("from").parse().map_err(|_| Rejection::missing("from"))?),
            CommandType::Snapshot => Body::Snapshot,
            CommandType::ResendEvents => Body::ResendEvents(EventsWanted {
                after: data.text("after").parse().ok(),
                since: field::time(data.text("since")),
            }),
            CommandType::Status => Body::Status(CommandWanted {
                source: Some(data.owned("source")).filter(|source| !source.is_empty()),
                id: data.owned("id"),
            }),
            CommandType::Pause => {
                Body::Pause(Pause { until: field::time(data.text("until")), reason: data.owned("reason") })
            }
            CommandType::Resume => Body::Resume(data.owned("reason")),
        })
    }
}

fn new_payment(data: Data<'_>) -> Result<NewPayment, Rejection> {
    let currency = Currency::from_code(data.text("currency")).ok_or_else(|| Rejection::missing("currency"))?;
    let total = data.money("total", currency)?.ok_or_else(|| Rejection::missing("total"))?;
    let zero = Money::zero(currency);
    let capture = data.boolean("capture");
    let process = data.object("process").map(|data| Process { data, capture });
    if process.is_some() && total.is_zero() {
        return Err(Rejection::new(Code::InvalidAmount, "total: a payment of zero cannot be processed"));
    }
    let order = Order {
        variant: data.owned("variant"),
        total,
        tax: data.money("tax", currency)?.unwrap_or(zero),
        delivery: data.money("delivery", currency)?.unwrap_or(zero),
        description: data.owned("description"),
        billing: billing(data),
        customer_ip_address: data.text("customer_ip_address").parse().ok(),
        metadata: data.metadata("metadata"),
    };
    Ok(NewPayment { order, capture, process })
}

fn billing(data: Data<'_>) -> Billing {
    Billing {
        first_name: data.owned("billing_first_name"),
        last_name: data.owned("billing_last_name"),
        address_1: data.owned("billing_address_1"),
        address_2: data.owned("billing_address_2"),
        city: data.owned("billing_city"),
        postcode: data.owned("billing_postcode"),
        country_code: data.owned("billing_country_code"),
        country_area: data.owned("billing_country_area"),
        email: data.owned("billing_email"),
        phone: data.owned("billing_phone"),
    }
}

fn resolve(data: Data<'_>) -> Result<Resolve, Rejection> {
    let operation = data.operation()?;
    let outcome = data.text("outcome").parse().map_err(|_| Rejection::missing("outcome"))?;
    let transaction_id = Some(data.owned("transaction_id")).filter(|text| !text.is_empty());
    let evidence = data.text("evidence").trim().to_owned();
    Ok(Resolve { operation, outcome, amount: data.amount("amount"), transaction_id, evidence })
}

/// Validated data: each member is as its field declares.
#[derive(Clone, Copy)]
pub(super) struct Data<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Data<'a> {
    /// Empty if omitted.
    pub(super) fn text(self, name: &str) -> &'a str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn owned(self, name: &str) -> String {
        self.text(name).to_owned()
    }

    fn operation(self) -> Result<Uuid, Rejection> {
        Uuid::parse_str(self.text("operation")).map_err(|_| Rejection::missing("operation"))
    }

    fn boolean(self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    fn object(self, name: &str) -> Option<Map<String, Value>> {
        self.0.get(name).and_then(Value::as_object).cloned()
    }

    fn metadata(self, name: &str) -> Metadata {
        let members = self.0.get(name).and_then(Value::as_object).into_iter().flatten();
        members.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect()
    }

    /// Yields nothing if omitted.
    pub(super) fn pairs(self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let pairs = self.0.get(name).and_then(Value::as_array).into_iter().flatten();
        pairs.filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)))
    }

    /// An amount whose currency is not known yet.
    fn amount(self, name: &str) -> Option<AmountText> {
        self.0.get(name).and_then(Value::as_str).map(|text| AmountText(text.to_owned()))
    }

    fn money(self, name: &str, currency: Currency) -> Result<Option<Money>, Rejection> {
        let Some(AmountText(text)) = self.amount(name) else {
            return Ok(None);
        };
        let money = Money::parse(&text, currency);
        money.map(Some).map_err(|error| Rejection::new(Code::InvalidAmount, format!("{name}: {error}")))
    }
}

#[cfg(test)]
mod tests;
