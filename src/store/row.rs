//! Columns of a row, by place or by name.

use std::fmt::Display;

use tokio_postgres::Row;
use tokio_postgres::row::RowIndex;
use tokio_postgres::types::FromSql;

use super::error::StoreError;
use crate::error_chain::chain;

/// Reads columns.
pub(super) trait ReadColumn {
    /// A column's value. One that cannot be read stays so however often it is asked for, and is told apart from a
    /// database that is away: neither has an SQLSTATE.
    fn read<'a, T: FromSql<'a>>(&'a self, column: impl RowIndex + Display) -> Result<T, StoreError>;
}

impl ReadColumn for Row {
    fn read<'a, T: FromSql<'a>>(&'a self, column: impl RowIndex + Display) -> Result<T, StoreError> {
        self.try_get(column).map_err(|error| StoreError::Unreadable(chain(&error)))
    }
}
