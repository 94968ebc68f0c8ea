//! Writes one JSON document per line to standard output, and nothing else goes there.

use std::io::{self, IoSlice, Write};

use async_trait::async_trait;
use bytes::Bytes;

use super::{About, Connect, DeliverError, Sink, Summary};
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

/// So many pieces go into one write; Linux takes no more.
const PIECES: usize = 1024;

impl Connect for Stdout {
    const SUMMARY: Summary = Summary {
        delivered: "written to standard output; what reads the pipe, or the disk behind the file, \
                    has it",
        duplicate: "the CloudEvents `id`",
        set_by: &[],
    };

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

    fn about(&self) -> About {
        About { at: "standard output".to_owned(), untested: "" }
    }
}

fn write(lines: &[Bytes], mut out: impl Write) -> io::Result<()> {
    for lines in lines.chunks(PIECES / 2) {
        let mut pieces: Vec<_> =
            lines.iter().flat_map(|it| [IoSlice::new(it), IoSlice::new(b"\n")]).collect();
        let mut rest = &mut pieces[..];
        while !rest.is_empty() {
            match out.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(err) => return Err(err),
            }
        }
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

    /// Takes three bytes at a time, and every other time none, since a signal came.
    struct Slow(Vec<u8>, bool);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let some = &bytes[..bytes.len().min(3)];
            self.0.extend_from_slice(some);
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_written_in_part_is_written_to_its_end() {
        let lines = vec![Bytes::from_static(b"{\"a\":1}"); PIECES + 1];
        let mut out = Slow(Vec::new(), false);
        write(&lines, &mut out).unwrap();
        assert_eq!(out.0, b"{\"a\":1}\n".repeat(PIECES + 1));
    }
}
