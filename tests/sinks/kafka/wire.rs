//! What requests and answers of Kafka's protocol consist of, as far as a broker of the tests goes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What is left of a request.
pub struct Reader(pub Bytes);

impl Reader {
    pub fn i8(&mut self) -> i8 {
        self.0.get_i8()
    }

    pub fn i16(&mut self) -> i16 {
        self.0.get_i16()
    }

    pub fn i32(&mut self) -> i32 {
        self.0.get_i32()
    }

    pub fn i64(&mut self) -> i64 {
        self.0.get_i64()
    }

    /// `None` where there is none.
    pub fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()).ok()?;
        Some(String::from_utf8(self.0.split_to(length).to_vec()).unwrap())
    }

    pub fn bytes(&mut self) -> Self {
        let length = usize::try_from(self.i32()).unwrap();
        Self(self.0.split_to(length))
    }

    /// How many elements follow; `None` where there is no list.
    pub fn count(&mut self) -> Option<usize> {
        usize::try_from(self.i32()).ok()
    }

    /// A number as records have it.
    fn varint(&mut self) -> i64 {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let byte = self.0.get_u8();
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return (number >> 1) as i64 ^ -((number & 1) as i64);
            }
            shift += 7;
        }
    }

    fn blob(&mut self) -> Vec<u8> {
        let length = usize::try_from(self.varint()).unwrap_or(0);
        self.0.split_to(length).to_vec()
    }
}

/// An answer.
#[derive(Default)]
pub struct Writer(pub BytesMut);

impl Writer {
    pub fn i8(mut self, it: i8) -> Self {
        self.0.put_i8(it);
        self
    }

    pub fn i16(mut self, it: i16) -> Self {
        self.0.put_i16(it);
        self
    }

    pub fn i32(mut self, it: i32) -> Self {
        self.0.put_i32(it);
        self
    }

    pub fn i64(mut self, it: i64) -> Self {
        self.0.put_i64(it);
        self
    }

    pub fn text(self, it: &str) -> Self {
        let mut out = self.i16(it.len() as i16);
        out.0.put_slice(it.as_bytes());
        out
    }

    pub fn bytes(self, it: &[u8]) -> Self {
        let mut out = self.i32(it.len() as i32);
        out.0.put_slice(it);
        out
    }

    pub fn each<T>(
        self,
        all: impl ExactSizeIterator<Item = T>,
        f: impl Fn(Self, T) -> Self,
    ) -> Self {
        let out = self.i32(all.len() as i32);
        all.fold(out, f)
    }
}

/// The messages that a request has for one partition.
pub struct Batch {
    pub size: usize,
    pub producer: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub messages: Vec<Message>,
}

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    pub key: String,
    pub body: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

impl Batch {
    /// Reads one of the second format, without compression.
    pub fn read(mut it: Reader) -> Self {
        let size = it.0.len();
        let (_base, _length, _leader_epoch) = (it.i64(), it.i32(), it.i32());
        assert_eq!(it.i8(), 2, "the format of the batch");
        let (_crc, attributes) = (it.i32(), it.i16());
        assert_eq!(attributes & 0x07, 0, "nothing is compressed");
        let (_last, _first_time, _last_time) = (it.i32(), it.i64(), it.i64());
        let (producer, epoch, sequence) = (it.i64(), it.i16(), it.i32());
        let count = it.i32();
        let message = |_| {
            let (_length, _attributes, _time, _offset) =
                (it.varint(), it.i8(), it.varint(), it.varint());
            let text = |bytes| String::from_utf8(bytes).unwrap();
            let (key, body) = (text(it.blob()), it.blob());
            let headers = it.varint();
            let headers = (0..headers).map(|_| (text(it.blob()), text(it.blob()))).collect();
            Message { key, body, headers }
        };
        let messages = (0..count).map(message).collect();
        Self { size, producer, epoch, sequence, messages }
    }
}
