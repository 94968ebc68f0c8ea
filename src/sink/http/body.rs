//! Records as the body of a request, and the headers that say what it is.

use std::{fmt::Write as _, io::Write as _};

use bytes::{BufMut, BytesMut};
use flate2::{Compression, write::GzEncoder};
use reqwest::{
    Request,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use ring::hmac;

use crate::{
    api::credentials::Token,
    env::{Env, Noted},
    record::{self, Format, Meta, Record},
};

/// How records become bodies.
pub(super) struct Encoding {
    format: Format,
    pub(super) batch: Batch,
    gzip: bool,
    secret: Token,
    signature: HeaderName,
}

/// Which records share a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// None.
    Off,
    /// Many, as an array of JSON.
    Array,
    /// Many, as lines of JSON.
    Ndjson,
    /// Many, as a batch of CloudEvents.
    CloudEvents,
}

impl Encoding {
    pub(super) fn from_env(env: &Env, format: Format) -> Result<Self, Noted> {
        let batch = Batch::from_env(env);
        let gzip = env.switch("SINK_HTTP_GZIP", false);
        let secret = Token::read(env, "SINK_HTTP_HMAC_SECRET", "SINK_HTTP_HMAC_SECRET_FILE");
        let name = "SINK_HTTP_HMAC_HEADER";
        let signature = env.or(name, HeaderName::from_static("x-signature-256"));
        let (batch, gzip, secret, signature) = (batch?, gzip?, secret?, signature?);
        let format = match batch {
            Batch::CloudEvents => Format::CloudEvents,
            _ => format,
        };
        Ok(Self { format, batch, gzip, secret, signature })
    }

    /// Makes the records the body of a request.
    pub(super) fn write(&self, records: &[Record], request: &mut Request) {
        if self.batch == Batch::Off
            && self.format == Format::Payload
            && let Some(record) = records.first()
        {
            attributes(&record.meta, request.headers_mut());
        }
        let body = self.body(records);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type()));
        if let Some(signature) = self.signature(&body) {
            headers.insert(self.signature.clone(), signature);
        }
        let body = match self.gzip.then(|| gzip(&body)).flatten() {
            Some(packed) => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                packed.into()
            }
            None => body.freeze().into(),
        };
        *request.body_mut() = Some(body);
    }

    /// What a record adds to the body of a batch beside its payload.
    pub(super) fn beside(&self) -> usize {
        self.format.beside() + 1
    }

    fn media_type(&self) -> &'static str {
        match (self.batch, self.format) {
            (Batch::Ndjson, _) => "application/x-ndjson",
            (Batch::Array | Batch::CloudEvents, Format::CloudEvents) => {
                "application/cloudevents-batch+json"
            }
            (Batch::Off | Batch::Array | Batch::CloudEvents, format) => format.media_type(),
        }
    }

    fn body(&self, records: &[Record]) -> BytesMut {
        let (open, between, close) = match self.batch {
            Batch::Off => ("", "", ""),
            Batch::Array | Batch::CloudEvents => ("[", ",", "]"),
            Batch::Ndjson => ("", "\n", "\n"),
        };
        let mut body = BytesMut::from(open);
        for (i, record) in records.iter().enumerate() {
            if i > 0 {
                body.put_slice(between.as_bytes());
            }
            body.put_slice(&record.encoded(self.format));
        }
        body.put_slice(close.as_bytes());
        body
    }

    /// A signature of the body as it is before it is compressed.
    fn signature(&self, body: &[u8]) -> Option<HeaderValue> {
        let secret = self.secret.current()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut text = "sha256=".to_owned();
        for byte in hmac::sign(&key, body).as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
        HeaderValue::from_str(&text).ok()
    }
}

impl Batch {
    fn from_env(env: &Env) -> Result<Self, Noted> {
        let name = "SINK_HTTP_BATCH";
        match env.or(name, "off".to_owned())?.as_str() {
            "off" => Ok(Self::Off),
            "array" => Ok(Self::Array),
            "ndjson" => Ok(Self::Ndjson),
            "cloudevents" => Ok(Self::CloudEvents),
            other => {
                let known = "off, array, ndjson, cloudevents";
                Err(env.note(name, format!("`{other}` is not one of: {known}")))
            }
        }
    }
}

/// The binary mode of CloudEvents 1.0 over HTTP.
fn attributes(meta: &Meta, headers: &mut HeaderMap) {
    for (name, value) in meta.attributes() {
        let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes());
        let value = HeaderValue::from_str(&percent_encoded(&value));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
}

/// As the HTTP binding of CloudEvents 1.0 wants it, section 3.1.3.2.
fn percent_encoded(text: &str) -> String {
    record::percent_encoded(text, |it| !matches!(it, '!'..='~') || matches!(it, '"' | '%'))
}

/// `None` where it cannot be packed, which for memory does not happen.
fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(body).ok()?;
    packed.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn encoding(vars: &[(&str, &str)], format: Format) -> Encoding {
        let vars = vars.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let env: Env = vars.collect();
        let encoding = Encoding::from_env(&env, format);
        env.check(encoding).unwrap()
    }

    fn body(batch: &str, format: Format) -> (&'static str, String) {
        let encoding = encoding(&[("SINK_HTTP_BATCH", batch)], format);
        let records = [record("a", 1), record("b", 2)];
        let body = encoding.body(&records).freeze();
        (encoding.media_type(), String::from_utf8(body.into()).unwrap())
    }

    #[test]
    fn a_batch_is_an_array_or_lines_or_a_batch_of_cloud_events() {
        assert_eq!(body("array", Format::Payload), ("application/json", "[1,11]".into()));
        assert_eq!(body("ndjson", Format::Payload), ("application/x-ndjson", "1\n11\n".into()));
        let events = body("cloudevents", Format::Payload);
        assert_eq!(events.0, "application/cloudevents-batch+json");
        assert!(events.1.starts_with(r#"[{"specversion":"1.0","id":"#), "{}", events.1);
        assert_eq!(events, body("array", Format::CloudEvents));
    }

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // Test case 2 of RFC 4231.
        let encoding = encoding(&[("SINK_HTTP_HMAC_SECRET", "Jefe")], Format::Payload);
        let signature = encoding.signature(b"what do ya want for nothing?").unwrap();
        let wanted = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature, wanted);
    }

    #[test]
    fn text_beyond_printable_ascii_is_percent_encoded_in_headers() {
        assert_eq!(percent_encoded("jobs/a b/\u{fc}\"%~\n"), "jobs/a%20b/%C3%BC%22%25~%0A");
    }
}
