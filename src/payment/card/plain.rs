//! Text as the search reads it: one byte per character, all digits as `0` to `9`, all spaces as a space, all dashes as
//! `-`, invisible characters dropped.

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization::char::decompose_compatible;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::escape::escaped;

/// Stands for a non-ASCII letter.
pub(super) const LETTER: u8 = 0x80;
/// Stands for non-ASCII punctuation or a symbol.
const MARK: u8 = 0x81;

/// A text as plain bytes. Built in time linear in its length.
pub(super) struct Plain<'a> {
    text: &'a str,
    decodes: bool,
    /// The bytes to search.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Plain<'a> {
    /// Reads the text as it is written.
    pub fn written(text: &'a str) -> Plain<'a> {
        Plain::new(text, false)
    }

    /// Reads the text with its escapes decoded; `None` if it has none.
    pub fn decoded(text: &'a str) -> Option<Plain<'a>> {
        text.bytes().any(|byte| matches!(byte, b'%' | b'\\' | b'&')).then(|| Plain::new(text, true))
    }

    fn new(text: &'a str, decodes: bool) -> Plain<'a> {
        let is_plain = !decodes && text.bytes().all(|byte| byte.is_ascii() && !is_dropped(byte));
        let bytes = if is_plain {
            Cow::Borrowed(text.as_bytes())
        } else {
            let mut bytes = Vec::with_capacity(text.len());
            each(text, decodes, |byte, _| bytes.push(byte));
            Cow::Owned(bytes)
        };
        Plain { text, decodes, bytes }
    }

    /// Maps ascending ranges of the plain bytes back to ranges of the text.
    pub fn in_text(&self, ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
        if ranges.is_empty() || matches!(self.bytes, Cow::Borrowed(_)) {
            return ranges;
        }
        let mut found = ranges.clone();
        let (mut index, mut at) = (0, 0);
        each(self.text, self.decodes, |_, span| {
            if let Some(range) = ranges.get(at) {
                if index == range.start {
                    found[at].start = span.start;
                }
                if index + 1 == range.end {
                    found[at].end = span.end;
                    at += 1;
                }
            }
            index += 1;
        });
        found
    }
}

/// Calls `emit` with each plain byte and the range of its character in `text`.
fn each(text: &str, decodes: bool, mut emit: impl FnMut(u8, Range<usize>)) {
    let mut at = 0;
    while let Some(written) = text[at..].chars().next() {
        let undone = if decodes { escaped(&text.as_bytes()[at..]) } else { None };
        let (character, length) = undone.unwrap_or((written, written.len_utf8()));
        let span = at..at + length;
        decompose_compatible(character, |part| {
            if let Some(byte) = plain(part) {
                emit(byte, span.clone());
            }
        });
        at += length;
    }
}

/// Control characters other than tabs and line ends.
fn is_dropped(byte: u8) -> bool {
    matches!(byte, 0x00..=0x08 | 0x0e..=0x1f | 0x7f)
}

/// Returns the byte that stands for a character; `None` for invisible characters and combining marks.
fn plain(character: char) -> Option<u8> {
    use GeneralCategory as Category;
    match character {
        '\0'..='\x7f' => return Some(character as u8).filter(|byte| !is_dropped(*byte)),
        // The minus sign; the Hangul fillers, which are classified as letters but invisible.
        '\u{2212}' => return Some(b'-'),
        '\u{115f}' | '\u{1160}' => return None,
        _ => {}
    }
    match character.general_category() {
        Category::DecimalNumber => Some(b'0' + digit(character)),
        Category::Format | Category::Control => None,
        Category::NonspacingMark | Category::EnclosingMark | Category::SpacingMark => None,
        Category::SpaceSeparator => Some(b' '),
        Category::LineSeparator | Category::ParagraphSeparator => Some(b'\n'),
        Category::DashPunctuation => Some(b'-'),
        Category::UppercaseLetter
        | Category::LowercaseLetter
        | Category::TitlecaseLetter
        | Category::ModifierLetter
        | Category::OtherLetter
        | Category::LetterNumber
        | Category::OtherNumber => Some(LETTER),
        _ => Some(MARK),
    }
}

/// The value of a decimal digit: Unicode assigns each script's digits to a contiguous run starting at its zero.
fn digit(character: char) -> u8 {
    let is_digit = |code: &u32| {
        char::from_u32(*code).is_some_and(|other| other.general_category() == GeneralCategory::DecimalNumber)
    };
    let before = (0..u32::from(character)).rev().take_while(is_digit).count();
    (before % 10) as u8
}
