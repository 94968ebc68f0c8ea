//! Where a state of an object was seen, which the hash of a state tells, since states of one object
//! at one index are compared.

/// Where a state was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In a list that has a short form of the object. It can be compared with the like only.
    Stub,
    /// In a list that has the whole object.
    Listed,
    /// In an event, which has the whole object.
    Event,
}

const BITS: u64 = 0b11;

impl Form {
    /// A hash that tells the form.
    #[must_use]
    pub fn mark(self, hash: u64) -> u64 {
        let bits = match self {
            Self::Stub => 0,
            Self::Listed => 1,
            Self::Event => 2,
        };
        (hash & !BITS) | bits
    }

    /// The form that a hash tells.
    #[must_use]
    pub fn of(hash: u64) -> Self {
        match hash & BITS {
            0 => Self::Stub,
            2 => Self::Event,
            _ => Self::Listed,
        }
    }

    /// Whether two forms can be compared.
    #[must_use]
    pub fn is_like(self, other: Self) -> bool {
        (self == Self::Stub) == (other == Self::Stub)
    }
}

/// Whether two hashes are of the same state.
#[must_use]
pub fn same(one: u64, other: u64) -> bool {
    one & !BITS == other & !BITS && Form::of(one).is_like(Form::of(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_the_same_in_a_list_and_in_an_event_but_not_in_a_stub() {
        let [stub, listed, event] =
            [Form::Stub, Form::Listed, Form::Event].map(|it| it.mark(0xabcd));
        assert!(same(listed, event) && same(stub, stub));
        assert!(!same(stub, event) && !same(stub, listed));
        assert!(!same(event, Form::Event.mark(0xabc0)));
        assert_eq!([stub, listed, event].map(Form::of), [Form::Stub, Form::Listed, Form::Event]);
    }
}
