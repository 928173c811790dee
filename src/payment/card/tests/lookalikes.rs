//! Numbers that are not cards, generated from a seed.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::super::number::luhn_is_valid;

const DIGITS: &str = "0123456789";
const HEX: &str = "0123456789abcdef";
const CAPITALS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE62: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A kind of number.
pub struct Kind {
    pub name: &'static str,
    /// Patterns, chosen with equal probability; see [`Random::like`].
    patterns: &'static [&'static str],
    /// Maximum false positives per hundred thousand.
    pub taken: u32,
}

#[rustfmt::skip]
pub const KINDS: &[Kind] = &[
    Kind { name: "telephone numbers, 25 countries", taken: 0, patterns: &[
        // North America.
        "+1 ~##-###-####", "(~##) ###-####", "1-~##-###-####", "+1~#########", "~##.###.####", "001 ~## ### ####",
        "~## ### #### ext. ####",
        // Germany, Austria, Switzerland.
        "+49 15# ########", "+4917########", "0049 151 #######", "0151/########", "49151########", "491761#######",
        "+49 (0)30 ######-##", "4989########", "+43 6## #######", "43664########", "+41 7# ### ## ##",
        // The United Kingdom, Ireland, France, Belgium, the Netherlands.
        "+44 7### ######", "07### ######", "447#########", "4420 #### ####", "+353 8# ### ####", "0044 7### ######",
        "+33 6 ## ## ## ##", "06 ## ## ## ##", "06.##.##.##.##", "336########", "+32 4## ## ## ##", "+31 6 ########",
        // Spain, Portugal, Italy, Poland, Czechia, Denmark, Norway, Sweden, Finland.
        "+34 6## ### ###", "346########", "+351 9## ### ###", "+39 3## ### ####", "393#########", "+48 ### ### ###",
        "### ### ###", "420#########", "+45 ## ## ## ##", "## ## ## ##", "+47 ### ## ###", "467########",
        "+358 4# ### ####",
        // Brazil, Mexico, Argentina, India, Pakistan, Indonesia, China, Japan, Hong Kong, Singapore, Russia, Turkey.
        "+55 11 9####-####", "5511#########", "+52 1 55 #### ####", "+54 9 11 ####-####", "+91 ~#### #####",
        "091-~####-#####",
        "923#########", "+62 8##-####-####", "628##########", "+86 138 #### ####", "86138########", "+81 90-####-####",
        "+852 #### ####", "#### ####", "+65 6### ####", "+7 (9##) ###-##-##", "79#########", "+90 5## ### ## ##",
    ] },
    Kind { name: "two telephone numbers", taken: 0, patterns: &[
        "#### ####, #### ####", "## ## ## ## / ## ## ## ##", "4### #### / 4### ####", "6### ####\n6### ####",
        "06 ## ## ## ##, 06 ## ## ## ##", "(~##) ###-####; (~##) ###-####", "4########;4########",
    ] },
    Kind { name: "IBANs, 12 countries", taken: 0, patterns: &[
        "DE################## = iban", "FR##########@#########@## = iban fours", "GB@@@@############## = iban fours",
        "ES#################### = iban", "IT@###################### = iban fours", "NL@@@@########## = iban lower",
        "BE############ = iban", "PL######################## = iban fours", "AT################ = iban",
        "DK############## = iban", "NO########### = iban", "FI############## = iban lower",
    ] },
    Kind { name: "account numbers of banks, 10 countries", taken: 800, patterns: &[
        "## #### #### #### #### #### ####", "#### #### ## ##########", "##-##-## ########",
        "########-########-########",
        "########-########", "######-##########/####", "#### ##########", "################", "###########",
        "##################", "#### #### ####", "646###############", "40702810############",
    ] },
    Kind { name: "order numbers by date", taken: 0, patterns: &[
        "20261130-######", "2026113012#####", "20261130-######-##", "2026-11-30-####", "261130######", "20261130######",
        "ORD-20261130-####", "30112026######", "24112026########", "30-11-2026-######", "#20261130-000###",
        "2026/11/30/####",
    ] },
    Kind { name: "order numbers of shops", taken: 0, patterns: &[
        // Amazon, eBay, Shopify, AliExpress, WooCommerce, Magento, Otto.
        "###-#######-#######", "##-#####-#####", "45##########", "5############", "6############", "4############",
        "80##############", "#~##", "#1###", "1000#####", "##########",
    ] },
    Kind { name: "order numbers with letters", taken: 50, patterns: &[
        "INV-2026-######", "RE-####-####-####", "@@@-########", "@##########", "PO#######/##", "SO-#########-@",
        "#####-#####-#####", "####-@@@@-####", "@@@@#######", "INV#####-####-####",
    ] },
    Kind { name: "10 to 13 random digits", taken: 0, patterns: &[
        "##########", "###########", "############", "#############",
    ] },
    Kind { name: "14 random digits", taken: 450, patterns: &["##############"] },
    Kind { name: "15 random digits", taken: 250, patterns: &["###############"] },
    Kind { name: "16 random digits", taken: 3_200, patterns: &["################"] },
    Kind { name: "17 or 18 random digits", taken: 550, patterns: &["#################", "##################"] },
    Kind { name: "19 random digits", taken: 2_300, patterns: &["###################"] },
    Kind { name: "20 or more random digits", taken: 0, patterns: &[
        "####################", "############################",
    ] },
    Kind { name: "bar codes: EAN-13, UPC, GTIN-14, ISBN", taken: 100, patterns: &[
        "############ = gtin", "########### = gtin", "~############ = gtin", "978-#-###-#####-#",
    ] },
    Kind { name: "serial numbers: IMEI, ICCID, VIN", taken: 0, patterns: &[
        "35############ = luhn", "86############ = luhn", "8949############### = luhn", "W@@ZZZ@@#@@######",
        "SN########",
    ] },
    Kind { name: "tracking numbers of 9 carriers", taken: 800, patterns: &[
        // DHL, UPS, USPS, FedEx, DPD, GLS, Royal Mail, Canada Post.
        "JJD##################", "00340434############", "##########", "1Z@#@##@##########", "94001#################",
        "9400 1### #### #### #### ##", "92#### #### #### #### ##", "############", "#### #### ####", "96###########",
        "01##############", "0598##########", "###############", "61###############", "RR#########DE", "RR#########GB",
        "4### #### #### ####", "7### #### #### ####", "1### #### #### ####",
    ] },
    Kind { name: "times: Unix, ISO 8601, in one piece", taken: 0, patterns: &[
        "{u}", "{u}###", "{u}######", "{u}#########", "{u}.######", "{Y}-{m}-{d}T12:##:##.######Z",
        "{Y}-{m}-{d} 1#:##:##.###",
        "{d}.{m}.{Y} 1#:##:##", "{Y}{m}{d}1#####", "{d}-{m}-{Y} 12:## - {d}-{m}-{Y} 13:##",
    ] },
    Kind { name: "UUIDs, ULIDs, hashes, traces", taken: 0, patterns: &[
        "{h8}-{h4}-4{h3}-a{h3}-{h12}", "{h32}", "{h24}", "{h40}", "{h64}", "{h128}", "00-{h32}-{h16}-01",
        "01@@@@#@@#@@@#@@@@@#@@@@@@",
    ] },
    Kind { name: "ids of gateways and networks", taken: 50, patterns: &[
        // Stripe, Adyen, PayPal, Mollie, Worldline, Discord, Twitter.
        "pi_3{b23}", "ch_3{b23}", "@#@#@@#@@#@@@#@@", "85##############", "86##############", "88##############",
        "#@#####@@#@@@####",
        "tr_{b10}", "##########", "1#################", "13#################",
    ] },
    Kind { name: "base64 of random bytes, JSON web tokens", taken: 0, patterns: &[
        "{B48}", "eyJhbGciOiJIUzI1NiJ9.{\"iss\":\"shop\",\"iat\":##########,\"sub\":\"############\"}.{b43} = token",
    ] },
    Kind { name: "tax and company numbers, 12 countries", taken: 0, patterns: &[
        "DE#########", "ATU########", "FR## #########", "ES@########", "IT###########", "NL#########B##",
        "GB### #### ##",
        "PL##########", "SE############", "BE 0###.###.###", "##@@@@@####@#@#", "##AAPFU####F1ZV", "##-#######",
        "3####### = siret", "8####### = siret", "###.###.###-##", "##.###.###/0001-##", "~#######0001 = cnpj",
        "36######0001 = cnpj",
    ] },
    Kind { name: "national ids, 14 countries", taken: 20, patterns: &[
        // South Africa, Pakistan, Thailand, China, Indonesia, Egypt, Romania, India, Sweden, France, Korea, Brazil,
        // Italy, Turkey.
        "{y}{m}{d}####08 = luhn", "42###-#######-#", "42###########", "1-####-#####-##-#", "4############",
        "62####{Y}{m}{d}### = china", "51####{Y}{m}{d}### = china", "510101{d}{m}{y}000#", "367402{d}{m}{y}000#",
        "352801{d}{m}{y}000#",
        "305{m}{d}12#####", "285{m}{d}02#####", "5{y}{m}{d}######", "#### #### ####", "{Y}{m}{d}-####",
        "1 {y} {m} ## ### ### ##",
        "{y}{m}{d}-4######", "###########",
    ] },
    Kind { name: "references of invoices and slips", taken: 10, patterns: &[
        // Brazil's NF-e and boleto, Switzerland's QR bill, Finland, Belgium, others.
        "41########################################## = fours", "35########################################## = fours",
        "#####.##### #####.###### #####.###### # 1#############", "## ##### ##### ##### ##### #####",
        "##### ##### ##### #####",
        "+++###/####/#####+++", "#########################", "~### #### #### #### #### #### ##",
    ] },
    Kind { name: "amounts, decimals, coordinates, addresses", taken: 0, patterns: &[
        "~,###,###.##", "~.###.###,##", "##.##############", "-0.################", "###.###############",
        "[##.#######,##.######]",
        "~.##.#", "1##.1##.#.##:####", "2001:db8:####:####::####", "~#### #.## ##.##", "0.~###############e-5",
        "1.~##############E9",
        "sizes ## ## ## ##, years 20## 20## 20##", "~## x ~## x ~##", "19##-20##",
    ] },
    Kind { name: "JSON arrays of 2 to 10 numbers", taken: 150, patterns: &["{list}"] },
];

impl Kind {
    pub fn one(&self, random: &mut Random) -> String {
        let pattern = self.patterns[random.below(self.patterns.len() as u64) as usize];
        let (pattern, finish) = pattern.split_once(" = ").unwrap_or((pattern, ""));
        finish.split(' ').fold(random.like(pattern), finished)
    }
}

/// A deterministic pseudo-random sequence (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }

    pub fn of(&mut self, signs: &str, count: usize) -> String {
        (0..count).map(|_| char::from(signs.as_bytes()[self.below(signs.len() as u64) as usize])).collect()
    }

    /// `#` is any digit, `~` a digit other than 0, `@` a capital; braces enclose other kinds.
    fn like(&mut self, pattern: &str) -> String {
        let mut made = String::new();
        let mut rest = pattern;
        while let Some(sign) = rest.chars().next() {
            let word =
                rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).filter(|(word, _)| !word.contains('"'));
            match (sign, word) {
                ('#', _) => made.push_str(&self.of(DIGITS, 1)),
                ('~', _) => made.push_str(&self.of(&DIGITS[1..], 1)),
                ('@', _) => made.push_str(&self.of(CAPITALS, 1)),
                (_, Some((word, _))) => made.push_str(&self.word(word)),
                (sign, None) => made.push(sign),
            }
            rest = word.map_or(&rest[1..], |(_, after)| after);
        }
        made
    }

    fn word(&mut self, word: &str) -> String {
        let (kind, count) = word.split_at(1);
        match (kind, count.parse()) {
            ("h", Ok(count)) => self.of(HEX, count),
            ("b", Ok(count)) => self.of(BASE62, count),
            ("B", Ok(count)) => {
                STANDARD.encode((0_u64..count as u64).map(|_| self.below(256) as u8).collect::<Vec<u8>>())
            }
            ("u", _) => (1_500_000_000 + self.below(400_000_000)).to_string(),
            ("Y", _) => (1950 + self.below(90)).to_string(),
            ("y", _) => format!("{:02}", self.below(100)),
            ("m", _) => format!("{:02}", 1 + self.below(12)),
            ("d", _) => format!("{:02}", 1 + self.below(28)),
            ("l", _) => {
                let (count, digits) = (2 + self.below(9), 1 + self.below(6));
                let numbers: Vec<String> =
                    (0..count).map(|_| self.below(10_u64.pow(digits as u32)).to_string()).collect();
                format!("[{}]", numbers.join(","))
            }
            _ => panic!("{word}"),
        }
    }
}

fn finished(number: String, finish: &str) -> String {
    match finish {
        "iban" => with_iban_check(&number),
        "fours" => number.as_bytes().chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" "),
        "lower" => number.to_lowercase(),
        "luhn" => with_luhn(&number),
        "siret" => with_luhn(&format!("{}0001", with_luhn(&number))),
        "gtin" => format!("{number}{}", (10 - weighted(&number, &[3, 1]) % 10) % 10),
        "cnpj" => (0..2).fold(number, |number, _| {
            let rest = weighted(&number, &[2, 3, 4, 5, 6, 7, 8, 9]) % 11;
            format!("{number}{}", if rest < 2 { 0 } else { 11 - rest })
        }),
        "china" => {
            let rest = weighted(&number, &[2, 4, 8, 5, 10, 9, 7, 3, 6, 1, 2, 4, 8, 5, 10, 9, 7]) % 11;
            format!("{number}{}", char::from(b"10X98765432"[rest as usize]))
        }
        "token" => {
            let parts: Vec<&str> = number.split('.').collect();
            format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(parts[1]), parts[2])
        }
        _ => number,
    }
}

/// The sum of the digits from the right, each times its weight.
fn weighted(digits: &str, weights: &[u32]) -> u32 {
    digits.bytes().rev().zip(weights.iter().cycle()).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum()
}

pub fn with_luhn(digits: &str) -> String {
    let is_valid = |number: &String| luhn_is_valid(&number.bytes().map(|byte| byte - b'0').collect::<Vec<u8>>());
    (0..10).map(|last| format!("{digits}{last}")).find(is_valid).unwrap()
}

/// Inserts the IBAN check digits after the country code.
fn with_iban_check(number: &str) -> String {
    let (country, rest) = number.split_at(2);
    let remainder = format!("{rest}{country}00").chars().fold(0, |sum, sign| {
        let value = sign.to_digit(36).unwrap();
        (sum * if value > 9 { 100 } else { 10 } + value) % 97
    });
    format!("{country}{:02}{rest}", 98 - remainder)
}
