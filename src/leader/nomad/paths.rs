//! Where the variables of a stream are.

/// What Nomad allows.
const LONGEST: usize = 128;
/// The longest of what we add to the prefix and the stream.
const LONGEST_SUFFIX: usize = "/cursor/a/00".len();

/// The paths of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) prefix: String,
    pub(super) lock: String,
    pub(super) cursor: String,
    tails: String,
}

/// One of two places for what does not fit the variable of the checkpoint. The one that it does
/// not name is free to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    A,
    B,
}

impl Place {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::A, Self::B].into_iter().find(|it| it.name() == name)
    }
}

impl Paths {
    /// The paths below a prefix, or why Nomad would take none of them.
    pub(super) fn new(prefix: &str, stream: &str) -> Result<Self, String> {
        let prefix = prefix.trim_matches('/');
        let allowed = |it: char| it.is_ascii_alphanumeric() || "-_~/".contains(it);
        let parts: Vec<&str> = prefix.split('/').collect();
        if !prefix.chars().all(allowed) || parts.contains(&"") {
            return Err(format!(
                "`{prefix}` is not a path of variables: these have letters, digits, `-`, `_`, `~`, \
                 and `/` between them"
            ));
        }
        if parts[0] == "nomad" && parts.get(1) != Some(&"jobs") {
            let what = "of what begins with `nomad/`, Nomad gives only `nomad/jobs` and below away";
            return Err(format!("`{prefix}`: {what}"));
        }
        let base = format!("{prefix}/{stream}");
        if base.len() + LONGEST_SUFFIX > LONGEST {
            let most = LONGEST - LONGEST_SUFFIX - stream.len() - 1;
            return Err(format!("has {} characters, and {most} is the limit", prefix.len()));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            lock: format!("{base}/lock"),
            cursor: format!("{base}/cursor"),
            tails: format!("{base}/tails"),
        })
    }

    /// Where a shard of tails is.
    pub(super) fn shard(&self, number: u32) -> String {
        format!("{}/{number}", self.tails)
    }

    /// Where a part of a head is that does not fit its own variable.
    pub(super) fn part(&self, place: Place, number: usize) -> String {
        format!("{}/{}/{number}", self.cursor, place.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_nomad_would_not_take_is_refused() {
        for prefix in ["", "/", "a b", "a//b", "a.b", "ü", "nomad", "nomad/sentinel", "nomad/x"] {
            assert!(Paths::new(prefix, "nodes").is_err(), "{prefix}");
        }
        for prefix in ["a", "/team/fire~hose_1-x/", "nomad/jobs/firehose", "nomads"] {
            assert!(Paths::new(prefix, "nodes").is_ok(), "{prefix}");
        }
    }

    #[test]
    fn the_longest_path_of_the_longest_prefix_is_as_long_as_nomad_allows() {
        let most = LONGEST - LONGEST_SUFFIX - "allocations".len() - 1;
        let paths = Paths::new(&"p".repeat(most), "allocations").unwrap();
        assert!(Paths::new(&"p".repeat(most + 1), "allocations").is_err());
        assert_eq!(paths.part(Place::B, 99).len(), LONGEST);
        assert!(paths.shard(4_095).len() <= LONGEST && paths.lock.len() <= LONGEST);
    }
}
