//! What can go wrong with Nomad, and histories of it.

use nomad_firehose::standin::{Fault, nomad::Nomad};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
pub enum NomadFault {
    Cut(u8),
    Error,
    Hang,
    NoIndex,
    Dying,
    /// An object is not found, as far as it is read by id.
    Missing,
}

#[derive(Clone, Copy, Debug)]
pub enum StreamFault {
    /// The server closes it.
    Close,
    /// The server starts anew, and shows so many old commits again.
    Restart(u8),
    /// So many commits are passed over.
    Skip(u8),
    /// Heartbeats only, from now on or no longer.
    Mute(bool),
    /// Nothing at all, from now on or no longer.
    Stall(bool),
    /// The next subscription is to a server that is behind by so much.
    Behind(u8),
    /// What is behind catches up.
    CatchUp,
    /// A line that is none.
    Text,
    /// The last commit is shown again.
    Repeat,
    /// So many commits are kept.
    Buffer(u8),
    /// It comes in pieces of so many bytes.
    Split(u8),
}

pub fn stream_faults() -> impl Strategy<Value = StreamFault> {
    prop_oneof![
        3 => Just(StreamFault::Close),
        1 => (0u8..6).prop_map(StreamFault::Restart),
        2 => (1u8..4).prop_map(StreamFault::Skip),
        1 => any::<bool>().prop_map(StreamFault::Mute),
        1 => any::<bool>().prop_map(StreamFault::Stall),
        1 => (0u8..5).prop_map(StreamFault::Behind),
        1 => Just(StreamFault::CatchUp),
        1 => Just(StreamFault::Text),
        1 => Just(StreamFault::Repeat),
        1 => (1u8..8).prop_map(StreamFault::Buffer),
        1 => (1u8..255).prop_map(StreamFault::Split),
    ]
}

pub fn nomad_faults() -> impl Strategy<Value = NomadFault> {
    prop_oneof![
        any::<u8>().prop_map(NomadFault::Cut),
        Just(NomadFault::Error),
        Just(NomadFault::Hang),
        Just(NomadFault::NoIndex),
        Just(NomadFault::Dying),
        Just(NomadFault::Missing),
    ]
}

/// Does something to a request that comes.
pub fn fail(nomad: &Nomad, fault: NomadFault) {
    let (path, fault) = match fault {
        NomadFault::Cut(bytes) => ("/v1/", Fault::CutBody { after_bytes: bytes.into() }),
        NomadFault::Error => ("/v1/", Fault::status(500, "No cluster leader")),
        NomadFault::Hang => ("/v1/", Fault::Hang),
        NomadFault::NoIndex => ("/v1/", Fault::NoIndex),
        NomadFault::Dying => ("/v1/", Fault::EmptyDying),
        NomadFault::Missing => ("/v1/job/", Fault::status(404, "job not found")),
    };
    nomad.script(path, fault);
}

/// Does something to the event stream; where lists are polled, nothing comes of it.
pub fn disturb(nomad: &Nomad, fault: StreamFault) {
    match fault {
        StreamFault::Close => nomad.close_subscriptions(),
        StreamFault::Restart(replayed) => nomad.restart_broker(replayed.into()),
        StreamFault::Skip(commits) => nomad.skip_events(commits.into()),
        StreamFault::Mute(on) => nomad.mute_events(on),
        StreamFault::Stall(on) => nomad.stall_events(on),
        StreamFault::Behind(by) => {
            nomad.follow_events(Some(nomad.index().saturating_sub(by.into())));
            nomad.close_subscriptions();
        }
        StreamFault::CatchUp => nomad.follow_events(None),
        StreamFault::Text => nomad.send_event_text("subscription closed by server\n"),
        StreamFault::Repeat => nomad.repeat_event(nomad.index()),
        StreamFault::Buffer(commits) => nomad.set_event_buffer(commits.into()),
        StreamFault::Split(bytes) => nomad.split_events(bytes.into()),
    }
}
