//! Processes, servers and a receiver in one runtime with a paused clock: several copies of the
//! firehose, each with a network of its own, are stopped, cut off, kept from running and robbed of
//! answers, at points that a seed chooses. What must hold is checked at every call to the sink and
//! at every write of a checkpoint.

mod copy;
mod found;
mod history;
mod ledger;
mod link;
mod play;
mod points;
mod properties;
mod sink;
mod subject;
