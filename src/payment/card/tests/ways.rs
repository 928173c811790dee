//! Ways of writing a card number.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::lookalikes::{Random, with_luhn};

/// Which numbers are found when written in a given way.
#[derive(Clone, Copy, PartialEq)]
pub enum Lengths {
    /// All of them.
    All,
    /// Numbers of 15, 16 or 19 digits.
    Usual,
    /// Numbers of at least 16 digits, which are printed in groups of four.
    Fours,
}

use Lengths::{All, Fours, Usual};

/// A way of writing a number.
pub struct Way(pub &'static str, pub Lengths, pub fn(&str) -> String);

#[rustfmt::skip]
pub const WAYS: &[Way] = &[
    Way("in one piece", All, str::to_owned),
    Way("spaces", All, |n| by(n, " ")),
    Way("dashes", All, |n| by(n, "-")),
    Way("dots", All, |n| by(n, ".")),
    Way("double spaces", All, |n| by(n, "  ")),
    Way("tabs", All, |n| by(n, "\t")),
    Way("ends of lines", All, |n| by(n, "\r\n")),
    Way("slashes", All, |n| by(n, "/")),
    Way("underscores", All, |n| by(n, "_")),
    Way("commas", All, |n| by(n, ", ")),
    Way("colons", All, |n| by(n, ":")),
    Way("bars", All, |n| by(n, " | ")),
    Way("plus signs", All, |n| by(n, "+")),
    Way("apostrophes", All, |n| by(n, "'")),
    Way("asterisks", All, |n| by(n, "**")),
    Way("brackets", All, |n| format!("({})", by(n, ") ("))),
    Way("dashes between spaces", All, |n| by(n, " - ")),
    Way("no-break spaces", All, |n| by(n, "\u{a0}")),
    Way("thin spaces", All, |n| by(n, "\u{2009}")),
    Way("ideographic spaces", All, |n| by(n, "\u{3000}")),
    Way("en dashes", All, |n| by(n, "\u{2013}")),
    Way("em dashes", All, |n| by(n, "\u{2014}")),
    Way("minus signs", All, |n| by(n, "\u{2212}")),
    Way("no-break hyphens", All, |n| by(n, "\u{2011}")),
    Way("middle dots", All, |n| by(n, "·")),
    Way("bullets", All, |n| by(n, " • ")),
    Way("zero-width spaces", All, |n| by(n, "\u{200b}")),
    Way("a zero-width joiner in each place", All, |n| every(n, 1, "\u{200d}")),
    Way("soft hyphens", All, |n| by(n, "\u{ad}")),
    Way("byte order marks", All, |n| by(n, "\u{feff}")),
    Way("direction marks", All, |n| format!("\u{202d}{}\u{202c}", by(n, "\u{200e}"))),
    Way("NUL", All, |n| by(n, "\0")),
    Way("digit by digit", All, |n| every(n, 1, " ")),
    Way("digit by digit, dashes", All, |n| every(n, 1, "-")),
    Way("pairs", Usual, |n| every(n, 2, " ")),
    Way("threes", Usual, |n| every(n, 3, " ")),
    Way("fives", Usual, |n| every(n, 5, " ")),
    Way("eights", Usual, |n| every(n, 8, " ")),
    Way("six and the rest", Usual, |n| cut(n, &[6, 13]).join(" ")),
    Way("four, four and the rest", Usual, |n| cut(n, &[4, 4, 11]).join(" ")),
    Way("thousands", Usual, thousands),
    Way("full-width digits", All, |n| from_zero(n, '０')),
    Way("Arabic digits", All, |n| from_zero(n, '٠')),
    Way("Persian digits", All, |n| from_zero(n, '۰')),
    Way("Devanagari digits", All, |n| from_zero(n, '०')),
    Way("Bengali digits", All, |n| from_zero(n, '০')),
    Way("Thai digits", All, |n| from_zero(n, '๐')),
    Way("mathematical digits", All, |n| from_zero(n, '𝟎')),
    Way("superscript digits", All, |n| of_signs(n, "⁰¹²³⁴⁵⁶⁷⁸⁹")),
    Way("circled digits", All, |n| of_signs(n, "⓪①②③④⑤⑥⑦⑧⑨")),
    Way("keycaps", All, |n| each(n, |digit| format!("{digit}\u{fe0f}\u{20e3}"))),
    Way("behind letters", All, |n| format!("pan{n}")),
    Way("before letters", All, |n| format!("{n}exp1227")),
    Way("between letters of other scripts", All, |n| format!("卡号{n}请")),
    Way("in an identifier", All, |n| format!("card_{n}_x")),
    Way("before an expiry date", All, |n| format!("{} 12/27 123", by(n, " "))),
    Way("before an expiry date of four digits", All, |n| format!("{} 1227", by(n, " "))),
    Way("in a list", All, |n| format!("1,{n},1227,123")),
    Way("track 1 of a magnetic stripe", All, |n| format!("%B{n}^HOLMES/SHERLOCK^27121011234567890?")),
    Way("track 2 of a magnetic stripe", All, |n| format!(";{n}=27121011234567890?")),
    Way("track 2 of a chip", All, |n| format!("{n}D27121011234567890F")),
    Way("in a path", All, |n| format!("https://shop.example/pay/{n}/done?a=b")),
    Way("in a form", All, |n| format!("amount=10&pan={}&exp=1227", by(n, "+"))),
    Way("percent, each digit", All, percent),
    Way("percent, spaces", All, |n| by(n, "%20")),
    Way("percent, no-break spaces", All, |n| by(n, "%C2%A0")),
    Way("percent, twice", All, |n| percent(n).replace('%', "%25")),
    Way("base64", All, |n| STANDARD.encode(n)),
    Way("base64 of groups", All, |n| STANDARD.encode(by(n, " "))),
    Way("base64 of a sentence", All, |n| STANDARD.encode(format!("my card is {n}, ok?"))),
    Way("base64 for URLs, behind a word", All, |n| format!("token_{}", URL_SAFE_NO_PAD.encode(format!("ÿ?>{n}")))),
    Way("base64, twice", All, |n| STANDARD.encode(STANDARD.encode(n))),
    Way("base64 of bytes that are no text", All, |n| STANDARD.encode([&[0xff, 0x01], n.as_bytes(), &[0xfe]].concat())),
    Way("JSON escapes", All, |n| each(n, |digit| format!("\\u003{digit}"))),
    Way("JSON escapes of full-width digits", All, |n| each(n, |digit| format!("\\uff1{digit}"))),
    Way("JSON escapes of mathematical digits", All, |n| each(n, |digit| format!("\\ud835\\udf{:x}", 0xce + digit))),
    Way("JSON escapes within JSON", All, |n| each(n, |digit| format!("\\\\u003{digit}"))),
    Way("JSON escapes of spaces", All, |n| by(n, "\\u00a0")),
    Way("between escaped ends of lines", All, |n| format!(r"note\n{n}\n")),
    Way("HTML, each digit", All, |n| each(n, |digit| format!("&#{};", 48 + digit))),
    Way("HTML, spaces", All, |n| by(n, "&nbsp;")),
    Way("XML", All, |n| format!("<pan>{n}</pan>")),
    Way("a JSON number", All, |n| format!(r#"{{"n":{n}}}"#)),
    Way("a JSON number with a fraction", All, |n| format!("{n}.0")),
    Way("a JSON number with an exponent", All, exponent),
    Way("an array of its groups", All, |n| format!(r#"["{}"]"#, by(n, r#"",""#))),
    Way("an array of its groups, on lines", All, |n| format!("[\n    \"{}\"\n]", by(n, "\",\n    \""))),
    Way("an array of numbers", Fours, |n| format!("[{}]", every(n, 4, ","))),
    Way("an array of digits", All, |n| format!("[{}]", every(n, 1, ", "))),
];

impl Way {
    /// Whether a number written in this way is found.
    pub fn finds(&self, number: &str) -> bool {
        match self.1 {
            All => true,
            Usual => [15, 16, 19].contains(&number.len()),
            // A JSON number has no leading zero.
            Fours => number.len() >= 16 && !every(number, 4, ",").contains(",0"),
        }
    }
}

/// Prefixes of the networks' numbers, and their lengths.
pub const ISSUED: &[(&str, usize)] = &[
    // Visa, Mastercard, American Express, Diners Club.
    ("4", 16),
    ("4", 19),
    ("51", 16),
    ("55", 16),
    ("2221", 16),
    ("2720", 16),
    ("34", 15),
    ("37", 15),
    ("36", 14),
    ("38", 14),
    ("39", 14),
    ("3095", 14),
    ("3056", 16),
    // Discover, JCB, UnionPay.
    ("6011", 16),
    ("644", 16),
    ("649", 16),
    ("65", 16),
    ("6011", 19),
    ("3528", 16),
    ("3589", 16),
    ("3530", 19),
    ("62", 16),
    ("62", 17),
    ("62", 18),
    ("62", 19),
    ("8100", 16),
    // Maestro, Mir, RuPay, Troy.
    ("5018", 16),
    ("5020", 16),
    ("6304", 17),
    ("6759", 18),
    ("6761", 19),
    ("6703", 17),
    ("50", 16),
    ("2200", 16),
    ("2204", 16),
    ("508", 16),
    ("60", 16),
    ("9792", 16),
];

/// One number of each network, `count` times.
pub fn numbers(random: &mut Random, count: usize) -> Vec<String> {
    let issued = ISSUED.iter().cycle().take(ISSUED.len() * count);
    issued
        .map(|(prefix, length)| with_luhn(&format!("{prefix}{}", random.of("0123456789", length - 1 - prefix.len()))))
        .collect()
}

/// In the groups printed on the card.
fn by(number: &str, separator: &str) -> String {
    let lengths: &[usize] = match number.len() {
        15 => &[4, 6, 5],
        14 => &[4, 6, 4],
        _ => &[4; 5],
    };
    cut(number, lengths).join(separator)
}

fn every(number: &str, length: usize, separator: &str) -> String {
    cut(number, &vec![length; number.len()]).join(separator)
}

fn cut<'a>(number: &'a str, lengths: &[usize]) -> Vec<&'a str> {
    let mut rest = number;
    let mut parts = Vec::new();
    for length in lengths {
        let (part, after) = rest.split_at((*length).min(rest.len()));
        parts.extend(Some(part).filter(|part| !part.is_empty()));
        rest = after;
    }
    parts
}

fn thousands(number: &str) -> String {
    let (head, tail) = number.split_at((number.len() - 1) % 3 + 1);
    format!("{head},{}", every(tail, 3, ","))
}

fn exponent(number: &str) -> String {
    format!("{}.{}E{}", &number[..1], number[1..].trim_end_matches('0'), number.len() - 1)
}

fn each(number: &str, written: impl Fn(usize) -> String) -> String {
    number.bytes().map(|digit| written(usize::from(digit - b'0'))).collect()
}

fn of_signs(number: &str, signs: &str) -> String {
    each(number, |digit| signs.chars().nth(digit).unwrap().to_string())
}

fn from_zero(number: &str, zero: char) -> String {
    each(number, |digit| char::from_u32(u32::from(zero) + digit as u32).unwrap().to_string())
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
