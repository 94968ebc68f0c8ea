//! What a broker of the tests is to do, and the codes with which it refuses.

use super::login::Login;

pub const INVALID_RECORD: i16 = 87;
pub const MESSAGE_TOO_LARGE: i16 = 10;
pub const OUT_OF_ORDER_SEQUENCE: i16 = 45;
pub const SASL_FAILED: i16 = 58;
pub const UNKNOWN_TOPIC: i16 = 3;
pub const UNKNOWN_SERVER_ERROR: i16 = -1;
pub const UNSUPPORTED_MECHANISM: i16 = 33;

/// What can be asked for, and in which versions: none of those that are written more compactly.
pub const ASKED: [(i16, i16); 6] = [
    (PRODUCE, 7),
    (METADATA, 4),
    (SASL_HANDSHAKE, 1),
    (API_VERSIONS, 2),
    (IDENTITY, 1),
    (LOGIN, 1),
];
pub const PRODUCE: i16 = 0;
pub const METADATA: i16 = 3;
pub const SASL_HANDSHAKE: i16 = 17;
pub const API_VERSIONS: i16 = 18;
pub const IDENTITY: i16 = 22;
pub const LOGIN: i16 = 36;
pub const TELEMETRY: [i16; 2] = [71, 72];

/// What the broker says instead of what it would.
#[derive(Default)]
pub struct Script {
    pub takes_full: bool,
    /// The code of every batch; nothing is stored.
    pub produce: Option<i16>,
    /// The code with which an identity is refused.
    pub identity: Option<i16>,
    /// Batches that are stored and answered without an offset.
    pub without_offset: usize,
    /// The most bytes of a batch.
    pub most: Option<usize>,
    /// Whether it reads what it is to store, and does nothing about it yet.
    pub is_held: bool,
    pub login: Option<Login>,
}
