//! Texts from elsewhere, fit for a terminal.

/// A text from elsewhere in one line: a control character could move the cursor, or worse.
pub fn tame(text: &str) -> String {
    let tamed = text.chars().map(|char| match char {
        '\n' | '\r' | '\t' => ' ',
        char if char.is_control() || is_direction(char) => '\u{fffd}',
        char => char,
    });
    tamed.collect()
}

/// The same JSON, for a terminal: what serde_json leaves as it is and a terminal may act on is written as an escape. It can
/// stand in texts and names only.
pub fn tame_json(json: &str) -> String {
    let mut tamed = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_control() || is_direction(char) {
            tamed.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            tamed.push(char);
        }
    }
    tamed
}

/// Characters that turn the direction of what follows.
fn is_direction(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_steer_the_terminal() {
        assert_eq!(tame("a\x1b[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb c\u{fffd}d");
        let text = "a\u{9b}2J\u{7f}\u{202e}\u{61c}\x1b";
        let json = tame_json(&serde_json::to_string(text).unwrap());
        assert_eq!(json, r#""a\u009b2J\u007f\u202e\u061c\u001b""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
