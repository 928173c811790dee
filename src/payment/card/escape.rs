//! Escapes in which a digit or a space may be written: URL, JSON and HTML escapes, nested to any depth.

/// Returns the character that the escape at the start of `bytes` stands for, and the escape's length; `None` if there
/// is no escape.
pub(super) fn escaped(bytes: &[u8]) -> Option<(char, usize)> {
    match bytes.first()? {
        b'%' => percent(bytes),
        b'\\' => backslash(bytes),
        b'&' => entity(bytes),
        _ => None,
    }
}

/// `%34`, or `%C2%A0` for a character of several bytes. Bytes that are not UTF-8 are read as Latin-1.
fn percent(bytes: &[u8]) -> Option<(char, usize)> {
    let (first, first_length) = octet(bytes)?;
    let count = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let (mut octets, mut length) = ([first, 0, 0, 0], first_length);
    for continuation in &mut octets[1..count] {
        let (octet, more) = octet(&bytes[length..]).unwrap_or_default();
        *continuation = octet;
        length += more;
    }
    let character = std::str::from_utf8(&octets[..count]).ok().and_then(|text| text.chars().next());
    Some(character.map_or((char::from(first), first_length), |character| (character, length)))
}

/// One percent-encoded byte. `%2534` is `%34`, encoded again.
fn octet(bytes: &[u8]) -> Option<(u8, usize)> {
    let mut at = bytes.starts_with(b"%").then_some(1)?;
    while bytes[at..].starts_with(b"25") {
        at += 2;
    }
    match hex(bytes.get(at..at + 2)) {
        Some(byte) => Some((u8::try_from(byte).ok()?, at + 2)),
        None => (at > 1).then_some((b'%', at)),
    }
}

/// `\u0034`, `\n`, and `\\u0034` (JSON within JSON). Any other run of backslashes is literal.
fn backslash(bytes: &[u8]) -> Option<(char, usize)> {
    let at = bytes.iter().take_while(|byte| **byte == b'\\').count();
    let blank = match bytes.get(at) {
        Some(b'n') => '\n',
        Some(b'r' | b't' | b'f' | b'b') => ' ',
        _ => return Some(unit(bytes, at).unwrap_or(('\\', at))),
    };
    Some((blank, at + 1))
}

/// A UTF-16 escape after `at` backslashes: one code unit or a surrogate pair.
fn unit(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let read = |at: usize| if bytes.get(at) == Some(&b'u') { hex(bytes.get(at + 1..at + 5)) } else { None };
    let high = read(at)?;
    if let Some(character) = char::from_u32(high) {
        return Some((character, at + 5));
    }
    let next = bytes[at + 5..].iter().take_while(|byte| **byte == b'\\').count() + at + 5;
    let units = [u16::try_from(high).ok()?, u16::try_from(read(next)?).ok()?];
    let character = char::decode_utf16(units).next()?.ok()?;
    Some((character, next + 5))
}

/// `&#52;`, `&#x34;`, and the named entities for spaces and dashes.
fn entity(bytes: &[u8]) -> Option<(char, usize)> {
    const LONGEST: usize = 10;
    let end = bytes.iter().take(LONGEST).position(|byte| *byte == b';')?;
    let character = match &bytes[1..end] {
        b"nbsp" | b"ensp" | b"emsp" | b"thinsp" => ' ',
        b"shy" | b"zwj" | b"zwnj" => '\u{200b}',
        b"ndash" | b"mdash" | b"minus" => '-',
        [b'#', b'x' | b'X', digits @ ..] => char::from_u32(hex(Some(digits))?)?,
        [b'#', digits @ ..] => char::from_u32(std::str::from_utf8(digits).ok()?.parse().ok()?)?,
        _ => return None,
    };
    Some((character, end + 1))
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    let digits = digits.filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0, |number, digit| Some(number * 16 + char::from(*digit).to_digit(16)?))
}
