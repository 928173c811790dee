//! Compares the columns that are sent with those of the schema's steps.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// If they differ, nothing can be committed.
#[test]
fn the_schema_has_the_types_that_are_sent() {
    let steps: String = super::super::schema::STEPS.iter().map(|step| step.change.sql()).collect();
    let schema = steps.split_whitespace().collect::<Vec<_>>().join(" ");
    for rows in [
        PaymentFixed::ROWS,
        PaymentChange::ROWS,
        OperationFixed::ROWS,
        OperationChange::ROWS,
        MovementRow::ROWS,
        EventRow::ROWS,
    ] {
        let columns: Vec<String> = rows.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
        let name = rows.sql.trim_end_matches("[]");
        let create = format!("CREATE TYPE {name} AS ( {} );", columns.join(", "));
        assert!(schema.contains(&create), "{create}");
    }
}

/// The names and types of a table's columns, as the steps declare them.
fn columns_of(table: &str) -> Vec<(String, String)> {
    let (create, alter) = (format!("CREATE TABLE {table} ("), format!("ALTER TABLE {table} "));
    let mut columns = Vec::new();
    for step in super::super::schema::STEPS {
        let lines = step.change.sql().lines().map(|line| line.split("--").next().unwrap_or_default());
        for statement in lines.collect::<Vec<_>>().join(" ").split(';').map(str::trim) {
            let declared = statement.strip_prefix(&create).or_else(|| statement.strip_prefix(&alter));
            for column in declared.unwrap_or_default().split(',') {
                let mut words = column.trim().trim_start_matches("ADD COLUMN ").split_whitespace();
                let (Some(name), Some(kind)) = (words.next(), words.next()) else { continue };
                let kind = match kind {
                    "integer" => "int4",
                    "bigint" => "int8",
                    "boolean" => "bool",
                    kind => kind,
                };
                columns.push((name.to_owned(), kind.to_owned()));
            }
        }
    }
    columns
}

#[test]
fn the_tables_have_the_columns_that_are_sent() {
    for (table, rows) in [
        ("payments", PaymentFixed::ROWS),
        ("payments", PaymentChange::ROWS),
        ("operations", OperationFixed::ROWS),
        ("operations", OperationChange::ROWS),
        ("movements", MovementRow::ROWS),
        ("events", EventRow::ROWS),
    ] {
        let columns = columns_of(table);
        // The version that was read is compared with the row's, and is no column.
        for (name, kind) in rows.columns.iter().filter(|(name, _)| *name != "expected") {
            assert!(columns.iter().any(|(known, its)| known == name && its == kind), "{table}.{name} {kind}");
        }
    }
}

/// A word, mostly one that some column may hold.
fn any_word() -> impl Strategy<Value = String> {
    let words = ["confirmed", "waiting", "unknown", "review", "captured", "refund_reversed", "succeeded", "USD", "usd"];
    prop_oneof![
        2 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => Just("x".repeat(100_000)),
    ]
}

fn is_unreadable<T>(read: &Result<T, StoreError>) -> bool {
    matches!(read, Err(StoreError::Unreadable(why)) if why.chars().count() < 200)
}

proptest! {
    /// A word is read exactly as stored; anything else is reported as unreadable.
    #[test]
    fn no_word_is_taken_for_another(stored in any_word()) {
        let status = word(&stored, Status::from_word);
        prop_assert!(status.as_ref().is_ok_and(|read| read.as_str() == stored) || is_unreadable(&status));
        let fraud = word(&stored, FraudStatus::from_word);
        prop_assert!(fraud.as_ref().is_ok_and(|read| read.as_str() == stored) || is_unreadable(&fraud));
        let state = word(&stored, State::from_word);
        prop_assert!(state.as_ref().is_ok_and(|read| read.as_str() == stored) || is_unreadable(&state));
        let kind = word(&stored, MovementKind::from_word);
        prop_assert!(kind.as_ref().is_ok_and(|read| read.as_str() == stored) || is_unreadable(&kind));
        let answer = word(&stored, AnswerKind::from_word);
        prop_assert!(answer.as_ref().is_ok_and(|read| read.as_str() == stored) || is_unreadable(&answer));
        let code = currency(&stored);
        prop_assert!(code.as_ref().is_ok_and(|read| read.code() == stored) || is_unreadable(&code));
    }

    #[test]
    fn no_amount_is_taken_for_another(
        mantissa in -(1_i128 << 95)..(1_i128 << 95),
        scale in 0..=28_u32,
        code in proptest::sample::select(vec!["USD", "JPY", "KWD"]),
    ) {
        let stored = Decimal::from_i128_with_scale(mantissa, scale);
        let read = money(stored, currency(code).unwrap());
        prop_assert!(read.as_ref().is_ok_and(|money| money.amount() == stored) || is_unreadable(&read), "{stored}");
    }

    #[test]
    fn no_count_is_taken_for_another(stored in any::<i32>()) {
        let read = count(stored);
        prop_assert!(read.as_ref().is_ok_and(|count| i64::from(*count) == i64::from(stored)) || is_unreadable(&read));
    }
}

#[test]
fn what_is_no_object_is_not_taken_for_an_empty_one() {
    for stored in [json!(null), json!([]), json!("x"), json!(1)] {
        assert!(is_unreadable(&object(stored)));
    }
    assert!(object(json!({})).is_ok_and(|object| object.is_empty()));
}
