//! Shortens untrusted text before it is quoted: it may be a megabyte long.

use std::borrow::Cow;

/// The longest quoted name, in characters.
pub const NAME_MAX: usize = 64;
/// The longest error message, in characters.
pub const ERROR_MAX: usize = 2_048;

/// Marks where text was cut off.
const ELLIPSIS: char = '…';

/// Returns the text, or its beginning followed by an ellipsis: at most `characters_max` characters, the ellipsis
/// included.
pub fn excerpt(text: &str, characters_max: usize) -> Cow<'_, str> {
    if text.char_indices().nth(characters_max).is_none() {
        return Cow::Borrowed(text);
    }
    let kept = characters_max.saturating_sub(1);
    let end = text.char_indices().nth(kept).map_or(text.len(), |(end, _)| end);
    Cow::Owned(cut(text, end))
}

/// Like [`excerpt`], but limited in bytes.
pub fn excerpt_bytes(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let mut end = bytes_max.saturating_sub(ELLIPSIS.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(cut(text, end))
}

fn cut(text: &str, end: usize) -> String {
    let mut cut = text.get(..end).unwrap_or_default().to_owned();
    cut.push(ELLIPSIS);
    cut
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(excerpt("äöü", 3), "äöü");
        assert_eq!(excerpt("äöüß", 3), "äö…");
        assert_eq!(excerpt_bytes("äöü", 6), "äöü");
        assert_eq!(excerpt_bytes("äöüß", 6), "ä…");
    }

    proptest! {
        #[test]
        fn an_excerpt_is_the_text_or_shorter_and_begins_like_it(text in any::<String>(), max in 3..40_usize) {
            for (cut, size) in [
                (excerpt(&text, max), excerpt(&text, max).chars().count()),
                (excerpt_bytes(&text, max), excerpt_bytes(&text, max).len()),
            ] {
                prop_assert!(size <= max, "{cut}");
                prop_assert!(cut == text || cut.ends_with(ELLIPSIS) && text.starts_with(cut.trim_end_matches(ELLIPSIS)));
            }
        }
    }
}
