//! Makes foreign text safe for a terminal.

/// Foreign text in one line, without control characters: these could move the cursor, or worse.
pub fn tame(text: &str) -> String {
    let tamed = text.chars().map(|char| match char {
        '\n' | '\r' | '\t' => ' ',
        char if char.is_control() || is_direction(char) => '\u{fffd}',
        char => char,
    });
    tamed.collect()
}

/// The same JSON, safe for a terminal: escapes the characters that serde_json does not escape and a terminal may act on.
/// They occur only in strings and names.
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

/// Whether a character changes the writing direction.
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
