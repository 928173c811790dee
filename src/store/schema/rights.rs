//! Checks the privileges of the worker's role before it starts work. Otherwise a missing one would show only at the
//! statement that needs it, in the middle of a payment.

use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// Privileges needed on each table besides `SELECT`; `deploy/postgres/roles.sql` grants exactly these.
pub const WRITES: [(&str, &str); 14] = [
    ("payments", "INSERT, UPDATE"),
    ("operations", "INSERT, UPDATE, DELETE"),
    ("movements", "INSERT, UPDATE"),
    ("events", "INSERT, DELETE"),
    ("audit", "INSERT"),
    ("sent", "INSERT, UPDATE, DELETE"),
    ("overdue", "INSERT, UPDATE, DELETE"),
    ("set_aside", "INSERT, UPDATE, DELETE"),
    ("watermarks", "UPDATE"),
    ("buckets", "UPDATE"),
    ("relays", "INSERT, UPDATE, DELETE"),
    ("rates", "INSERT, UPDATE"),
    ("variant_pauses", "INSERT"),
    ("workers", "INSERT, UPDATE, DELETE"),
];

/// Checks that this role may do everything the worker does.
///
/// # Errors
/// [`StoreError::Rights`] with the missing privileges.
pub async fn check(store: &Store) -> Result<(), StoreError> {
    let mut needed: Vec<(&str, &str)> = Vec::new();
    for (table, rights) in WRITES {
        needed.push((table, "SELECT"));
        needed.extend(rights.split(", ").map(|right| (table, right)));
    }
    let (tables, rights): (Vec<&str>, Vec<&str>) = needed.into_iter().unzip();
    let sql = "SELECT coalesce(string_agg(right_name || ' on ' || table_name, ', '), '')
         FROM unnest($1::text[], $2::text[]) AS needed(table_name, right_name)
         WHERE NOT coalesce(has_table_privilege(to_regclass('paybus.' || table_name), right_name), false)";
    let client = store.client().await?;
    let missing: String = client.query_one(sql, &[&tables, &rights]).await?.read(0)?;
    if missing.is_empty() { Ok(()) } else { Err(StoreError::Rights(missing)) }
}
