//! Times as people say them.

use jiff::Timestamp;

/// `12:00:01.250`, in UTC.
pub fn clock(time: Timestamp) -> String {
    let text = format!("{time:.3}");
    text.split_once('T').map_or(text.clone(), |(_, clock)| clock.trim_end_matches('Z').to_owned())
}

/// `2026-11-22 12:00:01`, in UTC.
pub fn date(time: Timestamp) -> String {
    format!("{time:.0}").trim_end_matches('Z').replace('T', " ")
}

/// `in 42 s`, `5 s ago`, `now`.
pub fn relative(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.as_second() - now.as_second();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {}", span(seconds)),
        _ => format!("{} ago", span(-seconds)),
    }
}

/// `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub fn span(seconds: i64) -> String {
    let parts = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let largest = parts.iter().position(|(length, _)| seconds >= *length).unwrap_or(parts.len() - 1);
    let mut rest = seconds;
    let mut text = Vec::new();
    for (length, unit) in parts.iter().skip(largest).take(2) {
        let count = rest / length;
        rest %= length;
        if count > 0 || text.is_empty() {
            text.push(format!("{count} {unit}"));
        }
    }
    text.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn times_are_short() {
        assert_eq!(clock(at("2026-11-22T12:00:01.25Z")), "12:00:01.250");
        assert_eq!(date(at("2026-11-22T12:00:01.25Z")), "2026-11-22 12:00:01");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (42, "42 s"),
            (60, "1 min"),
            (200, "3 min 20 s"),
            (3_600, "1 h"),
            (7_505, "2 h 5 min"),
            (86_400, "1 d"),
            (273_600, "3 d 4 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn the_future_is_distinguished_from_the_past() {
        let now = at("2026-11-22T12:00:00Z");
        assert_eq!(relative(at("2026-11-22T12:00:42Z"), now), "in 42 s");
        assert_eq!(relative(at("2026-11-22T11:59:55Z"), now), "5 s ago");
        assert_eq!(relative(now, now), "now");
    }
}
