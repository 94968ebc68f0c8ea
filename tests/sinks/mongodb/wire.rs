//! Messages of MongoDB's wire protocol, as a server reads and writes them.

use ::mongodb::bson::{Bson, Document};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const OP_MSG: i32 = 2013;
const HEADER: usize = 16;
const MORE_TO_COME: u32 = 1 << 1;
const CHECKSUM: u32 = 1;

/// A command, and the number of its request.
pub struct Request {
    pub number: i32,
    pub command: Document,
}

/// The next request; `None` where the client is gone.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header).await.ok()?;
    let part = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let (size, number, code) = (part(0), part(4), part(12));
    let mut body = vec![0; usize::try_from(size).unwrap() - HEADER];
    from.read_exact(&mut body).await.ok()?;
    assert_eq!(code, OP_MSG, "the library speaks nothing else");
    let (flags, mut rest) = body.split_at(4);
    let flags = u32::from_le_bytes(flags.try_into().unwrap());
    assert_eq!(flags & (CHECKSUM | MORE_TO_COME), 0);
    let mut command = Document::new();
    let mut sequences = Document::new();
    while let Some((kind, section)) = rest.split_first() {
        if *kind == 0 {
            let (document, after) = document(section);
            (command, rest) = (document, after);
        } else {
            let size = usize::try_from(i32::from_le_bytes(section[..4].try_into().unwrap()));
            let (sequence, after) = section.split_at(size.unwrap());
            let end = 4 + sequence[4..].iter().position(|it| *it == 0).unwrap();
            let name = String::from_utf8(sequence[4..end].to_vec()).unwrap();
            let mut documents = Vec::new();
            let mut left = &sequence[end + 1..];
            while !left.is_empty() {
                let (next, after) = document(left);
                documents.push(Bson::Document(next));
                left = after;
            }
            sequences.insert(name, documents);
            rest = after;
        }
    }
    command.extend(sequences);
    Some(Request { number, command })
}

fn document(bytes: &[u8]) -> (Document, &[u8]) {
    let size = usize::try_from(i32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap();
    let (own, rest) = bytes.split_at(size);
    (Document::from_reader(own).unwrap(), rest)
}

/// Answers a request; whether the client is still there.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), number: i32, reply: &Document) -> bool {
    let reply = reply.to_vec().unwrap();
    let size = i32::try_from(HEADER + 4 + 1 + reply.len()).unwrap();
    let mut out = Vec::new();
    for part in [size, 1, number, OP_MSG, 0] {
        out.extend(part.to_le_bytes());
    }
    out.push(0);
    out.extend(reply);
    to.write_all(&out).await.is_ok() && to.flush().await.is_ok()
}
