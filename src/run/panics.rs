//! What becomes of a process with a defect.

use std::{panic, process};

/// From now on a panic ends the process, in whatever thread it is: what is left of one would hold
/// the lock and publish nothing. What the panic says is not shown, since it can hold a part of a
/// payload or of a secret; where it was is enough to find it.
pub fn end_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            at,
            "a defect in this program ends it; report it with this line. Nothing is lost: what was \
             not confirmed is published again"
        );
        process::abort();
    }));
}
