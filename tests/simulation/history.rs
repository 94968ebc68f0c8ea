//! Histories: what is changed, and what goes wrong meanwhile.

use std::time::Duration;

use nomad_firehose::{
    failpoint::{Fate, Point},
    record::Limits,
    watch::Source,
};
use proptest::prelude::*;

use super::{link::Loss, sink::Fault, subject::OBJECTS};
use crate::support::{NomadFault, StreamFault, nomad_faults, stream_faults};

/// What happens next. Copies are named by a number that is taken modulo how many there are.
#[derive(Clone, Debug)]
pub enum Step {
    /// These objects change at one index; whether by a clock that has stepped back.
    Change(Vec<u8>, bool),
    /// An object changes again at the index of the last change.
    Again(u8),
    /// An object changes so often, at as many indexes, before anybody can look.
    Burst(u8, u8),
    /// So many milliseconds go by.
    Wait(u16),
    Nomad(NomadFault),
    Stream(StreamFault),
    Sink(Fault),
    /// A copy meets its fate at a point that it has passed so often.
    Meet(u8, Point, u8, Fate),
    /// A copy is killed, and another is started.
    Kill(u8),
    /// A copy is stopped, and another is started.
    Stop(u8),
    /// A copy does not run for so many seconds.
    Suspend(u8, u8),
    /// The way to a server is cut for so many seconds.
    Cut(u8, Server, u8),
    /// Everything on the way to Consul takes so many milliseconds, for as many seconds.
    Delay(u8, u8),
    /// The next request of this kind goes wrong.
    Lose(u8, Kind, Loss),
    /// Consul has another leader, and all connections to it break off.
    Restart,
    /// The session of the holder ends, or its lock is removed or written over.
    Expire,
    Unlock,
    Overwrite,
    /// A part of the checkpoint is written over.
    Damage(Part),
    /// The state of Nomad is kept, and Nomad is set back to it.
    Snapshot,
    SetBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Nomad,
    Consul,
}

/// A kind of request.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Transaction,
    Read,
    Write,
    Create,
    Renew,
    End,
    Nomad,
}

#[derive(Clone, Copy, Debug)]
pub enum Part {
    Head,
    Shard,
}

/// What a simulation plays.
#[derive(Clone, Debug)]
pub struct History {
    pub copies: u8,
    pub changes: Source,
    pub limits: Limits,
    pub latency: Duration,
    /// Whether a filter leaves out some of the states; see [`super::subject::left_out`].
    pub filters: bool,
    pub steps: Vec<Step>,
}

/// Everything may happen in a history, but for what makes later checks impossible: that is left out
/// of most.
pub fn histories() -> impl Strategy<Value = History> {
    let rest =
        prop_oneof![4 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))];
    let latency = prop_oneof![Just(0), Just(5), Just(300)].prop_map(Duration::from_millis);
    let steps = proptest::collection::vec(steps(), 1..40);
    let filters = proptest::bool::weighted(if cfg!(feature = "filter") { 0.3 } else { 0.0 });
    (1..4_u8, sources(), limits(), latency, steps, rest, filters).prop_map(
        |(copies, changes, limits, latency, mut steps, (sets_back, damages), filters)| {
            steps.retain(|it| match it {
                Step::SetBack => sets_back,
                Step::Damage(_) => damages,
                _ => true,
            });
            History { copies, changes, limits, latency, filters, steps }
        },
    )
}

fn sources() -> impl Strategy<Value = Source> {
    prop_oneof![2 => Just(Source::Poll), 3 => Just(Source::Auto), 1 => Just(Source::Events)]
}

fn limits() -> impl Strategy<Value = Limits> {
    let records = prop_oneof![1..5_usize, Just(Limits::default().records)];
    let calls = prop_oneof![Just(1_usize), 2..5_usize];
    (records, calls, any::<bool>()).prop_map(|(records, calls, one_per_key)| Limits {
        records,
        calls,
        one_per_key,
        ..Limits::default()
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let objects = proptest::collection::vec(0..OBJECTS, 1..4);
    let copy = || 0..4_u8;
    let seconds = || 1..40_u8;
    let changes = prop_oneof![
        8 => (objects, proptest::bool::weighted(0.1)).prop_map(|(it, early)| Step::Change(it, early)),
        1 => (0..OBJECTS).prop_map(Step::Again),
        1 => (0..OBJECTS, 2..16_u8).prop_map(|(it, times)| Step::Burst(it, times)),
    ];
    let waits = prop_oneof![
        (0..1_500_u16).prop_map(Step::Wait),
        (0..15_000_u16).prop_map(Step::Wait),
        (0..40_000_u16).prop_map(Step::Wait),
    ];
    let servers = prop_oneof![
        2 => nomad_faults().prop_map(Step::Nomad),
        3 => stream_faults().prop_map(Step::Stream),
        1 => Just(Step::Restart),
        1 => Just(Step::Snapshot),
        1 => Just(Step::SetBack),
    ];
    let processes = prop_oneof![
        6 => (copy(), points(), 0..3_u8, fates()).prop_map(|(it, at, after, fate)| Step::Meet(it, at, after, fate)),
        1 => copy().prop_map(Step::Kill),
        2 => copy().prop_map(Step::Stop),
        2 => (copy(), seconds()).prop_map(|(it, seconds)| Step::Suspend(it, seconds)),
    ];
    let networks = prop_oneof![
        2 => (copy(), seconds()).prop_map(|(it, seconds)| Step::Cut(it, Server::Consul, seconds)),
        1 => (copy(), seconds()).prop_map(|(it, seconds)| Step::Cut(it, Server::Nomad, seconds)),
        1 => (copy(), seconds()).prop_map(|(it, by)| Step::Delay(it, by)),
        4 => (copy(), kinds(), losses()).prop_map(|(it, kind, loss)| Step::Lose(it, kind, loss)),
    ];
    let locks = prop_oneof![
        2 => Just(Step::Expire),
        1 => Just(Step::Unlock),
        1 => Just(Step::Overwrite),
        2 => prop_oneof![Just(Part::Head), Just(Part::Shard)].prop_map(Step::Damage),
    ];
    prop_oneof![
        7 => changes,
        5 => waits,
        2 => servers,
        2 => sink_faults().prop_map(Step::Sink),
        3 => processes,
        2 => networks,
        1 => locks,
    ]
}

fn points() -> impl Strategy<Value = Point> {
    proptest::sample::select(Point::ALL)
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![Just(Fate::Crash), Just(Fate::CrashAfter), Just(Fate::LoseAnswer)]
}

fn kinds() -> impl Strategy<Value = Kind> {
    proptest::sample::select(&[
        Kind::Transaction,
        Kind::Read,
        Kind::Write,
        Kind::Create,
        Kind::Renew,
        Kind::End,
        Kind::Nomad,
    ])
}

fn losses() -> impl Strategy<Value = Loss> {
    prop_oneof![Just(Loss::Request), Just(Loss::Answer), (1..20_u8).prop_map(Loss::Late)]
}

fn sink_faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => Just(Fault::LoseFirst),
        2 => (0..3_u8).prop_map(Fault::Lose),
        1 => Just(Fault::RefuseFirst),
        2 => (0..OBJECTS, 1..5_u8).prop_map(|(it, calls)| Fault::FailObject(it, calls)),
        2 => Just(Fault::FailAfter),
        2 => (1..12_u8).prop_map(Fault::Slow),
        2 => Just(Fault::Away),
    ]
}
