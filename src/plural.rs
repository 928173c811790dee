//! Counts with their nouns, for people.

use std::fmt::Display;

/// `1 event`, `2 events`: a count with a noun whose plural only adds an `s`.
pub fn counted(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    let ending = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        assert_eq!(counted(0, "event"), "0 events");
        assert_eq!(counted(1, "event"), "1 event");
        assert_eq!(counted(21, "dead letter"), "21 dead letters");
    }
}
