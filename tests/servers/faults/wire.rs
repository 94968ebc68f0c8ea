//! What a copy says to RabbitMQ and what that confirms, read off the wire: frames of AMQP 0-9-1.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use crate::sinks::proxy::Ear;

/// A client says this first, and no frame.
const PREAMBLE: usize = 8;
/// Kind, channel and size before the payload, and a byte behind it.
const FRAME: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
const ACK: [u8; 4] = [0, 60, 0, 80];

/// What was published and confirmed, of all copies.
#[derive(Clone, Default)]
pub struct Wire(Arc<Mutex<Heard>>);

#[derive(Clone, Default)]
pub struct Heard {
    /// When, by which copy, and the id of the message.
    pub published: Vec<(Instant, usize, String)>,
    /// When the confirm of an id was about to reach its copy at first.
    pub confirmed: HashMap<String, Instant>,
}

/// Hears one connection of a copy.
pub struct Connection {
    wire: Wire,
    copy: usize,
    asked: Vec<u8>,
    answered: Vec<u8>,
    greeted: bool,
    channels: HashMap<u16, Channel>,
}

#[derive(Default)]
struct Channel {
    published: u64,
    /// Those that are not confirmed, by the number that a confirm has.
    open: BTreeMap<u64, String>,
}

impl Wire {
    pub fn connection(&self, copy: usize) -> Connection {
        Connection {
            wire: self.clone(),
            copy,
            asked: Vec::new(),
            answered: Vec::new(),
            greeted: false,
            channels: HashMap::new(),
        }
    }

    pub fn heard(&self) -> Heard {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().published.len()
    }

    /// When one of the other copies published first after this.
    pub fn taken_over(&self, from: usize, after: Instant) -> Option<(usize, Instant)> {
        let heard = self.0.lock().unwrap();
        let mut late =
            heard.published.iter().rev().take_while(|(at, ..)| *at > after).collect::<Vec<_>>();
        late.reverse();
        late.into_iter().find(|(_, copy, _)| *copy != from).map(|(at, copy, _)| (*copy, *at))
    }
}

impl Ear for Connection {
    fn asked(&mut self, bytes: &[u8]) {
        self.asked.extend_from_slice(bytes);
        if !self.greeted {
            if self.asked.len() < PREAMBLE {
                return;
            }
            self.asked.drain(..PREAMBLE);
            self.greeted = true;
        }
        for (kind, channel, payload) in frames(&mut self.asked) {
            let state = self.channels.entry(channel).or_default();
            if kind == METHOD && payload.starts_with(&PUBLISH) {
                state.published += 1;
            } else if kind == HEADER {
                let id = message_id(&payload).expect("a message without an id");
                state.open.insert(state.published, id.clone());
                let mut heard = self.wire.0.lock().unwrap();
                heard.published.push((Instant::now(), self.copy, id));
            }
        }
    }

    fn answered(&mut self, bytes: &[u8]) {
        self.answered.extend_from_slice(bytes);
        for (kind, channel, payload) in frames(&mut self.answered) {
            if kind != METHOD || !payload.starts_with(&ACK) {
                continue;
            }
            let tag = u64::from_be_bytes(payload[4..12].try_into().unwrap());
            let state = self.channels.entry(channel).or_default();
            let confirmed = if payload[12] & 1 == 1 {
                let later = state.open.split_off(&(tag + 1));
                std::mem::replace(&mut state.open, later).into_values().collect()
            } else {
                Vec::from_iter(state.open.remove(&tag))
            };
            let mut heard = self.wire.0.lock().unwrap();
            for id in confirmed {
                heard.confirmed.entry(id).or_insert_with(Instant::now);
            }
        }
    }
}

/// Takes the frames out that are whole: kind, channel, payload.
fn frames(bytes: &mut Vec<u8>) -> Vec<(u8, u16, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + FRAME) {
        let size = u32::from_be_bytes(head[3..7].try_into().unwrap()) as usize;
        let Some(payload) = bytes.get(at + FRAME..at + FRAME + size) else { break };
        if bytes.len() <= at + FRAME + size {
            break;
        }
        found.push((head[0], u16::from_be_bytes([head[1], head[2]]), payload.to_vec()));
        at += FRAME + size + 1;
    }
    bytes.drain(..at);
    found
}

/// The property of a content header, which has those before it in a fixed order.
fn message_id(header: &[u8]) -> Option<String> {
    let flags = u16::from_be_bytes(header.get(12..14)?.try_into().unwrap());
    let mut at = 14;
    for bit in (7..16).rev().filter(|bit| flags >> bit & 1 == 1) {
        let length = match bit {
            13 => 4 + u32::from_be_bytes(header.get(at..at + 4)?.try_into().unwrap()) as usize,
            11 | 12 => 1,
            _ => 1 + usize::from(*header.get(at)?),
        };
        let property = header.get(at..at + length)?;
        if bit == 7 {
            return String::from_utf8(property[1..].to_vec()).ok();
        }
        at += length;
    }
    None
}
