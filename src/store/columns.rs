//! Columns of a batch: one array of rows a table, so that one statement carries any number of them.
//!
//! Rows and not an array for each column: PostgreSQL sets up a function scan with a store of its own for each array that is
//! taken apart, which for 39 columns takes it 0.14 ms of every statement, whatever the statement carries.

/// Declares the rows of one table's part of a batch: the struct, which is sent as a composite type of the schema, and how
/// it is laid out in SQL. A function cannot declare fields, hence the macro.
macro_rules! row_type {
    ($(#[$meta:meta])* $name:ident, $sql_name:literal { $($field:ident: $type:ty => $sql:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, postgres_types::ToSql)]
        #[postgres(name = $sql_name)]
        pub(super) struct $name<'a> {
            $($field: $type,)+
        }

        impl $name<'_> {
            /// Names and SQL types of the columns, in the order in which the schema's type has them.
            pub(super) const COLUMNS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), $sql)),+];
            /// These rows as an array.
            pub(super) const ROWS: Rows = Rows { sql: concat!($sql_name, "[]"), columns: Self::COLUMNS };
        }
    };
}

pub(super) use row_type;

/// An array that is taken apart: its type, and the columns that come of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    /// Its type in SQL.
    pub sql: &'static str,
    /// Its columns, with their types.
    pub columns: &'static [(&'static str, &'static str)],
}

/// `unnest($3::payment_fixed[], $4::text[]) WITH ORDINALITY AS r(id, name, ordinality)`, with parameters numbered from
/// `first`. A column that an array before had already, the key, gets a number behind its name.
pub(super) fn unnest(arrays: &[Rows], first: usize) -> String {
    let parameters: Vec<String> =
        arrays.iter().enumerate().map(|(index, rows)| format!("${}::{}", first + index, rows.sql)).collect();
    let mut names: Vec<String> = Vec::new();
    for (name, _) in arrays.iter().flat_map(|rows| rows.columns) {
        let again = names.iter().any(|other| other == name);
        names.push(if again { format!("{name}_{}", names.len()) } else { (*name).to_owned() });
    }
    format!("unnest({}) WITH ORDINALITY AS r({}, ordinality)", parameters.join(", "), names.join(", "))
}

/// The names of columns, each with a prefix such as `r.`.
pub(super) fn names(columns: &[(&str, &str)], prefix: &str) -> String {
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("{prefix}{name}")).collect();
    names.join(", ")
}

/// The columns of a table that are read, by name: `*` would fail in a statement that was prepared before the next version
/// added a column ("cached plan must not change result type").
pub(super) fn selection(tables: &[&[(&str, &str)]], others: &[&str]) -> String {
    let written = tables.iter().flat_map(|columns| columns.iter().map(|(name, _)| *name));
    written.chain(others.iter().copied()).collect::<Vec<_>>().join(", ")
}

/// `status = r.status, message = r.message` for all columns but the first few, which are the key.
pub(super) fn assignments(columns: &[(&str, &str)], key: usize) -> String {
    let pairs: Vec<String> = columns.iter().skip(key).map(|(name, _)| format!("{name} = r.{name}")).collect();
    pairs.join(", ")
}
