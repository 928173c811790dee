//! Columns of a batch: one array of rows per table, so that one statement carries any number of them.
//!
//! Arrays of rows rather than an array per column: PostgreSQL sets up a function scan with a tuple store of its own for
//! each unnested array. For 39 columns that costs 0.14 ms per statement, however little it carries.

/// Declares the rows of one table's part of a batch: the struct, which is sent as a composite type of the schema, and
/// its layout in SQL. A function cannot declare fields, hence the macro.
macro_rules! row_type {
    ($(#[$meta:meta])* $name:ident, $sql_name:literal { $($field:ident: $type:ty => $sql:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, postgres_types::ToSql)]
        #[postgres(name = $sql_name)]
        pub(in crate::store) struct $name<'a> {
            $($field: $type,)+
        }

        impl $name<'_> {
            /// Names and SQL types of the columns, in the order of the schema's type.
            pub(in crate::store) const COLUMNS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), $sql)),+];
            /// An array of these rows.
            pub(in crate::store) const ROWS: Rows = Rows { sql: concat!($sql_name, "[]"), columns: Self::COLUMNS };
        }
    };
}

pub(in crate::store) use row_type;

/// An array to unnest: its type, and the columns that it yields.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Rows {
    /// The array's SQL type.
    pub sql: &'static str,
    /// The columns with their types.
    pub columns: &'static [(&'static str, &'static str)],
}

/// `unnest($3::payment_fixed[], $4::text[]) WITH ORDINALITY AS r(id, name, ordinality)`, with parameters numbered from
/// `first`. A column that an earlier array already has, the key, gets a number appended.
pub(in crate::store) fn unnest(arrays: &[Rows], first: usize) -> String {
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
pub(in crate::store) fn names(columns: &[(&str, &str)], prefix: &str) -> String {
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("{prefix}{name}")).collect();
    names.join(", ")
}

/// The columns to read from a table, by name: `*` would fail in a statement that was prepared before the next version
/// added a column ("cached plan must not change result type").
pub(in crate::store) fn selection(tables: &[&[(&str, &str)]], others: &[&str]) -> String {
    let written = tables.iter().flat_map(|columns| columns.iter().map(|(name, _)| *name));
    written.chain(others.iter().copied()).collect::<Vec<_>>().join(", ")
}

/// `status = r.status, message = r.message` for all columns after the first `key`, which are the key.
pub(in crate::store) fn assignments(columns: &[(&str, &str)], key: usize) -> String {
    let pairs: Vec<String> = columns.iter().skip(key).map(|(name, _)| format!("{name} = r.{name}")).collect();
    pairs.join(", ")
}
