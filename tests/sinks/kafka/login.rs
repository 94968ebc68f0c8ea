//! How a broker of the tests finds out who somebody is: SASL with PLAIN and SCRAM.

use std::num::NonZeroU32;

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{digest, hmac, pbkdf2};

const ROUNDS: u32 = 4096;
const SALT: &[u8] = b"salt of the tests";

/// Who is let in, and how.
#[derive(Clone, Debug)]
pub struct Login {
    pub mechanism: &'static str,
    pub user: &'static str,
    pub password: String,
}

/// How far it is on a connection.
#[derive(Default)]
pub enum Step {
    #[default]
    First,
    /// What was said so far: of the first message the part without its header, and the answer.
    Challenged(String, String),
    In,
}

impl Step {
    /// The answer to what somebody says; `None` where it is wrong.
    pub fn next(&mut self, login: &Login, said: &[u8]) -> Option<Vec<u8>> {
        let (next, answer) = match self {
            Self::First if login.mechanism == "PLAIN" => {
                let wanted = format!("\0{}\0{}", login.user, login.password);
                (said == wanted.as_bytes()).then(|| (Self::In, Vec::new()))?
            }
            Self::First => {
                let said = std::str::from_utf8(said).unwrap().strip_prefix("n,,")?;
                let nonce = said.strip_prefix(&format!("n={},r=", login.user))?;
                let salt = BASE64_STANDARD.encode(SALT);
                let answer = format!("r={nonce}more,s={salt},i={ROUNDS}");
                (Self::Challenged(said.to_owned(), answer.clone()), answer.into_bytes())
            }
            Self::Challenged(first, challenge) => {
                let said = std::str::from_utf8(said).unwrap();
                let (without_proof, proof) = said.rsplit_once(",p=")?;
                let text = format!("{first},{challenge},{without_proof}");
                let (wanted, signature) = proofs(login, text.as_bytes());
                let proven = BASE64_STANDARD.decode(proof).ok()? == wanted;
                let answer = format!("v={}", BASE64_STANDARD.encode(signature));
                proven.then(|| (Self::In, answer.into_bytes()))?
            }
            Self::In => return None,
        };
        *self = next;
        Some(answer)
    }
}

/// The proof of a client, and the signature of a server.
fn proofs(login: &Login, text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (pbkdf2, hmac, digest) = match login.mechanism {
        "SCRAM-SHA-256" => (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256),
        "SCRAM-SHA-512" => (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, &digest::SHA512),
        other => panic!("{other}"),
    };
    let mut salted = vec![0; digest.output_len()];
    let rounds = NonZeroU32::new(ROUNDS).unwrap();
    pbkdf2::derive(pbkdf2, rounds, SALT, login.password.as_bytes(), &mut salted);
    let sign =
        |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac, key), text).as_ref().to_vec();
    let client = sign(&salted, b"Client Key");
    let stored = digest::digest(digest, &client);
    let signed = sign(stored.as_ref(), text);
    let proof = client.iter().zip(signed).map(|(one, other)| one ^ other).collect();
    (proof, sign(&sign(&salted, b"Server Key"), text))
}
