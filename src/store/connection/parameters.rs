//! Looks up the types of a statement's parameters, for a connection on which nothing may be left behind.
//!
//! tokio-postgres can find them itself, but for types of the schema it prepares statements that it keeps for as long as
//! the connection lives. Behind a pooler the next transaction may be on another server that knows none of them, or on
//! one where another process uses the same name. So PostgreSQL is asked in SQL, under a unique name.

use tokio_postgres::types::{Field, Kind, Type};
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

/// Each parameter in order: its type's OID and, for an array of rows, the columns of a row.
const PARAMETERS: &str = include_str!("parameters_types.sql");

/// Returns the types of this statement's parameters, within a transaction that the caller ends.
///
/// # Errors
/// The statement is invalid, or the connection is lost; a type that is neither built in nor an array of rows is the
/// former.
pub(in crate::store) async fn types_of(client: &Client, sql: &str) -> Result<Vec<Type>, Error> {
    let name = format!("paybus_{}", Uuid::new_v4().simple());
    client.batch_execute(&format!("PREPARE {name} AS {sql}")).await?;
    let rows = client.query_typed(PARAMETERS, &[(&name, Type::TEXT)]).await?;
    client.batch_execute(&format!("DEALLOCATE {name}")).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Type, Error> {
    let oid: u32 = row.try_get(0)?;
    if let Some(built_in) = Type::from_oid(oid) {
        return Ok(built_in);
    }
    let schema: String = row.try_get(2)?;
    let (names, types): (Vec<String>, Vec<u32>) = (row.try_get(5)?, row.try_get(6)?);
    let columns = names.into_iter().zip(types);
    // A column's own type is built in; any other is refused when a value is written for it.
    let columns = columns.map(|(name, oid)| Field::new(name, Type::from_oid(oid).unwrap_or(Type::UNKNOWN)));
    let element = Type::new(row.try_get(4)?, row.try_get(3)?, Kind::Composite(columns.collect()), schema.clone());
    Ok(Type::new(row.try_get(1)?, oid, Kind::Array(element), schema))
}
