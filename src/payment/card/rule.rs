//! Decides which digits of a plain text are a card number, by how they are grouped.

use std::ops::Range;

use super::lookalike::{self, end_of};
use super::number::{DIGITS_MAX, DIGITS_MIN, UNBROKEN_MIN, is_issued};

/// Lengths accepted when the grouping follows no known pattern.
const USUAL_DIGITS: [usize; 3] = [15, 16, 19];

const SPACE: u64 = b' ' as u64;
const DASH: u64 = b'-' as u64;
const LINE: u64 = b'\n' as u64;

/// Contiguous digits.
#[derive(Debug, Clone, Copy)]
struct Group {
    begin: usize,
    end: usize,
    /// What separates it from the previous group: a space, a dash, a line end, or the marks between them. `None` for
    /// the first group and after a letter.
    joint: Option<u64>,
}

impl Group {
    fn len(&self) -> usize {
        self.end - self.begin
    }
}

/// Returns the card numbers in a plain text, each from first to last digit, in ascending order. Linear in the text's
/// length.
pub(super) fn card_numbers(bytes: &[u8]) -> Vec<Range<usize>> {
    let has_enough = bytes.iter().filter(|byte| byte.is_ascii_digit()).nth(DIGITS_MIN - 1).is_some();
    if !has_enough {
        return Vec::new();
    }
    let text = Text { bytes, groups: groups(bytes) };
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.groups.len() {
        at = text.search(at, &mut found);
    }
    found
        .into_iter()
        .map(|range: Range<usize>| text.groups[range.start].begin..text.groups[range.end - 1].end)
        .collect()
}

/// Returns the groups of digits, leaving out other kinds of numbers.
fn groups(bytes: &[u8]) -> Vec<Group> {
    let mut others = lookalike::ranges(bytes).into_iter().peekable();
    let mut groups: Vec<Group> = Vec::new();
    let mut at = 0;
    while let Some(begin) = bytes[at..].iter().position(u8::is_ascii_digit) {
        let begin = at + begin;
        while others.next_if(|other| other.end <= begin).is_some() {}
        if let Some(other) = others.next_if(|other| other.start <= begin) {
            at = other.end;
            continue;
        }
        let joint = groups.last().and_then(|last| joint(&bytes[last.end..begin]));
        at = end_of(bytes, begin, u8::is_ascii_digit);
        groups.push(Group { begin, end: at, joint });
    }
    groups
}

/// Classifies what separates two groups: its marks without repetition, else the kind of whitespace.
fn joint(between: &[u8]) -> Option<u64> {
    let (mut marks, mut is_line) = (0, false);
    for byte in between {
        match byte {
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => {}
            b'\n' => is_line = true,
            _ if byte.is_ascii_alphanumeric() || *byte == super::plain::LETTER => return None,
            _ if marks & 0xff == u64::from(*byte) => {}
            // A ninth mark does not fit, and so long a sequence is not a separator.
            _ if marks >> 56 != 0 => return None,
            _ => marks = marks << 8 | u64::from(*byte),
        }
    }
    Some(match marks {
        0 if is_line => LINE,
        0 => SPACE,
        marks => marks,
    })
}

/// Whether groups with these separators may belong to one number. Spaces and dashes may alternate.
fn is_alike(one: Option<u64>, other: Option<u64>) -> bool {
    let is_blank = |joint| matches!(joint, Some(SPACE | DASH));
    one.is_some() && (one == other || is_blank(one) && is_blank(other))
}

struct Text<'a> {
    bytes: &'a [u8],
    groups: Vec<Group>,
}

impl Text<'_> {
    /// Adds the card numbers that begin at group `at`; returns the group at which to continue.
    fn search(&self, at: usize, found: &mut Vec<Range<usize>>) -> usize {
        if let Some(cards) = self.in_fours(at) {
            let end = cards.last().map_or(at, |card| card.end);
            found.extend(cards);
            return end;
        }
        let end = self.unbroken(at).or_else(|| self.exponent(at)).or_else(|| self.as_printed(at));
        let end = end.or_else(|| self.one_by_one(at)).or_else(|| self.in_any_groups(at));
        found.extend(end.map(|end| at..end));
        end.unwrap_or(at + 1)
    }

    fn length(&self, at: usize) -> Option<usize> {
        self.groups.get(at).map(Group::len)
    }

    fn joint(&self, at: usize) -> Option<u64> {
        self.groups.get(at).and_then(|group| group.joint)
    }

    /// Whether these groups together form a card number.
    fn is_card(&self, groups: Range<usize>, in_fours: bool) -> bool {
        let (mut digits, mut count) = ([0; DIGITS_MAX], 0);
        for group in &self.groups[groups] {
            let Some(target) = digits.get_mut(count..count + group.len()) else { return false };
            for (digit, byte) in target.iter_mut().zip(&self.bytes[group.begin..group.end]) {
                *digit = byte - b'0';
            }
            count += group.len();
        }
        is_issued(&digits[..count], in_fours)
    }

    /// A contiguous number that is not a decimal fraction.
    fn unbroken(&self, at: usize) -> Option<usize> {
        let group = self.groups[at];
        if !(UNBROKEN_MIN..=DIGITS_MAX).contains(&group.len()) {
            return None;
        }
        let is_fraction = matches!(self.bytes[..group.begin], [.., b'0'..=b'9', b'.']);
        let digits: Vec<u8> = self.bytes[group.begin..group.end].iter().map(|byte| byte - b'0').collect();
        let is_other = || lookalike::is_of_another_kind(&digits, self.bytes.get(group.end));
        (!is_fraction && is_issued(&digits, false) && !is_other()).then_some(at + 1)
    }

    /// A large number in scientific notation: `4.242424242424242E15`.
    fn exponent(&self, at: usize) -> Option<usize> {
        let [first, fraction] = self.groups.get(at..at + 2)? else { return None };
        let between = &self.bytes[first.end..fraction.begin];
        let rest = self.bytes[fraction.end..].strip_prefix(b"e").or(self.bytes[fraction.end..].strip_prefix(b"E"))?;
        let rest = rest.strip_prefix(b"+").unwrap_or(rest);
        let length = end_of(rest, 0, u8::is_ascii_digit);
        let power: usize = std::str::from_utf8(&rest[..length.min(2)]).ok()?.parse().ok()?;
        let count = first.len() + power;
        if between != b"." || length > 2 || count > DIGITS_MAX || fraction.len() > power {
            return None;
        }
        let mut digits = [0; DIGITS_MAX];
        let written = self.bytes[first.begin..fraction.end].iter().filter(|byte| byte.is_ascii_digit());
        digits.iter_mut().zip(written).for_each(|(digit, byte)| *digit = byte - b'0');
        is_issued(&digits[..count], false).then_some(at + 2)
    }

    /// The other groupings printed on cards: 4-6-5, 4-6-4, 6-13.
    fn as_printed(&self, at: usize) -> Option<usize> {
        let lengths = [at, at + 1, at + 2].map(|at| self.length(at).unwrap_or_default());
        let end = match lengths {
            [4, 6, 4 | 5] if is_alike(self.joint(at + 1), self.joint(at + 2)) => at + 3,
            [6, 13, _] if self.joint(at + 1).is_some() => at + 2,
            _ => return None,
        };
        (self.stands_alone(at..end) && self.is_card(at..end, false)).then_some(end)
    }

    /// Whether no further group has the same separator. This matters for marks, which also separate lists of numbers;
    /// spaces may separate anything.
    fn stands_alone(&self, groups: Range<usize>) -> bool {
        let joint = self.joint(groups.start + 1);
        is_alike(joint, Some(SPACE)) || self.joint(groups.start) != joint && self.joint(groups.end) != joint
    }

    /// Returns the end of the row of equally separated groups of `length` digits that begins at `at`; `None` if none
    /// begins there.
    fn row_end(&self, at: usize, length: usize) -> Option<usize> {
        let joint = self.joint(at + 1);
        let began_before =
            at.checked_sub(1).and_then(|before| self.length(before)) == Some(length) && is_alike(self.joint(at), joint);
        if self.length(at) != Some(length) || began_before {
            return None;
        }
        let goes_on = |at: &usize| self.length(*at) == Some(length) && is_alike(self.joint(*at), joint);
        Some(at + 1 + (at + 1..).take_while(goes_on).count())
    }

    /// Groups of four: a row holds one card number or several, each optionally followed by four more digits such as an
    /// expiry date. A longer row, such as an invoice key, holds none.
    fn in_fours(&self, at: usize) -> Option<Vec<Range<usize>>> {
        let row_end = self.row_end(at, 4)?;
        let mut cards: Vec<Range<usize>> = Vec::new();
        let mut next = at;
        while next < row_end {
            match self.card_in_fours(next, row_end) {
                Some(end) => {
                    cards.push(next..end);
                    next = end;
                }
                None if cards.last().is_some_and(|card| card.end == next) => next += 1,
                None => return None,
            }
        }
        let end = cards.last()?.end;
        self.stands_alone(at..end).then_some(cards)
    }

    fn card_in_fours(&self, at: usize, row_end: usize) -> Option<usize> {
        let has_rest =
            self.length(row_end).is_some_and(|rest| rest < 4) && is_alike(self.joint(row_end), self.joint(row_end - 1));
        let ends = [5, 4, 3].map(|count| at + count);
        ends.into_iter().find(|end| {
            let is_within = *end <= row_end || *end == row_end + 1 && has_rest;
            is_within && self.is_card(at..*end, true)
        })
    }

    /// Single digits.
    fn one_by_one(&self, at: usize) -> Option<usize> {
        let end = self.row_end(at, 1)?;
        ((UNBROKEN_MIN..=DIGITS_MAX).contains(&(end - at)) && self.is_card(at..end, false)).then_some(end)
    }

    /// Any grouping with spaces or dashes; with marks, only equal groups or thousands. No other group has the same
    /// separator.
    fn in_any_groups(&self, at: usize) -> Option<usize> {
        let joint = self.joint(at + 1).filter(|joint| self.joint(at) != Some(*joint))?;
        let end = at + 1 + (at + 1..).take_while(|at| self.joint(*at) == Some(joint)).take(DIGITS_MAX).count();
        let lengths: Vec<usize> = self.groups[at..end].iter().map(Group::len).collect();
        let [first, middle @ .., last] = &lengths[..] else { return None };
        let are_equal = middle.iter().all(|length| length == first) && last <= first;
        let are_thousands = middle.iter().chain([last]).all(|length| *length == 3) && *first < 3;
        let is_pattern = matches!(joint, SPACE | DASH) || !middle.is_empty() && (are_equal || are_thousands);
        (is_pattern && USUAL_DIGITS.contains(&lengths.iter().sum()) && self.is_card(at..end, false)).then_some(end)
    }
}
