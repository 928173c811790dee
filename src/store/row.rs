//! Reads a row's columns, by index or name.

use std::fmt::Display;

use tokio_postgres::Row;
use tokio_postgres::row::RowIndex;
use tokio_postgres::types::FromSql;

use super::error::StoreError;
use crate::error_chain::chain;

/// Reads columns, with errors of their own.
pub(super) trait ReadColumn {
    /// Returns a column's value. One that cannot be read is [`StoreError::Unreadable`]: a retry does not help, and
    /// since there is no SQLSTATE it would otherwise pass for an unreachable database.
    fn read<'a, T: FromSql<'a>>(&'a self, column: impl RowIndex + Display) -> Result<T, StoreError>;
}

impl ReadColumn for Row {
    fn read<'a, T: FromSql<'a>>(&'a self, column: impl RowIndex + Display) -> Result<T, StoreError> {
        self.try_get(column).map_err(|error| StoreError::Unreadable(chain(&error)))
    }
}
