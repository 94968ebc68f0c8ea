//! The protocol of Redis, in its version 2: how commands are written, and answers read.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

use super::answer::Refusal;

/// The most that is read of one line, and of one value: none of what is asked has a long answer.
const MAX_LINE: u64 = 64 << 10;
const MAX_VALUE: usize = 1 << 20;
/// The most values of a list, and lists within lists.
const MAX_VALUES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// Commands that are sent in one piece, each of which is answered.
#[derive(Debug, Default)]
pub(super) struct Commands {
    bytes: Vec<u8>,
    count: usize,
}

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Text(String),
    Refused(Refusal),
    Number(i64),
    Value(Vec<u8>),
    List(Vec<Answer>),
    Nothing,
}

/// What comes next of an answer.
enum Piece {
    Whole(Answer),
    List(usize),
}

impl Commands {
    pub(super) fn one(parts: &[&[u8]]) -> Self {
        let mut commands = Self::default();
        commands.add(parts);
        commands
    }

    /// Adds a command: its name, and its arguments.
    pub(super) fn add(&mut self, parts: &[&[u8]]) {
        self.begin(parts.len());
        parts.iter().for_each(|it| self.part(it));
    }

    /// Begins a command of so many parts, which have to follow.
    pub(super) fn begin(&mut self, parts: usize) {
        self.count += 1;
        self.bytes.extend_from_slice(format!("*{parts}\r\n").as_bytes());
    }

    /// The next part of the command that was begun.
    pub(super) fn part(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        self.bytes.extend_from_slice(part);
        self.bytes.extend_from_slice(b"\r\n");
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl Answer {
    /// The text of a value, or of a short answer.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Value(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Refused(_) | Self::Number(_) | Self::List(_) | Self::Nothing => None,
        }
    }

    pub(super) fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }
}

/// Reads an answer.
pub(super) async fn read<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<Answer> {
    let mut open: Vec<(usize, Vec<Answer>)> = Vec::new();
    loop {
        let mut whole = match piece(from).await? {
            Piece::Whole(answer) => answer,
            Piece::List(0) => Answer::List(Vec::new()),
            Piece::List(_) if open.len() == MAX_DEPTH => return Err(strange("lists in lists")),
            Piece::List(count) => {
                open.push((count, Vec::new()));
                continue;
            }
        };
        loop {
            let Some((count, mut list)) = open.pop() else { return Ok(whole) };
            list.push(whole);
            if list.len() < count {
                open.push((count, list));
                break;
            }
            whole = Answer::List(list);
        }
    }
}

async fn piece<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<Piece> {
    let line = line(from).await?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| strange("an empty line"))?;
    let number = || rest.parse::<i64>().map_err(|_| strange("a number that is none"));
    Ok(Piece::Whole(match kind {
        "+" => Answer::Text(rest.to_owned()),
        "-" => Answer::Refused(Refusal::read(rest)),
        ":" => Answer::Number(number()?),
        "$" | "*" => match (kind, usize::try_from(number()?)) {
            (_, Err(_)) => Answer::Nothing,
            ("*", Ok(count)) if count <= MAX_VALUES => return Ok(Piece::List(count)),
            ("$", Ok(length)) if length <= MAX_VALUE => Answer::Value(value(from, length).await?),
            (_, Ok(_)) => return Err(strange("a value that is too large")),
        },
        _ => return Err(strange("what no Redis would answer with")),
    }))
}

async fn line<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<String> {
    let mut line = Vec::new();
    AsyncReadExt::take(&mut *from, MAX_LINE).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None if line.len() as u64 == MAX_LINE => Err(strange("a line that is too long")),
        None if line.ends_with(b"\n") => Err(strange("a line that ends as none of Redis does")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn value<R: AsyncRead + Unpin>(from: &mut R, length: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0; length + 2];
    from.read_exact(&mut value).await?;
    match value.strip_suffix(b"\r\n") {
        Some(value) => Ok(value.to_vec()),
        None => Err(strange("a value that is longer than it says")),
    }
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it answered with {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::BufReader;

    use super::*;

    fn answer(bytes: &[u8]) -> io::Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // A small buffer, so that everything is read in pieces.
        runtime.block_on(read(&mut BufReader::with_capacity(3, bytes)))
    }

    #[test]
    fn commands_are_lists_of_values() {
        let mut commands = Commands::one(&[b"RPUSH", b"k", "\u{fc}\r\n".as_bytes()]);
        commands.add(&[b"WAIT", b"1", b""]);
        let expected = "*3\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n$4\r\n\u{fc}\r\n\r\n\
                        *3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$0\r\n\r\n";
        assert_eq!((commands.bytes(), commands.count()), (expected.as_bytes(), 2));
    }

    #[test]
    fn every_kind_of_answer_is_read() {
        let value = |it: &str| Answer::Value(it.as_bytes().to_vec());
        assert_eq!(answer(b"+OK\r\n").unwrap().text(), Some("OK"));
        assert_eq!(answer(b":-12\r\n").unwrap(), Answer::Number(-12));
        assert_eq!(answer(b"$4\r\na\r\nb\r\n").unwrap(), value("a\r\nb"));
        assert_eq!(answer(b"$-1\r\n").unwrap(), Answer::Nothing);
        assert_eq!(answer(b"*-1\r\n").unwrap(), Answer::Nothing);
        let nested = answer(b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n-OOM no room\r\n").unwrap();
        let inner = Answer::List(vec![Answer::Number(1), Answer::List(Vec::new())]);
        let refused = Answer::Refused(Refusal::read("OOM no room"));
        assert_eq!(nested, Answer::List(vec![value("a"), inner, refused]));
    }

    #[test]
    fn what_is_cut_off_or_no_answer_is_an_error() {
        for cut in ["", "+O", "+OK\r", "$3\r\nab", "*2\r\n:1\r\n"] {
            let kind = answer(cut.as_bytes()).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::UnexpectedEof, "{cut:?}");
        }
        let deep = "*1\r\n".repeat(MAX_DEPTH + 1);
        let long = format!("+{}\r\n", "x".repeat(MAX_LINE as usize));
        for strange in [
            "HTTP/1.1 400\r\n",
            "\r\n",
            "+OK\n",
            ":x\r\n",
            "$9999999\r\n",
            "$1\r\nabc",
            &deep,
            &long,
        ] {
            let kind = answer(strange.as_bytes()).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::InvalidData, "{strange:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = answer(&bytes);
        }
    }
}
