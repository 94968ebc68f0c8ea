//! How much of an answer is read. The generated clients read those that they decode whole.

use std::error::Error;

use futures::StreamExt;
use progenitor_client::OperationInfo;
use reqwest::{Body, Response};

use crate::error::BoxError;

/// More of an answer is taken for something else. It counts as it is decoded: a few kilobytes of
/// gzip can become gigabytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Their answers are read as they arrive and have no limit as a whole, only their pieces.
const UNLIMITED: [&str; 6] = [
    "list_allocations",
    "list_nodes",
    "list_evaluations",
    "list_jobs",
    "list_deployments",
    "stream_events",
];

/// An answer has more bytes than any that is expected.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {MAX_ANSWER_BYTES} bytes")]
pub(super) struct TooLarge;

/// An answer whose body breaks off at the limit.
pub(super) fn limited(answer: Response, operation: &OperationInfo) -> Response {
    if UNLIMITED.contains(&operation.operation_id) {
        return answer;
    }
    let mut left = MAX_ANSWER_BYTES;
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = answer.status();
    parts.version = answer.version();
    parts.headers = answer.headers().clone();
    let chunks = answer.bytes_stream().map(move |chunk| {
        let chunk = chunk.map_err(BoxError::from)?;
        left = left.checked_sub(chunk.len()).ok_or(TooLarge)?;
        Ok::<_, BoxError>(chunk)
    });
    http::Response::from_parts(parts, Body::wrap_stream(chunks)).into()
}

/// Whether it is this limit that an error is about.
pub(super) fn is_too_large(err: &reqwest::Error) -> Option<TooLarge> {
    let mut cause = err.source();
    while let Some(err) = cause {
        if let Some(found) = err.downcast_ref::<TooLarge>() {
            return Some(*found);
        }
        cause = err.source();
    }
    None
}
