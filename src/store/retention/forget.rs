//! Erases personal data from a payment that is over; its books stay.
//!
//! This is a compare-and-set on the payment's version, like every other change: a worker that read the payment before
//! loses its commit, reloads the payment, and brings nothing back. Events are deleted whole, as they are when they are
//! old.

use std::fmt;
use std::sync::LazyLock;

use serde_json::json;
use uuid::Uuid;

use crate::payment::status::Status;
use crate::plural::counted;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;
use crate::store::rows::word;

/// How many payments one statement examines for an address: there is no index on it, because every payment would pay
/// for that.
const PAGE: i64 = 5_000;

/// The columns of a payment that may hold personal data, and what is left in their place.
const PERSONAL: [(&str, &str); 17] = [
    ("description", "''"),
    ("billing_first_name", "''"),
    ("billing_last_name", "''"),
    ("billing_address_1", "''"),
    ("billing_address_2", "''"),
    ("billing_city", "''"),
    ("billing_postcode", "''"),
    ("billing_country_code", "''"),
    ("billing_country_area", "''"),
    ("billing_email", "''"),
    ("billing_phone", "''"),
    ("customer_ip_address", "NULL"),
    ("metadata", "'{}'"),
    ("fraud_message", "''"),
    ("message", "''"),
    ("extra_data", "'{}'"),
    ("redirect_url", "NULL"),
];

/// What stays of a settled command's data: nothing, but of an operator's command everything except the operator's own
/// words.
const DATA: &str = "CASE WHEN command_type = 'payment.resolve' AND data ? 'evidence'
    THEN data || jsonb_build_object('evidence', '')
    WHEN command_type IN ('payment.retry', 'payment.withdraw') THEN data - 'reason'
    ELSE '{}'::jsonb END";

/// One snapshot, so that what it says of operations and events is true of this version.
static STATE: LazyLock<String> = LazyLock::new(|| {
    let is_there = PERSONAL.map(|(column, empty)| format!("p.{column} IS DISTINCT FROM {empty}")).join(" OR ");
    format!(
        "SELECT p.version, p.status,
             (SELECT count(*) FROM operations o WHERE o.payment_id = p.id AND o.state <> 'settled'),
             (SELECT count(*) FROM events e WHERE e.payment_id = p.id
                  AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)),
             {is_there}
             OR EXISTS (SELECT 1 FROM operations o WHERE o.payment_id = p.id
                  AND (data <> {DATA} OR request IS NOT NULL OR last_message <> '' OR answer_message <> ''))
             OR EXISTS (SELECT 1 FROM events e WHERE e.payment_id = p.id)
         FROM payments p WHERE p.id = $1"
    )
});

/// An assignment list for `SET` that empties the personal columns of `payments`.
pub(in crate::store) fn emptied() -> String {
    PERSONAL.map(|(column, empty)| format!("{column} = {empty}")).join(", ")
}

static ERASE: LazyLock<String> = LazyLock::new(|| {
    let emptied = emptied();
    format!(
        "WITH forgotten AS (
             UPDATE payments SET {emptied}, version = version + 1 WHERE id = $1 AND version = $2 RETURNING id),
         commands AS (
             UPDATE operations SET data = {DATA}, request = NULL, last_message = '',
                 answer_message = CASE WHEN answer_message IS NOT NULL THEN '' END
             WHERE payment_id = $1 AND EXISTS (SELECT 1 FROM forgotten)),
         gone AS (
             DELETE FROM events WHERE payment_id = $1 AND EXISTS (SELECT 1 FROM forgotten) RETURNING position),
         marks AS (DELETE FROM sent WHERE position = ANY(ARRAY(SELECT position FROM gone))),
         notes AS (DELETE FROM overdue WHERE payment_id = $1 AND EXISTS (SELECT 1 FROM forgotten)),
         told AS (
             INSERT INTO audit (who, action, details)
             SELECT $3::text, 'forgotten', $4::jsonb WHERE EXISTS (SELECT 1 FROM forgotten))
         SELECT count(*) FROM forgotten"
    )
});

const BY_EMAIL: &str = "SELECT id, lower(billing_email) = lower($2) FROM payments WHERE id > $1 ORDER BY id LIMIT $3";

/// The personal data that is stored with a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonalData {
    /// There is no such payment.
    NoPayment,
    /// It is still needed.
    Needed(Need),
    /// None.
    Nothing,
    /// It can be erased, as long as the payment still has this version.
    Erasable {
        /// The payment's version.
        version: i64,
    },
}

/// Why personal data is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// This many commands are not answered yet.
    OpenCommands(i64),
    /// The payment is not over.
    NotOver(Status),
    /// This many events are not sent yet.
    UnsentEvents(i64),
}

impl Need {
    fn of(status: Status, open_commands: i64, unsent_events: i64) -> Option<Need> {
        match status {
            _ if open_commands > 0 => Some(Need::OpenCommands(open_commands)),
            Status::Waiting | Status::Input | Status::Preauth => Some(Need::NotOver(status)),
            _ if unsent_events > 0 => Some(Need::UnsentEvents(unsent_events)),
            Status::Confirmed | Status::Rejected | Status::Refunded | Status::Error | Status::Cancelled => None,
        }
    }
}

/// Includes the remedy.
impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::OpenCommands(1) => formatter.write_str("1 command is not answered yet: `paybus show` lists it"),
            Need::OpenCommands(count) => {
                write!(formatter, "{count} commands are not answered yet: `paybus show` lists them")
            }
            Need::NotOver(Status::Preauth) => formatter.write_str("it is preauth: capture or release it first"),
            Need::NotOver(status) => write!(formatter, "it is {status}: cancel it first"),
            Need::UnsentEvents(count) => {
                let events = counted(*count, "event");
                write!(formatter, "{events} not sent yet: try again later, or release them first if they are set aside")
            }
        }
    }
}

impl Store {
    /// Returns the payments with this billing e-mail address, ignoring case. Reads every payment once, page by page.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn payments_of(&self, email: &str) -> Result<Vec<Uuid>, StoreError> {
        let client = self.client().await?;
        let mut found = Vec::new();
        let mut after = Uuid::nil();
        loop {
            let rows = client.query(BY_EMAIL, &[&after, &email, &PAGE]).await?;
            let Some(last) = rows.last() else { return Ok(found) };
            after = last.read(0)?;
            for row in &rows {
                if row.read::<bool>(1)? {
                    found.push(row.read(0)?);
                }
            }
        }
    }

    /// Returns whether personal data is stored with a payment, and whether it can be erased.
    ///
    /// # Errors
    /// The database query fails, or a stored value cannot be read.
    pub async fn personal_data(&self, payment: Uuid) -> Result<PersonalData, StoreError> {
        let client = self.client().await?;
        let rows = client.query(&STATE, &[&payment]).await?;
        let Some(row) = rows.first() else { return Ok(PersonalData::NoPayment) };
        if !row.read::<bool>(4)? {
            return Ok(PersonalData::Nothing);
        }
        let status = word(row.read(1)?, Status::from_word)?;
        Ok(match Need::of(status, row.read(2)?, row.read(3)?) {
            Some(need) => PersonalData::Needed(need),
            None => PersonalData::Erasable { version: row.read(0)? },
        })
    }

    /// Erases it, and records who did so. Returns `false` if the payment has changed since this version was read; then
    /// nothing was erased.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn forget(&self, payment: Uuid, version: i64, who: &str) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let details = json!({ "payment": payment });
        let forgotten = client.query_one(&ERASE, &[&payment, &version, &who, &details]).await?;
        Ok(forgotten.read::<i64>(0)? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::{PaymentChange, PaymentFixed};

    /// Text columns of a payment that hold no personal data, or belong to the books.
    const KEPT: [&str; 7] = ["variant", "gateway", "account", "currency", "status", "fraud_status", "transaction_id"];

    #[test]
    fn every_column_of_a_payment_that_holds_words_is_erased_or_kept_on_purpose() {
        let columns: Vec<&(&str, &str)> = PaymentFixed::COLUMNS.iter().chain(PaymentChange::COLUMNS).collect();
        for (name, kind) in &columns {
            let is_erased = PERSONAL.iter().any(|(column, _)| column == name);
            let has_text = matches!(*kind, "text" | "jsonb" | "inet");
            assert_eq!(is_erased || KEPT.contains(name), has_text, "{name}: is it a person's?");
        }
        for (name, _) in PERSONAL {
            assert!(columns.iter().any(|(column, _)| *column == name), "{name} is no column");
        }
    }

    #[test]
    fn a_payment_still_needed_is_reported_with_what_to_do() {
        assert_eq!(Need::of(Status::Confirmed, 0, 0), None);
        let check = |status, open, unsent, expected: &str| {
            let need = Need::of(status, open, unsent).map(|need| need.to_string());
            assert!(need.as_deref().is_some_and(|need| need.contains(expected)), "{need:?}");
        };
        check(Status::Confirmed, 2, 1, "2 commands are not answered yet");
        check(Status::Preauth, 0, 1, "capture or release it");
        check(Status::Waiting, 0, 0, "it is waiting: cancel it");
        check(Status::Refunded, 0, 1, "1 event not sent yet: ");
    }
}
