//! Numbers of JSON as numbers of BSON, of which none is changed.

use ::mongodb::bson::Decimal128;

/// A number, as it is stored.
#[derive(Debug, PartialEq)]
pub(super) enum Number<'a> {
    /// An integer of 64 bits with a sign.
    Integer(i64),
    /// A fraction that a double holds as it is written.
    Double(f64),
    /// What has up to 34 digits, and is neither.
    Decimal(Decimal128),
    /// What has more, as its text.
    Text(&'a str),
}

/// The number that has this text.
pub(super) fn number(text: &str) -> Number<'_> {
    if text.contains(['.', 'e', 'E']) {
        if let Some(double) = double(text) {
            return Number::Double(double);
        }
    } else if let Ok(integer) = text.parse() {
        return Number::Integer(integer);
    }
    match text.parse() {
        Ok(decimal) => Number::Decimal(decimal),
        Err(_) => Number::Text(text),
    }
}

/// The double that is written like this, where there is one: its shortest text is the same number.
fn double(text: &str) -> Option<f64> {
    let double: f64 = text.parse().ok()?;
    let same = double.is_finite() && Parts::of(text)? == Parts::of(&format!("{double:e}"))?;
    same.then_some(double)
}

/// A number as digits without zeros at either end, and the power of ten that they count.
#[derive(PartialEq)]
struct Parts {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Parts {
    /// `None` where the exponent is beyond all reason.
    fn of(text: &str) -> Option<Self> {
        let negative = text.starts_with('-');
        let text = text.trim_start_matches('-');
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self { negative, digits: String::new(), exponent: 0 });
        }
        let moved = i64::try_from(all.len() - digits.len()).ok()?;
        let moved = moved - i64::try_from(fraction.len()).ok()?;
        let exponent = exponent.parse::<i64>().ok()?.checked_add(moved)?;
        let digits = digits.trim_start_matches('0').to_owned();
        Some(Self { negative, digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Number<'_> {
        Number::Decimal(text.parse().unwrap())
    }

    #[test]
    fn an_integer_keeps_all_of_its_digits() {
        assert_eq!(number("1700000000123456789"), Number::Integer(1_700_000_000_123_456_789));
        assert_eq!(number("-9223372036854775808"), Number::Integer(i64::MIN));
        assert_eq!(number("0"), Number::Integer(0));
        let more = "18446744073709551615";
        assert_eq!(number(more), decimal(more));
        let most = "9".repeat(34);
        assert_eq!(number(&most), decimal(&most));
        let beyond = "9".repeat(35);
        assert_eq!(number(&beyond), Number::Text(&beyond));
    }

    #[test]
    fn a_fraction_is_a_double_only_where_that_changes_nothing() {
        for (text, double) in
            [("0.1", 0.1), ("1.50", 1.5), ("1e3", 1e3), ("-2.5E-3", -2.5e-3), ("0.0", 0.0)]
        {
            assert_eq!(number(text), Number::Double(double), "{text}");
        }
        assert_eq!(number("5e-324"), Number::Double(5e-324));
        for text in ["0.1234567890123456789", "1.0000000000000000001", "1e400", "4.9e-324"] {
            assert_eq!(number(text), decimal(text), "{text}");
        }
        let long = format!("0.{}", "3".repeat(40));
        for text in [long.as_str(), "1e7000", "1e99999999999999999999"] {
            assert_eq!(number(text), Number::Text(text));
        }
    }
}
