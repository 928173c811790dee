//! Finds stored payments that no configured variant serves: their variant is not configured, or has another gateway or
//! account than they began with. Commands for them are rejected, and their open operations wait.
//!
//! Open operations are in the two partial indexes that the figures of `report` are read from. No index has all payments
//! by account, so a sample is examined: the payments of operations spread evenly over all ever accepted. It costs the
//! same however many there are, and covers every account that was used for long enough.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::report::{COUNTED_MAX, variants};
use crate::plural::counted;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// Size of the sample, in operations; at most twice as many, and fewer if there are fewer.
const SAMPLE: i64 = 1_000;

/// Open operations with a due time, by where their payments began. `LIMIT 1` makes the planner read each payment by its
/// key; a plain join may read the whole table.
const DUE: &str = concat!(
    variants!("due_at IS NOT NULL"),
    "SELECT n.variant, f.* FROM names n CROSS JOIN LATERAL (
         SELECT p.gateway, p.account, count(*), (array_agg(d.payment_id))[1]
         FROM (SELECT o.payment_id FROM operations o WHERE o.variant = n.variant AND o.due_at IS NOT NULL
               ORDER BY o.due_at LIMIT $1) d
         LEFT JOIN LATERAL (SELECT gateway, account FROM payments WHERE id = d.payment_id LIMIT 1) p ON true
         GROUP BY p.gateway, p.account) f
     WHERE n.variant IS NOT NULL"
);

/// Unknown and escalated operations without a due time.
const NEVER_DUE: &str = concat!(
    variants!("(state = 'unknown' OR state = 'pending' AND escalated)"),
    "SELECT n.variant, f.* FROM names n CROSS JOIN LATERAL (
         SELECT p.gateway, p.account, count(*), (array_agg(u.payment_id))[1]
         FROM (SELECT o.payment_id, o.due_at FROM operations o WHERE o.variant = n.variant
               AND (o.state = 'unknown' OR o.state = 'pending' AND o.escalated) LIMIT $1) u
         LEFT JOIN LATERAL (SELECT gateway, account FROM payments WHERE id = u.payment_id LIMIT 1) p ON true
         WHERE u.due_at IS NULL
         GROUP BY p.gateway, p.account) f
     WHERE n.variant IS NOT NULL"
);

/// Payments of the sample, by where they began.
const SAMPLED: &str = include_str!("unserved_sample.sql");

/// What a configured variant serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The variant.
    pub variant: String,
    /// Its adapter.
    pub gateway: String,
    /// Names of its account: the name itself and its aliases.
    pub accounts: Vec<String>,
}

/// Where unserved payments began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Their variant.
    pub variant: String,
    /// Whether the variant is configured, with another gateway or account.
    pub is_configured: bool,
    /// Gateway and account; `None` for a command whose payment is not stored.
    pub began_with: Option<(String, String)>,
}

/// Open operations whose payments are not served: no worker processes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnservedOperations {
    /// Where their payments began.
    pub origin: Origin,
    /// Number of operations, counted up to [`COUNTED_MAX`] in each index.
    pub count: i64,
    /// The payment of one of them, as an example.
    pub example: Uuid,
}

/// Payments of the sample that are not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnservedPayments {
    /// Where they began.
    pub origin: Origin,
    /// Number of payments in the sample, served ones included.
    pub looked_at: i64,
    /// How many of these began there.
    pub count: i64,
    /// How many of those hold money that could be captured or refunded.
    pub with_money: i64,
    /// One of them, as an example.
    pub example: Uuid,
}

impl Store {
    /// Returns the open operations of payments that none of these variants serves. An operation in its first call is
    /// not included yet; if its worker is lost, it is as soon as it is due.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn unserved_operations(&self, served: &[Served]) -> Result<Vec<UnservedOperations>, StoreError> {
        let client = self.client().await?;
        let due = client.query(DUE, &[&COUNTED_MAX]).await?;
        let never_due = client.query(NEVER_DUE, &[&COUNTED_MAX]).await?;
        let mut found: BTreeMap<Origin, (i64, Uuid)> = BTreeMap::new();
        for row in due.iter().chain(&never_due) {
            if let Some(origin) = unserved_origin(row, served)? {
                let (count, example): (i64, Uuid) = (row.read(3)?, row.read(4)?);
                found.entry(origin).or_insert((0, example)).0 += count;
            }
        }
        let unserved = |(origin, (count, example))| UnservedOperations { origin, count, example };
        Ok(found.into_iter().map(unserved).collect())
    }

    /// Returns the payments of a sample that none of these variants serves.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn unserved_payments(&self, served: &[Served]) -> Result<Vec<UnservedPayments>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(SAMPLED, &[&SAMPLE]).await?;
        let counts: Vec<i64> = rows.iter().map(|row| row.read(3)).collect::<Result<_, _>>()?;
        let looked_at = counts.iter().sum();
        let mut unserved = Vec::new();
        for (row, count) in rows.iter().zip(counts) {
            if let Some(origin) = unserved_origin(row, served)? {
                let (example, with_money) = (row.read(4)?, row.read(5)?);
                unserved.push(UnservedPayments { origin, looked_at, count, with_money, example });
            }
        }
        Ok(unserved)
    }
}

fn unserved_origin(row: &Row, served: &[Served]) -> Result<Option<Origin>, StoreError> {
    let (gateway, account): (Option<String>, Option<String>) = (row.read(1)?, row.read(2)?);
    Ok(Origin::unserved(row.read(0)?, gateway.zip(account), served))
}

impl Origin {
    /// `None` if one of these variants serves it.
    fn unserved(variant: String, began_with: Option<(String, String)>, served: &[Served]) -> Option<Origin> {
        let configured = served.iter().find(|served| served.variant == variant);
        let is_served = match (configured, &began_with) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(served), Some((gateway, account))) => served.gateway == *gateway && served.accounts.contains(account),
        };
        (!is_served).then_some(Origin { is_configured: configured.is_some(), variant, began_with })
    }

    /// The variant, where they began, and the remedy.
    fn words(&self) -> String {
        let variant = &self.variant;
        let began = match &self.began_with {
            Some((gateway, account)) => format!(" that began with {gateway} at {account}"),
            None => String::new(),
        };
        let remedy = if self.is_configured {
            "the variant now uses another gateway or account; if it is the same account, add its old name to \
             account_aliases"
        } else {
            "the variant is not configured; configure it with retired = true until none are left"
        };
        format!("of variant {variant}{began}: {remedy}")
    }
}

impl UnservedOperations {
    /// A description for people.
    pub fn words(&self) -> String {
        let operations = counted(self.count, "open operation");
        format!("{operations} {} (for example payment {})", self.origin.words(), self.example)
    }
}

impl UnservedPayments {
    /// A description for people.
    pub fn words(&self) -> String {
        let UnservedPayments { origin, looked_at, count, with_money, example } = self;
        let amounts = format!("{with_money} with money to capture or refund");
        format!(
            "{count} of {looked_at} sampled payments ({amounts}) {} (for example payment {example})",
            origin.words()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(variant: &str, gateway: &str, account: &str) -> Option<Origin> {
        let served = Served {
            variant: "cards".to_owned(),
            gateway: "http".to_owned(),
            accounts: vec!["http://localhost:9000".to_owned(), "http://127.0.0.1:9000".to_owned()],
        };
        Origin::unserved(variant.to_owned(), Some((gateway.to_owned(), account.to_owned())), &[served])
    }

    #[test]
    fn a_variant_serves_the_names_of_its_account_at_its_gateway() {
        assert_eq!(origin("cards", "http", "http://localhost:9000"), None);
        assert_eq!(origin("cards", "http", "http://127.0.0.1:9000"), None);
        for (gateway, account) in [("http", "http://127.0.0.1:9001"), ("stripe", "http://localhost:9000")] {
            let words = origin("cards", gateway, account).expect("not served").words();
            assert!(words.contains(&format!("began with {gateway} at {account}")), "{words}");
            assert!(words.contains("account_aliases"), "{words}");
        }
        let words = origin("old", "http", "http://localhost:9000").expect("not served").words();
        assert!(words.contains("of variant old") && words.contains("retired = true"), "{words}");
    }

    #[test]
    fn a_command_whose_payment_is_not_stored_is_its_variants() {
        let served = Served { variant: "cards".to_owned(), gateway: "http".to_owned(), accounts: Vec::new() };
        assert_eq!(Origin::unserved("cards".to_owned(), None, std::slice::from_ref(&served)), None);
        assert!(Origin::unserved("old".to_owned(), None, &[served]).is_some());
    }

    #[test]
    fn unserved_payments_are_reported_with_their_number_and_an_example() {
        let origin = origin("old", "http", "http://localhost:9000").expect("not served");
        let example = Uuid::from_u128(7);
        let words = UnservedOperations { origin: origin.clone(), count: 1, example }.words();
        let expected = "1 open operation of variant old that began with http at http://localhost:9000:";
        assert!(words.starts_with(expected), "{words}");
        assert!(words.contains(&example.to_string()), "{words}");
        let words = UnservedPayments { origin, looked_at: 40, count: 3, with_money: 2, example }.words();
        let expected = "3 of 40 sampled payments (2 with money to capture or refund) of variant old";
        assert!(words.starts_with(expected), "{words}");
    }
}
