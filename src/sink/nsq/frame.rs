//! What is sent to nsqd and what it answers, as bytes (pure).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a connection begins with: version 2 of the protocol.
pub(super) const MAGIC: &[u8] = b"  V2";
/// Says that we are there.
pub(super) const NOP: &[u8] = b"NOP\n";
/// Answers are short; what seems to be longer is no answer of nsqd.
const MAX_FRAME: usize = 64 << 10;
/// The length of a frame, or of its kind, in bytes.
const WORD: usize = 4;
/// What a message has before it.
pub(super) const BESIDE: usize = WORD;

/// What nsqd says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Ok,
    Heartbeat,
    /// An answer that says more than that all is well.
    Answer(Bytes),
    Error(Error),
}

/// What nsqd calls an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    /// Without the text behind it, which can have a part of what was sent.
    pub(super) code: String,
    /// It wants TLS for this.
    pub(super) wants_tls: bool,
}

/// What is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is not what nsqd says")]
pub(super) struct Malformed;

/// Takes the next frame out of what came, if all of it has come.
pub(super) fn take(came: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
    let Some(size) = came.first_chunk::<WORD>() else { return Ok(None) };
    let size = u32::from_be_bytes(*size) as usize;
    if !(WORD..=MAX_FRAME).contains(&size) {
        return Err(Malformed);
    }
    if came.len() < WORD + size {
        return Ok(None);
    }
    came.advance(WORD);
    let mut frame = came.split_to(size).freeze();
    match (frame.get_u32(), &frame[..]) {
        (0, b"OK") => Ok(Some(Frame::Ok)),
        (0, b"_heartbeat_") => Ok(Some(Frame::Heartbeat)),
        (0, _) => Ok(Some(Frame::Answer(frame))),
        (1, text) => Ok(Some(Frame::Error(error(text)))),
        _ => Err(Malformed),
    }
}

fn error(text: &[u8]) -> Error {
    let code = text.split(|it| *it == b' ').next().unwrap_or_default();
    let is_code = |it: &u8| it.is_ascii_uppercase() || *it == b'_';
    let code = match code {
        b"" => "an error without a name".to_owned(),
        code if code.len() <= 32 && code.iter().all(is_code) => {
            String::from_utf8_lossy(code).into_owned()
        }
        _ => "an error of an unknown kind".to_owned(),
    };
    let wants_tls = text.windows(12).any(|it| it == b"TLS required");
    Error { code, wants_tls }
}

/// Says who we are, and what we want.
pub(super) fn identify(version: &str, tls: bool) -> Vec<u8> {
    let body = serde_json::json!({
        "client_id": "nomad-firehose",
        "user_agent": format!("nomad-firehose/{version}"),
        "feature_negotiation": true,
        // Nobody listens between two calls.
        "heartbeat_interval": -1,
        "tls_v1": tls,
    });
    with_body(b"IDENTIFY", body.to_string().as_bytes())
}

/// Says by which right.
pub(super) fn auth(secret: &[u8]) -> Vec<u8> {
    with_body(b"AUTH", secret)
}

fn with_body(command: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(command.len() + 1 + WORD + body.len());
    out.put_slice(command);
    out.put_u8(b'\n');
    put_size(&mut out, body.len());
    out.put_slice(body);
    out
}

/// Publishes messages, all or none.
pub(super) fn publish(topic: &str, messages: &[Bytes]) -> Vec<u8> {
    let size = WORD + messages.iter().map(|it| BESIDE + it.len()).sum::<usize>();
    let mut out = Vec::with_capacity(topic.len() + 16 + size);
    out.put_slice(b"MPUB ");
    out.put_slice(topic.as_bytes());
    out.put_u8(b'\n');
    put_size(&mut out, size);
    put_size(&mut out, messages.len());
    for message in messages {
        put_size(&mut out, message.len());
        out.put_slice(message);
    }
    out
}

/// A call is far smaller than what has no room in a word.
fn put_size(out: &mut Vec<u8>, size: usize) {
    out.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u32, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_size(&mut out, WORD + text.len());
        out.put_u32(kind);
        out.put_slice(text);
        out
    }

    #[test]
    fn a_frame_is_taken_once_all_of_it_has_come() {
        let whole = [frame(0, b"OK"), frame(0, b"_heartbeat_"), frame(0, b"{}")].concat();
        let (mut came, mut frames) = (BytesMut::new(), Vec::new());
        for byte in whole {
            came.put_u8(byte);
            frames.extend(take(&mut came).unwrap());
        }
        assert_eq!(frames, [Frame::Ok, Frame::Heartbeat, Frame::Answer(Bytes::from_static(b"{}"))]);
        assert!(came.is_empty());
    }

    #[test]
    fn an_error_is_known_by_its_code_and_its_text_is_left_out() {
        let code = |text: &[u8]| match take(&mut BytesMut::from(&frame(1, text)[..])) {
            Ok(Some(Frame::Error(error))) => error,
            other => panic!("{other:?}"),
        };
        let bad = code(b"E_BAD_TOPIC MPUB topic name \"x y\" is not valid");
        assert_eq!((bad.code.as_str(), bad.wants_tls), ("E_BAD_TOPIC", false));
        let tls = code(b"E_INVALID cannot MPUB in current state (TLS required)");
        assert_eq!((tls.code.as_str(), tls.wants_tls), ("E_INVALID", true));
        assert!(!code(br#"{"JobID":"planted"}"#).code.contains("planted"));
        assert!(code(b"").code.contains("without a name"));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let messages = frame(2, b"a message");
        for bytes in [&b"HTTP/1.1 400 Bad Request"[..], b"\0\0\0\x03abc", &messages] {
            assert_eq!(take(&mut BytesMut::from(bytes)), Err(Malformed));
        }
    }

    #[test]
    fn commands_are_as_the_protocol_has_them() {
        assert_eq!(auth(b"s"), b"AUTH\n\0\0\0\x01s");
        let messages = [Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let published = b"MPUB t\n\0\0\0\x0f\0\0\0\x02\0\0\0\x02ab\0\0\0\x01c";
        assert_eq!(publish("t", &messages), published);
        let identified = identify("1", true);
        let body = identified.strip_prefix(b"IDENTIFY\n").unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body[WORD..]).unwrap();
        assert_eq!(
            (&body["tls_v1"], &body["user_agent"]),
            (&true.into(), &"nomad-firehose/1".into())
        );
    }
}
