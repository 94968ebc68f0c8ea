//! What becomes of a process with a defect.

use std::{panic, process, thread, time::Duration};

/// The log may be a pipe that nobody reads; the process ends all the same.
const LOG_LIMIT: Duration = Duration::from_secs(1);

/// From now on a panic ends the process, in whatever thread it is: what is left of one would hold
/// the lock and publish nothing. What the panic says is not shown, since it can hold a part of a
/// payload or of a secret; where it was is enough to find it.
pub fn end_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let _ = thread::Builder::new().spawn(|| {
            thread::sleep(LOG_LIMIT);
            process::abort();
        });
        if tracing::dispatcher::has_been_set() {
            tracing::error!(
                at,
                "a defect in this program ends it; report it with this line. Nothing is lost: what \
                 was not confirmed is published again"
            );
        } else {
            eprintln!("a defect in this program ends it; report it with this line: {at}");
        }
        process::abort();
    }));
}
