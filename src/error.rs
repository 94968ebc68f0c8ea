//! Printing errors. `Display` of an error never includes its source; [`Chain`] does.

use std::{error::Error, fmt};

/// An error and its causes on one line, outermost first.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

/// A cause of any type.
pub type BoxError = Box<dyn Error + Send + Sync>;

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(err) = cause {
            // Some libraries repeat their cause in their own text.
            let text = err.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            cause = err.source();
        }
        Ok(())
    }
}

/// What others have named can be of any length, and of any lines.
const MAX_SHOWN: usize = 500;

/// The beginning of a text that came from elsewhere, on one line.
#[must_use]
pub fn brief(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        match c {
            _ if at == MAX_SHOWN => {
                shown.push('…');
                break;
            }
            c if c.is_control() => shown.extend(c.escape_debug()),
            c => shown.push(c),
        }
    }
    shown
}

/// What is wrong with a JSON document, without the value that is: that could be a payload, and of
/// any length.
#[must_use]
pub fn without_values(err: &serde_json::Error) -> String {
    let text = err.to_string();
    for kind in ["invalid type: ", "invalid value: "] {
        let Some(found) = text.strip_prefix(kind) else { continue };
        let end = found.find(['"', '`', ',']).unwrap_or(found.len());
        let wanted = found.rfind(", expected ").unwrap_or(found.len());
        return format!("{kind}{}{}", found[..end].trim_end(), &found[wanted..]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot move the checkpoint")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_chain_names_every_cause_once() {
        let err = Outer(std::io::Error::other("no space left"));
        assert_eq!(Chain(&err).to_string(), "cannot move the checkpoint: no space left");
    }

    #[test]
    fn a_text_from_elsewhere_is_one_short_line() {
        assert_eq!(brief("a \"job\"\n"), "a \"job\"\\n");
        assert_eq!(brief(&"x".repeat(1 << 20)).chars().count(), MAX_SHOWN + 1);
    }

    #[test]
    fn a_value_that_is_not_of_its_type_is_not_shown() {
        let said = |text: &str| without_values(&serde_json::from_str::<u64>(text).unwrap_err());
        assert_eq!(
            said("\"a, expected b\""),
            "invalid type: string, expected u64 at line 1 column 15"
        );
        assert_eq!(said("-5"), "invalid value: integer, expected u64 at line 1 column 2");
        assert_eq!(said("{"), "invalid type: map, expected u64 at line 1 column 0");
        assert_eq!(said("x"), "expected value at line 1 column 1");
    }
}
