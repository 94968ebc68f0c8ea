//! Points in time and durations, as the language has them: to the nanosecond.

use std::{any::Any, cmp::Ordering};

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        traits::{Adder, Comparer, Subtractor},
        types::{CelString, DURATION_TYPE, STRING_TYPE, TIMESTAMP_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

use crate::env::parse_duration;

const SECOND: i128 = 1_000_000_000;
const DAY: i64 = 24 * 60 * 60;

/// Nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp(i128);

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Duration(i128);

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("timestamp", "string_to_timestamp", vec![STRING_TYPE], timestamp)?;
    env.add_overload("duration", "string_to_duration", vec![STRING_TYPE], duration)
}

fn timestamp<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = args.first().and_then(|it| it.downcast_ref::<CelString>());
    let time = text.and_then(|it| parse(it.inner()));
    time.map(CowVal::owned).ok_or_else(|| ExecutionError::function_error("timestamp", "not one"))
}

fn duration<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = args.first().and_then(|it| it.downcast_ref::<CelString>());
    let span = text.and_then(|it| span(it.inner()));
    span.map(CowVal::owned).ok_or_else(|| ExecutionError::function_error("duration", "not one"))
}

/// A duration as Go writes it, with a sign or without.
pub(super) fn span(text: &str) -> Option<Duration> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let nanos = i128::try_from(parse_duration(text).ok()?.as_nanos()).ok()?;
    Some(Duration(sign * nanos))
}

/// A point in time in RFC 3339.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_at_checked(10)?;
    let time = time.strip_prefix(['T', 't'])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, rest) = time.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|it: char| !it.is_ascii_digit())?),
        None => ("", rest),
    };
    let fine = (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && (rest.starts_with('.') != fraction.is_empty());
    if !fine {
        return None;
    }
    let days = days(year, month, day);
    let seconds = days * DAY + hour * 3_600 + minute * 60 + second - offset(zone)?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(Timestamp(i128::from(seconds) * SECOND + digits.parse::<i128>().ok()?))
}

/// Three numbers of so many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut next = |digits| {
        let part = parts.next()?;
        let right = part.len() == digits && part.bytes().all(|it| it.is_ascii_digit());
        right.then(|| part.parse().ok())?
    };
    let [a, b, c] = digits;
    let all = [next(a)?, next(b)?, next(c)?];
    parts.next().is_none().then_some(all)
}

/// Seconds that a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let [hours, minutes, _] = numbers(&format!("{rest}:00"), ':', [2, 2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Leap days before the first of January of a year, counted from the year 0.
    let leaps = |year: i64| (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let years = (year - 1970) * 365 + leaps(year) - leaps(1970);
    let months: i64 = (1..month).map(|it| days_of(year, it)).sum();
    years + months + day - 1
}

/// What both kinds of values have in common.
macro_rules! value {
    ($Value:ty, $TYPE:ident, $also:item) => {
        impl Val for $Value {
            fn get_type(&self) -> &Type {
                &$TYPE
            }

            fn cel_type() -> &'static Type {
                &$TYPE
            }

            fn as_comparer(&self) -> Option<&dyn Comparer> {
                Some(self)
            }

            fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }

            fn as_subtractor<'b, 'v>(&'b self) -> Option<&'b (dyn Subtractor + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<Self>().is_some_and(|other| self == other)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(*self)
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $Value {}

        impl Comparer for $Value {
            fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
                let other = other.downcast_ref::<Self>();
                other.map(|other| self.cmp(other)).ok_or_else(|| mismatch("_<_", self, self))
            }
        }

        $also
    };
}

value!(
    Timestamp,
    TIMESTAMP_TYPE,
    impl Adder for Timestamp {
        fn add<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
        where
            Self: 'v,
        {
            let span = other.downcast_ref::<Duration>();
            let sum = span.map(|span| CowVal::owned(Self(self.0 + span.0)));
            sum.ok_or_else(|| mismatch("_+_", self, other))
        }
    }
);

value!(
    Duration,
    DURATION_TYPE,
    impl Adder for Duration {
        fn add<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
        where
            Self: 'v,
        {
            match (other.downcast_ref::<Self>(), other.downcast_ref::<Timestamp>()) {
                (Some(span), _) => Ok(CowVal::owned(Self(self.0 + span.0))),
                (_, Some(time)) => Ok(CowVal::owned(Timestamp(self.0 + time.0))),
                _ => Err(mismatch("_+_", self, other)),
            }
        }
    }
);

impl Subtractor for Timestamp {
    fn sub<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match (other.downcast_ref::<Self>(), other.downcast_ref::<Duration>()) {
            (Some(time), _) => Ok(CowVal::owned(Duration(self.0 - time.0))),
            (_, Some(span)) => Ok(CowVal::owned(Self(self.0 - span.0))),
            _ => Err(mismatch("_-_", self, other)),
        }
    }
}

impl Subtractor for Duration {
    fn sub<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let span = other.downcast_ref::<Self>();
        let rest = span.map(|span| CowVal::owned(Self(self.0 - span.0)));
        rest.ok_or_else(|| mismatch("_-_", self, other))
    }
}

fn mismatch(operator: &str, one: &dyn Val, other: &dyn Val) -> ExecutionError {
    let types = [one, other].map(|it| it.get_type().name().to_owned());
    ExecutionError::no_such_overload(operator, types.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_to_the_nanosecond_in_every_zone() {
        let seconds = |text: &str| parse(text).map(|it| it.0 / SECOND);
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2026-11-23T15:23:06.339470430Z"), Some(1_795_447_386));
        assert_eq!(seconds("2026-11-23T17:23:06+02:00"), Some(1_795_447_386));
        assert_eq!(seconds("2000-02-29T23:59:59Z"), Some(951_868_799));
        assert_eq!(seconds("0001-01-01T00:00:00Z"), Some(-62_135_596_800));
        assert_eq!(parse("1970-01-01T00:00:00.000000001Z"), Some(Timestamp(1)));
        assert_eq!(parse("1969-12-31T23:59:59.5Z"), Some(Timestamp(-SECOND / 2)));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23 15:23:06Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T15:23:06",
            "2026-11-23T15:23:06.Z",
            "2026-11-23T15:23:06+2",
            "2026-11-23T15:23:06.5",
            "+026-11-23T15:23:06Z",
            "\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}T\u{fc}\u{fc}\u{fc}\u{fc}Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_may_have_a_sign() {
        assert_eq!(span("1m30s"), Some(Duration(90 * SECOND)));
        assert_eq!(span("-1h"), Some(Duration(-3_600 * SECOND)));
        assert_eq!(span("1"), None);
    }
}
