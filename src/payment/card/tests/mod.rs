//! What is found and what is not: examples, and the figures of docs/security.md.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use lookalikes::{KINDS, Random};
use ways::WAYS;

mod lookalikes;
mod ways;

/// The search must find exactly the `|card|` ranges marked in the text.
fn check(marked: &str) {
    let text = marked.replace('|', "");
    let parts = marked.split('|').enumerate();
    let scrubbed: String = parts.map(|(index, part)| if index % 2 == 1 { REPLACEMENT } else { part }).collect();
    assert_eq!(scrub(&text), scrubbed, "{text}");
    assert_eq!(contains_card_number(&text), marked.contains('|'), "{text}");
}

#[test]
fn numbers_of_every_network_are_found() {
    for card in "4242424242424242 4000000000000000006 5105105105105100 2223003122003222 2720990000000007 \
        378282246310005 30569309025904 36227206271667 3056930009020004 6011111111111117 6469000000000001 \
        3528000000000007 3566002020360505 6200000000000005 620000000000000005 6205500000000000004 2200000000000004 \
        8100000000000002 5085000000000007 6759649826438453 6799990100000000019 67034200554565015"
        .split(' ')
    {
        check(&format!("|{card}|"));
    }
    check("|4222 2222 2222 2|; |5018 0000 0009|; |6205 5000 0000 0000 004|; |620550 0000000000004|");
}

#[test]
fn a_number_is_found_however_it_is_written() {
    let numbers = ways::numbers(&mut Random(7), 1);
    for way in WAYS {
        for number in numbers.iter().filter(|number| way.finds(number)) {
            let text = (way.2)(number);
            assert!(contains_card_number(&text), "{}: {text}", way.0);
        }
        let scrubbed = scrub(&(way.2)(&numbers[0])).into_owned();
        assert!(scrubbed.contains(REPLACEMENT) && !contains_card_number(&scrubbed), "{}: {scrubbed}", way.0);
    }
}

/// The bounds are the figures in docs/security.md; `figures` measures them.
#[test]
fn other_numbers_are_rarely_taken_for_cards() {
    const COUNT: u32 = 500;
    for kind in KINDS {
        let mut random = Random(11);
        let numbers: Vec<String> = (0..COUNT).map(|_| kind.one(&mut random)).collect();
        let taken: Vec<&String> = numbers.iter().filter(|number| contains_card_number(number)).collect();
        let expected = f64::from(kind.taken * COUNT) / 100_000.0;
        assert!(taken.len() as f64 <= expected + 4.0 * expected.sqrt(), "{}: {taken:?}", kind.name);
    }
}

#[test]
fn the_documentation_has_every_figure() {
    let page = include_str!("../../../../docs/security.md");
    for kind in KINDS {
        let row = page.lines().find(|line| line.starts_with(&format!("| {} |", kind.name)));
        let figure = row.and_then(|row| row.trim_end_matches(" |").rsplit("| ").next()).unwrap_or_default();
        let percent: f64 = figure.trim_end_matches(" %").parse().unwrap_or(f64::INFINITY);
        assert!(percent * 1_000.0 <= f64::from(kind.taken), "{}: {figure:?}", kind.name);
    }
}

/// `cargo test --release --lib card::tests::figures -- --ignored --nocapture` prints the tables of docs/security.md.
#[test]
#[ignore = "measures"]
fn figures() {
    let numbers = ways::numbers(&mut Random(7), 100);
    let mut all = (0, 0);
    for way in WAYS {
        let found = numbers.iter().filter(|number| contains_card_number(&(way.2)(number))).count();
        println!("| {} | {:.1} % |", way.0, found as f64 * 100.0 / numbers.len() as f64);
        all = (all.0 + found, all.1 + numbers.len());
    }
    println!("| all | {:.1} % |\n", all.0 as f64 * 100.0 / all.1 as f64);
    for kind in KINDS {
        let mut random = Random(11);
        let taken = (0..100_000).filter(|_| contains_card_number(&kind.one(&mut random))).count();
        println!("| {} | {} % |", kind.name, taken as f64 / 1_000.0);
    }
}

#[test]
fn what_stands_around_a_number_stays() {
    for marked in [
        "card |4242 4242 4242 4242| please",
        "|4242\u{a0}4242\u{a0}4242\u{a0}4242|, |4242\u{2011}4242\u{2013}4242\u{202f}4242|",
        "|3782 822463 10005|, |3782-8224-6310-005| or |3056 930902 5904|",
        r#"{"number":"|4242424242424242|","cvc":123,"list":[|4000056655665556|]}"#,
        r#""note\n|4242424242424242|\n""#,
        "number=|4242424242424242|&exp=12/27, pan:|4242424242424242|.",
        "(|4242424242424242|)! <|4242424242424242|>; -|4242424242424242| - |4242424242424242|-",
        "1,|4242424242424242|,12/27 |4242424242424242|/12/27 12/27/|4242424242424242|/|5555555555554444|/a",
        "|4242 4242 4242 4242| 12 27 123, 12 27 |4242 4242 4242 4242| |5555 5555 5555 4444| 1111",
        "|4 2 4 2 4 2 4 2 4 2 4 2 4 2 4 2| 12/27, |4242 -4242-4242- 4242| or |4539 148803436467|",
        "%B|4242424242424242|^HOLMES/SHERLOCK^2712101?\r\n;|4242424242424242|=27121011234567890?",
        "卡号|4242424242424242|请 карта|4242424242424242|é €|4242424242424242|\u{1f4b3}",
        "name=a+|4242424242424242|, x|4242424242424242|x, pi_|4242424242424242|_2",
        "|4.242424242424242|E15 |42424242.42424242|e+8 4.242424242424242E14",
        r#"["|4242","4242","4242","4242|"], "|\u0034242 4242\u00a04242 4242|""#,
        "é|%34242%204242 4242%C2%A04242|é &amp; |42424242&#52;2424242|",
        "|NDI0MjQyNDI0MjQyNDI0Mg|== data:text/plain;base64,|bXkgY2FyZCBpcyA0MjQyNDI0MjQyNDI0MjQy|",
        "DE89 5105 0015 2798 3580 69 |4242 4242 4242 4242|; DE88 |5105 0015 2798 3580| 69",
    ] {
        check(marked);
    }
}

#[test]
fn other_numbers_are_no_cards() {
    for text in [
        "4242424242424241 4242 4242 4242 4241 1234567812345670 42424242424242424242 04242424242424242424242",
        // Visa's 13 digits without separators; the third number is a telephone number.
        "4222222222222 4006381333931 4915112345678",
        "order 501800000009, 630400000000, 5612345678903",
        // Parts of a UUID, of a hash and of a decimal fraction.
        "42424242-4242-4242-4242-424242424242 5f0c4242-4242-4242-4242-4242424242ab",
        "4242424242424242ffffffffffffffff 0.4242424242424242",
        "+4915112345678 +4915 1123 4567 8 +1 415 555 2671 0049 1511 2345678 +378282246310005",
        "2026-11-22T12:00:00.000000Z 20261122120000 1795348800000 1795348800000000 1795348800000000000",
        "DE89510500152798358069 DE89 5105 0015 2798 3580 69 gb29nwbk60161331926819 RF18 5390 0754 7034",
        // Orange S.A.; Brazilian companies; identity numbers of China, Indonesia and Egypt; a date.
        "38012986600006 36000009000140 620102198001010754 5171010101800002 30201011200001 30112026000007",
        // Marks separate a list of other numbers.
        "[4242,4242,4242,4242,4242] 4242, 4242; 4242, 4242 [344,988,658,396,165]",
        // More groups than a card number has.
        "4242 4242 4242 4242 1234 5678 9012 3456 7890",
    ] {
        check(text);
    }
}

#[test]
fn a_long_text_takes_linear_time() {
    const LENGTH: usize = 1 << 14;
    for piece in
        ["4", "4241 ", "4 ", "4,", "4-2 ", "A", "AB12 ", "+1 ", "%25", "\\", "&", "٤", "\u{fdfa}", "QUJD", "a.4.1E15"]
    {
        check(&piece.repeat(LENGTH / piece.len()));
    }
    let rows = "4242 ".repeat(LENGTH);
    assert_eq!(scrub(&rows).len(), LENGTH / 4 * (REPLACEMENT.len() + 1));
}

#[rustfmt::skip]
const CARDS_AND_NEAR_MISSES: &[&str] = &[
    "4242424242424242", "4242 4242 4242 4242", "4000-0566-5566-5556", "4242", "5555", "378282246310005",
    "DE89 5105 0015 2798 3580 69", "DE89", "\\n", "4222222222222", "/4242424242424242/", "NDI0MjQyNDI0MjQyNDI0Mg",
    "%34", "%25",
    "\\u0034", "&#52;", "٤٢٤٢", "+49", "42424242-4242-4242-4242-424242424242", "4.242424242424242E15",
];

/// Text built from what the rule looks at, so that cards and near misses are frequent.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[0-9]{1,20}| |-|[./+_,\\\\%&\n\"]|[a-zA-Z]{1,3}|\u{a0}|\u{2013}|\u{200b}|é|卡|⒋",
        3 => proptest::sample::select(CARDS_AND_NEAR_MISSES).prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_is_left_after_scrubbing(text in prop_oneof![pieces(), any::<String>()]) {
        let scrubbed = scrub(&text);
        prop_assert!(!contains_card_number(&scrubbed), "{scrubbed}");
        prop_assert_eq!(contains_card_number(&text), scrubbed != text);
    }

    #[test]
    fn text_without_twelve_digits_is_borrowed(text in "([\u{0}-/:-~]{0,9}[0-9]){0,11}[a-z ]*") {
        let scrubbed = scrub(&text);
        prop_assert!(matches!(scrubbed, Cow::Borrowed(same) if same == text));
    }
}
