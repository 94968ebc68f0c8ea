//! `--dry-run`: everything to standard output, from wherever a first start begins. No lock is
//! taken, no checkpoint read or kept, and nothing written anywhere.

use std::{
    error::Error,
    io::{self, ErrorKind},
};

/// Whether the reader of standard output has gone: it has seen enough.
pub(super) fn reader_is_gone(err: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(err);
    while let Some(err) = cause {
        if err.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == ErrorKind::BrokenPipe) {
            return true;
        }
        cause = err.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::Fatal;

    #[test]
    fn only_a_reader_that_has_gone_is_no_failure() {
        let fatal = |kind: ErrorKind| Fatal::Sink(io::Error::from(kind).into());
        assert!(reader_is_gone(&fatal(ErrorKind::BrokenPipe)));
        assert!(!reader_is_gone(&fatal(ErrorKind::StorageFull)));
    }
}
