//! What a refusal of Redis means.

use std::fmt;

use crate::{error::brief, sink::Again};

/// Where Redis repeats what it was sent.
const ECHO: &str = ", with args beginning with";

/// What Redis has answered instead of doing what it was asked: a code, and a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) struct Refusal {
    code: String,
    text: String,
}

/// What becomes of what was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A value is larger than Redis takes any.
    TooLarge,
    /// The same node may take it later.
    Later(Again),
    /// It is to be tried on another connection: another node has the key, or other credentials
    /// have to be used.
    Elsewhere(Again),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.code, self.text, self.meaning().1)
    }
}

impl Refusal {
    /// Reads the line that it is. What is shown of it has nothing in it that was sent.
    pub(super) fn read(line: &str) -> Self {
        let (code, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = text.split(ECHO).next().unwrap_or_default();
        Self { code: brief(code), text: brief(text.trim_end_matches('.')) }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// The node that has the key instead, as `host` and `port`. The host is empty where it is that
    /// of the node that says so.
    pub(super) fn moved(&self) -> Option<(&str, u16)> {
        let (_slot, node) = self.text.split_once(' ').filter(|_| self.is("MOVED"))?;
        let (host, port) = node.rsplit_once(':')?;
        Some((host.trim_matches(['[', ']']), port.parse().ok()?))
    }

    /// What it means, and what the operator can do.
    pub(super) fn meaning(&self) -> (Meaning, &'static str) {
        use Again::{Seldom, Soon};
        use Meaning::{Elsewhere, Later, TooLarge};
        let says = |text: &str| self.text.contains(text);
        match self.code.as_str() {
            "NOAUTH" | "WRONGPASS" => (Elsewhere(Seldom), WHO),
            "NOPERM" => (Elsewhere(Seldom), RIGHTS),
            "WRONGTYPE" => (
                Later(Seldom),
                "; the key holds another type: check SINK_REDIS_KEY and SINK_REDIS_MODE",
            ),
            "DENIED" => (
                Elsewhere(Seldom),
                "; set a password in Redis and in SINK_REDIS_URL, or turn its protected mode off",
            ),
            "OOM" => (Later(Soon), "; read or trim what is there, or raise Redis's maxmemory"),
            "MISCONF" => (Later(Soon), "; Redis cannot write to its disk: make room there"),
            "NOREPLICAS" => {
                (Later(Soon), "; start the replicas, or lower Redis's min-replicas-to-write")
            }
            "LOADING" => (Elsewhere(Soon), "; Redis is starting, and takes writes once it has"),
            "READONLY" => (
                Elsewhere(Soon),
                "; this is a replica: name the master in SINK_REDIS_URL, or the sentinels",
            ),
            "MASTERDOWN" | "CLUSTERDOWN" => (
                Elsewhere(Soon),
                "; the nodes of Redis do not see one another, or none has this key",
            ),
            "MOVED" => (
                Elsewhere(Soon),
                "; another node has the key: name the nodes as redis+cluster:// in SINK_REDIS_URL",
            ),
            "ASK" | "TRYAGAIN" => (Elsewhere(Soon), "; the key is being moved to another node"),
            _ if says("unauthenticated") || says("invalid password") || says("AUTH") => {
                (Elsewhere(Seldom), WHO)
            }
            _ if says("invalid bulk length") || says("exceeds maximum allowed") => (
                TooLarge,
                "; lower SINK_REDIS_MAX_RECORD_BYTES, or raise Redis's proto-max-bulk-len",
            ),
            _ if says("DB index") || says("SELECT") => {
                (Elsewhere(Seldom), "; check the number of the database in SINK_REDIS_URL")
            }
            _ if says("unknown command") => {
                (Later(Seldom), "; this Redis is too old, or the command has another name there")
            }
            _ if says("max number of clients") => {
                (Elsewhere(Soon), "; raise Redis's maxclients, or close connections")
            }
            _ => (Elsewhere(Soon), ""),
        }
    }
}

const WHO: &str = "; check the user and the password in SINK_REDIS_URL or SINK_REDIS_PASSWORD_FILE";
const RIGHTS: &str = "; grant the user this command on SINK_REDIS_KEY";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_operator_can_do_and_nothing_that_was_sent() {
        for (line, meaning, hint) in [
            ("WRONGPASS invalid username-password pair", Meaning::Elsewhere(Again::Seldom), WHO),
            ("ERR invalid password", Meaning::Elsewhere(Again::Seldom), WHO),
            (
                "ERR Client sent AUTH, but no password is set",
                Meaning::Elsewhere(Again::Seldom),
                WHO,
            ),
            (
                "ERR Protocol error: unauthenticated multibulk length",
                Meaning::Elsewhere(Again::Seldom),
                WHO,
            ),
            ("ERR Protocol error: invalid bulk length", Meaning::TooLarge, "proto-max-bulk-len"),
            ("OOM command not allowed", Meaning::Later(Again::Soon), "maxmemory"),
            ("WRONGTYPE Operation against", Meaning::Later(Again::Seldom), "SINK_REDIS_KEY"),
            ("READONLY You can't write", Meaning::Elsewhere(Again::Soon), "replica"),
            ("ERR DB index is out of range", Meaning::Elsewhere(Again::Seldom), "database"),
            (
                "ERR unknown command 'RPUSH', with args beginning with: 'k' 'planted'",
                Meaning::Later(Again::Seldom),
                "another name",
            ),
            ("WHATEVER", Meaning::Elsewhere(Again::Soon), ""),
        ] {
            let refusal = Refusal::read(line);
            assert_eq!(refusal.meaning().0, meaning, "{line}");
            let shown = refusal.to_string();
            assert!(shown.contains(hint) && !shown.contains("planted"), "{shown}");
        }
    }

    #[test]
    fn a_key_that_is_on_another_node_is_found_there() {
        let moved = |line| Refusal::read(line).moved().map(|(host, port)| (host.to_owned(), port));
        assert_eq!(moved("MOVED 3999 127.0.0.1:6381"), Some(("127.0.0.1".into(), 6381)));
        assert_eq!(moved("MOVED 3999 :6381"), Some((String::new(), 6381)));
        assert_eq!(moved("MOVED 3999 ::1:6381"), Some(("::1".into(), 6381)));
        assert_eq!(moved("MOVED 3999"), None);
        assert_eq!(moved("ASK 3999 127.0.0.1:6381"), None);
    }
}
