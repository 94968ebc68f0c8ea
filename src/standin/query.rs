//! What a request asks: its parameters, and how long it is ready to wait.

use std::time::Duration;

use axum::{
    extract::Query,
    http::{HeaderMap, StatusCode, Uri, header},
    response::Response,
};

use super::answer;

/// The query of a request, decoded.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(uri: &Uri) -> Self {
        Self(Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default())
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a parameter that may be repeated.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A number; 0 where it is absent.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            None | Some("") => Some(0),
            Some(value) => value.parse().ok(),
        }
    }
}

/// How a blocking read blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocking {
    /// Block until the index of the answer is above this one; 0 does not block.
    pub(super) index: u64,
    pub(super) wait: Duration,
}

impl Blocking {
    /// Reads `index` and `wait`, or gives the answer to bad ones. A wait of nothing is the default one, and one above
    /// the longest is cut silently.
    pub(super) fn of(
        params: &Params,
        default: Duration,
        longest: Duration,
    ) -> Result<Self, Box<Response>> {
        let bad = |what| Box::new(answer::text(StatusCode::BAD_REQUEST, what));
        let wait = match params.get("wait") {
            None | Some("") => Duration::ZERO,
            Some(text) => go_duration(text).ok_or_else(|| bad("Invalid wait time"))?,
        };
        let index = params.number("index").ok_or_else(|| bad("Invalid index"))?;
        Ok(Self { index, wait: if wait.is_zero() { default } else { wait.min(longest) } })
    }
}

/// The token of a request: the server's own header, or a bearer token where the server knows that.
pub(super) fn token<'a>(headers: &'a HeaderMap, own: &str, bearer: bool) -> Option<&'a str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let given = text(own).or_else(|| {
        let value = text(header::AUTHORIZATION.as_str()).filter(|_| bearer)?;
        value.strip_prefix("Bearer ")
    });
    given.map(str::trim).filter(|token| !token.is_empty())
}

/// A duration as Go writes it (`300000ms`, `1m30s`); negative ones are zero, as nothing here tells them apart.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    Some(if negative { Duration::ZERO } else { total })
}

/// A part of a path without its `%` escapes.
pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = text.as_bytes().iter();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        let escaped = match (byte, rest) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                decoded.push(high * 16 + low);
                bytes.nth(1);
            }
            None => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(go_duration("300000ms"), Some(Duration::from_secs(300)));
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(go_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(go_duration("0s"), Some(Duration::ZERO));
        assert_eq!(go_duration("-5s"), Some(Duration::ZERO));
        for bad in ["", "abc", "5", "5x", "-", "s"] {
            assert_eq!(go_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_escaped_slash_is_part_of_an_id() {
        assert_eq!(percent_decode("team%2Fapp-%C3%BCml%c3%a4ut"), "team/app-ümläut");
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz"), "%zz");
    }
}
