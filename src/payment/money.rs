//! Money: a non-negative decimal with its currency; never a float, never rounded.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

/// Maximum digits before the decimal point.
pub const INTEGER_DIGITS_MAX: usize = 12;

/// Maximum decimals of any currency.
pub const DECIMALS_MAX: usize = 4;

/// An ISO 4217 currency for which the standard defines decimals.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// Returns the currency for a three-letter code in capitals. `None` if ISO 4217 does not list it or defines no
    /// decimals for it (precious metals, test codes).
    pub fn from_code(code: &str) -> Option<Currency> {
        let currency = iso_currency::Currency::from_code(code)?;
        currency.exponent().map(|_| Currency(currency))
    }

    /// All currencies, with their codes.
    pub fn all() -> impl Iterator<Item = Currency> {
        let letters = || 'A'..='Z';
        let codes = letters().flat_map(move |a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
        codes.filter_map(|code| Currency::from_code(&code.iter().collect::<String>()))
    }

    /// The three-letter code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Number of decimals by ISO 4217: JPY 0, USD 2, KWD 3.
    pub fn decimals(self) -> u32 {
        u32::from(self.0.exponent().unwrap_or_default())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

/// Why a text or number is not an amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Contains something other than digits with at most one point between them.
    #[error("must be digits with at most one decimal point, such as \"12.50\"")]
    Grammar,
    /// More decimals than the currency has.
    #[error("has more than the {0} decimals of its currency")]
    Decimals(u32),
    /// More than twelve digits before the point.
    #[error("has more than 12 digits before the point")]
    TooLarge,
    /// Less than zero.
    #[error("is negative")]
    Negative,
    /// The amounts have different currencies.
    #[error("is in another currency")]
    Currency,
}

/// Validates a decimal string as far as possible before its currency is known.
///
/// # Errors
/// The text is not an amount in any currency.
pub fn check_text(text: &str) -> Result<(), MoneyError> {
    let (_, fraction) = digits(text)?;
    if fraction.len() > DECIMALS_MAX { Err(MoneyError::Decimals(DECIMALS_MAX as u32)) } else { Ok(()) }
}

/// Splits a text into the digits before and after the point.
fn digits(text: &str) -> Result<(&str, &str), MoneyError> {
    let (integer, fraction) = match text.split_once('.') {
        Some((integer, fraction)) if !fraction.is_empty() => (integer, fraction),
        Some(_) => return Err(MoneyError::Grammar),
        None => (text, ""),
    };
    if integer.is_empty() || !integer.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(MoneyError::Grammar);
    }
    if integer.len() > INTEGER_DIGITS_MAX {
        return Err(MoneyError::TooLarge);
    }
    Ok((integer, fraction))
}

/// An amount of money: not negative, with exactly its currency's decimals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Money {
    amount: Decimal,
    currency: Currency,
}

impl Money {
    /// Zero in a currency.
    pub fn zero(currency: Currency) -> Money {
        Money { amount: Decimal::new(0, currency.decimals()), currency }
    }

    /// Parses a decimal string from a message, in currency units. Stricter than `Decimal`'s own parser, which accepts
    /// exponents, underscores and signs, and rounds what does not fit.
    pub fn parse(text: &str, currency: Currency) -> Result<Money, MoneyError> {
        let (_, fraction) = digits(text)?;
        if fraction.len() > currency.decimals() as usize {
            return Err(MoneyError::Decimals(currency.decimals()));
        }
        let amount = Decimal::from_str_exact(text).map_err(|_| MoneyError::Grammar)?;
        Money::new(amount, currency)
    }

    /// Parses a decimal string from a gateway, which may have more trailing zeros than the currency has decimals: the
    /// value is the same.
    pub fn parse_padded(text: &str, currency: Currency) -> Result<Money, MoneyError> {
        let (integer, fraction) = digits(text)?;
        let digits = fraction.trim_end_matches('0');
        let text = if digits.is_empty() { integer } else { &text[..integer.len() + 1 + digits.len()] };
        Money::parse(text, currency)
    }

    /// Converts a decimal from the database or a gateway. Trailing zeros are dropped or added, significant digits
    /// never.
    pub fn new(amount: Decimal, currency: Currency) -> Result<Money, MoneyError> {
        if amount.is_sign_negative() && !amount.is_zero() {
            return Err(MoneyError::Negative);
        }
        let mut scaled = amount;
        scaled.rescale(currency.decimals());
        if scaled != amount {
            return Err(MoneyError::Decimals(currency.decimals()));
        }
        Ok(Money { amount: scaled, currency })
    }

    /// The number, in currency units.
    pub fn amount(self) -> Decimal {
        self.amount
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// Whether the amount is zero.
    pub fn is_zero(self) -> bool {
        self.amount.is_zero()
    }

    /// Adds two amounts.
    ///
    /// # Errors
    /// The currencies differ, or the sum exceeds 28 digits.
    pub fn plus(self, other: Money) -> Result<Money, MoneyError> {
        self.same_currency(other)?;
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::TooLarge)?;
        Ok(Money { amount, currency: self.currency })
    }

    /// Subtracts an amount; never below zero.
    ///
    /// # Errors
    /// The currencies differ.
    pub fn less(self, other: Money) -> Result<Money, MoneyError> {
        self.same_currency(other)?;
        let amount = self.amount.checked_sub(other.amount).ok_or(MoneyError::TooLarge)?;
        if amount.is_sign_negative() { Ok(Money::zero(self.currency)) } else { Ok(Money { amount, ..self }) }
    }

    /// Whether this is more than `other`.
    ///
    /// # Errors
    /// The currencies differ.
    pub fn exceeds(self, other: Money) -> Result<bool, MoneyError> {
        self.same_currency(other)?;
        Ok(self.amount > other.amount)
    }

    fn same_currency(self, other: Money) -> Result<(), MoneyError> {
        if self.currency == other.currency { Ok(()) } else { Err(MoneyError::Currency) }
    }
}

/// The amount alone, with the currency's decimals: `120.00`.
impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.amount)
    }
}

/// Serializes as a string, as displayed: never as a JSON number.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.amount, self.currency)
    }
}

/// Serializes money with its currency, for places that do not store it alongside: `["120.00", "USD"]`.
pub mod with_currency {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Currency, Money};

    /// Serializes amount and currency.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(money: &Money, serializer: S) -> Result<S::Ok, S::Error> {
        (money.to_string(), money.currency().code()).serialize(serializer)
    }

    /// Deserializes amount and currency.
    ///
    /// # Errors
    /// It is not an amount in a known currency.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
        let (amount, code) = <(String, String)>::deserialize(deserializer)?;
        let currency = Currency::from_code(&code).ok_or_else(|| D::Error::custom("not an ISO 4217 currency"))?;
        Money::parse(&amount, currency).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::from_code(code).unwrap()
    }

    #[test]
    fn amounts_are_digits_with_at_most_one_point() {
        for (text, code, shown) in [
            ("120.00", "USD", "120.00"),
            ("120", "USD", "120.00"),
            ("0.5", "USD", "0.50"),
            ("00012.30", "USD", "12.30"),
            ("500", "JPY", "500"),
            ("1.234", "KWD", "1.234"),
            ("999999999999.99", "USD", "999999999999.99"),
        ] {
            assert_eq!(Money::parse(text, currency(code)).unwrap().to_string(), shown, "{text}");
        }
        for text in ["", ".", "1.", ".5", "1e3", "1_000", "+5", "-5", "1.2.3", " 1", "1,5", "0x1", "١"] {
            assert_eq!(Money::parse(text, currency("USD")), Err(MoneyError::Grammar), "{text}");
        }
        assert_eq!(Money::parse("1.234", currency("USD")), Err(MoneyError::Decimals(2)));
        assert_eq!(Money::parse("1.0", currency("JPY")), Err(MoneyError::Decimals(0)));
        assert_eq!(Money::parse("1000000000000", currency("USD")), Err(MoneyError::TooLarge));
    }

    #[test]
    fn a_gateway_may_write_more_zeros() {
        for (text, code, shown) in [
            ("100.0000", "USD", "100.00"),
            ("100.5000", "USD", "100.50"),
            ("100.00", "JPY", "100"),
            ("0.000000000000000000000000000000000000", "USD", "0.00"),
            ("10", "KWD", "10.000"),
            ("1.2340", "KWD", "1.234"),
        ] {
            assert_eq!(Money::parse_padded(text, currency(code)).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(Money::parse_padded("100.0010", currency("USD")), Err(MoneyError::Decimals(2)));
        assert_eq!(Money::parse_padded("1.5", currency("JPY")), Err(MoneyError::Decimals(0)));
        for text in ["", ".", "1.", ".0", "1e2", "+5", "-5", "-0", "1.2.0", "1.00 ", "1,00", "1.0O"] {
            assert_eq!(Money::parse_padded(text, currency("USD")), Err(MoneyError::Grammar), "{text}");
        }
    }

    #[test]
    fn arithmetic_stays_in_one_currency_and_at_or_above_zero() {
        let usd = |text| Money::parse(text, currency("USD")).unwrap();
        let eur = Money::parse("1", currency("EUR")).unwrap();
        assert_eq!(usd("1.10").plus(usd("2.20")), Ok(usd("3.30")));
        assert_eq!(usd("1.10").less(usd("2.20")), Ok(usd("0")));
        assert_eq!(usd("1").plus(eur), Err(MoneyError::Currency));
        assert_eq!(usd("1").exceeds(eur), Err(MoneyError::Currency));
        assert_eq!(Money::new(Decimal::new(19_9900, 4), currency("USD")), Ok(usd("19.99")));
        assert_eq!(Money::new(Decimal::new(19_9901, 4), currency("USD")), Err(MoneyError::Decimals(2)));
        assert_eq!(Money::new(Decimal::new(-1, 2), currency("USD")), Err(MoneyError::Negative));
    }

    #[test]
    fn currencies_without_decimals_of_their_own_are_unknown() {
        for code in ["XXX", "XAU", "usd", "US", "ZZZ", ""] {
            assert!(Currency::from_code(code).is_none(), "{code}");
        }
    }
}
