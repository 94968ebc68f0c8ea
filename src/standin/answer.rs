//! Responses in the shape that Go's HTTP server gives them.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::{BufMut, BytesMut};
use futures::stream;
use tower_http::compression::{CompressionLayer, predicate::SizeAbove};

/// Up to this size a body has a length; above it is sent in chunks, as Go does.
const SMALL_BODY: usize = 2048;
/// Elements of a list are joined into chunks of about this size.
const CHUNK: usize = 64 * 1024;
/// Bodies smaller than this are not compressed.
const COMPRESS_ABOVE: u64 = 1024;

/// Whose header names an answer carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    Nomad,
    Consul,
}

impl Dialect {
    pub(super) fn index(self) -> &'static str {
        match self {
            Self::Nomad => "x-nomad-index",
            Self::Consul => "x-consul-index",
        }
    }

    pub(super) fn known_leader(self) -> &'static str {
        match self {
            Self::Nomad => "x-nomad-knownleader",
            Self::Consul => "x-consul-knownleader",
        }
    }

    fn last_contact(self) -> &'static str {
        match self {
            Self::Nomad => "x-nomad-lastcontact",
            Self::Consul => "x-consul-lastcontact",
        }
    }

    /// Adds the headers that every read has.
    pub(super) fn read(self, mut response: Response, index: u64, leader: bool) -> Response {
        let headers = response.headers_mut();
        headers.insert(self.index(), HeaderValue::from(index));
        self.leader(headers, leader);
        response
    }

    /// Adds what the answering server knows of a leader.
    pub(super) fn leader(self, headers: &mut HeaderMap, leader: bool) {
        headers.insert(
            self.known_leader(),
            HeaderValue::from_static(if leader { "true" } else { "false" }),
        );
        headers.insert(self.last_contact(), HeaderValue::from_static("0"));
    }
}

/// A plain text answer, which is what every error is.
pub(super) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response {
    with_type(code, "text/plain; charset=utf-8", Body::from(body.into()))
}

/// A JSON answer with status 200.
pub(super) fn json(body: impl Into<Body>) -> Response {
    with_type(StatusCode::OK, "application/json", body.into())
}

/// An answer of this type.
pub(super) fn with_type(code: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = empty(code);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    *response.body_mut() = body;
    response
}

/// An answer without body and type, as an unknown path has it.
pub(super) fn empty(code: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// The answer to a method that the path does not have.
pub(super) fn invalid_method() -> Response {
    text(StatusCode::METHOD_NOT_ALLOWED, "Invalid method")
}

/// The JSON array of elements that are in memory.
pub(super) fn list(elements: Vec<Bytes>) -> Body {
    let size: usize = elements.iter().map(|element| element.len() + 1).sum();
    if size >= SMALL_BODY {
        return generated(elements.into_iter());
    }
    Framed::new(elements.into_iter()).fold(BytesMut::new(), join).freeze().into()
}

/// The JSON array of elements that are made while they are sent.
pub(super) fn generated(elements: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    Body::from_stream(stream::iter(Framed::new(elements).map(Ok::<_, io::Error>)))
}

/// Compression as both servers offer it.
pub(super) fn compression() -> CompressionLayer<SizeAbove> {
    CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE))
}

fn join(mut whole: BytesMut, chunk: Bytes) -> BytesMut {
    whole.put(chunk);
    whole
}

/// Elements with brackets and commas, in chunks.
struct Framed<I> {
    elements: I,
    frame: Frame,
}

#[derive(Clone, Copy, PartialEq)]
enum Frame {
    Start,
    First,
    Next,
    Done,
}

impl<I> Framed<I> {
    fn new(elements: I) -> Self {
        Self { elements, frame: Frame::Start }
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Framed<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.frame == Frame::Done {
            return None;
        }
        let mut chunk = BytesMut::new();
        if self.frame == Frame::Start {
            chunk.put_u8(b'[');
            self.frame = Frame::First;
        }
        while chunk.len() < CHUNK {
            let Some(element) = self.elements.next() else {
                chunk.put_u8(b']');
                self.frame = Frame::Done;
                break;
            };
            if self.frame == Frame::Next {
                chunk.put_u8(b',');
            }
            self.frame = Frame::Next;
            chunk.put(element);
        }
        Some(chunk.freeze())
    }
}
