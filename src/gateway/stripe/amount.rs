//! Amounts in Stripe's units: integers of a unit that is not always ISO 4217's smallest.

use rust_decimal::Decimal;

use crate::payment::money::{Currency, Money, MoneyError};

/// Stripe uses whole units for these, whatever their decimals.
const ZERO_DECIMAL: [&str; 15] =
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"];

/// Recently became zero-decimal; Stripe still uses hundredths, which must be multiples of 100.
const WHOLE_HUNDREDS: [&str; 2] = ["ISK", "UGX"];

/// Stripe uses thousandths, which must be multiples of 10.
const THREE_DECIMAL: [&str; 5] = ["BHD", "JOD", "KWD", "OMR", "TND"];

/// Why an amount cannot be sent to Stripe, or cannot have come from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AmountError {
    /// Stripe does not support the currency.
    #[error("Stripe does not support {0}")]
    Currency(Currency),
    /// Not a whole number of Stripe's units.
    #[error("Stripe accepts {0} only in whole units")]
    Whole(Currency),
    /// The third decimal is not 0.
    #[error("Stripe accepts {0} only if the third decimal is 0")]
    Tens(Currency),
    /// Not an amount of money.
    #[error("{0}")]
    Money(#[from] MoneyError),
}

/// Number of decimals that Stripe's integers have for a currency. HUF and TWD are special only in payouts.
fn decimals(currency: Currency) -> Result<u32, AmountError> {
    let code = currency.code();
    if ZERO_DECIMAL.contains(&code) {
        Ok(0)
    } else if THREE_DECIMAL.contains(&code) {
        Ok(3)
    } else if WHOLE_HUNDREDS.contains(&code) || currency.decimals() == 2 {
        Ok(2)
    } else {
        Err(AmountError::Currency(currency))
    }
}

/// Converts an amount to Stripe's units.
pub(super) fn to_units(money: Money) -> Result<i64, AmountError> {
    let currency = money.currency();
    let mut units = money.amount();
    let decimals = decimals(currency)?;
    let scale = Decimal::from(10_u32.pow(decimals));
    units = units.checked_mul(scale).ok_or(MoneyError::TooLarge)?;
    if !units.fract().is_zero() {
        return Err(AmountError::Whole(currency));
    }
    let units = i64::try_from(units).map_err(|_| MoneyError::TooLarge)?;
    if decimals == 3 && units % 10 != 0 {
        return Err(AmountError::Tens(currency));
    }
    Ok(units)
}

/// Converts an amount from Stripe's units.
pub(super) fn from_units(units: i64, currency: Currency) -> Result<Money, AmountError> {
    Ok(Money::new(Decimal::new(units, decimals(currency)?), currency)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str, code: &str) -> Money {
        Money::parse(text, Currency::from_code(code).unwrap()).unwrap()
    }

    #[test]
    fn every_kind_of_currency_both_ways() {
        for (text, code, units) in [
            ("10.99", "USD", 1_099),
            ("0.01", "EUR", 1),
            ("999999.99", "GBP", 99_999_999),
            ("500", "JPY", 500),
            ("500", "KRW", 500),
            ("12.00", "MGA", 12),
            ("5", "ISK", 500),
            ("5", "UGX", 500),
            ("10.45", "HUF", 1_045),
            ("800.45", "TWD", 80_045),
            ("5.120", "KWD", 5_120),
            ("1.230", "JOD", 1_230),
        ] {
            let money = money(text, code);
            assert_eq!(to_units(money), Ok(units), "{text} {code}");
            assert_eq!(from_units(units, money.currency()), Ok(money), "{text} {code}");
        }
    }

    #[test]
    fn amounts_that_stripe_cannot_take_are_rejected() {
        let currency = |code| Currency::from_code(code).unwrap();
        for (text, code, error) in [
            ("12.50", "MGA", AmountError::Whole(currency("MGA"))),
            ("5.124", "KWD", AmountError::Tens(currency("KWD"))),
            ("1.000", "IQD", AmountError::Currency(currency("IQD"))),
            ("1.0000", "CLF", AmountError::Currency(currency("CLF"))),
        ] {
            assert_eq!(to_units(money(text, code)), Err(error), "{text} {code}");
        }
    }

    #[test]
    fn what_is_no_sum_did_not_come_from_stripe() {
        let usd = Currency::from_code("USD").unwrap();
        assert_eq!(from_units(-1, usd), Err(AmountError::Money(MoneyError::Negative)));
        let isk = Currency::from_code("ISK").unwrap();
        assert_eq!(from_units(550, isk), Err(AmountError::Money(MoneyError::Decimals(0))));
    }
}
