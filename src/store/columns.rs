//! Columns of a batch: one array a column, so that one statement carries any number of rows.

/// Declares the columns of one table's part of a batch: a struct of vectors, how rows are laid out in SQL, and the
/// parameters in that order. A function cannot declare fields, hence the macro.
macro_rules! columns {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty => $sql:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Default)]
        pub(super) struct $name<'a> {
            $(pub(super) $field: Vec<$type>,)+
            pub(super) lifetime: std::marker::PhantomData<&'a ()>,
        }

        impl $name<'_> {
            /// Names and SQL types of the columns, in the order of `parameters`.
            pub(super) const COLUMNS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), $sql)),+];

            /// The arrays, in the order of `COLUMNS`.
            pub(super) fn parameters(&self) -> Vec<&(dyn tokio_postgres::types::ToSql + Sync)> {
                vec![$(&self.$field),+]
            }
        }
    };
}

pub(super) use columns;

/// `unnest($3::uuid[], $4::text[]) WITH ORDINALITY AS r(id, name, ordinality)`, with parameters numbered from `first`.
pub(super) fn unnest(columns: &[(&str, &str)], first: usize) -> String {
    let arrays: Vec<String> =
        columns.iter().enumerate().map(|(index, (_, sql))| format!("${}::{sql}[]", first + index)).collect();
    format!("unnest({}) WITH ORDINALITY AS r({}, ordinality)", arrays.join(", "), names(columns, ""))
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
