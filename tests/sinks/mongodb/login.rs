//! SCRAM-SHA-256, as a server speaks it with one user.

use std::num::NonZeroU32;

use ::mongodb::bson::{Binary, Document, doc, spec::BinarySubtype};
use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{digest, hmac, pbkdf2};

pub const USER: &str = "firehose";
pub const PASSWORD: &str = "secret-planted";

const SALT: &[u8] = b"sixteen bytes of";
/// The least that the library takes.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// Where a connection is on its way in.
#[derive(Default)]
pub enum Login {
    #[default]
    Nobody,
    /// What was said so far, without the header of the first message.
    Asked(String),
    In,
}

impl Login {
    pub fn is_in(&self) -> bool {
        matches!(self, Self::In)
    }

    /// The answer to `saslStart` or `saslContinue`.
    pub fn answer(&mut self, command: &Document, password: &str) -> Document {
        let payload = command.get_binary_generic("payload").unwrap();
        let payload = String::from_utf8(payload.clone()).unwrap();
        let payload = match std::mem::take(self) {
            Self::Nobody | Self::In => {
                let first = payload.strip_prefix("n,,").unwrap();
                let (user, nonce) = first.split_once(",r=").unwrap();
                if user != format!("n={USER}") {
                    return denied();
                }
                let salt = BASE64_STANDARD.encode(SALT);
                let said = format!("r={nonce}server,s={salt},i={ROUNDS}");
                *self = Self::Asked(format!("{first},{said}"));
                return continued(false, &said);
            }
            Self::Asked(said) => {
                let (last, proof) = payload.rsplit_once(",p=").unwrap();
                let all = format!("{said},{last}");
                let (wanted, signature) = proofs(password, &all);
                if proof != wanted {
                    return denied();
                }
                *self = Self::In;
                format!("v={signature}")
            }
        };
        continued(true, &payload)
    }
}

fn continued(done: bool, payload: &str) -> Document {
    let payload = Binary { subtype: BinarySubtype::Generic, bytes: payload.as_bytes().to_vec() };
    doc! { "conversationId": 1, "done": done, "payload": payload, "ok": 1.0 }
}

fn denied() -> Document {
    let said = "Authentication failed.";
    doc! { "ok": 0.0, "errmsg": said, "code": 18, "codeName": "AuthenticationFailed" }
}

/// What proves that a client has the password, and that the server has it.
fn proofs(password: &str, said: &str) -> (String, String) {
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, SALT, password.as_bytes(), &mut salted);
    let sign = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let client = sign(&salted, "Client Key");
    let stored = digest::digest(&digest::SHA256, &client);
    let signature = sign(stored.as_ref(), said);
    let proof: Vec<u8> = client.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let server = sign(&sign(&salted, "Server Key"), said);
    (BASE64_STANDARD.encode(proof), BASE64_STANDARD.encode(server))
}
