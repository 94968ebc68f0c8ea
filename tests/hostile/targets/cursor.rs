//! A checkpoint that anybody may have written over.

use nomad_firehose::cursor::{
    Cursor, Encoded, Index, Kind, Mark, Saved, Start, Tail, Task, decode,
};

const NOW: i64 = 1_000_000_000;

/// A cursor as bytes.
struct Bytes {
    head: Vec<u8>,
    shards: Vec<Option<Vec<u8>>>,
    value: String,
}

fn encode(cursor: &mut Cursor) -> Bytes {
    let Encoded { head, value, .. } = cursor.encode(NOW);
    let count = nomad_firehose::cursor::Loading::new(Some(&head)).shards();
    let shards = (0..count).map(|it| Some(cursor.shard(it))).collect();
    Bytes { head, shards, value }
}

/// What is not a checkpoint is never taken for one, what was saved comes back as it was, and any
/// damage to it is noticed.
pub fn cursor(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    match first % 3 {
        0 => anything(rest),
        1 => saved(rest, Kind::Objects),
        _ => saved(rest, Kind::TaskEvents),
    }
}

/// Bytes that nobody of ours has written.
fn anything(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |it| *it == 0);
    let mut part = || parts.next();
    let (head, value, shard) = (part(), part(), part());
    let (found, _) = decode(head, &[shard.map(<[u8]>::to_vec)], value);
    match &found {
        Saved::Corrupt { why, .. } => super::is_brief(why),
        Saved::Ours(cursor) => {
            // Only a checksum that fits gets so far; then it is as good as any other.
            let mut cursor = cursor.share();
            let once = encode(&mut cursor);
            let again = decode(Some(&once.head), &once.shards, Some(once.value.as_bytes()));
            assert!(matches!(again, (Saved::Ours(_), 0)), "{again:?}");
        }
        Saved::Nothing | Saved::GoTool { .. } => (),
    }
    for kind in [Kind::Objects, Kind::TaskEvents] {
        let (found, _) = decode(head, &[shard.map(<[u8]>::to_vec)], value);
        let (cursor, _) = Cursor::resume(kind, found, Start::Earliest, "scope", NOW);
        // The Go tool is never sent beyond the present.
        assert!(kind == Kind::Objects || cursor.value(NOW) <= NOW.unsigned_abs());
    }
}

/// A cursor that the bytes describe, saved, and then damaged.
fn saved(bytes: &[u8], kind: Kind) {
    let Some((damage, marks)) = bytes.split_first_chunk::<4>() else { return };
    let mut cursor = Cursor::new(kind);
    for mark in marks.chunks_exact(4).take(400) {
        let (key, index) = (u64::from(mark[0]), Index(mark[1].into()));
        match (kind, mark[2]) {
            (_, 250..) => cursor.reach(index),
            (Kind::Objects, hash) => cursor.apply(Mark::Object { key, index, hash: hash.into() }),
            (Kind::TaskEvents, _) => {
                let task = Task::new(&format!("{key:032x}"), "web");
                let (time, hash) = (mark[3].into(), mark[2].into());
                cursor
                    .apply(Mark::Task(task, Tail { index, time, kind: 7, hash, terminal: false }));
            }
        }
    }
    let written = encode(&mut cursor);
    let value = Some(written.value.as_bytes());
    let (Saved::Ours(mut back), 0) = decode(Some(&written.head), &written.shards, value) else {
        panic!("what was written cannot be read");
    };
    assert_eq!((back.floor(), back.tails()), (cursor.floor(), cursor.tails()));
    let again = encode(&mut back);
    let text = |it: &Bytes| String::from_utf8_lossy(&it.head).into_owned();
    assert_eq!(text(&again), text(&written));
    assert!(again.shards == written.shards);

    let [where_, how, high, low] = *damage;
    let at = usize::from(u16::from_be_bytes([high, low]));
    let in_head = where_ % 2 == 0 || kind == Kind::Objects;
    let mut head = written.head.clone();
    let mut shards = written.shards.clone();
    let spoiled = if in_head { Some(&mut head) } else { shards[0].as_mut() }.unwrap();
    let at = at % spoiled.len();
    match how {
        0..128 => spoiled[at] ^= 1 << (how % 8),
        _ => spoiled.truncate(at),
    }
    // The break at its end is nothing that counts, nor is another kind of break in its place.
    let counts = |head: &[u8]| String::from_utf8_lossy(head).trim_end().to_owned();
    if counts(&head) == counts(&written.head) && shards == written.shards {
        return;
    }
    let (found, damaged) = decode(Some(&head), &shards, value);
    match in_head {
        true => assert!(matches!(found, Saved::Corrupt { .. }), "{found:?}"),
        false => assert_eq!(damaged, 1, "{found:?}"),
    }
}
