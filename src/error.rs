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
}
