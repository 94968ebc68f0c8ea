//! Named points between the steps that a process takes, at which a test can stop it for good, or
//! lose the answer to a request. Without the feature `demo` they are nothing.

#[cfg(feature = "demo")]
mod process;

#[cfg(feature = "demo")]
pub use process::{Fate, Lost, Plan, Process, around, chance, inherit, reach, run};

macro_rules! points {
    (
        requests: $(#[doc = $request_about:literal] $Request:ident,)+
        steps: $(#[doc = $about:literal] $Step:ident,)+
    ) => {
        /// A point on the way from an election to a checkpoint, and back to where no lock is held.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $(#[doc = $request_about] $Request,)+
            $(#[doc = $about] $Step,)+
        }

        impl Point {
            /// Every point.
            pub const ALL: &[Self] = &[$(Self::$Request,)+ $(Self::$Step,)+];

            /// Whether it is a request, which may be carried out while its answer is lost.
            #[must_use]
            pub fn is_request(self) -> bool {
                matches!(self, $(Self::$Request)|+)
            }
        }
    };
}

points! {
    requests:
    /// Elect: create a session.
    CreateSession,
    /// Elect: read the session back.
    ReadSession,
    /// Elect: read who has the lock.
    ReadLock,
    /// Elect: take the lock.
    AcquireLock,
    /// Hold: renew the session.
    RenewSession,
    /// Hold: read whether the lock is still ours.
    WatchLock,
    /// Take up: read the head of the checkpoint.
    LoadHead,
    /// Take up: read the Go tool's value.
    LoadValue,
    /// Take up: read a shard of tails.
    LoadShard,
    /// Read: ask for a list.
    ReadList,
    /// Read: ask for an object by id.
    ReadObject,
    /// Publish: a call to the sink.
    Deliver,
    /// Publish: write a dead letter.
    DeadLetter,
    /// Save: write a shard of tails.
    SaveShard,
    /// Save: write the head and the value.
    SaveHead,
    /// Save: read a part that somebody else wrote.
    Reread,
    /// Resign: release the lock.
    ReleaseLock,
    /// Resign: end the session.
    EndSession,
    steps:
    /// Elect: the lock is ours.
    Elected,
    /// Read: Nomad was set back, and so is the floor.
    Regress,
    /// Read: a whole list moves the floor.
    MoveFloor,
    /// Read: a batch is handed over.
    HandOver,
    /// Publish: a batch has arrived.
    TakeBatch,
    /// Publish: a call to the sink is about to be made.
    Call,
    /// Publish: a call is answered, and the cursor does not know it.
    Settle,
    /// Publish: the cursor knows it.
    Settled,
    /// Publish: records are to be sent again.
    Retry,
    /// Publish: a record is about to be given up.
    GiveUp,
    /// Save: a checkpoint is due.
    Save,
    /// Save: it is saved, and nobody here knows it.
    Saved,
    /// Save: the last of a term is due.
    SaveLast,
}

/// The process gets to a point.
#[cfg(not(feature = "demo"))]
#[expect(clippy::unused_async, reason = "with the feature `demo` it may wait for ever")]
pub async fn reach(_: Point) {}

/// The process makes a request.
#[cfg(not(feature = "demo"))]
pub async fn around<T>(_: Point, request: impl Future<Output = T>) -> T {
    request.await
}

/// A task of the process that starts it.
#[cfg(not(feature = "demo"))]
pub fn inherit<T>(work: T) -> T {
    work
}

/// A number from 0 to 1 that is drawn for the process, where it has numbers of its own.
#[cfg(not(feature = "demo"))]
pub fn chance() -> Option<f64> {
    None
}
