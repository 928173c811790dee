//! The payment as published: one wire form for events, gateways and the command line.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::model::{Metadata, Payment};
use super::money::Money;

/// The whole payment; amounts are strings with the currency's decimals.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // The names are the contract's; the model explains them.
pub struct PaymentView<'a> {
    pub id: Uuid,
    pub variant: &'a str,
    pub status: &'static str,
    pub fraud_status: &'static str,
    pub fraud_message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<jiff::Timestamp>,
    pub transaction_id: &'a str,
    pub currency: &'static str,
    pub total: Money,
    pub delivery: Money,
    pub tax: Money,
    pub captured_amount: Money,
    pub authorized_amount: Money,
    pub refunded_amount: Money,
    pub capturable_amount: Money,
    pub voided_amount: Money,
    pub paid_in_full: bool,
    pub description: &'a str,
    pub billing_first_name: &'a str,
    pub billing_last_name: &'a str,
    pub billing_address_1: &'a str,
    pub billing_address_2: &'a str,
    pub billing_city: &'a str,
    pub billing_postcode: &'a str,
    pub billing_country_code: &'a str,
    pub billing_country_area: &'a str,
    pub billing_email: &'a str,
    pub billing_phone: &'a str,
    pub customer_ip_address: Option<std::net::IpAddr>,
    pub metadata: &'a Metadata,
    pub message: &'a str,
    pub extra_data: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_url: Option<&'a str>,
}

impl<'a> From<&'a Payment> for PaymentView<'a> {
    fn from(payment: &'a Payment) -> PaymentView<'a> {
        let order = &payment.order;
        let billing = &order.billing;
        PaymentView {
            id: payment.id,
            variant: &order.variant,
            status: payment.status.as_str(),
            fraud_status: payment.fraud_status.as_str(),
            fraud_message: &payment.fraud_message,
            created: Some(payment.created),
            modified: Some(payment.modified),
            transaction_id: &payment.transaction_id,
            currency: payment.currency().code(),
            total: order.total,
            delivery: order.delivery,
            tax: order.tax,
            captured_amount: payment.amounts.captured,
            authorized_amount: payment.amounts.authorized,
            refunded_amount: payment.amounts.refunded,
            capturable_amount: payment.capturable(),
            voided_amount: payment.amounts.voided,
            paid_in_full: payment.is_paid_in_full(),
            description: &order.description,
            billing_first_name: &billing.first_name,
            billing_last_name: &billing.last_name,
            billing_address_1: &billing.address_1,
            billing_address_2: &billing.address_2,
            billing_city: &billing.city,
            billing_postcode: &billing.postcode,
            billing_country_code: &billing.country_code,
            billing_country_area: &billing.country_area,
            billing_email: &billing.email,
            billing_phone: &billing.phone,
            customer_ip_address: order.customer_ip_address,
            metadata: &order.metadata,
            message: &payment.message,
            extra_data: &payment.extra_data,
            redirect_url: payment.redirect_url.as_deref(),
        }
    }
}

impl PaymentView<'_> {
    /// Drops the times at which we stored the payment. A key must always be sent with the same body, also if the
    /// database lost the first begin and the same command begins again.
    pub fn without_times(self) -> Self {
        PaymentView { created: None, modified: None, ..self }
    }
}
