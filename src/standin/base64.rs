//! Base64 as Consul's JSON carries values: the standard alphabet, padded.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0, |value, byte| value << 8 | usize::from(*byte))
            << (8 * (3 - group.len()));
        for position in 0..4 {
            let sextet = value >> (18 - 6 * position) & 63;
            text.push(if position <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let data = match text {
        [data @ .., b'=', b'='] | [data @ .., b'='] => data,
        data => data,
    };
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in data.chunks(4) {
        let mut value = 0;
        for character in group {
            value = value << 6 | ALPHABET.iter().position(|known| known == character)?;
        }
        value <<= 6 * (4 - group.len());
        bytes.extend([16, 8, 0].iter().take(group.len() - 1).map(|shift| (value >> shift) as u8));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_again() {
        for (plain, text) in
            [("", ""), ("2", "Mg=="), ("42", "NDI="), ("scribble", "c2NyaWJibGU="), ("abc", "YWJj")]
        {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for bad in ["a", "abc", "====", "ab c", "a=bc"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
