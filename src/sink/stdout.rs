//! Writes one JSON document per line to standard output, and nothing else goes there.

use std::io::{self, BufWriter, Write};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Connect, DeliverError, Sink};
use crate::{
    env::{Env, Noted},
    record::{Format, Record},
};

/// Standard output.
///
/// Delivered means written: whoever reads the pipe, or the disk behind the file, has it.
pub(super) struct Stdout {
    format: Format,
}

/// One write for many lines, since standard output itself would make one for each.
const BUFFER_BYTES: usize = 64 << 10;

impl Connect for Stdout {
    fn from_env(_: &Env, format: Format) -> Result<Self, Noted> {
        Ok(Self { format })
    }
}

#[async_trait]
impl Sink for Stdout {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let lines: Vec<Bytes> = records.iter().map(|it| it.encoded(self.format)).collect();
        // A reader that is slow blocks the write, which must not block the renewal of the lock.
        let written = tokio::task::spawn_blocking(move || write(&lines, io::stdout().lock()));
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) => Err(DeliverError::Fatal(err.into())),
            Err(err) => Err(DeliverError::Fatal(err.into())),
        }
    }
}

fn write(lines: &[Bytes], out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    for line in lines {
        out.write_all(line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_is_one_line() {
        let mut out = Vec::new();
        write(&[Bytes::from_static(b"{}"), Bytes::from_static(b"[1]")], &mut out).unwrap();
        assert_eq!(out, b"{}\n[1]\n");
    }
}
