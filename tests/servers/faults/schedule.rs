//! What goes wrong when, and with whom: the same for the same seed.

use std::{fmt, time::Duration};

use super::{issuer::Kind, random::Random};
use crate::sinks::proxy::Way;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and another copy is started.
    Killed,
    /// SIGSTOP, and SIGCONT after this time.
    Suspended(Duration),
    /// SIGTERM, and another copy is started.
    Stopped,
    ConsulRestarted,
    /// What a copy has for Consul is a proxy, which does this for this time.
    ConsulUnreachable(Way, Duration),
    SessionDestroyed,
    LockDeleted,
    /// A plain write to the lock, which resets its flags.
    LockOverwritten,
    /// The session is destroyed, and `.cursor` replaced before anybody can be elected.
    CursorCorrupted,
    BrokerRestarted,
    /// RabbitMQ is killed, and started again after this time.
    BrokerAway(Duration),
    /// Nomad is behind a proxy, too.
    NomadAway(Way, Duration),
    /// The next list ends in the middle, and the event stream is cut.
    NomadCut,
    /// Nomad is set back.
    Restored,
    ClockSteppedBack,
    /// Many task events of one allocation at once.
    Burst,
}

/// Of which copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Holder,
    /// One that stands by, by its place among them.
    Standby(usize),
    Servers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// After the beginning of its slot.
    pub at: Duration,
    pub fault: Fault,
    pub target: Target,
}

/// Faults in two lanes: one happens to the copies and Consul, the other to Nomad and RabbitMQ.
/// Each lane goes on when what went wrong is right again, and a slot begins when all that was
/// issued in the one before is delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub copies: Vec<Step>,
    pub servers: Vec<Step>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub slots: Vec<Slot>,
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Beyond twice the TTL: Consul has ended the session by then.
const LONG: Duration = s(22);
/// Beyond what is left of a lease, so that the holder has to stop by itself.
const CUT: Duration = s(12);
/// Beyond every wait between attempts; only where there is time for it.
const VERY_LONG: Duration = s(150);
const BRIEF: Duration = s(4);
/// A lock is lost, noticed, and taken again.
const APART: Duration = s(4);

impl Fault {
    /// Its name, whatever its figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Killed => "kill -9",
            Self::Suspended(_) => "SIGSTOP beyond the TTL",
            Self::Stopped => "SIGTERM",
            Self::ConsulRestarted => "Consul restarted",
            Self::ConsulUnreachable(Way::Cut, _) => "Consul cut off",
            Self::ConsulUnreachable(Way::Slow, _) => "Consul slow",
            Self::ConsulUnreachable(Way::HalfClosed, _) => "Consul half-closed",
            Self::ConsulUnreachable(..) => "Consul silent",
            Self::SessionDestroyed => "session destroyed",
            Self::LockDeleted => "lock deleted",
            Self::LockOverwritten => "lock overwritten",
            Self::CursorCorrupted => "checkpoint corrupted",
            Self::BrokerRestarted => "RabbitMQ restarted",
            Self::BrokerAway(_) => "RabbitMQ away",
            Self::NomadAway(Way::Slow, _) => "Nomad slow",
            Self::NomadAway(..) => "Nomad away",
            Self::NomadCut => "Nomad cut within a list",
            Self::Restored => "Nomad set back",
            Self::ClockSteppedBack => "clock stepped back",
            Self::Burst => "burst of task events",
        }
    }
}

/// Every kind, for those who ask whether all of them occurred.
pub fn every_kind() -> Vec<Fault> {
    use Fault::{
        BrokerAway, BrokerRestarted, Burst, ClockSteppedBack, ConsulRestarted, ConsulUnreachable,
        CursorCorrupted, Killed, LockDeleted, LockOverwritten, NomadAway, NomadCut, Restored,
        SessionDestroyed, Stopped, Suspended,
    };
    vec![
        Killed,
        Suspended(LONG),
        Stopped,
        ConsulRestarted,
        ConsulUnreachable(Way::Cut, CUT),
        ConsulUnreachable(Way::Held, CUT),
        ConsulUnreachable(Way::Slow, BRIEF),
        ConsulUnreachable(Way::HalfClosed, BRIEF),
        SessionDestroyed,
        LockDeleted,
        LockOverwritten,
        CursorCorrupted,
        BrokerRestarted,
        BrokerAway(LONG),
        NomadAway(Way::Cut, BRIEF),
        NomadAway(Way::Slow, BRIEF),
        NomadCut,
        Restored,
        ClockSteppedBack,
        Burst,
    ]
}

/// Makes slots.
struct Maker {
    random: Random,
    kind: Kind,
}

impl Maker {
    /// One after the other, so far apart.
    fn lane(&mut self, mut faults: Vec<(Fault, Target)>, apart: Duration) -> Vec<Step> {
        self.random.shuffle(&mut faults);
        let mut at = Duration::from_millis(self.random.number() % 1_000);
        let mut steps = Vec::new();
        for (fault, target) in faults {
            steps.push(Step { at, fault, target });
            at += apart + Duration::from_millis(self.random.number() % 1_000);
        }
        steps
    }

    fn copies(&mut self, faults: &[Fault], target: Target) -> Vec<Step> {
        self.lane(faults.iter().map(|it| (*it, target)).collect(), APART)
    }

    fn servers(&mut self, faults: &[Fault]) -> Vec<Step> {
        let events = self.kind == Kind::TaskEvents;
        let own = |it: &&Fault| events || !matches!(it, Fault::Burst | Fault::ClockSteppedBack);
        self.lane(faults.iter().filter(own).map(|it| (*it, Target::Servers)).collect(), s(1))
    }

    /// The slots of which every kind of fault is in one; `way` is how Consul is out of reach for
    /// long.
    fn all(&mut self, way: Way) -> Vec<Slot> {
        use Fault::{
            BrokerAway, BrokerRestarted, Burst, ClockSteppedBack, ConsulRestarted,
            ConsulUnreachable, CursorCorrupted, Killed, LockDeleted, LockOverwritten, NomadAway,
            NomadCut, Restored, SessionDestroyed, Stopped, Suspended,
        };
        let holder = Target::Holder;
        let brief =
            [ConsulUnreachable(Way::Slow, BRIEF), ConsulUnreachable(Way::HalfClosed, BRIEF)];
        let mut slots = vec![
            // Takeovers are measured while nothing else goes wrong.
            Slot { copies: self.copies(&[Killed], holder), ..Slot::default() },
            Slot { copies: self.copies(&[Stopped, Stopped], holder), ..Slot::default() },
            Slot {
                copies: self.copies(&[Suspended(LONG)], holder),
                servers: self.servers(&[Burst, ClockSteppedBack, NomadCut]),
            },
            Slot {
                copies: self.copies(&[SessionDestroyed, LockDeleted, LockOverwritten], holder),
                servers: self.servers(&[NomadAway(Way::Cut, BRIEF), NomadAway(Way::Slow, BRIEF)]),
            },
            Slot {
                copies: self.copies(&[ConsulRestarted, CursorCorrupted, SessionDestroyed], holder),
                servers: self.servers(&[BrokerAway(LONG)]),
            },
            Slot {
                copies: self.copies(&[ConsulUnreachable(way, CUT)], holder),
                servers: self.servers(&[BrokerRestarted, Burst]),
            },
            Slot { copies: self.copies(&brief, holder), servers: self.servers(&[NomadCut]) },
            // Nomad being set back is noticed by a copy that knows how it was before, so this one
            // does not coincide with the end of a term.
            Slot { servers: self.servers(&[Restored]), ..Slot::default() },
        ];
        self.random.shuffle(&mut slots);
        slots
    }

    /// A slot with anything in it.
    fn any(&mut self) -> Slot {
        let every = every_kind();
        let mut slot = Slot::default();
        for _ in 0..1 + self.random.below(4) {
            let fault = match every[self.random.below(every.len())] {
                Fault::BrokerAway(_) if self.random.below(3) == 0 => Fault::BrokerAway(VERY_LONG),
                other => other,
            };
            let target = match self.random.below(4) {
                0 => Target::Standby(self.random.below(2)),
                _ => Target::Holder,
            };
            let copies = self.copies(&[fault], target);
            let of_servers = matches!(
                fault,
                Fault::BrokerRestarted
                    | Fault::BrokerAway(_)
                    | Fault::NomadAway(..)
                    | Fault::NomadCut
                    | Fault::Restored
                    | Fault::ClockSteppedBack
                    | Fault::Burst
            );
            match fault {
                Fault::Restored => {
                    return Slot { servers: self.servers(&[fault]), ..Slot::default() };
                }
                _ if of_servers => slot.servers.extend(self.servers(&[fault])),
                _ => slot.copies.extend(copies),
            }
        }
        slot
    }
}

impl Schedule {
    /// Every kind of fault that makes sense for the stream, at least once.
    pub fn of(kind: Kind, seed: u64) -> Self {
        let mut maker = Maker { random: Random::new(seed), kind };
        let way = match kind {
            Kind::TaskEvents => Way::Cut,
            Kind::Evaluations => Way::Held,
        };
        Self { seed, slots: maker.all(way) }
    }

    /// The same, and then so many slots with anything in them.
    pub fn longer(kind: Kind, seed: u64, slots: usize) -> Self {
        let mut maker = Maker { random: Random::new(seed ^ 1), kind };
        let mut schedule = Self::of(kind, seed);
        schedule.slots.extend((0..slots).map(|_| maker.any()));
        schedule
    }

    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        let all = |it: &Slot| it.copies.iter().chain(&it.servers).map(|it| it.fault).collect();
        self.slots.iter().flat_map(move |it| -> Vec<Fault> { all(it) })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the schedule of seed {}:", self.seed)?;
        for (number, slot) in self.slots.iter().enumerate() {
            for Step { at, fault, target } in slot.copies.iter().chain(&slot.servers) {
                writeln!(f, "  slot {number}, after {at:.1?}: {fault:?} of {target:?}")?;
            }
        }
        Ok(())
    }
}
