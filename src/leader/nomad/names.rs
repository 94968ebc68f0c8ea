//! Names that nobody else has, and the versions of servers.

use std::hash::{BuildHasher, RandomState};

/// A name that nobody else has.
pub(super) fn unique() -> String {
    let number = || RandomState::new().hash_one(std::process::id());
    let (high, low) = (number(), number());
    let (a, b, c) = (high >> 32, high >> 16 & 0xffff, high & 0xffff);
    format!("{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff)
}

/// Major and minor version.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_far_as_it_matters() {
        let read = ["1.6.10", "1.7.0-beta.1", "1.10.3+ent", "v2.0.5", "dev"].map(version);
        assert_eq!(read, [Some((1, 6)), Some((1, 7)), Some((1, 10)), Some((2, 0)), None]);
    }

    #[test]
    fn names_are_unique_and_look_like_nomads_own() {
        let (one, other) = (unique(), unique());
        assert!(one != other && one.len() == 36, "{one} {other}");
    }
}
