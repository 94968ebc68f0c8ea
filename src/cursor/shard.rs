//! A shard of tails as bytes.

use xxhash_rust::xxh3::xxh3_64;

use super::{Index, Nanos, Tail, Task, task::halves};

/// The format that this version writes. The first one had no flags, and other shards.
const SHARD: &[u8] = b"nomad-firehose-tails-2\n";
/// Allocation, task, index, time, type, hash, flags.
const TAIL_BYTES: usize = 16 + 8 + 8 + 8 + 4 + 8 + 1;
/// The allocation was at its end.
const TERMINAL: u8 = 1;
/// Consul takes 512 KiB in a transaction, in which values are in base64.
pub(super) const SHARD_BYTES: usize = 256 << 10;

/// So many tails fit a shard of so many bytes.
pub(super) const fn room(bytes: usize) -> usize {
    bytes.saturating_sub(SHARD.len() + 8) / TAIL_BYTES
}

/// These tails as bytes; those beyond what a shard can hold are left out.
pub(super) fn encode(tails: impl Iterator<Item = (Task, Tail)>, most: usize) -> Vec<u8> {
    let mut bytes = [SHARD, &[0; 8]].concat();
    let start = bytes.len();
    for (task, tail) in tails.take(room(most)) {
        bytes.extend_from_slice(&task.allocation[0].to_be_bytes());
        bytes.extend_from_slice(&task.allocation[1].to_be_bytes());
        bytes.extend_from_slice(&task.name.to_be_bytes());
        bytes.extend_from_slice(&tail.index.0.to_be_bytes());
        bytes.extend_from_slice(&tail.time.to_be_bytes());
        bytes.extend_from_slice(&tail.kind.to_be_bytes());
        bytes.extend_from_slice(&tail.hash.to_be_bytes());
        bytes.push(if tail.terminal { TERMINAL } else { 0 });
    }
    let sum = xxh3_64(&bytes[start..]).to_be_bytes();
    bytes[SHARD.len()..start].copy_from_slice(&sum);
    bytes
}

/// The tails in these bytes; `None` where they are damaged, or of another format.
pub(super) fn decode(bytes: &[u8]) -> Option<impl Iterator<Item = (Task, Tail)> + '_> {
    let (sum, tails) = bytes.strip_prefix(SHARD)?.split_first_chunk::<8>()?;
    if u64::from_be_bytes(*sum) != xxh3_64(tails) || tails.len() % TAIL_BYTES != 0 {
        return None;
    }
    Some(tails.chunks_exact(TAIL_BYTES).filter_map(|it| {
        let (allocation, it) = it.split_first_chunk::<16>()?;
        let (name, it) = it.split_first_chunk::<8>()?;
        let (index, it) = it.split_first_chunk::<8>()?;
        let (time, it) = it.split_first_chunk::<8>()?;
        let (kind, it) = it.split_first_chunk::<4>()?;
        let (hash, flags) = it.split_first_chunk::<8>()?;
        let allocation = halves(u128::from_be_bytes(*allocation));
        let task = Task { allocation, name: u64::from_be_bytes(*name) };
        let tail = Tail {
            index: Index(u64::from_be_bytes(*index)),
            time: Nanos::from_be_bytes(*time),
            kind: u32::from_be_bytes(*kind),
            hash: u64::from_be_bytes(*hash),
            terminal: flags.first().is_some_and(|it| it & TERMINAL != 0),
        };
        Some((task, tail))
    }))
}
