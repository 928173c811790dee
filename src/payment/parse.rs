//! Reads the data of commands: every field by name, every text and amount within its limit.

use std::net::IpAddr;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::code::{Code, Rejection};
use super::command::{AmountText, Body, CommandType, NewPayment, Process, Resolution, Resolve};
use super::model::{Billing, Order};
use super::money::{Currency, Money};
use super::notification::{FACTS, read_facts};

/// How long a description may be, in characters.
const DESCRIPTION_MAX: usize = 4096;
/// How long other texts may be where django-payments' columns say nothing else, in characters.
const TEXT_MAX: usize = 256;
/// How long a person's evidence may be, in characters.
const EVIDENCE_MAX: usize = 4096;

impl Body {
    /// Reads a command's data.
    ///
    /// # Errors
    /// The first field that is missing, unknown, or wrong, by its name.
    pub fn parse(kind: CommandType, data: &Map<String, Value>) -> Result<Body, Rejection> {
        let mut fields = Fields::new(data);
        let body = match kind {
            CommandType::Create => Body::Create(Box::new(new_payment(&mut fields)?)),
            CommandType::Process => Body::Process(Process {
                data: fields.object("process")?.unwrap_or_default(),
                capture: fields.boolean("capture")?,
            }),
            CommandType::Capture => {
                if fields.boolean("final")? == Some(false) {
                    return Err(Rejection::new(Code::Unsupported, "final: only one capture is supported for now"));
                }
                Body::Capture(fields.amount("amount")?)
            }
            CommandType::Release => Body::Release,
            CommandType::Refund => Body::Refund(fields.amount("amount")?),
            CommandType::Cancel => Body::Cancel,
            CommandType::Sync => Body::Sync,
            // As it is stored. What came over the bus is a `Webhook`, and becomes this once it is verified.
            CommandType::Notification => Body::Notification(read_facts(fields.take(FACTS))?),
            CommandType::Resolve => Body::Resolve(Box::new(resolve(&mut fields)?)),
        };
        fields.finish()?;
        Ok(body)
    }
}

fn new_payment(fields: &mut Fields<'_>) -> Result<NewPayment, Rejection> {
    let code = fields.required_text("currency", 10)?;
    let currency = Currency::from_code(code)
        .ok_or_else(|| Rejection::new(Code::InvalidCurrency, format!("currency: {code:?} is not one of ISO 4217")))?;
    let total = fields.money("total", currency)?.ok_or_else(|| missing("total"))?;
    let zero = Money::zero(currency);
    let capture = fields.boolean("capture")?;
    let process = fields.object("process")?.map(|data| Process { data, capture });
    if process.is_some() && total.is_zero() {
        return Err(Rejection::new(Code::InvalidAmount, "total: a payment of nothing cannot be processed"));
    }
    let order = Order {
        variant: fields.required_text("variant", 64)?.to_owned(),
        total,
        tax: fields.money("tax", currency)?.unwrap_or(zero),
        delivery: fields.money("delivery", currency)?.unwrap_or(zero),
        description: fields.text("description", DESCRIPTION_MAX)?,
        billing: billing(fields)?,
        customer_ip_address: ip_address(fields)?,
    };
    Ok(NewPayment { order, capture, process })
}

fn billing(fields: &mut Fields<'_>) -> Result<Billing, Rejection> {
    Ok(Billing {
        first_name: fields.text("billing_first_name", TEXT_MAX)?,
        last_name: fields.text("billing_last_name", TEXT_MAX)?,
        address_1: fields.text("billing_address_1", TEXT_MAX)?,
        address_2: fields.text("billing_address_2", TEXT_MAX)?,
        city: fields.text("billing_city", TEXT_MAX)?,
        postcode: fields.text("billing_postcode", TEXT_MAX)?,
        country_code: fields.text("billing_country_code", 2)?,
        country_area: fields.text("billing_country_area", TEXT_MAX)?,
        email: fields.text("billing_email", 254)?,
        phone: fields.text("billing_phone", 128)?,
    })
}

fn ip_address(fields: &mut Fields<'_>) -> Result<Option<IpAddr>, Rejection> {
    let text = fields.text("customer_ip_address", 45)?;
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse().map_err(|_| invalid("customer_ip_address", "must be an IPv4 or IPv6 address"))?;
    Ok(Some(address))
}

fn resolve(fields: &mut Fields<'_>) -> Result<Resolve, Rejection> {
    let operation = fields.required_text("operation", 36)?;
    let operation = Uuid::parse_str(operation).map_err(|_| invalid("operation", "must be a UUID"))?;
    let outcome = match fields.required_text("outcome", 32)? {
        "approved" => Resolution::Approved,
        "declined" => Resolution::Declined,
        "not_charged" => Resolution::NotCharged,
        _ => return Err(invalid("outcome", "must be approved, declined or not_charged")),
    };
    let transaction_id = Some(fields.text("transaction_id", 255)?).filter(|text| !text.is_empty());
    let evidence = fields.required_text("evidence", EVIDENCE_MAX)?.trim();
    if evidence.is_empty() {
        return Err(invalid("evidence", "must say how the person knows"));
    }
    Ok(Resolve { operation, outcome, amount: fields.amount("amount")?, transaction_id, evidence: evidence.to_owned() })
}

/// The fields of an object, each taken at most once; what is left over is unknown.
pub(super) struct Fields<'a> {
    data: &'a Map<String, Value>,
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(data: &'a Map<String, Value>) -> Fields<'a> {
        Fields { data, taken: Vec::new() }
    }

    pub(super) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.push(name);
        self.data.get(name).filter(|value| !value.is_null())
    }

    fn optional_text(&mut self, name: &'static str, max: usize) -> Result<Option<&'a str>, Rejection> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() > max => {
                Err(invalid(name, &format!("must have at most {max} characters")))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(invalid(name, &format!("must be a string, not {}", type_of(other)))),
        }
    }

    pub(super) fn text(&mut self, name: &'static str, max: usize) -> Result<String, Rejection> {
        Ok(self.optional_text(name, max)?.unwrap_or_default().to_owned())
    }

    pub(super) fn required_text(&mut self, name: &'static str, max: usize) -> Result<&'a str, Rejection> {
        self.optional_text(name, max)?.ok_or_else(|| missing(name))
    }

    fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Rejection> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(invalid(name, &format!("must be true or false, not {}", type_of(other)))),
        }
    }

    fn object(&mut self, name: &'static str) -> Result<Option<Map<String, Value>>, Rejection> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object.clone())),
            Some(other) => Err(invalid(name, &format!("must be an object, not {}", type_of(other)))),
        }
    }

    /// An amount whose currency is not known yet: a string, never a number, for JSON numbers are floats to many.
    fn amount(&mut self, name: &'static str) -> Result<Option<AmountText>, Rejection> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= 64 => Ok(Some(AmountText(text.clone()))),
            Some(Value::String(_)) => Err(Rejection::new(Code::InvalidAmount, format!("{name}: is too long"))),
            Some(other) => {
                let message = format!("{name}: must be a decimal string such as \"12.50\", not {}", type_of(other));
                Err(Rejection::new(Code::InvalidAmount, message))
            }
        }
    }

    fn money(&mut self, name: &'static str, currency: Currency) -> Result<Option<Money>, Rejection> {
        let Some(AmountText(text)) = self.amount(name)? else {
            return Ok(None);
        };
        let money = Money::parse(&text, currency);
        money.map(Some).map_err(|error| Rejection::new(Code::InvalidAmount, format!("{name}: {error}")))
    }

    pub(super) fn finish(self) -> Result<(), Rejection> {
        match self.data.keys().find(|name| !self.taken.contains(&name.as_str())) {
            Some(name) => {
                let shown: String = name.chars().take(64).collect();
                Err(Rejection::new(Code::UnknownField, format!("{shown}: this command has no such field")))
            }
            None => Ok(()),
        }
    }
}

pub(super) fn missing(name: &str) -> Rejection {
    Rejection::new(Code::InvalidData, format!("{name}: is missing"))
}

pub(super) fn invalid(name: &str, what: &str) -> Rejection {
    Rejection::new(Code::InvalidData, format!("{name}: {what}"))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
