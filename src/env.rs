//! Configuration is the environment, read once, with every mistake reported at once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ffi::OsString,
    fmt,
    str::FromStr,
    time::Duration,
};

mod documented;

pub use documented::DOCUMENTED;

/// A snapshot of the environment. Tests make their own; nothing else reads `std::env`.
#[derive(Default)]
pub struct Env {
    vars: BTreeMap<String, OsString>,
    asked: RefCell<BTreeSet<&'static str>>,
    problems: RefCell<Vec<Problem>>,
    looking: bool,
}

/// A variable that is missing or cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {what}")]
pub struct Problem {
    name: &'static str,
    what: String,
}

/// The problem is already noted; see [`Env::check`]. Only [`Env::note`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted(());

/// A value that never appears in logs.
#[derive(Clone)]
pub struct Secret(String);

/// A boolean, in the forms that Go takes. Anything else is an error, and never "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

/// A duration, in the forms that Go takes: `10s`, `1m30s`, `0.5h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Text that is not one of Go's booleans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither true nor false")]
pub struct SwitchError;

/// Text that is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// A number alone, an unknown unit, a sign, or nothing at all.
    #[error("not a duration such as 10s, 300ms or 1h30m")]
    Malformed,
    /// More than 64 bits of nanoseconds.
    #[error("longer than 584 years")]
    TooLong,
}

/// Variables with these prefixes are ours, so that one that nobody knows must be a mistake.
const OWN_PREFIXES: [&str; 2] = ["SINK_", "NOMAD_FIREHOSE_"];

/// A name is offered in place of an unknown one if it is at most this many edits away.
const MAX_EDITS: usize = 3;

impl Env {
    /// The environment of this process.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn process() -> Self {
        std::env::vars_os().collect()
    }

    /// Nothing is to be made, or opened to be written, while the configuration is read.
    pub fn only_look(&mut self) {
        self.looking = true;
    }

    /// Whether that is so.
    #[must_use]
    pub fn is_looking(&self) -> bool {
        self.looking
    }

    /// The variable, parsed; `None` where it is unset or empty.
    pub fn optional<T>(&self, name: &'static str) -> Result<Option<T>, Noted>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(value) = self.text(name)? else { return Ok(None) };
        value.parse().map(Some).map_err(|err| self.note(name, format!("`{value}`: {err}")))
    }

    /// The variable, parsed, or `default`.
    pub fn or<T>(&self, name: &'static str, default: T) -> Result<T, Noted>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// The variable, parsed; `hint` shows what a value looks like.
    pub fn required<T>(&self, name: &'static str, hint: &str) -> Result<T, Noted>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.optional(name)?.ok_or_else(|| self.note(name, format!("is not set ({hint})")))
    }

    /// The variable as a number from 1 to `most`, or `default`.
    pub fn within(&self, name: &'static str, default: usize, most: usize) -> Result<usize, Noted> {
        match self.or(name, default)? {
            number if (1..=most).contains(&number) => Ok(number),
            number => Err(self.note(name, format!("`{number}` is not 1 to {most}"))),
        }
    }

    /// The variable as a duration, or `default`.
    pub fn duration(&self, name: &'static str, default: Duration) -> Result<Duration, Noted> {
        Ok(self.or(name, Span(default))?.0)
    }

    /// The variable as a boolean, or `default`.
    pub fn switch(&self, name: &'static str, default: bool) -> Result<bool, Noted> {
        Ok(self.or(name, Switch(default))?.0)
    }

    /// Notes a problem that only the caller can see. User info of an address is left out.
    pub fn note(&self, name: &'static str, what: impl Into<String>) -> Noted {
        let mut what = what.into();
        if let Some(value) = self.vars.get(name).and_then(|it| it.to_str()) {
            let shown = redacted(value);
            if shown != value {
                what = what.replace(value, &shown);
            }
        }
        let problem = Problem { name, what };
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
        Noted(())
    }

    /// A warning for each variable that has one of our prefixes and that nobody knows.
    ///
    /// Ask once all of the configuration is read.
    #[must_use]
    pub fn unknown(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let known: BTreeSet<&str> = DOCUMENTED.iter().chain(asked.iter()).copied().collect();
        let ours = |it: &&str| OWN_PREFIXES.iter().any(|prefix| it.starts_with(prefix));
        let names = self.vars.keys().map(String::as_str);
        names
            .filter(ours)
            .filter(|it| !known.contains(it))
            .map(|name| {
                let distance = |it: &&str| strsim::damerau_levenshtein(name, it);
                match known.iter().copied().filter(ours).min_by_key(distance) {
                    Some(near) if distance(&near) <= MAX_EDITS => {
                        format!("{name} is not a variable of this program; did you mean {near}?")
                    }
                    _ => format!("{name} is not a variable of this program; it has no effect"),
                }
            })
            .collect()
    }

    /// The configuration read from this environment, or everything wrong with it.
    pub fn check<T>(self, config: Result<T, Noted>) -> Result<T, Vec<Problem>> {
        match (config, self.problems.into_inner()) {
            (Ok(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(problems),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, Noted> {
        self.asked.borrow_mut().insert(name);
        let Some(value) = self.vars.get(name).filter(|it| !it.is_empty()) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(text) => Ok(Some(text)),
            None => Err(self.note(name, "is not UTF-8")),
        }
    }
}

impl FromIterator<(OsString, OsString)> for Env {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(vars: I) -> Self {
        // A name that is not UTF-8 is not one that we ask for.
        let vars = vars.into_iter().filter_map(|(k, v)| Some((k.into_string().ok()?, v)));
        Self { vars: vars.collect(), ..Self::default() }
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(vars: [(&str, &str); N]) -> Self {
        vars.into_iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect()
    }
}

impl fmt::Debug for Env {
    /// Shows names only: any value could be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.vars.keys().collect();
        f.debug_struct("Env").field("names", &names).finish_non_exhaustive()
    }
}

impl Secret {
    /// The value itself. Call it where the value leaves the process, and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl FromStr for Switch {
    type Err = SwitchError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Self(false)),
            _ => Err(SwitchError),
        }
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        parse_duration(s).map(Self)
    }
}

/// An address without its user info, for messages.
///
/// It looks for the last `@` rather than parse, since it must work for what cannot be parsed.
#[must_use]
pub fn redacted(address: &str) -> String {
    let start = address.find("://").map_or(0, |at| at + "://".len());
    match address.rfind('@') {
        Some(at) if at >= start => format!("{}***{}", &address[..start], &address[at..]),
        _ => address.to_owned(),
    }
}

/// Reads one or more numbers, each with its unit. Numbers may have a fraction, but no sign.
pub fn parse_duration(text: &str) -> Result<Duration, SpanError> {
    let numeric = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = text;
    let mut total = 0_u64;
    loop {
        let (number, tail) = rest.split_at(rest.find(|c| !numeric(c)).unwrap_or(rest.len()));
        let (unit, tail) = tail.split_at(tail.find(numeric).unwrap_or(tail.len()));
        total = total.checked_add(nanos(number, unit)?).ok_or(SpanError::TooLong)?;
        if tail.is_empty() {
            return Ok(Duration::from_nanos(total));
        }
        rest = tail;
    }
}

fn nanos(number: &str, unit: &str) -> Result<u64, SpanError> {
    let unit: u64 = match unit {
        "ns" => 1,
        // The micro sign, and the Greek letter that looks like it.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(SpanError::Malformed),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(SpanError::Malformed);
    }
    // Only digits are left, so that all that can be wrong with them is that they are too many.
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| SpanError::TooLong)?,
    };
    let mut sum = whole.checked_mul(unit).ok_or(SpanError::TooLong)?;
    let mut place = unit;
    for digit in fraction.chars().filter_map(|it| it.to_digit(10)) {
        place /= 10;
        sum = sum.checked_add(place * u64::from(digit)).ok_or(SpanError::TooLong)?;
    }
    Ok(sum)
}
