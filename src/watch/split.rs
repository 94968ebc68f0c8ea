//! Cuts the body of a list into its elements as it arrives, so that memory does not grow with the
//! list. It looks at quotes and brackets only; whoever decodes an element checks it.

/// A larger element is passed over and reported. Nomad's largest objects, jobs with embedded
/// templates, are limited to about 1 MiB by its own Raft log.
pub const MAX_ELEMENT_BYTES: usize = 16 << 20;

/// A buffer that a large element has left behind is given back down to this.
const KEPT_BYTES: usize = 1 << 20;

/// How much of a body that is no list an error shows.
const EXCERPT_BYTES: usize = 40;

/// A JSON array, cut as it arrives.
#[derive(Debug)]
pub struct Splitter {
    state: State,
    scan: Scan,
    /// The beginning of an element that a chunk ended in.
    held: Vec<u8>,
    limit: usize,
    /// How many bytes of the element have been passed over.
    dropped: usize,
    /// The start of the body, for an error.
    start: Vec<u8>,
}

/// Where in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    BeforeList,
    /// After `[`: an element or the end.
    First,
    /// After a comma: an element.
    Next,
    Element,
    /// After an element: a comma or the end.
    Between,
    AfterList,
}

/// Where in an element.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// An element of the list.
#[derive(Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// Its text.
    Whole(&'a [u8]),
    /// It had this many bytes, more than are kept.
    TooLarge(usize),
}

/// The body is not a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// It does not begin as one.
    #[error("the answer is not a JSON list, as Nomad's are; it begins with {0}")]
    NotAList(String),
    /// It goes wrong in the middle.
    #[error("commas or brackets are out of place in the JSON list")]
    Malformed,
    /// It ends too early.
    #[error("the JSON list ends in the middle: the connection was cut")]
    CutShort,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new(MAX_ELEMENT_BYTES)
    }
}

impl Splitter {
    /// Keeps elements of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            state: State::BeforeList,
            scan: Scan::default(),
            held: Vec::new(),
            limit,
            dropped: 0,
            start: Vec::new(),
        }
    }

    /// The next element that is complete, taking bytes off the front of `chunk`; `None` once it
    /// needs the next chunk.
    pub fn next_element<'s, 'c: 's>(
        &'s mut self,
        chunk: &mut &'c [u8],
    ) -> Result<Option<Element<'s>>, SplitError> {
        if self.state != State::Element {
            // What the caller was handed last is no longer needed.
            self.held.clear();
            self.held.shrink_to(KEPT_BYTES);
        }
        loop {
            if self.state == State::Element {
                return Ok(self.element(chunk));
            }
            let Some((byte, rest)) = chunk.split_first() else { return Ok(None) };
            let space = matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
            self.state = match (self.state, byte) {
                (state, _) if space => state,
                (State::BeforeList, b'[') => State::First,
                (State::BeforeList, _) => {
                    self.start.extend(chunk.iter().take(EXCERPT_BYTES));
                    return Err(SplitError::NotAList(excerpt(&self.start)));
                }
                (State::First | State::Between, b']') => State::AfterList,
                (State::Between, b',') => State::Next,
                (State::First | State::Next, byte) if !matches!(byte, b',' | b']' | b'}') => {
                    self.scan = Scan::default();
                    self.dropped = 0;
                    self.state = State::Element;
                    continue;
                }
                _ => return Err(SplitError::Malformed),
            };
            *chunk = rest;
        }
    }

    /// The body has ended: was the list complete?
    pub fn finish(&self) -> Result<(), SplitError> {
        match self.state {
            State::AfterList => Ok(()),
            State::BeforeList => Err(SplitError::NotAList("nothing".to_owned())),
            _ => Err(SplitError::CutShort),
        }
    }

    /// Goes on in an element; `Some` once it is complete.
    fn element<'s, 'c: 's>(&'s mut self, chunk: &mut &'c [u8]) -> Option<Element<'s>> {
        let end = self.scan.end(chunk);
        let (part, rest) = chunk.split_at(end.unwrap_or(chunk.len()));
        *chunk = rest;
        let size = self.dropped + self.held.len() + part.len();
        let too_large = size > self.limit;
        if too_large {
            self.held = Vec::new();
            self.dropped = size;
        }
        if end.is_none() {
            if !too_large {
                self.held.extend_from_slice(part);
            }
            return None;
        }
        self.state = State::Between;
        Some(if too_large {
            Element::TooLarge(size)
        } else if self.held.is_empty() {
            Element::Whole(part)
        } else {
            self.held.extend_from_slice(part);
            Element::Whole(&self.held)
        })
    }
}

impl Scan {
    /// Where the element ends in `chunk`, if it does.
    fn end(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < chunk.len() {
            if self.escaped {
                self.escaped = false;
                at += 1;
                continue;
            }
            if self.in_string {
                at += memchr::memchr2(b'"', b'\\', &chunk[at..])?;
                self.escaped = chunk[at] == b'\\';
                self.in_string = self.escaped;
                at += 1;
                if !self.in_string && self.depth == 0 {
                    return Some(at);
                }
                continue;
            }
            match chunk[at] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                // The end of the list, after a number or a word.
                b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t' if self.depth == 0 => {
                    return Some(at);
                }
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => (),
            }
            at += 1;
        }
        None
    }
}

fn excerpt(bytes: &[u8]) -> String {
    format!("`{}`", String::from_utf8_lossy(bytes).escape_debug())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Splits a body that arrives in chunks of `size`.
    fn split(body: &[u8], size: usize, limit: usize) -> Result<Vec<String>, SplitError> {
        let mut splitter = Splitter::new(limit);
        let mut found = Vec::new();
        for mut chunk in body.chunks(size) {
            while let Some(element) = splitter.next_element(&mut chunk)? {
                found.push(match element {
                    Element::Whole(text) => String::from_utf8_lossy(text).into_owned(),
                    Element::TooLarge(size) => format!("too large: {size}"),
                });
            }
        }
        splitter.finish()?;
        Ok(found)
    }

    #[test]
    fn elements_are_cut_wherever_a_chunk_ends() {
        let body = br#" [ {"a":"]}\"["} ,[1,[2]],"x,]", 1.5e3 ,null,{}]
 "#;
        for size in 1..body.len() {
            let found = split(body, size, 99).unwrap();
            assert_eq!(
                found,
                [r#"{"a":"]}\"["}"#, "[1,[2]]", r#""x,]""#, "1.5e3", "null", "{}"],
                "chunks of {size}"
            );
        }
        assert_eq!(split(b"[]", 1, 9).unwrap(), [""; 0]);
    }

    #[test]
    fn an_element_that_is_too_large_is_passed_over_and_the_others_are_not() {
        for size in [1, 7, 99] {
            let found = split(br#"[{"a":1},{"b":"0123456789"},{"c":3}]"#, size, 10).unwrap();
            assert_eq!(found, [r#"{"a":1}"#, "too large: 18", r#"{"c":3}"#]);
        }
    }

    #[test]
    fn a_body_that_is_cut_short_is_an_error() {
        for body in ["[", r#"[{"a":1}"#, r#"[{"a":1},"#, r#"[{"a":1},{"b"#] {
            assert!(matches!(split(body.as_bytes(), 3, 99), Err(SplitError::CutShort)), "{body}");
        }
    }

    #[test]
    fn a_body_that_is_no_list_is_an_error_that_shows_its_beginning() {
        let err = split(b"<html><body>Bad gateway", 99, 99).unwrap_err();
        assert_eq!(
            err.to_string(),
            "the answer is not a JSON list, as Nomad's are; it begins with `<html><body>Bad gateway`"
        );
        assert!(matches!(split(b"null", 9, 9), Err(SplitError::NotAList(_))));
        assert!(matches!(split(b"", 9, 9), Err(SplitError::NotAList(_))));
    }

    #[test]
    fn commas_and_brackets_out_of_place_are_an_error() {
        for body in ["[,]", "[1,]", "[1 2]", "[]]", "[}", "[{}]x"] {
            assert!(split(body.as_bytes(), 2, 99).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn what_serde_json_reads_as_a_list_is_split_alike(
            values in proptest::collection::vec(".{0,12}", 0..6),
            nested in any::<bool>(),
            size in 1usize..20,
        ) {
            let values: Vec<serde_json::Value> = values
                .into_iter()
                .map(|it| if nested { serde_json::json!({ it.clone(): [it, 1, null] }) } else { it.into() })
                .collect();
            let body = serde_json::to_vec(&values).unwrap();
            let found: Vec<serde_json::Value> = split(&body, size, 1 << 20)
                .unwrap()
                .iter()
                .map(|it| serde_json::from_str(it).unwrap())
                .collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn any_bytes_are_split_without_panic(
            body in proptest::collection::vec(
                prop::sample::select(b"{}[]\",:\\ 1a\n\xff".to_vec()), 0..64),
            size in 1usize..9,
        ) {
            let _ = split(&body, size, 8);
        }
    }
}
